//! Runs: resumed exactly, judged on what they do not learn from, refused where the request is wrong; by hand and by the
//! command line.

mod common;

use attention_lab::gpu::Gpu;
use attention_lab::lab::train::{Checkpoint, Run, RunConfig};
use pollster::block_on;
use std::path::PathBuf;
use std::process::{Command, Output};

const SMALL: &str = r#"{
    "task": {"id": "copy", "symbols": 5, "items": 4},
    "model": {"d_model": 16, "heads": 2, "dropout": 0.1,
        "attention": [{"variant": "full"}, {"variant": "sliding_window", "params": {"window": 3}}]},
    "optimiser": {"rate": 0.01, "warmup": 3, "schedule": "cosine"},
    "batch": 8, "steps": 14, "log_every": 1, "evaluation": {"every": 6, "batches": 2}
}"#;

fn small() -> RunConfig {
    RunConfig::parse(SMALL).unwrap_or_else(|e| panic!("{e}"))
}

/// Bits of the losses of the next steps.
fn losses(run: &mut Run, steps: u64) -> Vec<u32> {
    let one = |_| {
        run.step(&|| false).unwrap_or_else(|e| panic!("{e}"));
        block_on(run.reading()).unwrap_or_else(|e| panic!("{e}")).loss.to_bits()
    };
    (0..steps).map(one).collect()
}

fn resumes_exactly(gpu: Option<&Gpu>) {
    let config = small();
    let mut whole = block_on(Run::new(&config, gpu)).unwrap_or_else(|e| panic!("{e}"));
    let want = losses(&mut whole, 14);
    assert!(want.iter().all(|&bits| f32::from_bits(bits).is_finite()));

    let mut first = block_on(Run::new(&config, gpu)).unwrap();
    let mut got = losses(&mut first, 5);
    // Judging in between changes nothing.
    let before = block_on(first.evaluate(&|| false)).unwrap();
    let bytes = block_on(first.checkpoint()).unwrap().to_bytes().unwrap();
    drop(first);
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(checkpoint.step, 5);
    let mut second = block_on(Run::resume(&checkpoint.config, &checkpoint, gpu)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(block_on(second.evaluate(&|| false)).unwrap(), before);
    got.extend(losses(&mut second, 9));
    assert_eq!(got, want, "losses of the resumed run");
    assert!(block_on(second.checkpoint()).unwrap() == block_on(whole.checkpoint()).unwrap(), "weights at the end");
}

#[test]
fn a_run_on_the_interpreter_resumes_exactly() {
    resumes_exactly(None);
}

#[test]
fn a_run_on_the_device_resumes_exactly() {
    let Some(gpu) = common::gpu() else { return };
    resumes_exactly(Some(&gpu));
}

#[test]
fn judging_counts_every_judged_position_and_learns_nothing() {
    let mut run = block_on(Run::new(&small(), None)).unwrap();
    losses(&mut run, 2);
    let first = block_on(run.evaluate(&|| false)).unwrap();
    assert_eq!(first.score.sequences.judged, 16);
    assert!(first.score.tokens.judged >= 16 * 4 && first.loss > 0.0);
    let cancelled = block_on(run.evaluate(&|| true));
    assert!(cancelled.is_err_and(|e| e.to_string().contains("cancelled")));
    let reading = block_on(run.reading()).unwrap();
    assert!(run.step(&|| true).is_err());
    assert_eq!(run.steps(), 2, "a cancelled step has not happened");
    assert_eq!(block_on(run.reading()).unwrap(), reading);
    assert_eq!(block_on(run.evaluate(&|| false)).unwrap(), first);
}

#[test]
fn every_architecture_trains() {
    for (task, architecture) in [("copy", "encoder_decoder"), ("reverse", "decoder")] {
        let text = SMALL.replace("\"copy\"", &format!("{task:?}"));
        let text = text.replace("\"heads\"", &format!("\"architecture\": {architecture:?}, \"heads\""));
        let mut run = block_on(Run::new(&RunConfig::parse(&text).unwrap(), None)).unwrap_or_else(|e| panic!("{e}"));
        let losses: Vec<f32> = losses(&mut run, 14).into_iter().map(f32::from_bits).collect();
        assert!(losses[13] < losses[0], "{architecture}: {losses:?}");
    }
}

#[test]
fn damaged_checkpoints_are_refused() {
    let run = block_on(Run::new(&small(), None)).unwrap();
    let good = block_on(run.checkpoint()).unwrap();
    let refused = |checkpoint: &Checkpoint, words: &str| {
        let error = Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap())
            .and_then(|c| block_on(Run::resume(&small(), &c, None)))
            .err()
            .map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(words)), "{error:?}");
    };
    let weight = "layers.0.attention.query.weight";
    let mut changed = good.clone();
    changed.tensors.remove(weight);
    refused(&changed, "`layers.0.attention.query.weight` is missing");
    let mut changed = good.clone();
    changed.tensors.insert("extra".into(), (vec![1], vec![0.0]));
    refused(&changed, "no tensor `extra`");
    let mut changed = good.clone();
    changed.tensors.insert(weight.into(), (vec![256], vec![0.0; 256]));
    refused(&changed, "is [256]; it takes [16, 16]");
    let mut changed = good.clone();
    changed.tensors.get_mut(weight).unwrap().1[7] = f32::NAN;
    refused(&changed, "not finite");
    let bytes = good.to_bytes().unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        assert!(Checkpoint::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
    }
}

#[test]
fn ready_configurations_are_whole() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/runs");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("assets/runs is there") {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config = RunConfig::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        config.complete(128 << 20).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    assert!(names.iter().any(|name| name == "copy.json"), "{names:?}");
}

/// A folder of its own for a test, removed after.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("attention-lab-train-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path of text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attention-lab")).args(arguments).output().expect("the program starts")
}

/// Losses of a log by step.
fn logged(path: &str) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(path).expect("a log");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    lines
        .filter(|line| line["event"] == "step")
        .map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap()))
        .collect()
}

#[test]
fn the_command_line_trains_logs_and_resumes() {
    let folder = Folder::new("resume");
    let [config, short, out, log, again] =
        ["run.json", "short.json", "model.safetensors", "log.jsonl", "again.jsonl"].map(|name| folder.file(name));
    std::fs::write(&config, SMALL).unwrap();
    // What a killed run leaves behind: the checkpoint of its last evaluation, here of step 12 of 14.
    std::fs::write(&short, SMALL.replace("\"steps\": 14", "\"steps\": 12").replace("cosine", "constant")).unwrap();
    std::fs::write(&config, SMALL.replace("cosine", "constant")).unwrap();

    let train = |config: &str, more: &[&str]| {
        let done = lab(&[&["train", "--config", config, "--backend", "cpu"], more].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done
    };
    let whole = train(&config, &["--log", &log, "--json"]);
    let summary: serde_json::Value = serde_json::from_slice(&whole.stdout).expect("JSON on standard output");
    assert_eq!((summary["steps"].as_u64(), summary["task"].as_str()), (Some(14), Some("copy")));
    assert!(String::from_utf8_lossy(&whole.stderr).contains("step 14/14"));
    let want = logged(&log);
    assert_eq!(want.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());

    train(&short, &["--out", &out, "--log", &again]);
    let rest = train(&config, &["--resume", &out, "--log", &again]);
    assert!(String::from_utf8_lossy(&rest.stdout).contains("held-out accuracy"));
    assert_eq!(logged(&again), want, "losses of the resumed run");
}

#[test]
fn wrong_requests_exit_with_2_and_say_what_is_taken() {
    let folder = Folder::new("wrong");
    let config = folder.file("run.json");
    let refused = |text: &str, more: &[&str], words: &str| {
        std::fs::write(&config, text).unwrap();
        let output = lab(&[&["train", "--config", &config, "--backend", "cpu"], more].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {complaint}");
        assert!(complaint.contains(words) && !complaint.contains("panicked"), "`{words}` is not in: {complaint}");
        assert!(output.stdout.is_empty());
    };
    refused("{", &[], "--config");
    refused(r#"{"steps": 3}"#, &[], "missing field `task`");
    refused(r#"{"task": {"id": "cope"}}"#, &[], "cope");
    refused(&SMALL.replace("\"rate\"", "\"speed\""), &[], "unknown field `speed`");
    refused(&SMALL.replace("\"window\": 3", "\"window\": 0"), &[], "model.attention[1].window: 0 is not allowed");
    refused(&SMALL.replace("sliding_window", "linformer"), &[], "model.attention[1].window");
    refused(&SMALL.replace("\"heads\": 2", "\"heads\": 3"), &[], "a divisor of d_model, 16");
    let encoder = SMALL.replace("\"heads\"", "\"architecture\": \"encoder\", \"heads\"");
    refused(&encoder, &[], "decoder or encoder_decoder");
    refused(SMALL, &["--resume", &config], "is not a safetensors file");
    refused(SMALL, &["--out", "/nowhere/at/all.safetensors"], "there is no folder");
}
