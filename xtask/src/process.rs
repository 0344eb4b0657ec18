//! Running other programs: where, how often, and what their output said about tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// The folder of the workspace's Cargo.toml.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// A command that runs in the workspace root.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this program, so that a `+toolchain` given on the command line holds.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The commit of the working tree, with `-dirty` if it was changed since; results carry it.
pub fn commit() -> String {
    let described = output(command("git").args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]));
    described.map_or_else(|_| "unknown".into(), |text| text.trim().to_string())
}

/// Runs a command to its end; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", text(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", text(command));
    }
    Ok(())
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("cannot start {}", text(command)))?;
    if !out.status.success() {
        bail!("{} ended with {}\n{}", text(command), out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a step that uses the network, up to three times: registries fail for a moment now and then.
pub fn run_retrying(make: impl Fn() -> Command) -> Result<()> {
    let mut attempt = 1;
    loop {
        match run(&mut make()) {
            Ok(()) => return Ok(()),
            Err(error) if attempt < 3 => {
                eprintln!("  {error:#}; trying again");
                thread::sleep(std::time::Duration::from_secs(3 * attempt));
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Runs a test runner, passes its output on as it comes, and returns how many tests it says passed.
pub fn run_counting(command: &mut Command) -> Result<u64> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", text(command)))?;
    let stdout = child.stdout.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    let errors = thread::spawn(move || pass_on(stderr, std::io::stderr()));
    let passed = pass_on(stdout, std::io::stdout()) + errors.join().expect("the copying thread does not panic");
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", text(command));
    }
    Ok(passed)
}

fn pass_on(from: impl Read, mut to: impl Write) -> u64 {
    let mut passed = 0;
    for line in BufReader::new(from).split(b'\n').map_while(|line| line.ok()) {
        // A reader that went away must not stop the tests.
        let _ = to.write_all(&line).and_then(|()| to.write_all(b"\n"));
        passed += passed_in(&String::from_utf8_lossy(&line));
    }
    passed
}

/// The number of passed tests in a runner's closing line (libtest, nextest, Playwright); 0 for any other line.
fn passed_in(line: &str) -> u64 {
    let line = line.trim();
    let words: Vec<&str> = line.split_whitespace().collect();
    let closing = line.starts_with("test result:")
        || line.starts_with("Summary [")
        || (words.len() >= 2 && words[1] == "passed" && words.get(2).is_none_or(|word| word.starts_with('(')));
    if !closing {
        return 0;
    }
    let at = words.iter().position(|word| word.trim_end_matches([',', ';']) == "passed");
    at.and_then(|at| words[..at].last()?.parse().ok()).unwrap_or(0)
}

fn text(command: &Command) -> String {
    let mut text = format!("`{}", Path::new(command.get_program()).display());
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text.push('`');
    text
}

#[cfg(test)]
mod tests {
    use super::passed_in;

    #[test]
    fn closing_lines_of_each_runner_are_counted() {
        assert_eq!(passed_in("test result: ok. 12 passed; 0 failed; 0 ignored"), 12);
        assert_eq!(passed_in("     Summary [   1.234s] 7 tests run: 7 passed, 2 skipped"), 7);
        assert_eq!(passed_in("     Summary [   1.2s] 7 tests run: 7 passed (1 slow), 0 skipped"), 7);
        assert_eq!(passed_in("  3 passed (4.1s)"), 3);
        assert_eq!(passed_in("test attention::linear::forward ... ok"), 0);
        assert_eq!(passed_in("the 4 passed tokens"), 0);
    }
}
