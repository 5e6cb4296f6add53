//! `tessera bench processes`, and the worker that it starts: see `tessera_bench::tenants::processes`.

use crate::bench::{load_flags, options};
use crate::flags::{json_flag, list, publish, text, words};
use anyhow::{Context, Result};
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use tessera_bench::tenants::Options;
use tessera_bench::tenants::processes::{self, Processes, Sharing};
use tessera_core::Policy;

/// Flags that a worker is given as the parent was.
const PASSED_ON: [&str; 9] =
    ["model", "device", "precision", "items", "seconds", "in-flight", "width", "image-size", "tokens"];

pub(crate) fn commands() -> [Command; 2] {
    [
        Command::new("processes")
            .about("A process per tenant, without a server: the card in turns, or side by side through the driver's MPS")
            .arg(
                list(text("how", "HOW", "time-slicing,mps"))
                    .help("time-slicing, mps (its service is started and stopped), or both"),
            )
            .args(load_flags())
            .arg(json_flag()),
        Command::new("worker").hide(true).about("One process of `tessera bench processes`").args(load_flags()),
    ]
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let options = options(given, vec![Policy::Time])?;
    let arguments = |number: usize| {
        let mut arguments: Vec<OsString> = ["bench", "worker", "--tenants", "1"].map(OsString::from).to_vec();
        for name in PASSED_ON {
            if let Some(value) = given.get_raw(name).and_then(|mut values| values.next()) {
                arguments.extend([OsString::from(format!("--{name}")), value.to_owned()]);
            }
        }
        let seed = options.seed.wrapping_add(number as u64);
        arguments.extend([OsString::from("--seed"), OsString::from(seed.to_string())]);
        arguments
    };
    let ways = words(given, "how");
    let ways: Vec<Sharing> =
        ways.map(|how| how.parse()).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let mut all = All(Vec::new());
    let mut failed = None;
    for how in ways {
        eprintln!("starting {} processes, {how}", options.tenants);
        match processes::run(how, options.tenants, &program, arguments) {
            Ok(done) => all.0.push(done),
            Err(why) => failed = Some(why.context(how.to_string())),
        }
    }
    // What was measured is kept, whatever else failed.
    publish(given, &all, serde_json::to_string_pretty(&all.0)?)?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

pub(crate) fn work(given: &ArgMatches) -> Result<ExitCode> {
    let options: Options = options(given, vec![Policy::Time])?;
    processes::work(&options, &mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// One line each.
struct All(Vec<Processes>);

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|processes| writeln!(f, "{processes}"))
    }
}
