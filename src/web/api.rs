//! The JavaScript API, for authors who want numbers and no interface: `web/attention-lab.js` wraps what is here.
//!
//! Requests come and facts go as JSON text, tensors as `Float32Array`. An error is thrown as the JSON text of a
//! [`LabError`], which the wrapper makes an `Error` of.

use crate::gpu::Options;
use crate::lab::describe;
use crate::lab::protocol::Backend;
use crate::lab::session::{LabError, OpRequest, Run, RunRequest, Session};
use crate::lab::train::{Run as TrainingRun, RunConfig};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;

/// A device.
#[wasm_bindgen]
pub struct ApiLab(Session);

/// A prepared run. Calls must not overlap: a second one while the first is under way throws.
#[wasm_bindgen]
pub struct ApiRun(RefCell<Run>);

/// A training run. Calls must not overlap.
#[wasm_bindgen]
pub struct ApiTraining(RefCell<TrainingRun>);

/// Opens a device: `auto`, `gpu` or `cpu`.
#[wasm_bindgen]
pub async fn api_open(backend: String) -> Result<ApiLab, JsValue> {
    console_error_panic_hook::set_once();
    let backend: Backend = parse(&format!("\"{backend}\""))?;
    Session::open(backend, &Options::default()).await.map(ApiLab).map_err(thrown)
}

// A run is borrowed while it is tuned on purpose: that is how overlapping calls are found.
#[allow(clippy::await_holding_refcell_ref)]
#[wasm_bindgen]
impl ApiLab {
    pub fn info(&self) -> Result<String, JsValue> {
        text(&self.0.info())
    }

    /// Every variant as `describe --json` shows it.
    pub fn variants(&self) -> Result<String, JsValue> {
        text(&crate::attention::ALL.iter().map(|v| describe::in_json(v)).collect::<Vec<_>>())
    }

    pub async fn prepare(&self, request: String) -> Result<ApiRun, JsValue> {
        let request: RunRequest = parse(&request)?;
        self.0.prepare(&request).await.map(ApiRun::new).map_err(thrown)
    }

    pub async fn prepare_op(&self, name: String, sizes: String) -> Result<ApiRun, JsValue> {
        let request = OpRequest::parse(&name, parse(&sizes)?).map_err(thrown)?;
        self.0.prepare_op(&request).await.map(ApiRun::new).map_err(thrown)
    }

    /// A training run, from the text of its configuration.
    pub async fn prepare_training(&self, config: String) -> Result<ApiTraining, JsValue> {
        let config = RunConfig::parse(&config).map_err(|e| thrown(e.into()))?;
        self.0.prepare_training(&config).await.map(|run| ApiTraining(RefCell::new(run))).map_err(thrown)
    }

    /// Measures the kernels of a run's ops; takes what is known, or `null`, and gives what is known then.
    pub async fn tune(&self, run: &ApiRun, known: String) -> Result<String, JsValue> {
        let known = parse(&known)?;
        let tuned = self.0.tune(&*run.run()?, known).await.map_err(thrown)?;
        text(&tuned)
    }

    /// Waits for everything submitted so far.
    pub async fn wait(&self) -> Result<(), JsValue> {
        self.0.wait().await.map_err(thrown)
    }
}

impl ApiRun {
    fn new(run: Run) -> Self {
        Self(RefCell::new(run))
    }

    fn run(&self) -> Result<std::cell::RefMut<'_, Run>, JsValue> {
        self.0.try_borrow_mut().map_err(|_| thrown(LabError::busy()))
    }
}

// A run is borrowed across waits on purpose: that is how overlapping calls are found, and nothing else can want it.
#[allow(clippy::await_holding_refcell_ref)]
#[wasm_bindgen]
impl ApiRun {
    /// What is known before it runs.
    pub fn facts(&self) -> Result<String, JsValue> {
        let run = self.run()?;
        text(&serde_json::json!({
            "bytes": run.bytes(), "bytes_by_category": run.bytes_by_category(), "flops": run.flops(),
            "stages": run.stages(), "inputs": run.inputs(), "outputs": run.outputs(),
        }))
    }

    pub fn write(&self, name: &str, values: &[f32]) -> Result<(), JsValue> {
        self.run()?.write(name, values).map_err(thrown)
    }

    pub fn submit(&self) -> Result<(), JsValue> {
        self.run()?.submit().map_err(thrown)
    }

    pub async fn execute(&self) -> Result<(), JsValue> {
        self.run()?.execute().await.map_err(thrown)
    }

    pub async fn read(&self, name: String) -> Result<js_sys::Float32Array, JsValue> {
        let values = self.run()?.read(&name).await.map_err(thrown)?;
        Ok(js_sys::Float32Array::from(values.as_slice()))
    }

    pub async fn time(&self, spans: usize) -> Result<String, JsValue> {
        text(&self.run()?.time(spans).await.map_err(thrown)?)
    }
}

impl ApiTraining {
    fn run(&self) -> Result<std::cell::RefMut<'_, TrainingRun>, JsValue> {
        self.0.try_borrow_mut().map_err(|_| thrown(LabError::busy()))
    }
}

// As with runs of single variants: a borrow across waits is how overlapping calls are found.
#[allow(clippy::await_holding_refcell_ref)]
#[wasm_bindgen]
impl ApiTraining {
    /// What is known before the first step.
    pub fn facts(&self) -> Result<String, JsValue> {
        let run = self.run()?;
        text(&serde_json::json!({
            "config": run.config(), "weights": run.weights(), "flops": run.flops(), "bytes": run.plan().peak_bytes(),
            "chance": run.task().chance(),
        }))
    }

    /// So many steps, and what the last one gave.
    pub async fn step(&self, count: u32) -> Result<String, JsValue> {
        let mut run = self.run()?;
        for _ in 0..count {
            run.step(&|| false).map_err(|e| thrown(e.into()))?;
        }
        text(&run.reading().await.map_err(|e| thrown(e.into()))?)
    }

    pub async fn evaluate(&self) -> Result<String, JsValue> {
        text(&self.run()?.evaluate(&|| false).await.map_err(|e| thrown(e.into()))?)
    }

    /// The run as the bytes of a `.safetensors` file, with which `attention-lab train --resume` and the page go on.
    pub async fn save(&self) -> Result<js_sys::Uint8Array, JsValue> {
        let kept = self.run()?.checkpoint().await.and_then(|kept| kept.to_bytes()).map_err(|e| thrown(e.into()))?;
        Ok(js_sys::Uint8Array::from(kept.as_slice()))
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, JsValue> {
    crate::json::read(json).map_err(|e| thrown(LabError::invalid(e.to_string())))
}

fn text(value: &impl serde::Serialize) -> Result<String, JsValue> {
    serde_json::to_string(value).map_err(|e| JsValue::from_str(&e.to_string()))
}

fn thrown(error: LabError) -> JsValue {
    JsValue::from_str(&serde_json::to_string(&error).unwrap_or_else(|_| error.to_string()))
}
