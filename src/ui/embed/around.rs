//! How a figure talks with what is around it: the page that frames it, or the element that it stands in. Both hear and say the
//! same messages.

use super::begin;
use crate::lab::experiment::Complaint;
use crate::lab::permalink;
use crate::lab::protocol::{Backend, Command};
use crate::lab::train::orders::{Doing, Failed, Order};
use crate::ui::browser;
use crate::ui::components::race_controls::order;
use crate::ui::components::results::sweep_file;
use crate::ui::messages::{Heard, MAX_MESSAGE_CHARS, Said};
use crate::ui::state::{Lab, Phase, Place, SessionStoreFields};
use leptos::prelude::*;
use serde_json::Value;
use wasm_bindgen::prelude::*;

/// Who hears what a figure says.
pub enum Around {
    /// The window that frames it.
    Parent,
    /// A function that takes each message as JSON.
    Element(js_sys::Function),
}

impl Around {
    fn hears(&self, said: &Said) {
        match self {
            Around::Parent => {
                let Some(parent) = window().parent().ok().flatten().filter(|parent| **parent != *window()) else {
                    return;
                };
                if let Ok(message) = js_sys::JSON::parse(&said.to_json()) {
                    let _ = parent.post_message(&message, "*");
                }
            }
            Around::Element(hears) => {
                let _ = hears.call1(&JsValue::NULL, &said.to_json().into());
            }
        }
    }
}

/// A figure's side of the conversation.
#[derive(Clone, Copy)]
pub struct Talk {
    lab: Lab,
    begun: RwSignal<bool>,
    backend: Backend,
    around: StoredValue<Around, LocalStorage>,
}

impl Talk {
    pub fn new(lab: Lab, begun: RwSignal<bool>, backend: Backend, around: Around) -> Self {
        Self { lab, begun, backend, around: StoredValue::new_local(around) }
    }

    fn say(self, said: &Said) {
        self.around.try_with_value(|around| around.hears(said));
    }

    fn complain(self, complaint: &Complaint) {
        self.say(&Said::Error { message: complaint.to_string(), key: Some(complaint.key.clone()) });
    }

    /// The state as a permalink's query.
    pub fn query(self) -> String {
        self.lab.session.experiment().with_untracked(|e| permalink::write(e).query)
    }

    /// Tells what happens from now on; `measured` is as high as the figure.
    pub fn speak(self, measured: &web_sys::Element) {
        let session = self.lab.session;
        Effect::new(move |_| {
            if session.phase().get() == Phase::Ready {
                let facts = session.adapter().get().unwrap_or_default();
                self.say(&Said::Ready { adapter: facts.name, backend: facts.backend });
            }
        });
        Effect::new(move |_| {
            if let Phase::Failed(message) = session.phase().get() {
                self.say(&Said::Error { message, key: None });
            }
        });
        Effect::new(move |_| session.complaints().get().iter().for_each(|complaint| self.complain(complaint)));
        Effect::new(move |_| {
            if let Some(refused) = session.refused().get() {
                self.say(&Said::Error { message: format!("{}: {}", refused.what, refused.reason), key: None });
            }
        });
        Effect::new(move |_| {
            self.say(&Said::State { query: session.experiment().with(|e| permalink::write(e).query) })
        });
        let running = Memo::new(move |_| session.sweep().with(|sweep| sweep.running));
        Effect::new(move |before: Option<bool>| {
            let now = running.get();
            if before == Some(true) && !now {
                self.say(&Said::Result { result: self.result() });
            }
            now
        });
        let trained = Memo::new(move |_| session.race().with(|race| race.doing == Doing::Done));
        Effect::new(move |before: Option<bool>| {
            let now = trained.get();
            if before == Some(false) && now {
                self.say(&Said::Result { result: self.result() });
            }
            now
        });
        let failed = Memo::new(move |_| {
            session.race().with(|race| race.runs.iter().filter_map(|run| run.failed.clone()).collect::<Vec<_>>())
        });
        Effect::new(move |before: Option<Vec<Failed>>| {
            let (now, before) = (failed.get(), before.unwrap_or_default());
            for failed in now.iter().filter(|failed| !before.contains(failed)) {
                self.say(&Said::Error { message: failed.reason.clone(), key: None });
            }
            now
        });
        browser::on_resize(measured, move |measured| self.say(&Said::Height { height: measured.scroll_height() }));
    }

    /// Hears the page that frames the figure, where one does; messages from anyone else are not for us.
    pub fn listen(self) {
        if !self.around.with_value(|around| matches!(around, Around::Parent)) {
            return;
        }
        browser::listen(&window(), "message", move |message: web_sys::MessageEvent| {
            let parent: Option<JsValue> = window().parent().ok().flatten().map(Into::into);
            if parent.is_none() || parent != message.source().map(Into::into) {
                return;
            }
            // `undefined` has no JSON.
            let json = js_sys::JSON::stringify(&message.data()).ok().and_then(|json| json.dyn_into().ok());
            if let Some(text) = json.filter(|text: &js_sys::JsString| text.length() <= MAX_MESSAGE_CHARS) {
                self.hear(&String::from(text));
            }
        });
    }

    /// Does what a message asks.
    pub fn hear(self, json: &str) {
        let lab = self.lab;
        match Heard::read(json) {
            None => {}
            Some(Err(message)) => self.say(&Said::Error { message, key: None }),
            Some(Ok(Heard::Set(pairs))) => self.set(&pairs),
            Some(Ok(Heard::Run)) => begin(lab, self.begun, self.backend),
            Some(Ok(Heard::Pause)) if self.trains() => order(lab, Order::Pause),
            Some(Ok(Heard::Pause)) => {
                lab.send_now(Command::Cancel);
                lab.send_now(Command::Visible { visible: false });
            }
            Some(Ok(Heard::Export)) => self.say(&Said::Result { result: self.result() }),
        }
    }

    fn trains(self) -> bool {
        self.lab.session.experiment().with_untracked(|e| Place::of(e.view) == Place::Train)
    }

    /// What was measured, as a result file; in the place Train it has `runs` beside its rows.
    fn result(self) -> Value {
        let read = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
        let mut result = read(&sweep_file(self.lab).to_json());
        if self.trains() {
            let mut runs = self.lab.session.race().with_untracked(|race| race.runs.clone());
            // A picture of every dispatch, which is long.
            runs.iter_mut().for_each(|run| run.memory = None);
            result["runs"] = read(&serde_json::to_string(&runs).unwrap_or_default());
        }
        result
    }

    /// Lays keys over the state there is; what cannot be taken is told.
    fn set(self, pairs: &[(String, Option<String>)]) {
        let Ok(params) = web_sys::UrlSearchParams::new_with_str(&self.query()) else { return };
        for (key, value) in pairs {
            match value {
                Some(value) => params.set(key, value),
                None => params.delete(key),
            }
        }
        let (experiment, complaints) = permalink::parse(&String::from(params.to_string()));
        complaints.iter().for_each(|complaint| self.complain(complaint));
        self.lab.edit(|e| *e = experiment);
    }
}
