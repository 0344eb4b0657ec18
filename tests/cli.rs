//! The command line as a user meets it: the program is run, its files, streams and exit status are looked at.

use attention_lab::attention::{self, Causal, Inputs, Params, Setup};
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

/// The backends that this machine can run: the GPU only where tests are to use one.
fn backends() -> Vec<&'static str> {
    if std::env::var("LAB_NO_GPU").is_ok_and(|v| v == "1") { vec!["cpu"] } else { vec!["cpu", "gpu"] }
}

#[test]
fn attend_writes_what_the_definition_says() {
    let folder = Folder::new("attend");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let tensors = usual();
    write(&input, &tensors);
    for variant in attention::ALL {
        let causal = matches!(variant.causal, Causal::Always);
        let effective = variant.no_matrix().is_none();
        for backend in backends() {
            let mut arguments = vec![
                "attend",
                variant.id,
                "--input",
                input.to_str().unwrap(),
                "--output",
                output.to_str().unwrap(),
                "--params",
                r#"{"seed": 5}"#,
                "--grad",
                "--backend",
                backend,
                "--json",
            ];
            arguments.extend(causal.then_some("--causal"));
            arguments.extend(effective.then_some("--effective"));
            let done = lab(&arguments);
            assert!(done.status.success(), "{} {backend}: {}", variant.id, String::from_utf8_lossy(&done.stderr));
            let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
            assert_eq!((&report["variant"], &report["backend"]), (&variant.id.into(), &backend.into()));
            let results = read(&output);

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
                assert!(results[name].1.iter().any(|&x| x != 0.0) && results[name].1.iter().all(|x| x.is_finite()));
            }
            for extra in (variant.extras)(&setup).iter().filter(|e| e.differentiable && !e.optional) {
                assert_eq!(results[&format!("d{}", extra.name)].0, extra.shape, "{}", variant.id);
            }
        }
    }
}

#[test]
fn given_extra_tensors_are_used_and_drawn_ones_depend_on_the_seed() {
    let folder = Folder::new("extras");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let run = |tensors: &Tensors, params: &str| -> Vec<f32> {
        write(&input, tensors);
        let done = lab(&[
            "attend",
            "linformer",
            "--input",
            input.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
            "--params",
            params,
            "--backend",
            "cpu",
        ]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        read(&output).remove("out").expect("out").1
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
    let folder = Folder::new("padding");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let mut tensors = usual();
    tensors.insert("k", f32s(&[2, 2, 40, 6], 2));
    tensors.insert("v", f32s(&[2, 2, 40, 6], 3));
    tensors.insert("key_padding", (Dtype::U8, vec![2, 40], (0..80).map(|i| u8::from(i != 3 && i < 40)).collect()));
    write(&input, &tensors);
    let done = lab(&[
        "attend",
        "full",
        "--input",
        input.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
        "--causal",
        "--effective",
        "--backend",
        "cpu",
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let results = read(&output);
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
    write(&input, &tensors);
    let done = lab(&[
        "attend",
        "full",
        "--input",
        input.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
        "--effective",
        "--backend",
        "cpu",
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let biased = &read(&output)["effective"].1;
    for (cell, &weight) in biased.iter().enumerate() {
        let (batch, j) = (cell / (2 * 33 * 40), cell % 40);
        assert_eq!(weight != 0.0, batch == 0 && j != 3 && j != 5, "key {j}: {weight}");
    }
    let second = &results["out"].1[2 * 33 * 6..];
    assert!(second.iter().all(|&x| x == 0.0), "a row with nothing to attend to gives zeros");
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    let folder = Folder::new("wrong");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let attend = |id: &'static str, more: &[&'static str]| -> Vec<String> {
        let all = ["attend", id, "--input", input, "--output", output, "--backend", "cpu"];
        all.iter().chain(more).map(|&s| s.to_owned()).collect()
    };
    let check = |arguments: Vec<String>, words: &[&str]| {
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);
    };
    check(attend("full", &[]), &["--input", "No such file"]);
    write(Path::new(input), &usual());
    check(attend("linaer", &[]), &["`linaer`", "`linear`"]);
    check(attend("full", &["--params", "{"]), &["--params", "not JSON"]);
    check(attend("full", &["--params", "[1]"]), &["--params", "not an object"]);
    check(attend("full", &["--params", r#"{"window": 3}"#]), &["window", "no parameters"]);
    check(attend("sliding_window", &["--params", r#"{"window": 0}"#]), &["window", "1 to 65536"]);
    check(attend("sliding_window", &["--params", r#"{"windw": 1}"#]), &["windw", "dilation"]);
    check(attend("full", &["--params", r#"{"seed": -1}"#]), &["seed", "whole number"]);
    check(attend("linformer", &["--causal"]), &["leak", "causal off"]);
    check(attend("transformer_xl", &[]), &["always causal", "causal on"]);
    check(attend("lstm", &["--causal", "--effective"]), &["--effective", "no attention matrix"]);
    check(attend("full", &["--nonsense"]), &["--nonsense"]);
    check(attend("full", &["--adapter", "x"]), &["--adapter"]);
    check(vec![], &[]);
    check(vec!["attend".into(), "full".into()], &["--input"]);
    check(vec!["describe".into(), "nothing".into()], &["nothing"]);
    let nowhere = folder.path("no/such/out.safetensors");
    refused(
        &["attend", "full", "--input", input, "--output", nowhere.to_str().unwrap()],
        2,
        &["--output", "no folder"],
    );

    let with = |change: &dyn Fn(&mut Tensors), words: &[&str]| {
        let mut tensors = usual();
        change(&mut tensors);
        write(Path::new(input), &tensors);
        check(attend("linformer", &["--grad"]), words);
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
    assert!(!Path::new(output).exists(), "a refused request writes nothing");
}

#[test]
fn files_that_are_not_tensors_are_refused() {
    let folder = Folder::new("hostile");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
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
        std::fs::write(&input, bytes).expect("written");
        let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
        refused(&["attend", "full", "--input", input, "--output", output], 2, &[]);
    }
    let folder_name = folder.0.to_str().unwrap();
    refused(&["attend", "full", "--input", folder_name, "--output", output.to_str().unwrap()], 2, &["not a file"]);
}

#[test]
fn an_adapter_that_is_not_there_is_status_3() {
    let folder = Folder::new("adapter");
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    write(&input, &usual());
    refused(
        &[
            "attend",
            "full",
            "--input",
            input.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
            "--backend",
            "gpu",
            "--adapter",
            "no adapter has this name",
        ],
        3,
        &["no adapter has this name"],
    );
}

#[test]
fn list_and_describe_tell_programs_everything() {
    let list: serde_json::Value = serde_json::from_slice(&lab(&["list", "--json"]).stdout).expect("JSON");
    let ids: Vec<&str> = list["variants"].as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap()).collect();
    assert_eq!(ids, attention::ALL.iter().map(|v| v.id).collect::<Vec<_>>());
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

    let linformer: serde_json::Value =
        serde_json::from_slice(&lab(&["describe", "linformer", "--json"]).stdout).unwrap();
    let tensors = linformer["tensors"].as_array().unwrap();
    let projection = tensors.iter().find(|t| t["name"] == "E").expect("E is listed");
    assert_eq!(projection["shape"], "[k, M] or [H, k, M]");
    assert_eq!(projection["differentiable"], true);
}
