//! Development commands of Attention Lab: `cargo xtask serve | build | test | bench`.
//!
//! Every command installs what the machine lacks, says so, and is quick when nothing is missing.

mod checks;
mod process;
mod serve;
mod steps;
mod tidy;
mod toolchain;
mod wasm32;
mod web;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  serve [--port N] [--release] [--no-build]   build the page and serve it; the address is printed last
  build [--debug]                             make dist/, which any static server can serve from any path
  test [STEP...] [--keep-going] [--list]      run the checks, all or only the named ones
  bench [OPTION...]                           time the variants natively; options go to `attention-lab bench`
  pictures [FOLDER]                           screenshots of the built page, by default into target/pictures
  setup                                       only install what the commands above need
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else {
        bail!("no command given\n\n{USAGE}");
    };
    match command.as_str() {
        "serve" => {
            let mut options = Options::new(rest);
            let port = options.value("--port")?;
            let release = options.flag("--release");
            let built = options.flag("--no-build");
            options.finish(0)?;
            if !built {
                web::build(if release { web::Mode::Release } else { web::Mode::Debug })?;
            }
            serve::serve(&web::dist(), port)
        }
        "build" => {
            let mut options = Options::new(rest);
            let debug = options.flag("--debug");
            options.finish(0)?;
            web::build(if debug { web::Mode::Debug } else { web::Mode::Release })
        }
        "test" => {
            let mut options = Options::new(rest);
            let keep_going = options.flag("--keep-going");
            let list = options.flag("--list");
            let steps = options.finish(usize::MAX)?;
            if list { checks::list() } else { checks::run_named(&steps, keep_going) }
        }
        "bench" => steps::bench(rest),
        "pictures" => {
            let folders = Options::new(rest).finish(1)?;
            let folder = folders.first().map_or_else(|| process::root().join("target/pictures"), Into::into);
            steps::pictures(&folder)
        }
        "setup" => toolchain::ensure(toolchain::Need::ALL),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command `{other}`\n\n{USAGE}"),
    }
}

/// Options of one command, taken out one by one; whatever is left is positional or unknown.
struct Options(Vec<String>);

impl Options {
    fn new(args: &[String]) -> Self {
        Self(args.to_vec())
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|arg| arg != name);
        self.0.len() != before
    }

    /// Takes `--name VALUE` or `--name=VALUE`.
    fn value<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(at) = self.0.iter().position(|arg| arg.split('=').next() == Some(name)) else {
            return Ok(None);
        };
        let arg = self.0.remove(at);
        let text = match arg.split_once('=') {
            Some((_, value)) => value.to_string(),
            None if at < self.0.len() => self.0.remove(at),
            None => bail!("{name} needs a value"),
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("{name} does not take `{text}`"),
        }
    }

    fn finish(self, positional: usize) -> Result<Vec<String>> {
        if let Some(unknown) = self.0.iter().find(|arg| arg.starts_with('-')) {
            bail!("unknown option `{unknown}`\n\n{USAGE}");
        }
        if self.0.len() > positional {
            bail!("`{}` is one argument too many\n\n{USAGE}", self.0[positional]);
        }
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn options(args: &[&str]) -> Options {
        Options(args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn options_take_both_spellings_of_a_value() {
        assert_eq!(options(&["--port", "81"]).value("--port").unwrap(), Some(81_u16));
        assert_eq!(options(&["--port=82"]).value("--port").unwrap(), Some(82_u16));
        assert_eq!(options(&[]).value::<u16>("--port").unwrap(), None);
        assert!(options(&["--port"]).value::<u16>("--port").is_err());
        assert!(options(&["--port", "many"]).value::<u16>("--port").is_err());
    }

    #[test]
    fn options_refuse_what_they_do_not_know() {
        let mut some = options(&["--list", "web"]);
        assert!(some.flag("--list"));
        assert!(!some.flag("--keep-going"));
        assert_eq!(some.finish(1).unwrap(), ["web"]);
        assert!(options(&["--quick"]).finish(1).is_err());
        assert!(options(&["web", "doc"]).finish(1).is_err());
    }
}
