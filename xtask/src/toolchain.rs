//! What a bare machine lacks, and how it gets it: found if there, installed if possible, named exactly if not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::process::{command, output, root, run_retrying};
use crate::wasm32;

/// Something that a command or a check cannot do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A standard library for `wasm32-unknown-unknown`.
    WasmTarget,
    /// The npm packages of `web/`: charts and wasm-opt.
    WebPackages,
    /// The npm packages of `tests/browser/`: Playwright.
    BrowserPackages,
    /// A Chromium or Chrome, and a font for it to draw with.
    Browser,
    /// Mesa's Vulkan driver for the CPU.
    Lavapipe,
    /// The Vulkan driver for the CPU that ships with Chromium.
    SwiftShader,
}

impl Need {
    pub const ALL: &[Need] =
        &[Need::WasmTarget, Need::Lavapipe, Need::Browser, Need::SwiftShader, Need::WebPackages, Need::BrowserPackages];
}

/// Sees to it that everything in `needs` is there.
pub fn ensure(needs: &[Need]) -> Result<()> {
    for need in needs {
        match need {
            Need::WasmTarget => drop(wasm32::toolchain()?),
            Need::WebPackages => npm_packages("web")?,
            Need::BrowserPackages => npm_packages("tests/browser")?,
            Need::Browser => drop(browser()?),
            Need::Lavapipe => drop(lavapipe()?),
            Need::SwiftShader => drop(swiftshader()?),
        }
    }
    Ok(())
}

// ---- Node and npm packages ----------------------------------------------------------------------------------------

const OLDEST_NODE: u32 = 20;

/// The node program, new enough for Playwright.
fn node() -> Result<PathBuf> {
    let version = |node: &Path| -> Option<u32> {
        let text = output(Command::new(node).arg("--version")).ok()?;
        text.trim().trim_start_matches('v').split('.').next()?.parse().ok()
    };
    if (on_path("node").is_none() || on_path("npm").is_none()) && root_on_debian() {
        debian_packages(&["nodejs", "npm"], "Node.js")?;
    }
    let (Some(node), Some(_)) = (on_path("node"), on_path("npm")) else {
        bail!("Node.js {OLDEST_NODE} or newer with npm is missing: get it from https://nodejs.org");
    };
    match version(&node) {
        Some(found) if found >= OLDEST_NODE => Ok(node),
        found => bail!(
            "Node.js {OLDEST_NODE} or newer is needed, {} is {}: get it from https://nodejs.org",
            node.display(),
            found.map_or("of unknown version".into(), |version| format!("version {version}")),
        ),
    }
}

/// A node command that runs in the workspace root.
pub fn node_command() -> Result<Command> {
    Ok(command(node()?))
}

/// Installs exactly the packages of `folder`'s lock file, unless that was done before.
fn npm_packages(folder: &str) -> Result<()> {
    let path = root().join(folder);
    let lock = fs::read(path.join("package-lock.json")).with_context(|| format!("{folder}/package-lock.json"))?;
    let stamp = path.join("node_modules/.installed-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    node()?;
    say(&format!("the npm packages of {folder}/"), "npm ci");
    run_retrying(|| {
        let mut npm = command(if cfg!(windows) { "npm.cmd" } else { "npm" });
        npm.current_dir(&path)
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
            .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
            .stdin(Stdio::null());
        npm
    })
    .with_context(|| format!("npm could not install the packages of {folder}/package-lock.json"))?;
    Ok(fs::write(stamp, lock)?)
}

// ---- browser and Vulkan drivers -----------------------------------------------------------------------------------

/// Chromium or Chrome: `LAB_CHROMIUM`, or the first one found, or Debian's, installed.
pub fn browser() -> Result<PathBuf> {
    if let Some(given) = env::var_os("LAB_CHROMIUM").map(PathBuf::from) {
        if given.is_file() {
            return Ok(given);
        }
        bail!("LAB_CHROMIUM names {}, which is no file", given.display());
    }
    let find = || {
        let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let app = PathBuf::from("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome");
        names.into_iter().find_map(on_path).or_else(|| app.is_file().then_some(app))
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    if root_on_debian() {
        // Without a font, Chromium draws no text at all.
        debian_packages(&["chromium", "fonts-dejavu-core"], "a browser and a font")?;
    }
    find().context(
        "Chromium or Chrome is missing. On Debian: `apt-get install chromium fonts-dejavu-core`; \
         anywhere: install one and name it in LAB_CHROMIUM",
    )
}

/// The driver manifest of lavapipe; `None` where there is no such driver (macOS, Windows): the tests then use the
/// adapter that there is.
pub fn lavapipe() -> Result<Option<PathBuf>> {
    driver("LAB_LAVAPIPE", "Mesa's lavapipe", &["mesa-vulkan-drivers"], || {
        let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
        let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        files
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd")))
    })
}

/// The driver manifest of the SwiftShader that comes with Chromium; `None` where there is none, as above.
pub fn swiftshader() -> Result<Option<PathBuf>> {
    driver("LAB_SWIFTSHADER", "Chromium's SwiftShader", &["chromium"], || {
        let folders =
            ["/usr/lib/chromium", "/usr/lib64/chromium-browser", "/usr/lib/chromium-browser", "/opt/google/chrome"];
        folders.iter().map(|folder| Path::new(folder).join("vk_swiftshader_icd.json")).find(|path| path.is_file())
    })
}

fn driver(
    variable: &str,
    name: &str,
    packages: &[&str],
    find: impl Fn() -> Option<PathBuf>,
) -> Result<Option<PathBuf>> {
    if let Some(given) = env::var_os(variable).map(PathBuf::from) {
        if given.is_file() {
            return Ok(Some(given));
        }
        bail!("{variable} names {}, which is no file", given.display());
    }
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    if let Some(found) = find() {
        return Ok(Some(found));
    }
    if root_on_debian() {
        debian_packages(packages, name)?;
    }
    match find() {
        Some(found) => Ok(Some(found)),
        None => bail!(
            "the Vulkan driver {name} is missing. On Debian: `apt-get install {}`; anywhere: name its ICD file in {variable}",
            packages.join(" ")
        ),
    }
}

// ---- helpers ------------------------------------------------------------------------------------------------------

pub fn say(what: &str, how: &str) {
    println!("installing {what} ({how})");
}

/// The program of this name in PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(&file)).find(|path| path.is_file())
}

pub fn root_on_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = release.lines().any(|line| line == "ID=debian");
    debian && on_path("apt-get").is_some() && output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

pub fn debian_packages(packages: &[&str], what: &str) -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    say(what, &format!("apt-get install {}", packages.join(" ")));
    let apt = |args: &[&str]| {
        let mut apt = command("apt-get");
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        apt
    };
    if UPDATED.get().is_none() {
        run_retrying(|| apt(&["-qq", "update"]))?;
        let _ = UPDATED.set(());
    }
    run_retrying(|| apt(&[&["-qq", "-y", "--no-install-recommends", "install"], packages].concat()))
}
