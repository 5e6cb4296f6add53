//! A backend of a few lines, and a server around it.

use crate::client::{self, Answer, json_request};
use bytes::Bytes;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tessera_core::{Bytes as Amount, DType, Precision};
use tessera_server::monitor::Share;
use tessera_server::serve::{Listeners, serve};
use tessera_server::{
    Backend, Events, InferRequest, InferResponse, Listed, Metrics, ModelInfo, Placement, Rejection, Settings,
    TensorInfo, TensorOut,
};
use tokio::sync::{Notify, oneshot};

pub(crate) const MOST_BODY: usize = 4 << 20;
pub(crate) const GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Fake {
    waiting: AtomicUsize,
    release: Notify,
    last: Mutex<Option<InferRequest>>,
    pub(crate) events: Events,
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

pub(crate) const NAMES: [&str; 6] = ["add", "echo", "slow", "full", "loading", "a/b ü"];

impl Backend for Fake {
    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn devices(&self) -> Vec<tessera_server::DeviceStatus> {
        let (name, description) = ("fake:0".to_owned(), "some arithmetic".to_owned());
        vec![tessera_server::DeviceStatus {
            name,
            description,
            running: true,
            tenants: 6,
            share: Share::default(),
        }]
    }

    fn statistics(&self, name: &str, version: Option<u64>) -> Result<Vec<serde_json::Value>, Rejection> {
        let info = self.model(name, version)?;
        Ok(vec![serde_json::json!({ "name": info.name, "version": info.version.to_string() })])
    }

    fn statistics_of_all(&self) -> Vec<serde_json::Value> {
        NAMES.iter().flat_map(|name| self.statistics(name, None).unwrap()).collect()
    }

    fn steps(&self, name: &str, version: Option<u64>) -> Result<serde_json::Value, Rejection> {
        let info = self.model(name, version)?;
        Ok(serde_json::json!({ "name": info.name, "version": info.version.to_string(), "plans": [] }))
    }

    fn index(&self) -> Vec<Listed> {
        let listed = |name: &&str| {
            let (state, reason) = if *name == "loading" {
                ("UNAVAILABLE", "too large".into())
            } else {
                ("READY", String::new())
            };
            Listed { name: (*name).into(), version: "1".into(), state, reason }
        };
        NAMES.iter().map(listed).collect()
    }

    fn events(&self) -> &Events {
        &self.events
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
        let outputs = vec![tensor("z")];
        let because = Some("there is no other".to_owned());
        let placements = vec![Placement { device: "fake:0".to_owned(), precision: Precision::Fp32, because }];
        Ok(Arc::new(ModelInfo { name, version: 1, versions, inputs, outputs, placements }))
    }

    fn model_ready(&self, name: &str, version: Option<u64>) -> Result<(), Rejection> {
        self.model(name, version)?;
        let not_ready = || Rejection::NotReady { model: name.into(), why: "too large".into() };
        if name == "loading" { Err(not_ready()) } else { Ok(()) }
    }

    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Rejection> {
        let info = self.model(&request.model, request.version)?;
        if request.model == "full" {
            let (queue, retry_after) = ("tenant `full`".into(), Duration::from_millis(1));
            return Err(Rejection::QueueFull { queue, queued: 8, limit: 8, retry_after });
        }
        *self.last.lock().unwrap() = Some(request.clone());
        if request.model == "slow" {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waits = Waits(&self.waiting);
            self.release.notified().await;
        }
        if let Some(output) = request.outputs.iter().find(|output| *output != "z") {
            return Err(Rejection::Invalid(format!("output `{output}` is unknown")));
        }
        let mut sum: Vec<f32> = Vec::new();
        for wanted in &info.inputs {
            let found = request.inputs.iter().find(|input| input.name == wanted.name);
            let Some(input) = found else {
                let sent: Vec<&str> = request.inputs.iter().map(|input| input.name.as_str()).collect();
                return Err(Rejection::Invalid(format!(
                    "input `{}` is missing; sent are {sent:.200?}",
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
    hurry: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<std::thread::JoinHandle<usize>>>,
}

impl Served {
    pub(crate) fn start() -> Served {
        Served::with(Settings::for_repository("unused"))
    }

    pub(crate) fn with(mut settings: Settings) -> Served {
        (settings.http_port, settings.metrics_port) = (0, 0);
        (settings.max_body, settings.shutdown_grace) = (Amount(MOST_BODY as u64), GRACE);
        let fake = Arc::new(Fake::default());
        let metrics = Arc::new(Metrics::default());
        NAMES.iter().for_each(|name| drop(metrics.tenant_loaded(name)));
        let (stop, stopped) = oneshot::channel::<()>();
        let (hurry, hurried) = oneshot::channel::<()>();
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
                let hurry = async { hurried.await.unwrap_or(()) };
                serve(listeners, backend, metrics, &settings, stop, hurry).await
            })
        });
        let (address, metrics) = addresses.recv().unwrap();
        let (stop, hurry) = (Mutex::new(Some(stop)), Mutex::new(Some(hurry)));
        Served { fake, address, metrics, stop, hurry, thread: Mutex::new(Some(thread)) }
    }

    /// Cuts the draining short.
    pub(crate) fn hurry(&self) {
        let _ = self.hurry.lock().unwrap().take().unwrap().send(());
    }

    pub(crate) fn stop(&self) {
        let _ = self.stop.lock().unwrap().take().unwrap().send(());
    }

    /// How many connections were cut.
    pub(crate) fn ended(&self) -> usize {
        self.thread.lock().unwrap().take().unwrap().join().unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        client::connect(self.address)
    }

    pub(crate) fn send(&self, request: &[u8]) -> Answer {
        client::send(self.address, request)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::get(self.address, path)
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
        String::from_utf8(client::get(self.metrics, "/metrics").body).unwrap()
    }

    pub(crate) fn eventually(&self, holds: impl Fn() -> bool) {
        client::eventually("what the test waits for", holds);
    }
}
