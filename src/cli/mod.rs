//! The command line: options, exit codes, and what every command prints with.

mod attend;
mod backend;
mod bench;
mod describe;
mod failure;
mod list;
mod output;
mod tensors;
mod train;

pub use failure::Failure;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Attention variants that run, are measured and are compared on this machine.
#[derive(Debug, Parser)]
#[command(name = "attention-lab", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Variants, techniques, tasks and adapters
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Everything about one variant: parameters, tensors it reads, cost, paper
    Describe {
        /// Id of the variant, as `list` names it
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a variant on tensors from a file
    Attend(attend::Arguments),
    /// Time and memory of variants over lengths
    Bench(bench::Arguments),
    /// Train a small transformer on a task
    Train(train::Arguments),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // A run that is interrupted leaves no half-written file: results are written beside their place and moved there.
    let interrupted = ctrlc::set_handler(|| std::process::exit(i32::from(Failure::Cancelled.code())));
    if let Err(error) = interrupted {
        eprintln!("warning: interruption will not be reported: {error}");
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Printing help can only fail when nobody listens.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match arguments.command {
        Command::List { json } => list::run(json),
        Command::Describe { id, json } => describe::run(&id, json),
        Command::Attend(arguments) => attend::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
