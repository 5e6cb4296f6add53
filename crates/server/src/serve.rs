//! Sockets: bound, announced, served, drained.
//!
//! ```text
//! bind ─▶ announce ─▶ accept … accept ─stop─▶ close listener ─▶ answer what is in flight ─▶ (grace, or hurry) ─▶ cut the rest
//! ```
//!
//! The backend outlives the sockets: whoever calls [`serve`] stops the engine after it returns. The caller also owns
//! the runtime; handlers never block it.

mod attentive;
mod head_timer;

use crate::frontend::Backend;
use crate::http::{self, BodyLimits};
use crate::metrics::Metrics;
use crate::settings::Settings;
use attentive::Attentive;
use axum::http::Request;
use axum::response::Response;
use head_timer::HeadTimer;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// An address that could not be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {why}; set `host` or `{key}` (0 takes any free port)")]
pub struct BindError {
    /// The setting of its port.
    pub key: &'static str,
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's words.
    pub why: io::Error,
}

/// The sockets, bound but not yet served: callers may connect and will be answered.
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    metrics: TcpListener,
    /// Where the protocol is spoken; the port is the one given by the system when 0 was asked for.
    pub http_address: SocketAddr,
    /// Where `/metrics` is.
    pub metrics_address: SocketAddr,
}

impl Listeners {
    /// Binds both. Errors name the setting to change.
    pub async fn bind(settings: &Settings) -> Result<Listeners, BindError> {
        let (http, http_address) = bind("http_port", settings, settings.http_port).await?;
        let (metrics, metrics_address) = bind("metrics_port", settings, settings.metrics_port).await?;
        Ok(Listeners { http, metrics, http_address, metrics_address })
    }

    /// The lines that say where we are, for people and for scripts: `tessera: http on http://127.0.0.1:8000`.
    pub fn announcement(&self) -> String {
        format!(
            "tessera: http on http://{}\ntessera: metrics on http://{}/metrics\n",
            self.http_address, self.metrics_address
        )
    }
}

async fn bind(
    key: &'static str,
    settings: &Settings,
    port: u16,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let address = SocketAddr::new(settings.host, port);
    let failed = |why| BindError { key, address, why };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until `stop`, then drains until all are answered, `shutdown_grace_s` is over, or `hurry` completes. Returns how many connections were cut:
/// 0 when every request in flight was answered.
pub async fn serve<B: Backend>(
    listeners: Listeners,
    backend: Arc<B>,
    metrics: Arc<Metrics>,
    settings: &Settings,
    stop: impl Future<Output = ()>,
    hurry: impl Future<Output = ()>,
) -> usize {
    let limits = BodyLimits { bytes: settings.max_body.0, pause: settings.idle_timeout };
    let site = http::Site::new(backend, Arc::clone(&metrics), limits);
    let pages = TowerToHyperService::new(http::metrics_routes(Arc::clone(&metrics)));
    let acceptor = |counted| Acceptor {
        idle_timeout: settings.idle_timeout,
        grace: settings.shutdown_grace,
        permits: Arc::new(Semaphore::new(settings.max_connections.get() as usize)),
        counted,
    };
    // Monitors are served through the drain, and let go with it.
    tokio::select! {
        cut = acceptor(Some(metrics)).run(listeners.http, site, stop, hurry) => cut,
        cut = acceptor(None).run(listeners.metrics, pages, pending(), pending()) => cut,
    }
}

/// Completes on SIGTERM or SIGINT, or on Ctrl-C where there are no signals.
pub async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        tracing::warn!("signals cannot be heard; the server runs until it is killed");
        pending::<()>().await;
    }
}

/// How one listener treats its connections.
struct Acceptor {
    idle_timeout: Duration,
    grace: Duration,
    permits: Arc<Semaphore>,
    counted: Option<Arc<Metrics>>,
}

impl Acceptor {
    async fn run<S>(
        self,
        listener: TcpListener,
        site: S,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> usize
    where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
        S: Clone + Send + 'static,
    {
        let mut stop = pin!(stop);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => note(ended),
                (stream, permit) = self.accept(&listener) => {
                    let mut http = http1::Builder::new();
                    http.timer(HeadTimer::default()).header_read_timeout(self.idle_timeout);
                    let stream = TokioIo::new(Attentive::new(stream, self.idle_timeout));
                    let connection = graceful.watch(http.serve_connection(stream, site.clone()));
                    let open = OpenConnection::new(self.counted.clone(), permit);
                    connections.spawn(async move {
                        // A client that breaks off or talks nonsense is its own affair.
                        let _ = connection.await.inspect_err(|why| tracing::debug!(%why, "connection ended"));
                        drop(open);
                    });
                }
            }
        }
        drop(listener);
        tokio::select! {
            () = graceful.shutdown() => return 0,
            () = tokio::time::sleep(self.grace) => {}
            () = hurry => {}
        }
        while let Some(ended) = connections.try_join_next() {
            note(ended);
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }

    /// The next connection, once there is room for it. May be dropped at any await without losing one.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("nobody closes the semaphore");
        let mut told = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are written whole; waiting to join them with the next only delays them.
                    let _ = stream.set_nodelay(true);
                    return (stream, permit);
                }
                // Connections that end give descriptors back, so it is tried again, and told once.
                Err(why) => {
                    if !told {
                        tracing::warn!(%why, "cannot accept a connection; where descriptors are short, raise `ulimit -n` above `max_connections`");
                    }
                    told = true;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// A handler that panics takes its connection with it, nothing else; it is our fault, and loud.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(why) = ended {
        tracing::error!(%why, "a connection's task failed");
    }
}

/// Counts a connection for as long as it is open, and holds its place.
struct OpenConnection {
    counted: Option<Arc<Metrics>>,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(counted: Option<Arc<Metrics>>, permit: OwnedSemaphorePermit) -> OpenConnection {
        if let Some(metrics) = &counted {
            metrics.connected();
        }
        OpenConnection { counted, _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(metrics) = &self.counted {
            metrics.disconnected();
        }
    }
}
