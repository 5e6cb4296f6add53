//! The `tessera` binary: a table of commands, glue only.

mod bench;
mod beside;
mod demo;
mod figures;
mod flags;
mod inspect;
mod launches;
mod load_test;
mod open_loop;
mod print;
mod processes;
mod products;
mod reality;
mod serve;
mod simulate;
mod zoo;

use anyhow::Result;
use clap::{ArgMatches, Command};
use std::process::ExitCode;

/// One command: how it is spelled, and what runs.
struct Entry {
    spell: fn() -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode>,
}

/// Every command, in the order of `tessera --help`.
const COMMANDS: &[Entry] = &[
    Entry { spell: demo::command, run: demo::run },
    Entry { spell: serve::command, run: serve::run },
    Entry { spell: inspect::command, run: inspect::run },
    Entry { spell: zoo::command, run: zoo::run },
    Entry { spell: load_test::command, run: load_test::run },
    Entry { spell: bench::command, run: bench::run },
    Entry { spell: simulate::command, run: simulate::run },
];

/// What stops a command from doing its work at all, a mistake in its flags included: 1 is left for answers that are a no.
const TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let spelled = COMMANDS.iter().map(|entry| (entry.spell)());
    let matches = Command::new("tessera")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves hundreds of tenants' neural networks from one device, many tenants to a launch")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(spelled)
        .get_matches();
    let (name, given) = matches.subcommand().expect("clap requires a command");
    let entry =
        COMMANDS.iter().find(|entry| (entry.spell)().get_name() == name).expect("clap knows the table");
    (entry.run)(given).unwrap_or_else(|error| {
        eprintln!("tessera {name}: {}", told(&error));
        ExitCode::from(TROUBLE)
    })
}

/// An error with its causes, each said once: some errors of ours have their cause in their own words, some leave it to us.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() || cause.starts_with(&told) {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::told;
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_told_once_however_its_error_tells_it() {
        let cause = || anyhow!("no such file");
        assert_eq!(told(&cause().context("a.onnx: no such file").context("a.onnx")), "a.onnx: no such file");
        assert_eq!(
            told(&cause().context("weight `w`").context("a.onnx")),
            "a.onnx: weight `w`: no such file"
        );
    }
}
