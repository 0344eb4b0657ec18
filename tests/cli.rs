//! The command line as a user meets it: the program is run, its files, streams and exit status are looked at.

#[path = "common/backends.rs"]
mod backends;

use attention_lab::attention::{self, Causal, Inputs, Params, Setup};
use attention_lab::lab::protocol::Backend;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for each test, emptied before and removed after.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("attention-lab-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder with an input and an output for `attend`.
struct Files {
    folder: Folder,
    input: PathBuf,
    output: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
        Self { folder, input, output }
    }

    fn write(&self, tensors: &Tensors) {
        write(&self.input, tensors);
    }

    /// The arguments of `attend` on these files.
    fn arguments<'a>(&'a self, id: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let path = |path: &'a Path| path.to_str().expect("a path of text");
        let own = ["attend", id, "--input", path(&self.input), "--output", path(&self.output)];
        own.into_iter().chain(more.iter().copied()).collect()
    }

    /// Runs `attend`, which must succeed; what it printed.
    fn attend(&self, id: &str, more: &[&str]) -> Vec<u8> {
        let done = lab(&self.arguments(id, more));
        assert!(done.status.success(), "{id} {more:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    fn results(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        read(&self.output)
    }
}

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attention-lab")).args(arguments).output().expect("the program starts")
}

/// Runs a command that must fail with `code`, never by a panic, and whose complaint must hold each of `words`.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = lab(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {complaint}");
    assert!(!complaint.contains("panicked"), "{arguments:?}: {complaint}");
    assert!(output.stdout.is_empty(), "{arguments:?}: results only on standard output");
    for word in words {
        assert!(complaint.contains(word), "{arguments:?}: `{word}` is not in: {complaint}");
    }
}

type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

fn f32s(shape: &[usize], seed: u32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let count: usize = shape.iter().product();
    let mut state = seed;
    let bytes = (0..count).flat_map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state as f32 / u32::MAX as f32 * 2.0 - 1.0).to_le_bytes()
    });
    (Dtype::F32, shape.into(), bytes.collect())
}

/// q, k, v, g of two batches, two heads, 33 tokens, D = 6.
fn usual() -> Tensors {
    let shape = [2, 2, 33, 6];
    ["q", "k", "v", "g"].into_iter().zip(1..).map(|(name, seed)| (name, f32s(&shape, seed))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("fits")));
    std::fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("written");
}

fn read(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("the output is there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), Dtype::F32);
            let data = view.data().chunks(4).map(|w| f32::from_le_bytes(w.try_into().expect("four bytes"))).collect();
            (name, (view.shape().to_vec(), data))
        })
        .collect()
}

fn floats(tensor: &(Dtype, Vec<usize>, Vec<u8>)) -> Vec<f64> {
    tensor.2.chunks(4).map(|w| f64::from(f32::from_le_bytes(w.try_into().expect("four bytes")))).collect()
}

/// RMS of the difference over RMS of `want`; NaN stays NaN.
fn ratio(want: &[f64], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let error: f64 = want.iter().zip(got).map(|(w, g)| (w - f64::from(*g)).powi(2)).sum();
    (error / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

/// The names of back ends.
fn backends() -> impl Iterator<Item = &'static str> {
    backends::backends().into_iter().map(|backend| if backend == Backend::Cpu { "cpu" } else { "gpu" })
}

#[test]
fn attend_writes_what_the_definition_says() {
    let files = Files::new("attend");
    let tensors = usual();
    files.write(&tensors);
    // On a second adapter some are enough: their kernels have tests of their own.
    for variant in attention::ALL.iter().step_by(if backends::again() { 8 } else { 1 }) {
        let causal = matches!(variant.causal, Causal::Always);
        let effective = variant.no_matrix().is_none();
        for backend in backends() {
            let mut options = vec!["--params", r#"{"seed": 5}"#, "--grad", "--backend", backend, "--json"];
            options.extend(causal.then_some("--causal"));
            options.extend(effective.then_some("--effective"));
            let printed = files.attend(variant.id, &options);
            let report: serde_json::Value = serde_json::from_slice(&printed).expect("JSON");
            assert_eq!((&report["variant"], &report["backend"]), (&variant.id.into(), &backend.into()));
            let results = files.results();

            let setup = Setup {
                batch: 2,
                heads: 2,
                length: 33,
                keys: 33,
                dim: 6,
                causal,
                params: Params::default(),
                seed: 5,
                structure: Default::default(),
            };
            let drawn = variant.drawn(&setup);
            let x = Inputs {
                q: floats(&tensors["q"]),
                k: floats(&tensors["k"]),
                v: floats(&tensors["v"]),
                key_padding: None,
                extras: drawn.iter().map(|(name, x)| (*name, x.iter().map(|&x| x.into()).collect())).collect(),
            };
            let want = (variant.reference.values)(&x, &setup);
            let error = ratio(&want, &results["out"].1);
            assert!(error <= 1e-5, "{} {backend}: {error:e}", variant.id);

            match effective {
                true => assert_eq!(results["effective"].0, [2, 2, 33, 33]),
                false => assert!(!results.contains_key("effective"), "{} has no matrix", variant.id),
            }
            for name in ["dq", "dk", "dv"] {
                assert_eq!(results[name].0, [2, 2, 33, 6], "{} {name}", variant.id);
                assert!(results[name].1.iter().all(|x| x.is_finite()), "{} {name}", variant.id);
                // A method that does not read a tensor has no gradient for it.
                let mut other = x.clone();
                let changed = match name {
                    "dq" => &mut other.q,
                    "dk" => &mut other.k,
                    _ => &mut other.v,
                };
                changed.iter_mut().for_each(|value| *value = -*value);
                let reads = (variant.reference.values)(&other, &setup) != want;
                assert_eq!(results[name].1.iter().any(|&x| x != 0.0), reads, "{} {name}", variant.id);
            }
            for extra in (variant.extras)(&setup).iter().filter(|e| e.differentiable && !e.optional) {
                assert_eq!(results[&format!("d{}", extra.name)].0, extra.shape, "{}", variant.id);
            }
        }
    }
}

#[test]
fn given_extra_tensors_are_used_and_drawn_ones_depend_on_the_seed() {
    let files = Files::new("extras");
    let run = |tensors: &Tensors, params: &str| -> Vec<f32> {
        files.write(tensors);
        files.attend("linformer", &["--params", params, "--backend", "cpu"]);
        files.results().remove("out").expect("out").1
    };
    let mut tensors = usual();
    let drawn = run(&tensors, r#"{"k": 4, "seed": 7}"#);
    assert_eq!(drawn, run(&tensors, r#"{"k": 4, "seed": 7}"#));
    assert_ne!(drawn, run(&tensors, r#"{"k": 4, "seed": 8}"#));
    tensors.insert("E", f32s(&[4, 33], 9));
    tensors.insert("F", f32s(&[4, 33], 10));
    let given = run(&tensors, r#"{"k": 4, "seed": 7}"#);
    assert_ne!(given, drawn);
    assert_eq!(given, run(&tensors, r#"{"k": 4, "seed": 8}"#));
}

#[test]
fn padding_and_more_keys_than_queries_are_taken() {
    let files = Files::new("padding");
    let mut tensors = usual();
    tensors.insert("k", f32s(&[2, 2, 40, 6], 2));
    tensors.insert("v", f32s(&[2, 2, 40, 6], 3));
    tensors.insert("key_padding", (Dtype::U8, vec![2, 40], (0..80).map(|i| u8::from(i != 3 && i < 40)).collect()));
    files.write(&tensors);
    files.attend("full", &["--causal", "--effective", "--backend", "cpu"]);
    let results = files.results();
    let effective = &results["effective"];
    assert_eq!(effective.0, [2, 2, 33, 40]);
    for (cell, &weight) in effective.1.iter().enumerate() {
        let (batch, i, j) = (cell / (2 * 33 * 40), cell / 40 % 33, cell % 40);
        let allowed = batch == 0 && j != 3 && j <= i + 7;
        assert_eq!(weight != 0.0, allowed, "batch {batch}, query {i}, key {j}: {weight}");
    }
    // A bias that rules out a key is as good as padding.
    let bias = (0..2 * 2 * 33 * 40).flat_map(|cell| (if cell % 40 == 5 { -1e9f32 } else { 0.0 }).to_le_bytes());
    tensors.insert("bias", (Dtype::F32, vec![2, 2, 33, 40], bias.collect()));
    files.write(&tensors);
    files.attend("full", &["--effective", "--backend", "cpu"]);
    let biased = &files.results()["effective"].1;
    for (cell, &weight) in biased.iter().enumerate() {
        let (batch, j) = (cell / (2 * 33 * 40), cell % 40);
        assert_eq!(weight != 0.0, batch == 0 && j != 3 && j != 5, "key {j}: {weight}");
    }
    let second = &results["out"].1[2 * 33 * 6..];
    assert!(second.iter().all(|&x| x == 0.0), "a row with nothing to attend to gives zeros");
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    let files = Files::new("wrong");
    let check = |id: &str, more: &[&str], words: &[&str]| {
        let more: Vec<&str> = more.iter().copied().chain(["--backend", "cpu"]).collect();
        refused(&files.arguments(id, &more), 2, words);
    };
    check("full", &[], &["--input", "No such file"]);
    files.write(&usual());
    check("linaer", &[], &["`linaer`", "`linear`"]);
    check("full", &["--params", "{"], &["--params", "not JSON"]);
    check("full", &["--params", "[1]"], &["--params", "not an object"]);
    check("full", &["--params", r#"{"window": 3}"#], &["window", "no parameters"]);
    check("sliding_window", &["--params", r#"{"window": 0}"#], &["window", "1 to 65536"]);
    check("sliding_window", &["--params", r#"{"windw": 1}"#], &["windw", "dilation"]);
    check("full", &["--params", r#"{"seed": -1}"#], &["seed", "whole number"]);
    check("linformer", &["--causal"], &["leak", "causal off"]);
    check("transformer_xl", &[], &["always causal", "causal on"]);
    check("lstm", &["--causal", "--effective"], &["--effective", "no attention matrix"]);
    check("full", &["--nonsense"], &["--nonsense"]);
    check("full", &["--adapter", "x"], &["--adapter"]);
    refused(&[], 2, &[]);
    refused(&["attend", "full"], 2, &["--input"]);
    refused(&["describe", "nothing"], 2, &["nothing"]);
    let nowhere = Files { output: files.folder.path("no/such/out.safetensors"), ..Files::new("nowhere") };
    nowhere.write(&usual());
    refused(&nowhere.arguments("full", &[]), 2, &["--output", "no folder"]);

    let with = |change: &dyn Fn(&mut Tensors), words: &[&str]| {
        let mut tensors = usual();
        change(&mut tensors);
        files.write(&tensors);
        check("linformer", &["--grad"], words);
    };
    with(&|t| drop(t.remove("k")), &["`k` is missing", "q"]);
    with(&|t| drop(t.remove("g")), &["`g` is missing"]);
    with(&|t| drop(t.insert("q", f32s(&[2, 33, 6], 1))), &["`q`", "[2, 33, 6]", "[B, H, N, D]"]);
    with(&|t| drop(t.insert("k", f32s(&[2, 2, 33, 5], 1))), &["`k`", "[2, 2, 33, 5]", "[2, 2, M, 6]"]);
    with(&|t| drop(t.insert("v", f32s(&[2, 2, 32, 6], 1))), &["`v`", "[2, 2, 33, 6]"]);
    with(&|t| drop(t.insert("g", f32s(&[2, 2, 33, 7], 1))), &["`g`", "[2, 2, 33, 6]"]);
    with(&|t| drop(t.insert("E", f32s(&[3, 33], 1))), &["`E`", "[3, 33]", "[16, 33]"]);
    with(&|t| drop(t.insert("q", (Dtype::F16, vec![2, 2, 33, 6], vec![0; 1584]))), &["`q`", "F16", "F32"]);
    with(&|t| drop(t.insert("key_padding", f32s(&[2, 33], 1))), &["`key_padding`", "U8"]);
    with(&|t| drop(t.insert("key_padding", (Dtype::U8, vec![2, 33], vec![7; 66]))), &["`key_padding`", "holds 7"]);
    with(
        &|t| ["q", "k", "v", "g"].iter().for_each(|&name| drop(t.insert(name, f32s(&[2, 0, 33, 6], 1)))),
        &["heads is 0"],
    );
    assert!(!files.output.exists(), "a refused request writes nothing");
}

#[test]
fn files_that_are_not_tensors_are_refused() {
    let files = Files::new("hostile");
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let huge = r#"{"q":{"dtype":"F32","shape":[1000000000,1000000000,1000000000,64],"data_offsets":[0,16]}}"#;
    let hostile: Vec<Vec<u8>> = vec![
        vec![],
        vec![1, 2, 3],
        vec![0xff; 64],
        u64::MAX.to_le_bytes().to_vec(),
        header("{}"),
        header("{\"q\":"),
        [header(huge), vec![0; 16]].concat(),
        [header(r#"{"q":{"dtype":"F32","shape":[1,1,1,4],"data_offsets":[0,4000000000]}}"#), vec![0; 16]].concat(),
        [header(r#"{"q":{"dtype":"F32","shape":[1,1,1,4],"data_offsets":[16,0]}}"#), vec![0; 16]].concat(),
    ];
    for bytes in hostile {
        std::fs::write(&files.input, bytes).expect("written");
        refused(&files.arguments("full", &[]), 2, &[]);
    }
    let folder = Files { input: files.folder.0.clone(), ..Files::new("folder") };
    refused(&folder.arguments("full", &[]), 2, &["not a file"]);
}

#[test]
fn an_adapter_that_is_not_there_is_status_3() {
    let files = Files::new("adapter");
    files.write(&usual());
    let name = "no adapter has this name";
    refused(&files.arguments("full", &["--backend", "gpu", "--adapter", name]), 3, &[name]);
}

/// Two matrices of 256 MiB in an address space of 400 MiB: the run is known to need more before it takes any.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_status_4() {
    let files = Files::new("memory");
    files.write(
        &["q", "k", "v"].into_iter().zip(1..).map(|(name, seed)| (name, f32s(&[1, 4, 4096, 1], seed))).collect(),
    );
    let limited = |limit: &str| {
        let script = format!("ulimit -v {limit}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_attention-lab")]);
        let done = shell.args(files.arguments("full_naive", &["--backend", "cpu"])).output().expect("a shell");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, complaint) = limited("400000");
    assert_eq!(code, Some(4), "{complaint}");
    assert!(complaint.contains("out of memory") && !complaint.contains("panicked"), "{complaint}");
    assert!(!files.output.exists(), "nothing is written");
}

#[cfg(unix)]
#[test]
fn an_interrupted_race_is_status_130_and_leaves_no_file() {
    use std::io::{BufRead, BufReader};
    let folder = Folder::new("interrupted");
    let out = folder.path("race.json");
    let mut race = Command::new(env!("CARGO_BIN_EXE_attention-lab"))
        .args(["bench", "--backend", "cpu", "--variants", "full", "--lengths", "16,8192", "--budget", "600"])
        .args(["--rounds", "3", "--out", out.to_str().expect("a path of text")])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Its first word of progress says that it is under way.
    let mut progress = BufReader::new(race.stderr.take().expect("piped"));
    let mut line = String::new();
    progress.read_line(&mut line).expect("a line");
    assert!(line.contains("1/2"), "{line}");
    let sent = Command::new("kill").args(["-INT", &race.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let done = race.wait_with_output().expect("it ends");
    assert_eq!(done.status.code(), Some(130));
    assert!(done.stdout.is_empty() && !out.exists(), "half a race is no result");
}

#[test]
fn list_and_describe_tell_programs_everything() {
    let list: serde_json::Value = serde_json::from_slice(&lab(&["list", "--json"]).stdout).expect("JSON");
    let ids: Vec<&str> = list["variants"].as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap()).collect();
    assert_eq!(ids, attention::ALL.iter().map(|v| v.id).collect::<Vec<_>>());
    let tasks = list["tasks"].as_array().unwrap();
    assert!(tasks.iter().any(|task| task["id"] == "induction" && task["config"]["id"] == "induction"));
    assert!(list["adapters"].as_array().unwrap().iter().any(|a| a["backend"] == "cpu"));

    for variant in attention::ALL {
        let output = lab(&["describe", variant.id, "--json"]);
        let described: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(described["params"].as_array().unwrap().len(), variant.params.len());
        for (param, described) in variant.params.iter().zip(described["params"].as_array().unwrap()) {
            assert_eq!(described["name"], param.name);
            assert!(!described["default"].is_null() && described["meaning"].as_str().unwrap().len() > 20);
        }
        let words = String::from_utf8(lab(&["describe", variant.id]).stdout).expect("UTF-8");
        assert!(words.contains(variant.paper.arxiv) && words.contains(variant.complexity));
    }
    let full: serde_json::Value = serde_json::from_slice(&lab(&["describe", "full", "--json"]).stdout).unwrap();
    let bias = full["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "bias").expect("bias is listed");
    assert_eq!(bias["shape"], "[B, H, N, M]");
    assert_eq!(bias["differentiable"], true);

    let shape_of = |id: &str, tensor: &str| {
        let described: serde_json::Value = serde_json::from_slice(&lab(&["describe", id, "--json"]).stdout).unwrap();
        let found =
            described["tensors"].as_array().unwrap().iter().find(|t| t["name"] == tensor).expect("it is listed");
        assert_eq!(found["dtype"] == "U8", (id, tensor) == ("custom", "mask"), "{id} {tensor}");
        (found["shape"].clone(), found["drawn"].clone())
    };
    assert_eq!(shape_of("custom", "mask"), ("[B, H, N, M]".into(), serde_json::Value::Null));
    for (id, tensor, shape) in [
        ("bigbird", "random_blocks", "[H, ⌈N/block⌉, random]"),
        ("blockbert", "permutations", "[H, blocks]"),
        ("star", "neighbours", "[H, N, 2 radius]"),
        ("star", "k_relay", "[B, H, 1, D]"),
        ("sinkhorn", "lots", "[H, ⌈N/block⌉, ⌈N/block⌉]"),
        ("longformer", "links", "[H, R, S], as [4, 32, 5] at B 1, H 4, N 1024, D 64"),
    ] {
        assert_eq!(shape_of(id, tensor).0, shape, "{id} {tensor}");
    }

    let linformer: serde_json::Value =
        serde_json::from_slice(&lab(&["describe", "linformer", "--json"]).stdout).unwrap();
    let tensors = linformer["tensors"].as_array().unwrap();
    let projection = tensors.iter().find(|t| t["name"] == "E").expect("E is listed");
    assert_eq!(projection["shape"], "[k, M] or [H, k, M]");
    assert_eq!(projection["differentiable"], true);
}

#[test]
fn attend_builds_patterns_from_given_tensors() {
    let folder = Folder::new("structure");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let attend = |id: &str, params: &str, name: &'static str, tensor: (Dtype, Vec<usize>, Vec<u8>)| {
        let mut tensors = usual();
        tensors.insert(name, tensor);
        write(&input, &tensors);
        let (input, output) = (input.to_str().unwrap().to_owned(), output.to_str().unwrap().to_owned());
        let arguments = ["attend", id, "--input", &input, "--output", &output, "--params", params];
        arguments.into_iter().chain(["--effective", "--backend", "cpu"]).map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>| {
        let done = lab(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        read(&output)["effective"].1.clone()
    };

    // A mask for all heads and texts.
    let mask: Vec<u8> = (0..33 * 33).map(|at| u8::from(at * 5 % 7 < 3)).collect();
    let shown = run(attend("custom", "{}", "mask", (Dtype::U8, vec![33, 33], mask.clone())));
    assert!(shown.iter().enumerate().all(|(at, &x)| (x > 0.0) == (mask[at % mask.len()] == 1)));

    // Random blocks: block 2 of the first head looks at block 4, and no other block looks anywhere but at itself.
    let params = r#"{"block": 8, "window": 1, "global_blocks": 0, "random": 1}"#;
    let mut blocks = [-1.0f32; 10];
    blocks[2] = 4.0;
    let tensor = |blocks: &[f32]| {
        let bytes = blocks.iter().flat_map(|x| x.to_le_bytes()).collect();
        (Dtype::F32, vec![2, 5, 1], bytes)
    };
    let shown = run(attend("bigbird", params, "random_blocks", tensor(&blocks)));
    for (at, &x) in shown.iter().enumerate() {
        let (head, u, v) = (at / (33 * 33) % 2, at / 33 % 33 / 8, at % 33 / 8);
        assert_eq!(x > 0.0, u == v || (head, u, v) == (0, 2, 4), "cell {at}");
    }

    let check = |arguments: Vec<String>, words: &[&str]| {
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);
    };
    blocks[0] = 5.0;
    check(attend("bigbird", params, "random_blocks", tensor(&blocks)), &["random_blocks", "5", "below 5"]);
    let short = (Dtype::F32, vec![2, 4, 1], vec![0; 32]);
    check(attend("bigbird", params, "random_blocks", short), &["random_blocks", "[2, 5, 1]"]);
    check(attend("custom", "{}", "mask", (Dtype::U8, vec![33, 32], vec![0; 33 * 32])), &["mask", "[2, 2, 33, 33]"]);
    check(attend("custom", r#"{"rule": "i < k"}"#, "other", f32s(&[1], 1)), &["rule", "column 5", "`k`"]);
}
