//! The engine: owns the device, serves [`Command`]s and answers with [`Event`]s. It runs natively and in a worker, never
//! blocks in a browser, and looks for newer commands between ops, dispatches and bands of a picture.
//!
//! A lost device is made again and what was asked is run once more; where that fails, the CPU interpreter takes over.

mod decided;
mod device;
mod draw;
mod explore;
mod forms;
mod heard;
mod inbox;
mod opened;
mod painter;
mod pause;
mod prepared;
pub mod rates;
mod resident;
mod shared;
mod sources;
mod subject;
mod sweep;
mod timing;
mod train;
mod tune;

pub use device::Fault;
pub use inbox::Handle;
pub use shared::Shared;

use super::experiment::Experiment;
use super::protocol::{Backend, Command, Event, Notice};
use super::shelf::Shelf;
use crate::attention::{Setup, Variant};
use crate::gpu::Options;
use crate::measure::schedule::Effort;
use device::Device;
use draw::Show;
use explore::Explored;
use inbox::Watch;
use painter::Painter;
use prepared::{Planned, Prepared};
use shared::Turn;
use std::rc::Rc;
use subject::Subjects;
use timing::Stopwatch;
use train::{Keeping, Race};
use tune::Tuning;

/// How often one request is tried again on a new device.
const MOST_RECOVERIES: usize = 2;

/// Serves commands on one device.
pub struct Engine {
    inbox: Handle,
    events: Rc<dyn Fn(Event)>,
    options: Options,
    shared: Shared,
    /// Held while it works.
    turn: Option<Turn>,
    device: Device,
    started: bool,
    shows: [Option<Show>; 2],
    explored: Option<Explored>,
    /// The device's side of the plates, made when they are first drawn.
    painters: [Option<Painter>; 2],
    /// What is to be told of which plate when there is nothing else to do, the last one first.
    looks: Vec<(Look, usize)>,
    stopwatch: Option<Rc<Stopwatch>>,
    effort: Effort,
    /// Set from outside, whatever the device.
    fixed_effort: Option<Effort>,
    tuning: Tuning,
    subjects: Subjects,
    /// Runs that are trained side by side when there is nothing else to do.
    race: Option<Race>,
    shelf: Shelf,
    keeping: Keeping,
}

impl Engine {
    /// An engine that tells `events` what happens. `options` choose the adapter. Nothing is opened before `Start`.
    pub fn new(options: Options, events: impl Fn(Event) + 'static) -> (Handle, Self) {
        Self::sharing(Shared::default(), options, events)
    }

    /// [`Engine::new`] on the device that other engines of this thread use as well.
    pub fn sharing(shared: Shared, options: Options, events: impl Fn(Event) + 'static) -> (Handle, Self) {
        let inbox = Handle::default();
        let engine = Self {
            inbox: inbox.clone(),
            events: Rc::new(events),
            options,
            shared,
            turn: None,
            device: Device::Cpu,
            started: false,
            shows: Default::default(),
            explored: None,
            painters: Default::default(),
            looks: vec![],
            stopwatch: None,
            effort: sweep::effort(true),
            fixed_effort: None,
            tuning: Tuning::default(),
            subjects: Subjects::default(),
            race: None,
            shelf: Shelf::default(),
            keeping: Keeping::default(),
        };
        (inbox, engine)
    }

    /// How much work a sweep puts into each point; otherwise as fits the device.
    pub fn set_effort(&mut self, effort: Effort) {
        self.effort = effort;
        self.fixed_effort = Some(effort);
    }

    /// Where runs are kept between visits; nowhere at first.
    pub fn set_shelf(&mut self, shelf: Shelf) {
        self.shelf = shelf;
    }

    /// Who brings files of the lab by name; answers go to [`Handle::provide`]. Without one, no trained model is shown.
    pub fn set_library(&mut self, library: impl Fn(&'static str) + 'static) {
        self.subjects.library = Some(Box::new(library));
    }

    /// Most bytes of an opened model's weights that stay on a device; otherwise what fits.
    pub fn set_room(&mut self, bytes: u64) {
        self.subjects.resident.room.set(Some(bytes));
    }

    /// Serves commands until the handle is closed.
    pub async fn serve(&mut self) {
        loop {
            // Work that nobody waits for is done in pieces, and others may go on in between.
            if self.inbox.is_empty() && self.work_idly().await {
                continue;
            }
            self.turn = None;
            let Some(command) = self.inbox.next().await else { return };
            self.take_turn().await;
            self.handle(command).await;
        }
    }

    /// Times one plate, trains for a moment, or measures the kernels of one op; false where there is nothing to do.
    async fn work_idly(&mut self) -> bool {
        self.take_turn().await;
        self.look_idly().await || self.train_idly().await || self.tune_idly().await
    }

    /// Times a plate, or says what it does to a trained model; false where nobody waits for that.
    async fn look_idly(&mut self) -> bool {
        let Some((look, plate)) = self.looks.pop() else { return false };
        // Anything that comes in may wait for one span, not for all of them.
        let watch = self.inbox.watch(&Command::Probe { plate, query: 0, key: 0 });
        let looked = match look {
            Look::Time => self.time_plate(plate, &watch).await,
            Look::Judge => self.judge_plate(plate, &watch).await,
            Look::Layers => self.judge_layer(plate, &watch).await,
        };
        match looked {
            Err(Fault::Lost(reason)) => {
                self.recover(reason, true).await;
            }
            // The cursor moved; an experiment that takes this one's place has plates of its own to look at.
            Err(Fault::Stopped) if !watch.cancelled() => self.looks.push((look, plate)),
            _ => {}
        }
        true
    }

    /// Lets the other engines of the device go first, then works on.
    async fn take_turn(&mut self) {
        self.turn = None;
        self.turn = Some(self.shared.turn().await);
    }

    /// Serves what has been sent so far, and what comes while it is served; then times what was explored.
    pub async fn drain(&mut self) {
        self.take_turn().await;
        self.serve_waiting().await;
        self.turn = None;
    }

    async fn serve_waiting(&mut self) {
        loop {
            while let Some(command) = self.inbox.pop() {
                self.handle(command).await;
            }
            if !self.look_idly().await && !self.train_idly().await {
                return;
            }
        }
    }

    /// Makes a variant ready; pipelines that must be compiled first show as progress.
    async fn prepare(&self, variant: &Variant, planned: Planned) -> Result<Prepared, Fault> {
        let mut tell = |done: usize, total: usize| {
            if total > 0 {
                self.emit(Event::Progress { what: variant.id.into(), done, total });
            }
        };
        Prepared::new(&self.device, planned, &mut tell).await
    }

    fn emit(&self, event: Event) {
        (self.events)(event);
    }

    /// Serves one command, again on a new device where the old one is lost on the way.
    async fn handle(&mut self, command: Command) {
        for _ in 0..=MOST_RECOVERIES {
            let watch = self.inbox.watch(&command);
            match self.attempt(&command, &watch).await {
                Ok(()) | Err(Fault::Stopped) => return,
                Err(Fault::Refused { reason, nearest }) => {
                    self.emit(Event::Refused { what: name(&command).into(), reason, nearest });
                    return;
                }
                Err(Fault::Lost(reason)) => {
                    let explores = matches!(command, Command::Explore { .. });
                    if !self.recover(reason, !explores).await {
                        return;
                    }
                    // Losing the device on purpose is not repeated.
                    if command == Command::LoseDevice {
                        return;
                    }
                }
            }
        }
    }

    /// Serves a command in a pause of a sweep. A lost device is the sweep's to deal with.
    async fn handle_between(&mut self, command: Command) -> Result<(), Fault> {
        let watch = self.inbox.watch(&command);
        match self.attempt(&command, &watch).await {
            Err(Fault::Refused { reason, nearest }) => {
                self.emit(Event::Refused { what: name(&command).into(), reason, nearest });
                Ok(())
            }
            Err(Fault::Stopped) => Ok(()),
            other => other,
        }
    }

    async fn attempt(&mut self, command: &Command, watch: &Watch) -> Result<(), Fault> {
        let waits = matches!(
            command,
            Command::Start { .. } | Command::Show { .. } | Command::Remember { .. } | Command::Arrived
        );
        if !self.started && !waits {
            self.start(Backend::Auto).await?;
        }
        match command {
            Command::Start { backend } => self.start(*backend).await,
            Command::Explore { experiment } => self.explore((**experiment).clone(), watch).await,
            &Command::Show { plate, view, head, pool, scale, viewport, width, height, dark } => {
                let Some(place) = self.shows.get_mut(plate) else { return Ok(()) };
                *place = Some(Show { view, head, pool, scale, viewport, width, height, dark });
                if watch.stop() { Ok(()) } else { self.draw(plate, watch).await }
            }
            &Command::Probe { plate, query, key } if plate < 2 => self.probe(plate, query, key).await,
            Command::Probe { .. } => Ok(()),
            &Command::Sources { plate } => {
                self.tell_sources(plate);
                Ok(())
            }
            &Command::Layers { plate } => {
                if self.explored.is_some() && !self.looks.contains(&(Look::Layers, plate)) {
                    self.looks.insert(0, (Look::Layers, plate));
                }
                Ok(())
            }
            Command::Sweep { experiment, lengths, backward } => {
                self.sweep((**experiment).clone(), lengths, *backward, watch).await
            }
            Command::Forms { experiment, variant, blocks } => {
                self.forms((**experiment).clone(), variant, blocks, watch).await
            }
            Command::Train { order } => self.train((**order).clone(), watch).await,
            Command::LoseDevice => match &self.device {
                Device::Gpu(gpu) => {
                    gpu.destroy();
                    Err(Fault::Lost("destroyed on request".into()))
                }
                Device::Cpu => Ok(()),
            },
            Command::Arrived => self.receive(watch).await,
            Command::Open => self.open_model(watch).await,
            Command::Close => self.close_model().await,
            Command::Remember { tuned } => {
                self.remember((**tuned).clone());
                Ok(())
            }
            // The inbox acts on these as they come.
            Command::Cancel | Command::Visible { .. } => Ok(()),
        }
    }

    async fn start(&mut self, backend: Backend) -> Result<(), Fault> {
        match Device::open(backend, &self.options, &self.shared).await {
            Ok((device, notice)) => {
                self.take(device);
                self.started = true;
                self.ready(notice).await;
                Ok(())
            }
            Err(error) => {
                self.emit(Event::Failed { reason: error.to_string() });
                Err(Fault::Stopped)
            }
        }
    }

    /// Works on `device` from now on; what was on the old one is gone.
    fn take(&mut self, device: Device) {
        self.explored = None;
        self.painters = Default::default();
        self.stopwatch = None;
        self.looks.clear();
        self.subjects.resident.clear();
        if let Some(race) = &mut self.race {
            race.lose();
        }
        self.effort = self.fixed_effort.unwrap_or_else(|| sweep::effort(matches!(device, Device::Cpu)));
        self.device = device;
        self.use_tuned();
    }

    async fn ready(&mut self, notice: Option<Notice>) {
        let quantum_ns = match self.stopwatch().await {
            Ok(stopwatch) => Some(stopwatch.quantum_ms() * 1e6),
            Err(_) => None,
        };
        let adapter = self.device.facts(quantum_ns);
        self.emit(Event::Ready { adapter, backend: self.device.backend(), notice });
    }

    /// The device's timer, made once.
    async fn stopwatch(&mut self) -> Result<Rc<Stopwatch>, Fault> {
        if let Some(stopwatch) = &self.stopwatch {
            return Ok(stopwatch.clone());
        }
        let stopwatch = Rc::new(Stopwatch::new(&self.device).await?);
        self.stopwatch = Some(stopwatch.clone());
        Ok(stopwatch)
    }

    /// Makes the device again and, where `restore` says so, what the plates showed. False where the request must be given up.
    async fn recover(&mut self, reason: String, restore: bool) -> bool {
        let experiment = self.explored.take().map(|explored| explored.asked);
        let Device::Gpu(gpu) = &self.device else { return false };
        let (device, recovered) = match self.shared.reopen(gpu).await {
            Ok(gpu) => (Device::Gpu(gpu), true),
            Err(_) => (Device::Cpu, false),
        };
        self.take(device);
        self.emit(Event::DeviceLost { reason, recovered });
        if !recovered {
            self.ready(Some(Notice::WentAway)).await;
        }
        if let Some(experiment) = experiment.filter(|_| restore) {
            let command = Command::Explore { experiment: Box::new(experiment.clone()) };
            let watch = self.inbox.watch(&command);
            return !matches!(self.explore(experiment, &watch).await, Err(Fault::Lost(_)));
        }
        true
    }
}

/// What is told of a plate beside its picture.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    Time,
    /// What its variant does to a trained model.
    Judge,
    /// The same in each layer alone.
    Layers,
}

/// The setup of one variant of an experiment at length `n`.
pub fn setup_of(e: &Experiment, variant: &Variant, n: usize) -> Setup {
    Setup {
        batch: e.batch,
        heads: e.heads,
        length: n,
        keys: n,
        dim: e.dim,
        causal: e.causal,
        params: e.params_of(variant.id),
        seed: e.seed,
        structure: Default::default(),
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Start { .. } => "start",
        Command::Explore { .. } => "explore",
        Command::Show { .. } => "show",
        Command::Probe { .. } => "probe",
        Command::Sources { .. } => "sources",
        Command::Layers { .. } => "layers",
        Command::Sweep { .. } => "sweep",
        Command::Forms { .. } => "forms",
        Command::Train { .. } => "train",
        Command::Arrived => "arrived",
        Command::Open => "open",
        Command::Close => "close",
        Command::Cancel => "cancel",
        Command::Visible { .. } => "visible",
        Command::LoseDevice => "lose_device",
        Command::Remember { .. } => "remember",
    }
}
