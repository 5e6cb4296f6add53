//! A process per tenant: what people do who have no server for many models, and the other half of the paper's baselines.
//!
//! ```text
//!   parent ─spawn─▶ worker 0 … worker N−1     each loads its tenant and says `ready`
//!          ── go ─▶ all of them               closed loops of one length          rate: all inferences over the longest time
//! ```
//! With `time-slicing` the driver gives the card to one process after the other. With `mps` its multi-process service runs their kernels side by
//! side; the service is started here, for these processes alone, and stopped again. On a CPU the system divides the cores, and only
//! `time-slicing` means something.

use super::{Limits, Options, closed_loop, settings, stage::Stage};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use tempfile::TempDir;
use tessera_core::Policy;
use tessera_server::devices;

/// How processes come to the card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// In turns.
    TimeSlicing,
    /// Side by side, through the driver's multi-process service.
    Mps,
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(word: &str) -> Result<Sharing, String> {
        match word {
            "time-slicing" => Ok(Sharing::TimeSlicing),
            "mps" => Ok(Sharing::Mps),
            _ => Err(format!("`{word}` is no way to share a card; choose time-slicing or mps")),
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sharing::TimeSlicing => "time-slicing",
            Sharing::Mps => "mps",
        })
    }
}

/// What all processes did together.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Processes {
    /// How they came to the card.
    pub how: Sharing,
    /// How many.
    pub processes: usize,
    /// Of all of them.
    pub inferences_per_s: f64,
    /// Of the process that did least.
    pub least_per_s: f64,
    /// Of the process that did most.
    pub most_per_s: f64,
}

impl Processes {
    /// The mean latency of all, in milliseconds, where each has one request on its way: the inverse of a rate.
    pub fn mean_ms(&self) -> f64 {
        1e3 * self.processes as f64 / self.inferences_per_s
    }
}

impl fmt::Display for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Processes { how, processes, inferences_per_s, least_per_s, most_per_s } = self;
        write!(
            f,
            "{how}: {processes} processes, {inferences_per_s:.1} inferences/s together; each {least_per_s:.1} to {most_per_s:.1}"
        )
    }
}

/// What a worker says when its tenant is loaded, what it is told, and what it says at the end, before its two numbers.
const READY: &str = "ready";
const GO: &str = "go";
const DONE: &str = "done";
/// Before the clock starts: the first launches of a process compile and allocate.
const WARM_UP: Duration = Duration::from_millis(300);

/// One worker: loads one tenant, and asks for as long as it is told once it is told to. For a process that [`run`] started.
pub fn work(options: &Options, told: &mut dyn BufRead, say: &mut dyn Write) -> Result<()> {
    let stage = Stage::set(
        options,
        &settings(options, Policy::Time, Limits::of_all(options))?,
        &devices::open,
        &mut |_| {},
    )?;
    closed_loop::round(&stage, Policy::Time, WARM_UP)?;
    writeln!(say, "{READY}").and_then(|()| say.flush())?;
    let mut line = String::new();
    told.read_line(&mut line)?;
    ensure!(line.trim() == GO, "a worker is started by `tessera bench processes`, which tells it when to go");
    let round = closed_loop::round(&stage, Policy::Time, options.length)?;
    writeln!(say, "{DONE} {} {}", round.inferences, round.took.as_secs_f64())?;
    stage.clear();
    Ok(())
}

/// Runs `processes` workers: `program` with the arguments that `arguments` gives for each.
pub fn run(
    how: Sharing,
    processes: usize,
    program: &Path,
    arguments: impl Fn(usize) -> Vec<OsString>,
) -> Result<Processes> {
    let service = match how {
        Sharing::TimeSlicing => None,
        Sharing::Mps => Some(Mps::start()?),
    };
    let client = service.as_ref().map(|service| service.client(processes));
    let mut workers = (0..processes)
        .map(|number| Worker::start(number, program, &arguments(number), client.as_ref()))
        .collect::<Result<Vec<Worker>>>()?;
    workers.iter_mut().try_for_each(|worker| worker.hear(READY).map(drop))?;
    workers.iter_mut().try_for_each(Worker::go)?;
    let done = workers.iter_mut().map(Worker::done).collect::<Result<Vec<(f64, f64)>>>()?;
    let longest = done.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let rate = |(inferences, seconds): &(f64, f64)| inferences / seconds;
    Ok(Processes {
        how,
        processes,
        inferences_per_s: done.iter().map(|(inferences, _)| inferences).sum::<f64>() / longest,
        least_per_s: done.iter().map(rate).fold(f64::INFINITY, f64::min),
        most_per_s: done.iter().map(rate).fold(0.0, f64::max),
    })
}

/// A process with one tenant. Killed when dropped early.
struct Worker {
    number: usize,
    child: Child,
    tell: ChildStdin,
    heard: BufReader<ChildStdout>,
}

impl Worker {
    fn start(
        number: usize,
        program: &Path,
        arguments: &[OsString],
        client: Option<&MpsClient>,
    ) -> Result<Worker> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        match client {
            Some(client) => {
                command.env(MPS_PIPES, &client.folder);
                command.env(CONNECTIONS, client.connections.to_string());
            }
            // A service that somebody else runs would be used unasked.
            None => {
                command.env(MPS_PIPES, "/nonexistent/tessera-no-mps");
            }
        }
        let mut child = command.spawn().with_context(|| format!("worker {number} cannot be started"))?;
        let (tell, heard) = child.stdin.take().zip(child.stdout.take()).context("a worker has no pipes")?;
        Ok(Worker { number, child, tell, heard: BufReader::new(heard) })
    }

    /// The next line, which begins with `word`; what follows it.
    fn hear(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        self.heard.read_line(&mut line)?;
        match line.trim().strip_prefix(word) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => bail!("worker {} ended before it was {word}; its own words are above", self.number),
        }
    }

    fn go(&mut self) -> Result<()> {
        writeln!(self.tell, "{GO}").with_context(|| format!("worker {} cannot be told to go", self.number))
    }

    /// Inferences, and the seconds they took.
    fn done(&mut self) -> Result<(f64, f64)> {
        let said = self.hear(DONE)?;
        let mut numbers = said.split(' ').map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(inferences)), Some(Ok(seconds))) if seconds > 0.0 => Ok((inferences, seconds)),
            _ => bail!("worker {} says `{said}`", self.number),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that said all it had to say ends by itself; any other has nothing more to do.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Where the service's control program and its clients meet.
const MPS_PIPES: &str = "CUDA_MPS_PIPE_DIRECTORY";
const MPS_LOGS: &str = "CUDA_MPS_LOG_DIRECTORY";
const MPS_CONTROL: &str = "nvidia-cuda-mps-control";

/// Connections of a process to the card's work queues. All clients of the service share one process's, and it refuses who asks for more than
/// are left: the driver lets in 48 clients of 2 each.
const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
const SHARED_CONNECTIONS: usize = 96;

/// What a worker must know of the service.
struct MpsClient {
    folder: PathBuf,
    connections: usize,
}

/// The driver's multi-process service, for as long as it lives.
struct Mps {
    /// Its pipes and logs.
    folder: TempDir,
}

impl Mps {
    fn start() -> Result<Mps> {
        let folder = tempfile::tempdir().context("no folder can be made; TMPDIR names where")?;
        let started = mps_control(folder.path()).arg("-d").status();
        let started = started
            .with_context(|| format!("`{MPS_CONTROL}`, which comes with the driver, cannot be run"))?;
        ensure!(started.success(), "the multi-process service does not start: {started}");
        Ok(Mps { folder })
    }

    /// One of so many clients. A program's launches have three streams: more connections are of no use.
    fn client(&self, of: usize) -> MpsClient {
        let folder = self.folder.path().to_owned();
        MpsClient { folder, connections: (SHARED_CONNECTIONS / of.max(1)).clamp(1, 4) }
    }
}

/// The service's control program, for the service whose pipes are in `folder`.
fn mps_control(folder: &Path) -> Command {
    let mut command = Command::new(MPS_CONTROL);
    command.env(MPS_PIPES, folder).env(MPS_LOGS, folder);
    command
}

impl Drop for Mps {
    fn drop(&mut self) {
        let quit = mps_control(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let quit = quit.and_then(|mut control| {
            if let Some(mut words) = control.stdin.take() {
                words.write_all(b"quit\n")?;
            }
            control.wait()
        });
        if let Err(why) = quit {
            eprintln!("the multi-process service could not be stopped: {why}");
        }
    }
}
