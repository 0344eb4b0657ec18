//! The web build: compile for wasm32, wasm-bindgen as a library, wasm-opt, and the files of `web/`, all into `dist/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::process::{cargo, commit, output, root, run};
use crate::toolchain::{self, Need};
use crate::wasm32;

/// The name of the module: `attention_lab.js` and `attention_lab_bg.wasm`.
const MODULE: &str = "attention_lab";

/// Files taken from npm packages, and where they go in `dist/`.
const VENDORED: &[(&str, &str)] = &[
    ("d3/dist/d3.min.js", "vendor/d3.min.js"),
    ("d3/LICENSE", "vendor/d3.LICENSE.txt"),
    ("@observablehq/plot/dist/plot.umd.min.js", "vendor/plot.umd.min.js"),
    ("@observablehq/plot/LICENSE", "vendor/plot.LICENSE.txt"),
];

/// What belongs to npm rather than to the page.
const NOT_COPIED: &[&str] = &["node_modules", "package.json", "package-lock.json"];

/// What the first view does not load, by the start of the path. Everything else counts against the budget;
/// tests/browser/page.spec.mjs holds what the page really loads to the same budget.
const LATER: &[&str] = &[
    "vendor/",
    "weights/",
    "maths/",
    "embed",
    "tutorial",
    "styles/embed",
    "styles/tutorial",
    "examples/",
    "attention-lab.js",
    "element.js",
    "contender.js",
    "charts.js",
    "labels.js",
];

/// For everything that the first view loads, compressed with brotli.
const BUDGET_BYTES: u64 = 1_200_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Debug,
    Release,
}

/// Where the built page lies.
pub fn dist() -> PathBuf {
    root().join("dist")
}

/// Makes `dist/` anew. In release mode the sizes are printed, and the budget is held.
pub fn build(mode: Mode) -> Result<()> {
    toolchain::ensure(&[Need::WasmTarget, Need::WebPackages])?;
    check_bindgen_version()?;
    let target = target_folder()?;
    let profile = if mode == Mode::Release { "web" } else { "dev" };
    let start = Instant::now();
    run(wasm32::cargo("build")?
        .args(["--package", "attention-lab", "--lib", "--profile", profile])
        .env("LAB_COMMIT", commit()))?;
    println!("compiled for wasm32, profile {profile} ({:.1} s)", start.elapsed().as_secs_f64());

    let folder = if mode == Mode::Release { "web" } else { "debug" };
    let staged = target.join("web-stage");
    remove(&staged)?;
    Bindgen::new()
        .input_path(target.join(wasm32::TARGET).join(folder).join(format!("{MODULE}.wasm")))
        .web(true)?
        .typescript(false)
        // Lets `init()` find the .wasm file beside the module, as the command line tool does by default.
        .omit_default_module_path(false)
        .out_name(MODULE)
        .generate(&staged)
        .context("wasm-bindgen failed")?;
    if mode == Mode::Release {
        optimise(&staged.join(format!("{MODULE}_bg.wasm")))?;
    }

    let dist = dist();
    remove(&dist)?;
    copy_folder(&root().join("web"), &dist)?;
    copy_folder(&staged, &dist)?;
    copy_folder(&root().join("assets/weights"), &dist.join("weights"))?;
    for (from, to) in VENDORED {
        let to = dist.join(to);
        fs::create_dir_all(to.parent().expect("inside dist"))?;
        let from = root().join("web/node_modules").join(from);
        fs::copy(&from, to).with_context(|| from.display().to_string())?;
    }
    check_addresses(&dist)?;
    if mode == Mode::Release {
        print_sizes(&dist)?;
    }
    println!("dist/ is ready");
    Ok(())
}

/// wasm-bindgen's two halves speak a private protocol that changes with every version.
fn check_bindgen_version() -> Result<()> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let version = |name: &str| -> Option<String> {
        let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"\n")))?;
        Some(entry.split("version = \"").nth(1)?.split('"').next()?.to_string())
    };
    let (library, step) = (version("wasm-bindgen"), version("wasm-bindgen-cli-support"));
    if library != step {
        bail!(
            "wasm-bindgen is {} and wasm-bindgen-cli-support is {} in Cargo.lock; they must be equal: \
             change the version in xtask/Cargo.toml, then run `cargo update -p wasm-bindgen-cli-support`",
            library.unwrap_or_default(),
            step.unwrap_or_default(),
        );
    }
    Ok(())
}

/// Where cargo builds.
pub fn target_folder() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

/// Runs wasm-opt with the features that rustc emits for this target.
fn optimise(wasm: &Path) -> Result<()> {
    let start = Instant::now();
    let optimised = wasm.with_extension("opt");
    run(toolchain::node_command()?
        .arg("web/node_modules/binaryen/bin/wasm-opt")
        .arg("-O3")
        .args(["--enable-simd", "--enable-bulk-memory", "--enable-bulk-memory-opt"])
        .args(["--enable-nontrapping-float-to-int", "--enable-sign-ext", "--enable-mutable-globals"])
        .args(["--enable-reference-types", "--enable-multivalue"])
        .arg(wasm)
        .arg("-o")
        .arg(&optimised))?;
    fs::rename(&optimised, wasm)?;
    println!("wasm-opt ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}

/// `dist/` must work from any sub-path and ask no other host for anything, so pages hold relative addresses only.
fn check_addresses(dist: &Path) -> Result<()> {
    for file in files(dist)? {
        if file.extension().is_none_or(|extension| extension != "html") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        if let Some(address) =
            loaded_addresses(&text).find(|address| address.starts_with('/') || address.contains("//"))
        {
            bail!("{} loads `{address}`: only relative addresses work from any sub-path", file.display());
        }
    }
    Ok(())
}

/// What a page loads: `src` of anything and `href` of `<link>`. Links that a reader follows may lead anywhere.
fn loaded_addresses(html: &str) -> impl Iterator<Item = &str> {
    html.split('<').skip(1).flat_map(|tag| {
        let attributes = tag.split('>').next().unwrap_or("");
        let names: &[&str] = if tag.starts_with("link") { &[" src=\"", " href=\""] } else { &[" src=\""] };
        names.iter().filter_map(move |name| attributes.split(name).nth(1)?.split('"').next())
    })
}

fn print_sizes(dist: &Path) -> Result<()> {
    let files = files(dist)?;
    let script = "const fs=require('fs'),z=require('zlib');for(const f of process.argv.slice(1)){\
                  const b=fs.readFileSync(f);console.log(b.length,z.brotliCompressSync(b).length)}";
    let text = output(toolchain::node_command()?.args(["-e", script]).args(&files))?;
    let (mut raw_total, mut packed_total) = (0, 0);
    println!("{:>10} {:>10}  file", "raw", "brotli");
    for (file, line) in files.iter().zip(text.lines()) {
        let (raw, packed) = line.split_once(' ').context("node's sizes")?;
        let (raw, packed): (u64, u64) = (raw.parse()?, packed.parse()?);
        let name = file.strip_prefix(dist)?.to_string_lossy().replace('\\', "/");
        let later = LATER.iter().any(|start| name.starts_with(start));
        println!("{raw:>10} {packed:>10}  {name}{}", if later { " (later)" } else { "" });
        if !later {
            raw_total += raw;
            packed_total += packed;
        }
    }
    println!("{raw_total:>10} {packed_total:>10}  the first view (budget {BUDGET_BYTES} with brotli)");
    if packed_total > BUDGET_BYTES {
        bail!("the first view takes {packed_total} bytes with brotli, over the budget of {BUDGET_BYTES}");
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())?.flatten() {
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to.join(name))?;
        } else {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::loaded_addresses;

    #[test]
    fn loaded_addresses_leave_out_links_to_follow() {
        let html = r#"<link rel="stylesheet" href="./style.css"><a href="https://arxiv.org/">paper</a>
                      <script type="module" src="/main.js"></script>"#;
        assert_eq!(loaded_addresses(html).collect::<Vec<_>>(), ["./style.css", "/main.js"]);
    }
}
