//! A real server in this process, and what tests ask of it.

use crate::client::{self, Answer};
use crate::fixture;
use crate::tensors::{Form, Tensors, outputs, repeated, request};
use std::future::Future;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::slowed::Slowed;
use tessera_device::{Device, Wake};
use tessera_server::Settings;
use tessera_server::devices::Open;
use tessera_server::server::{Ended, Server, StartError};
use tessera_server::settings::DeviceWord;
use tokio::sync::oneshot;

/// A running server; dropped, it drains and ends.
pub(crate) struct Served {
    pub(crate) http: SocketAddr,
    metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Ended>>,
}

/// Settings for tests: the CPU also where there is a card, in one partition, so that a launch can keep all of it busy; free ports, a quick eye
/// on the repository, no packs of earlier runs.
pub(crate) fn settings(repository: &Path) -> Settings {
    let mut settings = Settings::for_repository(repository);
    settings.devices = vec![DeviceWord::Cpu(Vec::new())];
    settings.partitions = Some(NonZeroU32::MIN);
    (settings.http_port, settings.metrics_port) = (0, 0);
    (settings.poll_interval, settings.pack_cache) = (Duration::from_millis(20), None);
    settings
}

/// A model whose largest launch takes a good part of a second.
const SLOW: &str = "resnet26_narrow-0";

/// Places the tenant that [`Served::while_busy`] keeps the device busy with.
pub(crate) fn place_blocker(repository: &Path) {
    fixture::case(SLOW).place(&repository.join("blocker.onnx"));
}

impl Served {
    /// A server over a repository, ready.
    pub(crate) fn start(repository: &Path) -> Served {
        let served = Served::with(settings(repository));
        served.wait_ready();
        served
    }

    /// A server that may still be loading.
    pub(crate) fn with(settings: Settings) -> Served {
        Served::run(|| async { Server::start(settings).await.unwrap() })
    }

    /// A server on devices of the test's own, that may still be loading.
    pub(crate) fn on(settings: Settings, devices: Vec<Open<'static>>) -> Served {
        Served::run(|| async { Server::start_on(settings, devices).await.unwrap() })
    }

    /// A server that is ready, on all cores in so many partitions, with something that slows it: `inside` is put around the device, `outside` around what slows it.
    pub(crate) fn slowed(
        settings: Settings,
        partitions: Option<NonZeroUsize>,
        inside: impl FnOnce(CpuDevice) -> Arc<dyn Device> + Send + 'static,
        outside: impl FnOnce(Arc<Slowed>) -> Arc<dyn Device> + Send + 'static,
    ) -> (Served, Arc<Slowed>) {
        let slowed: Arc<OnceLock<Arc<Slowed>>> = Arc::default();
        let opened = slowed.clone();
        let open = move |wake| {
            let device = Slowed::open(wake, |wake: Wake| -> Result<Arc<dyn Device>, StartError> {
                let options = CpuOptions { cores: Cores::All, partitions, memory_limit: None };
                Ok(inside(CpuDevice::open(&options, wake)?))
            })?;
            _ = opened.set(device.clone());
            Ok(outside(device))
        };
        let served = Served::on(settings, vec![Box::new(open)]);
        served.wait_ready();
        let slowed = slowed.get().unwrap().clone();
        (served, slowed)
    }

    fn run<F: Future<Output = Server>>(start: impl FnOnce() -> F + Send + 'static) -> Served {
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, addresses) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = start().await;
                bound.send((server.http_address(), server.metrics_address())).unwrap();
                server.run(async { stopped.await.unwrap_or(()) }, std::future::pending()).await
            })
        });
        let (http, metrics) = addresses.recv().unwrap();
        Served { http, metrics, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits until everything that was in the repository at the start is loaded, or has failed.
    pub(crate) fn wait_ready(&self) {
        client::eventually("the server is ready", || self.get("/v2/health/ready").status == 200);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::get(self.http, path)
    }

    pub(crate) fn send(&self, request: &[u8]) -> Answer {
        client::send(self.http, request)
    }

    /// Asks a tenant, in binary both ways.
    pub(crate) fn ask(&self, tenant: &str, inputs: &Tensors) -> Answer {
        self.send(&binary(tenant, inputs))
    }

    /// Asks a tenant that must answer.
    pub(crate) fn answer(&self, tenant: &str, inputs: &Tensors) -> Tensors {
        outputs(&self.ask(tenant, inputs))
    }

    /// The sum of the samples whose names and labels begin so.
    pub(crate) fn sample(&self, series: &str) -> f64 {
        let page = self.metrics_page();
        let samples = page.lines().filter(|line| line.starts_with(series));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// What monitors read.
    pub(crate) fn metrics_page(&self) -> String {
        String::from_utf8(client::get(self.metrics, "/metrics").body).unwrap()
    }

    /// Does something while the device is busy with `blocker`, so that requests wait when the engine decides what runs next.
    /// `attempt` may ask whether the device is still busy, and answers `None` when it no longer was where that matters, as may
    /// happen on a machine with much else to do; it is then called again, with a longer launch to wait for.
    pub(crate) fn while_busy<R>(&self, mut attempt: impl FnMut(&dyn Fn() -> bool) -> Option<R>) -> R {
        let finished = || self.sample("tessera_launch_duration_seconds_count");
        let question = fixture::case(SLOW).sets.remove(0);
        for items in [16, 32, 64, 100] {
            let one_launch = repeated(&question.inputs, items);
            let (started, before) = (self.launches(), finished());
            let result = std::thread::scope(|scope| {
                let blocker = scope.spawn(|| self.answer("blocker", &one_launch));
                client::eventually("the device is busy", || self.launches() > started);
                let result = attempt(&|| finished() == before);
                blocker.join().unwrap();
                result
            });
            if let Some(result) = result {
                return result;
            }
        }
        panic!("the device got free too early, however long it was kept busy");
    }

    /// Asks tenants their own questions all the time, each on a thread of its own with a pause between two, while something is done. Every answer must
    /// have the bits of the tenant's first.
    pub(crate) fn while_asked<R>(
        &self,
        tenants: &[&str],
        pause: Duration,
        meanwhile: impl FnOnce() -> R,
    ) -> R {
        let asked = AtomicBool::new(true);
        std::thread::scope(|scope| {
            // However it ends, so that a failure is told and waits for nobody.
            let _ends = EndsAsking(&asked);
            for tenant in tenants {
                let asked = &asked;
                scope.spawn(move || {
                    let question = fixture::case(tenant).sets.remove(0);
                    let first = self.answer(tenant, &question.inputs);
                    while asked.load(Ordering::SeqCst) {
                        assert_eq!(self.answer(tenant, &question.inputs), first, "{tenant}: other bits");
                        std::thread::sleep(pause);
                    }
                });
            }
            meanwhile()
        })
    }

    /// Sends all requests while the device is busy: all of them wait when it gets free, and only then.
    pub(crate) fn together(&self, requests: &[Vec<u8>]) -> Together {
        self.while_busy(|busy| {
            // The blocker is counted in both.
            let before = (self.launches(), self.lanes());
            let (all_waited, answers) = std::thread::scope(|scope| {
                let asks: Vec<_> =
                    requests.iter().map(|request| scope.spawn(|| self.send(request))).collect();
                let all_wait = || self.queued() == requests.len() as f64;
                client::eventually("all wait, or it is too late for that", || all_wait() || !busy());
                let all_waited = all_wait() && busy();
                (all_waited, asks.into_iter().map(|ask| ask.join().unwrap()).collect())
            });
            let (launches, lanes) = (self.launches() - before.0, self.lanes() - before.1);
            all_waited.then_some(Together { answers, launches, lanes })
        })
    }

    /// Requests that wait for a launch.
    pub(crate) fn queued(&self) -> f64 {
        self.sample("tessera_queued_requests{")
    }

    fn launches(&self) -> f64 {
        self.sample("tessera_launches_total{")
    }

    fn lanes(&self) -> f64 {
        self.sample("tessera_launch_lanes_sum")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            let Ended { cut, lost } = ended.unwrap().unwrap();
            assert_eq!((cut, lost), (0, None));
        }
    }
}

/// Ends asking when it goes.
struct EndsAsking<'a>(&'a AtomicBool);

impl Drop for EndsAsking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What became of requests that waited together.
pub(crate) struct Together {
    /// In the order of the requests.
    pub(crate) answers: Vec<Answer>,
    /// Launches that carried them.
    pub(crate) launches: f64,
    /// Lanes of those launches.
    pub(crate) lanes: f64,
}

/// A request to a tenant, in binary both ways.
pub(crate) fn binary(tenant: &str, inputs: &Tensors) -> Vec<u8> {
    request(&infer(tenant), inputs, Form::Binary, Form::Binary)
}

/// Where a tenant is asked.
pub(crate) fn infer(tenant: &str) -> String {
    format!("/v2/models/{tenant}/infer")
}

/// The request with so many microseconds to be answered in.
pub(crate) fn limited(request: &[u8], micros: u64) -> Vec<u8> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let header = format!("\r\nInference-Timeout-Us: {micros}");
    [&request[..end], header.as_bytes(), &request[end..]].concat()
}
