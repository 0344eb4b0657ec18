//! The page's state: one [`Store`], changed by what the visitor does and, in `events`, by what the engine tells.

mod events;

use super::geometry;
use super::link::Link;
use super::race::Race;
use crate::attention::{self, Param, Params, Setup, Value, Variant};
use crate::lab::experiment::{Complaint, Experiment, Pool, View, WeightsFrom};
use crate::lab::opened::OpenedFacts;
use crate::lab::protocol::{
    AdapterFacts, Backend, Command, FormRow, Guess, ModelFacts, Notice, Numbers, Part, Point, Shader, SubjectFacts,
    Viewport,
};
use leptos::prelude::*;
use reactive_stores::Store;
use std::sync::Arc;

/// Everything that the page shows.
#[derive(Clone, Debug, Default, Store)]
pub struct Session {
    pub experiment: Experiment,
    /// What of the permalink could not be taken.
    pub complaints: Vec<Complaint>,
    pub phase: Phase,
    pub adapter: Option<AdapterFacts>,
    pub backend: Backend,
    pub notice: Option<Notice>,
    pub lost: Option<Loss>,
    pub refused: Option<Refused>,
    pub progress: Option<(String, usize, usize)>,
    /// Numbers of a model that have been read, and how many there are.
    pub opening: Option<(usize, usize)>,
    /// The model that the visitor has opened.
    pub opened: Option<OpenedFacts>,
    /// Why a model was not opened.
    pub not_opened: Option<String>,
    /// Bytes of its weights that stay on the device.
    pub resident: u64,
    /// What the opened model expects, by position.
    pub guesses: Vec<Guess>,
    /// Whose queries, keys and values the plates show.
    pub subject: Option<SubjectFacts>,
    pub plates: [PlateState; 2],
    /// What the methods on the plates decided about the text; apart from them, since it is large and seldom changes.
    pub decided: [Option<Arc<Decided>>; 2],
    /// What both plates show of the matrix; none: all of it.
    pub close_up: Option<Viewport>,
    /// The query and key under the cursor, which both plates share.
    pub cursor: Option<(usize, usize)>,
    pub locked: bool,
    pub sweep: Sweep,
    pub forms: Forms,
    pub race: Race,
    /// The plate of whose variant the sheet is open.
    pub sheet: Option<usize>,
    pub sources: Option<Sources>,
    pub system_dark: bool,
}

/// How far the engine is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Phase {
    #[default]
    Starting,
    Ready,
    Failed(String),
}

/// A device that went away.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub reason: String,
    pub recovered: bool,
}

/// A request that was not served.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub what: String,
    pub reason: String,
    pub nearest: Option<String>,
}

/// What the engine said of one plate.
#[derive(Clone, Debug, Default)]
pub struct PlateState {
    pub variant: String,
    pub numbers: Option<Numbers>,
    pub drawn: Option<Drawn>,
    /// Why this variant cannot be shown for this experiment.
    pub refusal: Option<String>,
    /// Pictures so far.
    pub draws: u32,
    pub cell: Option<Cell>,
}

/// The picture that stands on a plate.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    pub exact: bool,
    pub domain: [f64; 2],
    /// The largest size of what is shown.
    pub largest: f64,
    pub non_finite: u64,
    pub pool: Pool,
    pub ms: f64,
}

/// The shaders that a variant runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    pub variant: String,
    /// False where the processor computes and a GPU would run these.
    pub on_device: bool,
    pub shaders: Vec<Shader>,
}

/// What a method decided about the text in one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    pub variant: String,
    pub head: usize,
    /// N.
    pub length: usize,
    pub parts: Vec<Part>,
}

/// One cell and its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub query: usize,
    pub key: usize,
    pub score: Option<f64>,
    pub weight: f64,
    pub rank: usize,
    pub allowed: bool,
    pub row: Vec<f32>,
}

/// A sweep over lengths, running or done.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    pub running: bool,
    pub cancelled: bool,
    pub backward: bool,
    /// What was swept: contenders, shapes, causality.
    pub experiment: Option<Experiment>,
    pub points: Vec<Point>,
    pub done: usize,
    pub total: usize,
    pub seconds_left: Option<f64>,
}

/// A race of the ways to compute one pattern, running or done.
#[derive(Clone, Debug, Default)]
pub struct Forms {
    pub running: bool,
    pub cancelled: bool,
    /// Why there was none.
    pub refused: Option<String>,
    pub variant: String,
    pub length: usize,
    pub rows: Vec<FormRow>,
    pub done: usize,
    pub total: usize,
}

/// The state and the way to the engine; what every component takes from the context.
#[derive(Clone, Copy)]
pub struct Lab {
    pub session: Store<Session>,
    link: StoredValue<Option<Link>, LocalStorage>,
    /// Canvases that were there before the engine: an embed waits for a click.
    waiting: StoredValue<Vec<(usize, web_sys::OffscreenCanvas)>, LocalStorage>,
}

/// The lab of the component that asks.
pub fn use_lab() -> Lab {
    expect_context::<Lab>()
}

impl Lab {
    pub fn new(experiment: Experiment, complaints: Vec<Complaint>) -> Self {
        let session = Store::new(Session { experiment, complaints, ..Default::default() });
        Self { session, link: StoredValue::new_local(None), waiting: StoredValue::new_local(Vec::new()) }
    }

    /// Starts the worker and asks it to begin.
    pub fn start(self, backend: Backend) {
        match Link::start(move |event| self.fold(event)) {
            Ok(link) => {
                link.send_now(&Command::Start { backend });
                for (plate, canvas) in self.waiting.try_update_value(std::mem::take).unwrap_or_default() {
                    link.attach(plate, &canvas);
                }
                self.link.set_value(Some(link));
            }
            Err(error) => self.session.phase().set(Phase::Failed(format!("{error:?}"))),
        }
    }

    pub fn send(self, command: Command) {
        self.link.with_value(|link| link.iter().for_each(|link| link.send(command.clone())));
    }

    pub fn send_now(self, command: Command) {
        self.link.with_value(|link| link.iter().for_each(|link| link.send_now(&command)));
    }

    /// Hands the files of a model to the engine.
    pub fn open_model(self, files: &js_sys::Array) {
        self.link.with_value(|link| link.iter().for_each(|link| link.open_model(files)));
    }

    /// Hands a plate's canvas to the engine, or keeps it until there is one.
    pub fn attach(self, plate: usize, canvas: web_sys::OffscreenCanvas) {
        match self.link.get_value() {
            Some(link) => link.attach(plate, &canvas),
            None => self.waiting.update_value(|waiting| waiting.push((plate, canvas))),
        }
    }

    /// Changes the experiment; everything that depends on it follows.
    pub fn edit(self, change: impl FnOnce(&mut Experiment)) {
        let before = self.session.experiment().get_untracked();
        let mut after = before.clone();
        change(&mut after);
        // Which way an opened model looks is not for anybody to say.
        if let Some(causal) = self.session.opened().with_untracked(|model| Some(model.as_ref()?.causal))
            && after.weights == WeightsFrom::Opened
        {
            after.causal = causal;
        }
        if after != before {
            self.session.refused().set(None);
            if after.n != before.n {
                self.session.close_up().set(None);
                self.session.cursor().set(None);
                self.session.locked().set(false);
            }
            self.session.experiment().set(after);
        }
    }

    /// A part of the experiment, told of changes of that part only.
    pub fn of<T: Clone + PartialEq + Send + Sync + 'static>(
        self,
        part: impl Fn(&Experiment) -> T + Send + Sync + 'static,
    ) -> Memo<T> {
        Memo::new(move |_| self.session.experiment().with(&part))
    }

    /// The trained model that the plates show; none where queries, keys and values are drawn.
    pub fn model(self) -> Memo<Option<ModelFacts>> {
        let drawn = self.of(|e| e.weights == WeightsFrom::Drawn);
        Memo::new(move |_| {
            self.session.subject().with(|subject| subject.as_ref()?.model.clone()).filter(|_| !drawn.get())
        })
    }

    /// Heads that are shown: the model's where there is one.
    pub fn heads(self) -> Memo<usize> {
        let (model, heads) = (self.model(), self.of(|e| e.heads));
        Memo::new(move |_| {
            let of_model = self.session.subject().with(|subject| subject.as_ref().map(|subject| subject.heads));
            of_model.filter(|_| model.with(Option::is_some)).unwrap_or_else(|| heads.get())
        })
    }

    /// The rectangle that the plates show.
    pub fn viewport(self) -> Viewport {
        let n = self.session.experiment().with(|e| e.n);
        self.session.close_up().get().unwrap_or_else(|| geometry::whole(n))
    }

    /// Shows another rectangle; all of the matrix is no close-up.
    pub fn look(self, view: Viewport) {
        let n = self.session.experiment().with_untracked(|e| e.n);
        self.session.close_up().set(geometry::is_close(view, n).then_some(view));
    }

    /// Whether the page is dark just now.
    pub fn dark(self) -> bool {
        use crate::lab::experiment::Theme;
        match self.session.experiment().with(|e| e.theme) {
            Theme::Light => false,
            Theme::Dark => true,
            Theme::Auto => self.session.system_dark().get(),
        }
    }
}

/// Which of the five places an experiment is shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Attention,
    Speed,
    Train,
}

impl Place {
    pub fn of(view: View) -> Self {
        match view {
            View::Mask | View::Blocks | View::Scores | View::Weights | View::Difference => Self::Attention,
            View::Speed => Self::Speed,
            View::Train | View::Memory => Self::Train,
        }
    }
}

/// The call that an experiment makes of one variant.
pub fn setup_of(experiment: &Experiment, id: &str) -> Setup {
    Setup {
        batch: experiment.batch,
        heads: experiment.heads,
        length: experiment.n,
        keys: experiment.n,
        dim: experiment.dim,
        causal: experiment.causal,
        params: experiment.params.get(id).cloned().unwrap_or_default(),
        seed: experiment.seed,
        structure: Default::default(),
    }
}

/// A parameter's value in an experiment, its default where it is not given.
pub fn value_of(experiment: &Experiment, id: &str, param: &Param) -> Value {
    let given = experiment.params.get(id).and_then(|Params(values)| values.get(param.name)).cloned();
    given.unwrap_or_else(|| param.default(experiment.n))
}

/// Sets a parameter; the default is not kept, so that it stays out of the permalink and follows the length.
pub fn set_value(experiment: &mut Experiment, id: &str, param: &Param, value: Value) {
    let is_default = value == param.default(experiment.n);
    let params = experiment.params.entry(id.to_owned()).or_default();
    if is_default {
        params.0.remove(param.name);
    } else {
        params.0.insert(param.name.to_owned(), value);
    }
    if params.0.is_empty() {
        experiment.params.remove(id);
    }
}

/// The variants of an experiment that the registry knows, in order.
pub fn known(ids: &[String]) -> Vec<&'static Variant> {
    ids.iter().filter_map(|id| attention::find(id)).collect()
}
