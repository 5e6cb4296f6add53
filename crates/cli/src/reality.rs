//! `tessera bench costs` and `reality`: what launches take here, and whether the simulator knows, see `tessera_bench::simulate`.

use crate::flags::{
    arg, count, file_flag, json_flag, list, nonzero, number, parsed, publish, seed, seed_flag, slo, text,
    words,
};
use crate::print::print;
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::arrivals::{Gaps, Popularity};
use tessera_bench::figures::place::{Setting, Wrapped};
use tessera_bench::figures::reality::{self, Asked};
use tessera_bench::load::Tenant;
use tessera_bench::simulate::{self, Measuring};
use tessera_bench::zoo;
use tessera_core::Policy;

pub(crate) fn commands() -> [Command; 2] {
    let costs = Command::new("costs")
        .about("What launches take on a device, by lanes and items, under the engine at load: a table for `tessera simulate --costs`")
        .args(served_flags())
        .args([
            number("most", "32").help("Most tenants of a model in one launch, which are loaded, and most items"),
            number("milliseconds", "400").help("How long each point is measured"),
            file_flag("out").help("Write the table there [default: standard output]"),
        ]);
    let reality = Command::new("reality")
        .about("The same arrivals to the engine on a device and to the simulator, with costs measured just before: how far they are apart")
        .args(served_flags())
        .args([
            number("tenants", "24").help("How many tenants, of the models in turn"),
            text("slo-ms", "MS", "50").value_parser(value_parser!(f64)).help("What counts as in time"),
            arg("request-rate", "RATE").value_parser(value_parser!(f64)).help(
                "Requests per second [default: what takes 60 % of the device's time one by one]",
            ),
            text("policy", "POLICY", "space-time").help("space-time, time or exclusive"),
            number("seconds", "15").help("How long each kind of arrivals is measured, twice on the device in every round"),
            number("rounds", "1").help("How often, with other arrivals each time; their mean is judged"),
            list(arg("workload", "NAME")).value_parser(reality::WORKLOADS.map(|(name, ..)| name)).help(
                "Which kinds of arrivals [default: all]",
            ),
            json_flag(),
        ]);
    [costs, reality]
}

/// Whose launches, and where.
fn served_flags() -> Vec<Arg> {
    let model = list(arg("model", "ARCH").required(true));
    let flags = [
        model.help("Architectures of `tessera zoo`"),
        text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"),
        text("precision", "PRECISION", "auto").help("fp32, tf32, bf16 or fp16, where the device has it"),
        seed_flag("Decides weights, inputs and arrivals"),
    ];
    flags.into_iter().chain(size_flags()).collect()
}

fn models(given: &ArgMatches) -> Result<Vec<Arc<zoo::Model>>> {
    let sizes = sizes(given);
    words(given, "model").map(|name| Ok(Arc::new(zoo::find(name)?.model(&sizes)?))).collect()
}

fn word(given: &ArgMatches, name: &str) -> String {
    given.get_one::<String>(name).cloned().unwrap_or_default()
}

pub(crate) fn costs(given: &ArgMatches) -> Result<ExitCode> {
    let measuring = Measuring {
        models: models(given)?,
        most: nonzero(given, "most")?,
        device: word(given, "device"),
        precision: word(given, "precision"),
        length: Duration::from_millis(count(given, "milliseconds").into()),
        seed: seed(given),
    };
    let table = simulate::measure(&measuring, &mut |line| eprintln!("{line}"))?;
    match given.get_one::<PathBuf>("out") {
        Some(path) => std::fs::write(path, table.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => print(&table)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn reality(given: &ArgMatches) -> Result<ExitCode> {
    let slo_ms = given.get_one::<f64>("slo-ms").copied().unwrap_or_default();
    let slo = slo(slo_ms)?;
    let tenant = |number| Tenant { name: format!("tenant-{number}"), slo: Some(slo) };
    let setting = Setting {
        models: models(given)?,
        tenants: (0..count(given, "tenants")).map(tenant).collect(),
        groups: Vec::new(),
        popularity: Popularity::Uniform,
        gaps: Gaps::Poisson,
        length: Duration::from_secs(count(given, "seconds").into()),
        device: word(given, "device"),
        precision: word(given, "precision"),
        partitions: "1".to_owned(),
        behind: "off".to_owned(),
        interrupts: true,
        around: Wrapped::Bare,
        seed: seed(given),
    };
    let policy: Policy = parsed(given, "policy")?;
    let rate = given.get_one::<f64>("request-rate").copied();
    let asked = Asked { policy, rate, rounds: nonzero(given, "rounds")? };
    let wanted: Vec<&str> = words(given, "workload").collect();
    let mut workloads = reality::WORKLOADS.to_vec();
    workloads.retain(|(name, ..)| wanted.is_empty() || wanted.contains(name));
    let report = reality::run(setting, asked, &workloads, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
