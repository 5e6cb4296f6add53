//! The `tessera` binary: a table of commands, glue only.

mod bench;
mod demo;
mod serve;
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
    Entry { spell: zoo::command, run: zoo::run },
    Entry { spell: bench::command, run: bench::run },
];

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
        eprintln!("tessera {name}: {error:#}");
        ExitCode::FAILURE
    })
}
