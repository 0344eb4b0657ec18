//! A figure's end of its engine in the worker: commands go out at most once per animation frame, events come in.

use super::browser::{self, Listening};
use crate::json;
use crate::lab::protocol::{Command, Event};
use crate::lab::queue::Queue;
use crate::measure::tune::Tuned;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::{MessageChannel, MessageEvent, MessagePort, OffscreenCanvas, Worker};

/// Where the browser keeps what was measured of the adapter's kernels.
const KEPT: &str = "attention-lab.kernels";

fn storage() -> Option<web_sys::Storage> {
    web_sys::window()?.local_storage().ok()?
}

/// Keeps what was measured for the next visit. A browser that keeps nothing has it measured again.
fn keep(tuned: &Tuned) {
    if let (Some(storage), Ok(text)) = (storage(), serde_json::to_string(tuned)) {
        let _ = storage.set_item(KEPT, &text);
    }
}

/// What an earlier visit has measured; nothing where it cannot be read any more.
fn kept() -> Option<Tuned> {
    json::read(&storage()?.get_item(KEPT).ok()??).ok()
}

thread_local! {
    /// The one worker of all figures on this page, and with it the one device.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

fn worker() -> Result<Worker, JsValue> {
    if let Some(worker) = WORKER.with_borrow(Clone::clone) {
        return Ok(worker);
    }
    let worker = browser::start_worker()?;
    WORKER.set(Some(worker.clone()));
    Ok(worker)
}

/// The way to an engine in the page's worker. Clones lead to the same one; it ends with the last of them.
#[derive(Clone)]
pub struct Link(Rc<Inner>);

struct Inner {
    port: MessagePort,
    waiting: RefCell<Queue>,
    scheduled: Cell<bool>,
    _heard: [Listening; 3],
}

impl Link {
    /// Starts an engine; `fold` is called with every event it sends.
    pub fn start(fold: impl Fn(Event) + 'static) -> Result<Self, JsValue> {
        let worker = worker()?;
        let channel = MessageChannel::new()?;
        let port = channel.port1();
        let fold = Rc::new(fold);
        let heard = fold.clone();
        let events = Listening::to(&port, "message", move |message: MessageEvent| {
            let event = event_of(&message);
            if let Event::Tuned { tuned } = &event {
                keep(tuned);
            }
            heard(event);
        });
        // The worker itself speaks only where its module cannot be loaded.
        let failing = fold.clone();
        let failed = Listening::to(&worker, "message", move |message: MessageEvent| failing(event_of(&message)));
        let broken = Listening::to(&worker, "error", move |event: web_sys::Event| {
            WORKER.set(None);
            let reason = js_sys::Reflect::get(&event, &"message".into()).ok().and_then(|m| m.as_string());
            fold(Event::Failed { reason: reason.unwrap_or_else(|| "the worker could not be loaded".into()) });
        });
        port.start();
        let message = js_sys::Object::new();
        js_sys::Reflect::set(&message, &"port".into(), &channel.port2())?;
        worker.post_message_with_transfer(&message, &js_sys::Array::of1(&channel.port2()))?;
        let _heard = [events, failed, broken];
        let link = Self(Rc::new(Inner { port, waiting: RefCell::default(), scheduled: Cell::new(false), _heard }));
        if let Some(tuned) = kept() {
            link.send_now(&Command::Remember { tuned: Box::new(tuned) });
        }
        Ok(link)
    }

    /// Sends a command with the next animation frame, unless a newer one takes its place before.
    pub fn send(&self, command: Command) {
        self.0.waiting.borrow_mut().push(command);
        if self.0.scheduled.replace(true) {
            return;
        }
        let link = self.clone();
        leptos::prelude::request_animation_frame(move || link.flush());
    }

    /// Sends a command now: what must not wait for a frame, because a hidden page draws none.
    pub fn send_now(&self, command: &Command) {
        // Commands are plain data: writing them cannot fail.
        let text = serde_json::to_string(command).unwrap_or_default();
        let _ = self.0.port.post_message(&text.into());
    }

    /// Hands the files of a model over to the engine, an array of `File`.
    pub fn open_model(&self, files: &js_sys::Array) {
        let message = js_sys::Object::new();
        let _ = js_sys::Reflect::set(&message, &"files".into(), files);
        let _ = self.0.port.post_message(&message);
    }

    /// Hands a plate's canvas over to the engine.
    pub fn attach(&self, plate: usize, canvas: &OffscreenCanvas) {
        let message = js_sys::Object::new();
        let _ = js_sys::Reflect::set(&message, &"plate".into(), &JsValue::from_f64(plate as f64));
        let _ = js_sys::Reflect::set(&message, &"canvas".into(), canvas);
        let _ = self.0.port.post_message_with_transferable(&message, &js_sys::Array::of1(canvas));
    }

    fn flush(&self) {
        self.0.scheduled.set(false);
        while let Some(command) = { self.0.waiting.borrow_mut().pop() } {
            self.send_now(&command);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let message = js_sys::Object::new();
        let _ = js_sys::Reflect::set(&message, &"close".into(), &JsValue::TRUE);
        let _ = self.port.post_message(&message);
        self.port.close();
    }
}

fn event_of(message: &MessageEvent) -> Event {
    let text = message.data().as_string().unwrap_or_default();
    json::read(&text).unwrap_or_else(|e| Event::Failed { reason: format!("{e}") })
}
