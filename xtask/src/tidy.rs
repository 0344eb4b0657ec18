//! Hygiene of the tracked files: nothing that only holds on one machine, and no file that grew too long unseen.

use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::process::{command, output, root};

/// This file has to name what it looks for.
const SELF: &str = "xtask/src/tidy.rs";

/// Folders of somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/Users/", "C:\\Users"];

/// Where packages come from is the business of each machine's package client.
const REGISTRY_HOSTS: &[&str] = &[
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "index.crates.io",
    "static.crates.io",
    "deb.debian.org",
    "files.pythonhosted.org",
];

/// At this length, look for a second subject in a source file.
const LONG_LINES: usize = 400;

/// Fails on the first kind of finding, after listing all; long files are only listed.
pub fn check() -> Result<()> {
    let here = root().to_string_lossy().into_owned();
    let home = env::var("HOME").unwrap_or_default();
    let mut findings = Vec::new();
    for name in tracked_files()? {
        // Binary files and files deleted in the working tree have no lines to look at.
        let Ok(text) = fs::read_to_string(root().join(&name)) else {
            continue;
        };
        if name == SELF {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(found) = finding(&name, line, &[&here, &home]) {
                findings.push(format!("{name}:{}: {found}", number + 1));
            }
        }
        let source = [".rs", ".wesl", ".js", ".mjs", ".css"].iter().any(|end| name.ends_with(end));
        let lines = text.lines().count();
        if source && lines > LONG_LINES {
            println!("note: {name} has {lines} lines; look for a second subject");
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} lines name what only holds on one machine:\n{}", findings.len(), findings.join("\n"));
}

/// Tracked files, relative to the root.
fn tracked_files() -> Result<Vec<String>> {
    let text = output(command("git").args(["ls-files", "-z"])).context("git is needed to list the files")?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(String::from).collect())
}

fn finding(file: &str, line: &str, local: &[&str]) -> Option<String> {
    // With its final slash; and a folder right below the root, such as `/build`, is found in many a relative path.
    let deep = |path: &&str| path.matches('/').count() > 1 || *path == "/root";
    let local = local.iter().copied().filter(deep).map(|path| format!("{path}/"));
    let known = MACHINE_PATHS.iter().map(|path| path.to_string());
    if let Some(path) = local.chain(known).find(|path| line.contains(path)) {
        return Some(format!("the machine path {path}"));
    }
    if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(*host)) {
        return Some(format!("the registry host {host}"));
    }
    (file.ends_with("package-lock.json") && line.contains("\"resolved\": \"http"))
        .then(|| "a recorded download address".into())
}

#[cfg(test)]
mod tests {
    use super::finding;

    #[test]
    fn finding_names_paths_hosts_and_recorded_addresses() {
        assert!(finding("README.md", "see /home/me/lab", &[]).is_some());
        assert!(finding("README.md", "see /srv/lab/x", &["/srv/lab"]).is_some());
        assert!(finding("README.md", "everything below /", &["/"]).is_none());
        assert!(finding("README.md", "see shaders/build.rs and shaders/build/link.rs", &["/build"]).is_none());
        assert!(finding(".npmrc", "//registry.npmjs.org", &[]).is_some());
        let lock = "      \"resolved\": \"https://mirror.example/d3.tgz\",";
        assert!(finding("web/package-lock.json", lock, &[]).is_some());
        assert!(finding("README.md", "https://docs.rs/wgpu and /usr/bin/chromium", &[]).is_none());
    }
}
