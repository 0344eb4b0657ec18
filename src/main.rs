//! The command line, see `src/cli/`.

#[cfg(not(target_arch = "wasm32"))]
mod cli;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    cli::main()
}

/// In a browser the library's own entry points serve.
#[cfg(target_arch = "wasm32")]
fn main() {}
