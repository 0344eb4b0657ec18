//! The page's end of the engine's worker: commands go out at most once per animation frame, events come in.

use crate::lab::protocol::{Command, Event};
use crate::lab::queue::Queue;
use crate::measure::tune::Tuned;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::{MessageEvent, OffscreenCanvas, Worker, WorkerOptions, WorkerType};

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
    serde_json::from_str(&storage()?.get_item(KEPT).ok()??).ok()
}

/// A running worker. Clones speak to the same one.
#[derive(Clone)]
pub struct Link(Rc<Inner>);

struct Inner {
    worker: Worker,
    waiting: RefCell<Queue>,
    scheduled: Cell<bool>,
}

impl Link {
    /// Starts the worker; `fold` is called with every event it sends.
    pub fn start(fold: impl Fn(Event) + 'static) -> Result<Self, JsValue> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = Worker::new_with_options("./worker.js", &options)?;
        let fold = Rc::new(fold);
        let heard = fold.clone();
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            let text = message.data().as_string().unwrap_or_default();
            let event = serde_json::from_str(&text).unwrap_or_else(|e| Event::Failed { reason: format!("{e}") });
            if let Event::Tuned { tuned } = &event {
                keep(tuned);
            }
            heard(event);
        });
        let on_error = Closure::<dyn Fn(web_sys::Event)>::new(move |event: web_sys::Event| {
            let reason = js_sys::Reflect::get(&event, &"message".into()).ok().and_then(|m| m.as_string());
            fold(Event::Failed { reason: reason.unwrap_or_else(|| "the worker could not be loaded".into()) });
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        // The page has one worker as long as it lives, so its listeners are never taken down.
        on_message.forget();
        on_error.forget();
        let link = Self(Rc::new(Inner { worker, waiting: RefCell::default(), scheduled: Cell::new(false) }));
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
        let _ = self.0.worker.post_message(&text.into());
    }

    /// Hands a plate's canvas over to the worker.
    pub fn attach(&self, plate: usize, canvas: &OffscreenCanvas) {
        let message = js_sys::Object::new();
        let _ = js_sys::Reflect::set(&message, &"plate".into(), &JsValue::from_f64(plate as f64));
        let _ = js_sys::Reflect::set(&message, &"canvas".into(), canvas);
        let _ = self.0.worker.post_message_with_transfer(&message, &js_sys::Array::of1(canvas));
    }

    fn flush(&self) {
        self.0.scheduled.set(false);
        while let Some(command) = { self.0.waiting.borrow_mut().pop() } {
            self.send_now(&command);
        }
    }
}
