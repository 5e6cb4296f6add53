//! What the front end costs: the whole server around the smallest model, beside a bare axum handler.
//!
//! ```text
//!   core A: server ◀──HTTP/1.1, keep-alive, JSON──▶ core B: clients, one request at a time each
//!           bare:    parse ─ add ─ write
//!           tessera: parse ─ admission ─ queue ─ launch ─ engine ─ CPU device ─ write
//! ```
//! The model adds 16 floats, so all that is measured is what stands around it. Both servers run as processes of their own, pinned to
//! one core with every thread they have, and take turns: a round of one, a round of the other, so that a busy machine
//! is busy for both. A ratio is taken per pair of rounds; the table shows medians, and least to most of the rounds. `CPU µs` is what the
//! server's threads ran for one request: where other programs want the same core it is the fairer figure, as these give
//! more of it to a server of several threads.
//!
//! `cargo bench -p tessera-bench --bench front_end -- --rounds 9 --seconds 2`
//!
//! Threads inherit their core on Linux; elsewhere the system moves the server's threads as it likes.

mod client;
mod servers;

use anyhow::{Context, Result, bail, ensure};
use servers::{Kind, Process};
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::latency::Latencies;

/// How many clients ask at once, in each of the table's parts.
const CLIENTS: [usize; 2] = [16, 1];

struct Options {
    rounds: usize,
    length: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [servers::SERVE, kind] => servers::serve(kind),
        _ => options(&arguments).and_then(|options| measure(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("front_end: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { rounds: 9, length: Duration::from_secs(2) };
    // Cargo says `--bench` to every bench.
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<u32>().ok()).filter(|&value| value > 0);
        let value = value.with_context(|| format!("`{word}` takes a number of at least 1"))?;
        match word.as_str() {
            "--rounds" => options.rounds = value as usize,
            "--seconds" => options.length = Duration::from_secs(value.into()),
            _ => bail!("`{word}` is not known; there are --rounds N and --seconds N"),
        }
    }
    Ok(options)
}

/// One round of one server.
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

fn measure(options: &Options) -> Result<()> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let [server_core, client_core, ..] = cores[..] else {
        bail!("two cores are needed, one for the servers and one for the clients; {} found", cores.len());
    };
    let servers = [Kind::Bare, Kind::Tessera].map(|kind| Process::start(kind, server_core.id));
    let [bare, tessera] = servers;
    let servers = [bare?, tessera?];
    core_affinity::set_for_current(client_core);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!(
        "16-float Add, HTTP/1.1 keep-alive, JSON; servers on core {}, clients on core {}, {} rounds of {} s each\n",
        server_core.id,
        client_core.id,
        options.rounds,
        options.length.as_secs()
    );
    for server in &servers {
        runtime.block_on(client::wait_until_ready(server.address, server.kind))?;
    }
    println!(
        "{:<8} {:<8} {:>24} {:>18} {:>20} {:>18}",
        "clients", "server", "requests/s", "p50 µs", "p99 µs", "CPU µs"
    );
    for clients in CLIENTS {
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        // The first pair warms up: branch predictors, costs learnt, buffers grown.
        for round in 0..=options.rounds {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                let before = server.cpu_time();
                let run = client::run(server.address, server.kind, clients, options.length);
                let latencies = runtime.block_on(run)?;
                let cpu = server.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
                if round > 0 {
                    rounds.push(Round::of(&latencies, options.length, cpu.unwrap_or_default()));
                }
            }
        }
        show(clients, &rounds)?;
    }
    Ok(())
}

impl Round {
    fn of(latencies: &Latencies, length: Duration, cpu: Duration) -> Round {
        let us = |percent| latencies.percentile(percent).as_secs_f64() * 1e6;
        Round {
            per_second: latencies.count() as f64 / length.as_secs_f64(),
            p50_us: us(50.0),
            p99_us: us(99.0),
            cpu_us: cpu.as_secs_f64() * 1e6 / latencies.count().max(1) as f64,
        }
    }
}

fn show(clients: usize, [bare, tessera]: &[Vec<Round>; 2]) -> Result<()> {
    ensure!(!bare.is_empty(), "no rounds were run");
    for (kind, rounds) in [(Kind::Bare, bare), (Kind::Tessera, tessera)] {
        let spread = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        println!(
            "{clients:<8} {:<8} {:>24} {:>18} {:>20} {:>18}",
            kind.name(),
            spread(|round| round.per_second).shown(0),
            spread(|round| round.p50_us).shown(0),
            spread(|round| round.p99_us).shown(0),
            spread(|round| round.cpu_us).shown(1)
        );
    }
    let pairs = || tessera.iter().zip(bare);
    let rates = Spread::of(pairs().map(|(tessera, bare)| tessera.per_second / bare.per_second));
    // Turned round, so that more is better here, too.
    let cpu = Spread::of(pairs().map(|(tessera, bare)| bare.cpu_us / tessera.cpu_us));
    println!("{clients:<8} {:<8} {:>24} {:>58}\n", "ratio", rates.shown(2), cpu.shown(2));
    Ok(())
}

/// The middle of some figures, and their ends.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let [least, .., most] = sorted[..] else {
            let only = sorted.first().copied().unwrap_or_default();
            return Spread { least: only, median: only, most: only };
        };
        Spread { least, median: sorted[sorted.len() / 2], most }
    }

    fn shown(&self, digits: usize) -> String {
        let Spread { least, median, most } = self;
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}
