//! The two servers, each a process of its own on one core.

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tessera_bench::onnx_writer::{Axis, OnnxWriter, Range};
use tessera_server::server::Server;
use tessera_server::settings::DeviceWord;
use tessera_server::{Settings, log};
use tokio::net::TcpListener;

/// The argument that makes this program a server.
pub(crate) const SERVE: &str = "--serve";

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Nothing but axum, JSON and the addition.
    Bare,
    /// All of Tessera.
    Tessera,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Tessera => "tessera",
        }
    }
}

/// A server that runs, until it is dropped.
pub(crate) struct Process {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Process {
    /// Starts this very program as a server on one core.
    pub(crate) fn start(kind: Kind, core: usize) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE, &format!("{}:{core}", kind.name())]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("the server has no stdout")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().parse();
        let mut process = Process { kind, address: SocketAddr::from(([0, 0, 0, 0], 0)), child };
        process.address = address.with_context(|| format!("the {} server did not start", kind.name()))?;
        Ok(process)
    }
}

impl Process {
    /// Time that the server's threads have run on a core so far, where the system tells.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let times = threads.map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().map(Duration::from_nanos).ok()
        });
        times.sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is gone already needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does: `bare:0` or `tessera:0`, until its starter goes.
pub(crate) fn serve(word: &str) -> Result<()> {
    let (kind, core) = word.split_once(':').context("a kind and a core are wanted")?;
    let core: usize = core.parse()?;
    // Before any other thread starts, so that all of them inherit it; the runtime counts its cores by it too.
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    // The starter may be stopped in a way that lets it clean up nothing; its end of the pipe is closed all the same.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match kind {
        "bare" => runtime.block_on(bare()),
        "tessera" => runtime.block_on(tessera(core)),
        other => bail!("there is no server `{other}`"),
    }
}

fn announce(address: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

#[derive(Deserialize)]
struct Request {
    inputs: Vec<Tensor>,
}

#[derive(Deserialize, Serialize)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    data: Vec<f32>,
}

#[derive(Serialize)]
struct Answer {
    model_name: &'static str,
    model_version: &'static str,
    outputs: [Tensor; 1],
}

/// The path that both are asked at.
pub(crate) const PATH: &str = "/v2/models/add/infer";

async fn bare() -> Result<()> {
    let routes = Router::new().route(PATH, post(add));
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?)?;
    // As the other server does: what is written leaves at once.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, routes).await?)
}

async fn add(body: Bytes) -> Response {
    let read = serde_json::from_slice::<Request>(&body).ok().and_then(|mut request| request.inputs.pop());
    let Some(mut tensor) = read else { return StatusCode::BAD_REQUEST.into_response() };
    tensor.data.iter_mut().for_each(|element| *element += 0.5);
    tensor.name = "output".to_owned();
    let answer = Answer { model_name: "add", model_version: "1", outputs: [tensor] };
    match serde_json::to_vec(&answer) {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn tessera(core: usize) -> Result<()> {
    let repository = tempfile::tempdir()?;
    std::fs::write(repository.path().join("add.onnx"), model())?;
    let mut settings = Settings::for_repository(repository.path());
    (settings.http_port, settings.metrics_port, settings.pack_cache) = (0, 0, None);
    settings.devices = vec![DeviceWord::Cpu(vec![u32::try_from(core)?])];
    log::init(settings.log_format, tracing::Level::WARN);
    let server = Server::start(settings).await?;
    announce(server.http_address())?;
    server.run(std::future::pending(), std::future::pending()).await;
    Ok(())
}

/// `output = x + 0.5` over `[batch, 16]`; the half is a weight, as a tenant would have it.
fn model() -> Vec<u8> {
    let mut writer = OnnxWriter::new("add");
    let axes = [Axis::Free("batch"), Axis::Of(16)];
    let x = writer.input("x", &axes);
    let half = writer.weight("half", &[16], Range { centre: 0.5, bound: 0.0 });
    let sum = writer.node("Add", &[&x, &half], &[]);
    writer.output("output", &sum, &axes);
    writer.to_bytes(0)
}
