//! Rust for wasm32: the target's standard library, from rustup or from Debian, and one way to call cargo with it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::process::{self, command, output, root, run, run_retrying};
use crate::toolchain::{debian_packages, on_path, root_on_debian, say};

pub const TARGET: &str = "wasm32-unknown-unknown";

/// Every WebGPU browser has SIMD, and the CPU path lives from it. One set of flags for every wasm build, so that
/// clippy and the build share what they compiled. LLVM inlines what is small or called once, and little else: that takes
/// more than a twelfth off what a visitor loads, where `opt-level = "s"` would also give up the vectors that the CPU path
/// lives from. Leptos' views without the types of what is in them are a sixteenth less.
const RUSTFLAGS: &str = "-C target-feature=+simd128 -C llvm-args=-inline-threshold=25 --cfg erase_components";

/// Which rustup toolchain compiles for wasm32.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that runs us.
    Current,
    /// Debian's compiler, linked into rustup as `web`. It has no clippy.
    Debian,
}

/// A cargo command that builds for wasm32: `wasm32::cargo("build")?.args(...)`.
pub fn cargo(subcommand: &str) -> Result<Command> {
    let mut cargo = match toolchain()? {
        Toolchain::Current => process::cargo(),
        Toolchain::Debian => {
            let mut rustup = command("rustup");
            rustup.args(["run", "web", "cargo"]).env_remove("RUSTC");
            rustup
        }
    };
    cargo.args([subcommand, "--target", TARGET]).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", RUSTFLAGS);
    Ok(cargo)
}

pub fn toolchain() -> Result<Toolchain> {
    static FOUND: OnceLock<Toolchain> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(*found);
    }
    let found = find_toolchain()?;
    Ok(*FOUND.get_or_init(|| found))
}

fn find_toolchain() -> Result<Toolchain> {
    if has_std(None) {
        return Ok(Toolchain::Current);
    }
    if has_std(Some("web")) {
        return Ok(Toolchain::Debian);
    }
    let has_rustup = on_path("rustup").is_some();
    if has_rustup {
        say("the wasm32 target of Rust", "rustup target add");
        let add = || {
            let mut rustup = command("rustup");
            rustup.args(["target", "add", TARGET]);
            rustup
        };
        match run_retrying(add) {
            Ok(()) if has_std(None) => return Ok(Toolchain::Current),
            Ok(()) => eprintln!("  rustup added it to another toolchain than the one in use"),
            Err(error) => eprintln!("  {error:#}"),
        }
    }
    if has_rustup && root_on_debian() {
        debian_std()?;
        if has_std(Some("web")) {
            return Ok(Toolchain::Debian);
        }
    }
    bail!(
        "Rust's standard library for {TARGET} is missing.\n\
         Get it with `rustup target add {TARGET}` (rustup is at https://rustup.rs)."
    )
}

fn has_std(toolchain: Option<&str>) -> bool {
    let mut rustc = match toolchain {
        None => command("rustc"),
        Some(toolchain) => {
            let mut rustup = command("rustup");
            rustup.args(["run", toolchain, "rustc"]);
            rustup
        }
    };
    let folder = output(rustc.args(["--print", "target-libdir", "--target", TARGET]));
    let Ok(Ok(entries)) = folder.map(|folder| fs::read_dir(folder.trim())) else {
        return false;
    };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Where rustup cannot download a target: Debian's compiler for the web has the sources of its own std, which is built
/// once and put beside it.
fn debian_std() -> Result<()> {
    debian_packages(&["rustc-web", "cargo-web", "rust-web-src", "lld-22"], "Debian's Rust for the web")?;
    println!("building Rust's standard library for {TARGET} (about half a minute, once)");
    let work = root().join("target/wasm-std");
    fs::create_dir_all(work.join("src"))?;
    fs::write(
        work.join("Cargo.toml"),
        "[package]\nname = \"empty-crate\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    )?;
    fs::write(work.join("src/lib.rs"), "")?;
    run(Command::new("/usr/bin/cargo")
        .current_dir(&work)
        .args(["build", "--release", "-Zbuild-std=std,panic_abort,test", "--target", TARGET])
        .args(["--target-dir", "target"])
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN"))?;
    let library = Path::new("/usr/lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&library)?;
    for entry in fs::read_dir(work.join("target").join(TARGET).join("release/deps"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libempty_crate") {
            fs::copy(entry.path(), library.join(name))?;
        }
    }
    let tools = Path::new("/usr/lib/rustlib/x86_64-unknown-linux-gnu/bin");
    fs::create_dir_all(tools)?;
    let linker = tools.join("rust-lld");
    if !linker.exists() {
        let lld = fs::canonicalize("/usr/lib/llvm-22/bin/lld").context("the package lld-22 has no lld")?;
        symlink(&lld, &linker)?;
    }
    run(command("rustup").args(["toolchain", "link", "web", "/usr"]))
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(to, link)?)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> Result<()> {
    bail!("the Debian path is for Debian")
}
