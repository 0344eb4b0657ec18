//! What each check runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::process::{cargo, commit, root, run, run_counting};
use crate::toolchain::{self, Need};
use crate::{serve, wasm32, web};

pub fn tidy() -> Result<u64> {
    crate::tidy::check().map(|()| 0)
}

pub fn fmt() -> Result<u64> {
    run_step(cargo().args(["fmt", "--all", "--check"]))
}

pub fn clippy() -> Result<u64> {
    run_step(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub fn clippy_wasm() -> Result<u64> {
    if wasm32::toolchain()? == wasm32::Toolchain::Debian {
        println!("Debian's toolchain for the web has no clippy; checking only");
        return run_step(wasm32::cargo("check")?.args(["--package", "attention-lab", "--lib"]));
    }
    run_step(wasm32::cargo("clippy")?.args(["--package", "attention-lab", "--lib", "--", "-D", "warnings"]))
}

fn run_step(command: &mut Command) -> Result<u64> {
    run(command).map(|()| 0)
}

/// What lavapipe's device calls itself.
const LLVMPIPE: &str = "llvmpipe";

/// Everything on lavapipe: it has f16 and timestamps, so nothing is skipped for want of a feature.
pub fn native() -> Result<u64> {
    let driver = toolchain::lavapipe()?;
    let passed = tests(&["--workspace", "--lib", "--bins", "--tests"], LLVMPIPE, driver.as_deref())?;
    run(with_driver(cargo().args(["test", "--doc", "--quiet", "--workspace"]), LLVMPIPE, driver.as_deref()))?;
    Ok(passed)
}

/// The tests that touch a GPU, again on an adapter with another subgroup width, smaller limits and no f16. What needs no adapter was
/// tested with the first one and is left out.
pub fn native_swiftshader() -> Result<u64> {
    match toolchain::swiftshader()? {
        Some(driver) => {
            tests_with(&["--workspace", "--test", "*"], "swiftshader", Some(&driver), &[("LAB_AGAIN", "1")])
        }
        None => {
            println!("there is no SwiftShader for native programs on this system; nothing to run");
            Ok(0)
        }
    }
}

/// Every kernel again with each dispatch cut into many, so that one that forgets to add its origin gives wrong results.
pub fn native_pieces() -> Result<u64> {
    let selection = ["--package", "attention-lab", "--test", "ops", "--test", "matmul", "--test", "attention_ops"];
    tests_with(&selection, LLVMPIPE, toolchain::lavapipe()?.as_deref(), &[("LAB_RATE", "50000")])
}

/// Runs native tests with nextest where it is installed, else with `cargo test`; no test at all is a failure.
fn tests(selection: &[&str], adapter: &str, driver: Option<&Path>) -> Result<u64> {
    tests_with(selection, adapter, driver, &[])
}

fn tests_with(selection: &[&str], adapter: &str, driver: Option<&Path>, vars: &[(&str, &str)]) -> Result<u64> {
    let nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|out| out.status.success());
    let mut command = cargo();
    command.args(if nextest { ["nextest", "run"].as_slice() } else { &["test"] });
    command.arg("--no-fail-fast").args(selection);
    command.envs(vars.iter().copied());
    let passed = run_counting(with_driver(&mut command, adapter, driver))?;
    if passed == 0 {
        bail!("no test was run");
    }
    Ok(passed)
}

/// Lets a native program see one Vulkan driver only, and says which in `LAB_ADAPTER`.
fn with_driver<'a>(command: &'a mut Command, name: &str, driver: Option<&Path>) -> &'a mut Command {
    if let Some(driver) = driver {
        command.env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver).env("LAB_ADAPTER", name);
    }
    if cfg!(target_os = "linux") && env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa's driver complains once per process where this is not set.
        let folder = env::temp_dir().join("attention-lab-runtime");
        if fs::create_dir_all(&folder).is_ok() {
            command.env("XDG_RUNTIME_DIR", folder);
        }
    }
    command
}

pub fn doc() -> Result<u64> {
    run_step(cargo().args(["doc", "--no-deps", "--workspace", "--lib", "--bins"]).env("RUSTDOCFLAGS", "-D warnings"))
}

pub fn web_build() -> Result<u64> {
    web::build(web::Mode::Release).map(|()| 0)
}

/// Playwright on `dist/`, served from a sub-path, where an absolute address in the page would show.
pub fn browser() -> Result<u64> {
    let address = serve::serve_in_background(&built()?, "/some/where/")?;
    let passed = run_counting(
        toolchain::node_command()?
            .current_dir(root().join("tests/browser"))
            .args(["node_modules/@playwright/test/cli.js", "test"])
            .env("LAB_URL", address)
            .env("LAB_CHROMIUM", toolchain::browser()?),
    )?;
    if passed == 0 {
        bail!("no browser test was run");
    }
    Ok(passed)
}

/// Only prints. It runs the binary that the tests were built with, since compiling everything again for release would
/// take longer than all the tests; `cargo xtask bench` does that.
pub fn short_bench() -> Result<u64> {
    let driver = toolchain::lavapipe()?;
    // The whole workspace, as the tests are: another choice of packages has other features, and is compiled anew.
    run(cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    let binary = web::target_folder()?.join("debug").join(format!("attention-lab{}", env::consts::EXE_SUFFIX));
    let mut command = Command::new(binary);
    command.args(["bench", "--backend", "gpu", "--lengths", "256,512"]);
    run_step(with_driver(&mut command, LLVMPIPE, driver.as_deref()))
}

const BENCH: &[&str] = &["--package", "attention-lab", "--bin", "attention-lab", "--", "bench"];

/// Runs `attention-lab bench` on this machine's adapter; where there is no GPU, lavapipe is installed for it.
pub fn bench(options: &[String]) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--release"]).args(BENCH).args(options).env("LAB_COMMIT", commit());
    // The lab prefers its CPU code to a software adapter; here the adapter is what is asked about.
    if !options.iter().any(|option| option.starts_with("--backend")) {
        command.args(["--backend", "gpu"]);
    }
    let has_gpu = ["/dev/dri", "/dev/nvidia0"].iter().any(|device| Path::new(device).exists());
    if cfg!(target_os = "linux") && !has_gpu {
        let driver = toolchain::lavapipe()?;
        with_driver(&mut command, LLVMPIPE, driver.as_deref());
    }
    run(&mut command)
}

/// Takes the pictures that a person looks at, of the page in `dist/`, into `folder`.
pub fn pictures(folder: &Path) -> Result<()> {
    toolchain::ensure(&[Need::Browser, Need::BrowserPackages])?;
    let address = serve::serve_in_background(&built()?, "/")?;
    fs::create_dir_all(folder)?;
    run(toolchain::node_command()?
        .arg("tests/browser/pictures.mjs")
        .arg(fs::canonicalize(folder)?)
        .env("LAB_URL", address)
        .env("LAB_CHROMIUM", toolchain::browser()?))
}

/// The folder of the built page.
fn built() -> Result<PathBuf> {
    let dist = web::dist();
    if !dist.join("index.html").is_file() {
        bail!("dist/ is not built: run `cargo xtask build` first");
    }
    Ok(dist)
}
