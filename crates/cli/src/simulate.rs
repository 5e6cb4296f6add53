//! `tessera simulate`: see `tessera_bench::simulate`.

use crate::flags::{count, json_flag, list, nonzero, number, policies, policy_flag, publish, text, words};
use crate::load_test::{pattern_flags, patterns, tenants};
use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::arrivals::Trace;
use tessera_bench::simulate::{self, AsRan, Costs, Load, Options, Report};
use tessera_core::PlanKey;

pub(crate) fn command() -> Command {
    Command::new("simulate")
        .about("The scheduler in virtual time, on a device that takes as long as was measured: the columns of load-test, by policy")
        .arg(Arg::new("trace").value_name("TRACE").value_parser(value_parser!(PathBuf)).help(
            "A file of `seconds,tenant` lines; without one, arrivals are drawn as --request-rate and the flags after it say",
        ))
        .args(pattern_flags())
        .args([
            number("tenants", "100").help("How many tenants, where there is no trace"),
            number("seconds", "60").help("How long requests come, where there is no trace; a day is 86400"),
            list(text("model", "NAME", "resnet-50")).help(
                "Models of the table of costs; tenants have them in turn",
            ),
            text("costs", "h100|FILE", "h100").help("What launches take: the table that is shipped, or a file like it"),
            policy_flag(),
            number("max-lanes", "32").help("Most tenants in one launch"),
            number("max-items", "128").help("Most items in one launch"),
            json_flag(),
        ])
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let costs = given.get_one::<String>("costs").map_or("h100", String::as_str);
    let costs = Costs::read(costs)?;
    let plans: Vec<PlanKey> = words(given, "model").map(|name| costs.plan(name)).collect::<Result<_>>()?;
    let trace = given.get_one::<PathBuf>("trace").map(|path| Trace::read(path)).transpose()?;
    let length = Duration::from_secs(count(given, "seconds").into());
    let (names, loads) = match trace {
        Some(trace) => {
            ensure!(!given.contains_id("request-rate"), "a trace has its own rate; leave --request-rate out");
            let length = trace.length();
            (trace.tenants, vec![Load::Trace(trace.arrivals.into(), length)])
        }
        None => {
            let many = count(given, "tenants") as usize;
            let levels = patterns(given, many, length)?.into_iter();
            let names = (0..many).map(|number| format!("tenant-{number}")).collect();
            (names, levels.map(|(rate, pattern)| Load::Drawn { pattern, rate, length }).collect())
        }
    };
    let tenants: Vec<_> = tenants(given, names)?.into_iter().zip(plans.into_iter().cycle()).collect();
    let policies = policies(given)?;
    let (max_lanes, max_items) = (nonzero(given, "max-lanes")?, nonzero(given, "max-items")?);
    let mut report: Option<Report> = None;
    for load in loads {
        let options = Options {
            costs: costs.clone(),
            tenants: tenants.clone(),
            groups: Vec::new(),
            policies: policies.clone(),
            load,
            warmup: Duration::ZERO,
            max_lanes,
            max_items,
            as_ran: AsRan::default(),
        };
        let level = simulate::run(&options, &mut |line| eprintln!("{line}"))?;
        match &mut report {
            None => report = Some(level),
            Some(report) => report.policies.extend(level.policies),
        }
    }
    let report = report.context("name a TRACE, or a rate with --request-rate")?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
