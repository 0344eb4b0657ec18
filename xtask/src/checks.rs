//! The checks of `cargo xtask test`, in order, each of which can be run alone by its name.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::steps;
use crate::toolchain::{self, Need};

struct Step {
    name: &'static str,
    about: &'static str,
    needs: &'static [Need],
    /// Returns how many tests passed; 0 for a check that is not a test runner.
    run: fn() -> Result<u64>,
}

const STEPS: &[Step] = &[
    Step { name: "tidy", about: "no machine path or registry host in a tracked file", needs: &[], run: steps::tidy },
    Step { name: "fmt", about: "formatting", needs: &[], run: steps::fmt },
    Step { name: "clippy", about: "lints, native, all targets", needs: &[], run: steps::clippy },
    Step { name: "clippy-wasm", about: "lints, wasm32", needs: &[Need::WasmTarget], run: steps::clippy_wasm },
    Step {
        name: "native",
        about: "all native tests, GPU ones on lavapipe",
        needs: &[Need::Lavapipe],
        run: steps::native,
    },
    Step {
        name: "pieces",
        about: "kernel tests with every dispatch cut into pieces",
        needs: &[Need::Lavapipe],
        run: steps::native_pieces,
    },
    Step {
        name: "swiftshader",
        about: "native GPU tests (tests/*.rs) on SwiftShader",
        needs: &[Need::SwiftShader],
        run: steps::native_swiftshader,
    },
    Step { name: "doc", about: "documentation, warnings denied", needs: &[], run: steps::doc },
    Step {
        name: "web",
        about: "release build of the page",
        needs: &[Need::WasmTarget, Need::WebPackages],
        run: steps::web_build,
    },
    Step {
        name: "browser",
        about: "browser tests of the built page",
        needs: &[Need::Browser, Need::BrowserPackages],
        run: steps::browser,
    },
    Step { name: "bench", about: "a short bench that only prints", needs: &[Need::Lavapipe], run: steps::short_bench },
];

/// Prints the names of the steps.
pub fn list() -> Result<()> {
    for step in STEPS {
        println!("{:<12} {}", step.name, step.about);
    }
    Ok(())
}

/// Runs the named steps, or all of them, in the order of the table.
pub fn run_named(names: &[String], keep_going: bool) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step is called `{unknown}`; there are: {}", known.join(", "));
    }
    let steps: Vec<&Step> =
        STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect();

    // What is missing is fetched first: a lack should not show after twenty minutes.
    let needs: Vec<Need> =
        Need::ALL.iter().copied().filter(|need| steps.iter().any(|step| step.needs.contains(need))).collect();
    let start = Instant::now();
    toolchain::ensure(&needs)?;
    let mut report = vec![("setup", start.elapsed(), true)];
    let (mut passed, mut failed) = (0, Vec::new());
    for (index, step) in steps.iter().enumerate() {
        println!("\n==> [{}/{}] {}: {}", index + 1, steps.len(), step.name, step.about);
        let start = Instant::now();
        let result = (step.run)();
        let took = start.elapsed();
        report.push((step.name, took, result.is_ok()));
        match result {
            Ok(tests) => {
                passed += tests;
                println!("<== {} passed in {}", step.name, seconds(took));
            }
            Err(error) => {
                eprintln!("<== {} FAILED after {}: {error:#}", step.name, seconds(took));
                eprintln!("    rerun it alone: cargo xtask test {}", step.name);
                failed.push(step.name);
                if !keep_going {
                    break;
                }
            }
        }
    }

    println!("\n{:<12} {:>9}", "step", "time");
    for (name, took, ok) in &report {
        println!("{name:<12} {:>9}{}", seconds(*took), if *ok { "" } else { "  FAILED" });
    }
    let total: Duration = report.iter().map(|(_, took, _)| *took).sum();
    println!("{:<12} {:>9}", "total", seconds(total));
    // Steps that are not test runners count as one test each, so that the line says something for any choice of steps.
    println!("{} passed, {} failed", passed.max(steps.len() as u64 - failed.len() as u64), failed.len());
    match failed.first() {
        None => Ok(()),
        Some(_) => bail!("failed: {}", failed.join(", ")),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
