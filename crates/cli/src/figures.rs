//! `tessera bench all`, and the figures that take the same flags: see `tessera_bench::figures`.

use crate::flags::{count, list, number, seed, seed_flag, text, words};
use crate::print::print;
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::figures::all;
use tessera_bench::figures::ask::{Ask, Budget};
use tessera_bench::figures::table::{BENCHES, Bench};

/// `all`, then the figures.
pub(crate) fn commands() -> Vec<Command> {
    let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
    let only = list(text("only", "NAME", "all")).help(format!("Those of {}", names.join(", ")));
    let all = Command::new("all")
        .about("The paper's evaluation and ours: every bench within a time, and one page of HTML about them")
        .arg(only)
        .args(flags("10", true));
    let one = |bench: &Bench| Command::new(bench.name).about(bench.claim.title).args(flags("5", false));
    std::iter::once(all).chain(BENCHES.iter().filter(|bench| bench.flags_of_all).map(one)).collect()
}

fn flags(minutes: &'static str, out_required: bool) -> Vec<Arg> {
    let path = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    let flags = [
        path("out")
            .value_name("DIR")
            .required(out_required)
            .help("Write figures as JSON, rows, SVG and the page there, each as soon as it is done"),
        text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"),
        text("precision", "PRECISION", "fp32")
            .help("fp32, tf32, bf16 or fp16, where precisions are not compared"),
        text("minutes", "N", minutes)
            .value_parser(value_parser!(f64))
            .help("Time for all of it; a part for each"),
        Arg::new("quick").long("quick").action(ArgAction::SetTrue).help(
            "Tiny networks, few tenants, short runs: shows that all of it works; no number means anything",
        ),
        number("rounds", "3").help("How often what is compared runs; the order turns round every time"),
        number("tenants", "500").help("Most tenants that are loaded at once"),
        number("processes", "48").help("Most processes that are started at once"),
        seed_flag("Decides weights, inputs and arrivals"),
    ];
    flags.into_iter().chain(size_flags()).collect()
}

/// Runs `all`, or the figure of that name; `None` where there is none that has these flags.
pub(crate) fn run(name: &str, given: &ArgMatches) -> Option<Result<ExitCode>> {
    let figure = BENCHES.iter().find(|bench| bench.flags_of_all && bench.name == name);
    match (name, figure) {
        ("all", _) => Some(run_all(given)),
        (_, Some(figure)) => Some(run_one(figure, given)),
        (_, None) => None,
    }
}

fn run_all(given: &ArgMatches) -> Result<ExitCode> {
    let out = given.get_one::<PathBuf>("out").context("clap requires a folder")?;
    let only: Vec<&str> = words(given, "only").collect();
    for name in &only {
        let known = *name == "all" || BENCHES.iter().any(|bench| bench.name == *name);
        let all = || BENCHES.iter().map(|bench| bench.name).collect::<Vec<_>>().join(", ");
        ensure!(known, "there is no bench `{name}` in the report; choose of {}", all());
    }
    let wanted = |bench: &Bench| only.iter().any(|name| *name == "all" || *name == bench.name);
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("tessera {}", typed.join(" "));
    let report = all::run(&ask(given)?, &command, out, &wanted, &mut |line| eprintln!("{line}"))?;
    print(&format_args!("{report}{}\n", out.join("report.html").display()))?;
    Ok(if report.failures().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_one(figure: &Bench, given: &ArgMatches) -> Result<ExitCode> {
    let ask = ask(given)?;
    if let Some(why) = (figure.cannot)(&ask) {
        anyhow::bail!("{}: {why}", figure.name);
    }
    let out = given.get_one::<PathBuf>("out");
    if let Some(out) = out {
        // Before anything is measured for it.
        std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    }
    let made = (figure.run)(&ask, &mut |line| eprintln!("{line}"))?;
    out.map_or(Ok(()), |out| made.write(out))?;
    print(&made)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(given: &ArgMatches) -> Result<Ask> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| count(given, name) as usize;
    let minutes = given.get_one::<f64>("minutes").copied().unwrap_or_default();
    let length = Duration::try_from_secs_f64(60.0 * minutes).ok().filter(|length| !length.is_zero());
    let length = length.with_context(|| format!("{minutes} minutes: give more than none"))?;
    let quick = given.get_flag("quick");
    Ok(Ask {
        device: Ask::device_named(word("device"))?,
        precision: word("precision").parse().map_err(anyhow::Error::msg)?,
        quick,
        sizes: sizes(given),
        processes: number("processes"),
        tenants: number("tenants"),
        rounds: if quick { 1 } else { number("rounds") },
        seed: seed(given),
        program: std::env::current_exe().context("cannot find this program to start it again")?,
        budget: Budget::of(length),
    })
}
