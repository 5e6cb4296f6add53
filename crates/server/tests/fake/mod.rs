//! A backend of a few lines, a server around it, and a client that can say anything.

use bytes::Bytes;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tessera_core::{Bytes as Amount, DType};
use tessera_server::serve::{Listeners, serve};
use tessera_server::{
    Backend, InferRequest, InferResponse, Metrics, ModelInfo, Rejection, Settings, TensorInfo, TensorOut,
};
use tokio::sync::{Notify, oneshot};

pub(crate) const MOST_BODY: usize = 4 << 20;
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Long enough for two busy cores; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(crate) struct Fake {
    waiting: AtomicUsize,
    release: Notify,
    last: Mutex<Option<InferRequest>>,
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.release.notify_waiters();
    }

    pub(crate) fn last(&self) -> InferRequest {
        self.last.lock().unwrap().clone().unwrap()
    }
}

const NAMES: [&str; 6] = ["add", "echo", "slow", "full", "loading", "a/b ü"];

impl Backend for Fake {
    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<ModelInfo>, Rejection> {
        if !NAMES.contains(&name) {
            return Err(Rejection::UnknownModel { model: name.into() });
        }
        if let Some(version) = version.filter(|&version| version != 1) {
            let version = version.to_string();
            return Err(Rejection::UnknownVersion { model: name.into(), version, served: vec![1] });
        }
        let tensor = |name: &str| TensorInfo { name: name.into(), dtype: DType::F32, dims: vec![-1, 4] };
        let inputs = if name == "echo" { vec![tensor("x")] } else { vec![tensor("x"), tensor("y")] };
        let (name, versions) = (name.into(), vec![1]);
        Ok(Arc::new(ModelInfo { name, version: 1, versions, inputs, outputs: vec![tensor("z")] }))
    }

    fn model_ready(&self, name: &str, version: Option<u64>) -> Result<bool, Rejection> {
        self.model(name, version).map(|_| name != "loading")
    }

    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Rejection> {
        let info = self.model(&request.model, request.version)?;
        if request.model == "full" {
            let (queue, retry_after) = ("tenant 'full'".into(), Duration::from_millis(1));
            return Err(Rejection::QueueFull { queue, queued: 8, limit: 8, retry_after });
        }
        *self.last.lock().unwrap() = Some(request.clone());
        if request.model == "slow" {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waits = Waits(&self.waiting);
            self.release.notified().await;
        }
        if let Some(output) = request.outputs.iter().find(|output| *output != "z") {
            return Err(Rejection::Invalid(format!("output '{output}' is unknown")));
        }
        let mut sum: Vec<f32> = Vec::new();
        for wanted in &info.inputs {
            let found = request.inputs.iter().find(|input| input.name == wanted.name);
            let Some(input) = found else {
                let sent: Vec<&str> = request.inputs.iter().map(|input| input.name.as_str()).collect();
                return Err(Rejection::Invalid(format!(
                    "input '{}' is missing; sent are {sent:.200?}",
                    wanted.name
                )));
            };
            let values = input.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            sum.resize(values.len(), 0.0);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        let data: Bytes = sum.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = request.inputs[0].shape.clone();
        let z = TensorOut { name: "z".into(), dtype: DType::F32, shape, data };
        Ok(InferResponse { model: request.model, version: 1, outputs: vec![z] })
    }
}

/// A server with its runtime, on free ports.
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<std::thread::JoinHandle<usize>>>,
}

impl Served {
    pub(crate) fn start() -> Served {
        let mut settings = Settings::for_repository("unused");
        (settings.http_port, settings.metrics_port) = (0, 0);
        (settings.max_body, settings.shutdown_grace) = (Amount(MOST_BODY as u64), GRACE);
        let fake = Arc::new(Fake::default());
        let metrics = Arc::new(Metrics::default());
        NAMES.iter().for_each(|name| drop(metrics.tenant_loaded(name)));
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, addresses) = std::sync::mpsc::channel();
        let backend = Arc::clone(&fake);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listeners = Listeners::bind(&settings).await.unwrap();
                assert!(listeners.announcement().starts_with("tessera: http on http://127.0.0.1:"));
                bound.send((listeners.http_address, listeners.metrics_address)).unwrap();
                let stop = async { stopped.await.unwrap_or(()) };
                serve(listeners, backend, metrics, &settings, stop).await
            })
        });
        let (address, metrics) = addresses.recv().unwrap();
        Served { fake, address, metrics, stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) }
    }

    pub(crate) fn stop(&self) {
        let _ = self.stop.lock().unwrap().take().unwrap().send(());
    }

    /// How many connections were cut.
    pub(crate) fn ended(&self) -> usize {
        self.thread.lock().unwrap().take().unwrap().join().unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// Sends on a connection of its own, while reading: a server may answer before it has heard everything.
    pub(crate) fn send(&self, request: &[u8]) -> Answer {
        let mut socket = self.connect();
        let mut writer = socket.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The server may close on us in the middle; then its answer tells why.
                let _ = writer.write_all(request);
            });
            Answer::read(&mut socket)
        })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&json_request(path, body))
    }

    /// Expects a refusal in JSON with this status and word, and a server that is well after it.
    pub(crate) fn refused(&self, request: &[u8], status: u16, word: &str) -> Answer {
        let answer = self.send(request);
        let error = answer.json()["error"].as_str().map(String::from);
        let error = error.unwrap_or_else(|| panic!("no error in {answer:?}"));
        assert!(
            answer.status == status && error.contains(word),
            "{} is not {status} with {word}: {error}",
            answer.status
        );
        self.is_well();
        answer
    }

    pub(crate) fn is_well(&self) {
        assert_eq!(self.get("/v2/health/live").status, 200);
    }

    pub(crate) fn metrics_page(&self) -> String {
        let mut socket = TcpStream::connect(self.metrics).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        String::from_utf8(Answer::read(&mut socket).body).unwrap()
    }

    pub(crate) fn eventually(&self, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "it never came about");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads a head, and as much body as it announces.
    pub(crate) fn read(socket: &mut TcpStream) -> Answer {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket
                .read_exact(&mut byte)
                .unwrap_or_else(|why| panic!("{why} after {}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        answer.body = vec![0; answer.header("content-length").map_or(0, |length| length.parse().unwrap())];
        socket.read_exact(&mut answer.body).unwrap();
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.into())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why} in {self:?}"))
    }
}

/// The head of a POST.
pub(crate) fn head(path: &str, length: usize, json_length: Option<&str>) -> Vec<u8> {
    let json_length =
        json_length.map(|word| format!("Inference-Header-Content-Length: {word}\r\n")).unwrap_or_default();
    format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{json_length}\r\n").into_bytes()
}

pub(crate) fn json_request(path: &str, body: &str) -> Vec<u8> {
    [head(path, body.len(), None), body.as_bytes().to_vec()].concat()
}

/// Vectors as binary inputs; `json_length` in place of the true length.
pub(crate) fn binary_request(
    path: &str,
    inputs: &[(&str, &[f32])],
    output: bool,
    json_length: Option<&str>,
) -> Vec<u8> {
    let described: Vec<Value> = inputs
        .iter()
        .map(|(name, values)| {
            json!({ "name": name, "shape": [values.len()], "datatype": "FP32",
                    "parameters": { "binary_data_size": values.len() * 4 } })
        })
        .collect();
    let json = json!({ "inputs": described, "parameters": { "binary_data_output": output } }).to_string();
    let tensors: Vec<u8> =
        inputs.iter().flat_map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes())).collect();
    let length = json.len().to_string();
    [head(path, json.len() + tensors.len(), Some(json_length.unwrap_or(&length))), json.into_bytes(), tensors]
        .concat()
}
