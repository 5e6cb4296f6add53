//! The Open Inference Protocol's routes.
//!
//! | verb and path | answer |
//! |---|---|
//! | GET /v2, /v2/ | name, version, extensions, devices and how far they are used |
//! | GET /v2/health/live, /v2/health/ready | `{"live":…}`, `{"live":…,"ready":…}`; 503 when not |
//! | GET /v2/models/M\[/versions/V\] | inputs and outputs |
//! | GET /v2/models/M\[/versions/V\]/config | the same in the words of Triton's model configuration |
//! | GET /v2/models/M\[/versions/V\]/ready | `{"name":M,"ready":true}`; 503 and the reason when not, 404 for a stranger |
//! | GET /v2/models/M\[/versions/V\]/stats | what became of its requests, and whether its SLO is kept and can be; see [`crate::standing`] |
//! | GET /v2/models/stats | the same of all that answer; a tenant of the name `stats` is described under its versions |
//! | GET /v2/models/M\[/versions/V\]/steps | what the launches that it takes part in take, step by step, over what was predicted; see [`crate::monitor`] |
//! | POST /v2/repository/index | every version, its state and why it is unavailable; `{"ready":true}` lists what answers |
//! | GET /v2/events?after=SEQ&limit=N&wait=S | what happened, see [`crate::events`]; all three may be left out |
//! | POST /v2/models/M\[/versions/V\]/infer | see [`crate::protocol`] |
//!
//! Of Triton's extension `schedule_policy` only the parameter `timeout` is kept, so it is not among those that `/v2` names: deadlines and shares say what goes first.
//!
//! Every error is `{"error":"…"}` with the status of [`crate::wire`]. Health answers have bodies because KServe's
//! client reads them; Triton's reads the status alone. Nothing is decided here.

mod described;
mod site;

use crate::events::Asked;
use crate::frontend::{Backend, Listed};
use crate::metrics::Metrics;
use crate::protocol::{self, JSON_LENGTH_HEADER, TIMEOUT_HEADER};
use crate::wire::Rejection;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use site::Site;

/// What every handler shares.
struct Front<B> {
    backend: Arc<B>,
    metrics: Arc<Metrics>,
    limits: BodyLimits,
}

/// What a request's body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Most bytes of it.
    pub bytes: u64,
    /// Longest time in which nothing more of it comes. A client that is gone without a word would keep its connection for ever.
    pub pause: Duration,
}

/// All routes, also that of requests for inference whose path is not plain.
fn others<B: Backend>(front: Arc<Front<B>>) -> Router {
    Router::new()
        .route("/v2", get(server::<B>))
        .route("/v2/", get(server::<B>))
        .route("/v2/health/live", get(live::<B>))
        .route("/v2/health/ready", get(ready::<B>))
        .route("/v2/repository/index", post(index::<B>))
        .route("/v2/events", get(events::<B>))
        .route("/v2/models/stats", get(statistics_of_all::<B>))
        .route("/v2/models/{model}", get(model::<B>))
        .route("/v2/models/{model}/stats", get(statistics::<B>))
        .route("/v2/models/{model}/steps", get(steps::<B>))
        .route("/v2/models/{model}/config", get(config::<B>))
        .route("/v2/models/{model}/ready", get(model_ready::<B>))
        .route("/v2/models/{model}/infer", post(infer_by_route::<B>))
        .route("/v2/models/{model}/versions/{version}", get(model::<B>))
        .route("/v2/models/{model}/versions/{version}/stats", get(statistics::<B>))
        .route("/v2/models/{model}/versions/{version}/steps", get(steps::<B>))
        .route("/v2/models/{model}/versions/{version}/config", get(config::<B>))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready::<B>))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer_by_route::<B>))
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_verb)
        .with_state(front)
}

/// The page for monitors.
pub(crate) fn metrics_routes(metrics: Arc<Metrics>) -> Router {
    let page = move || async move {
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        answer(StatusCode::OK, kind, metrics.encode())
    };
    Router::new()
        .route("/metrics", get(page))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "Not Found: metrics are at /metrics") })
}

async fn nothing_there(path: Uri) -> Response {
    let way = if path.path().starts_with("/v2/repository/models/") {
        "models are loaded and unloaded by their files in the model repository, not by requests"
    } else {
        "the server is at /v2, a model at /v2/models/NAME, and POST /v2/repository/index lists all; metrics have a port of their own"
    };
    error(StatusCode::NOT_FOUND, &format!("nothing is at '{}': {way}", path.path()))
}

async fn wrong_verb(verb: Method, path: Uri) -> Response {
    let way = "POST is for inference and /v2/repository/index, GET for everything else";
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{verb} does nothing at '{}': {way}", path.path()))
}

async fn server<B: Backend>(State(front): State<Arc<Front<B>>>) -> Response {
    ok(&json!({
        "name": "tessera",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_configuration", "statistics"],
        "devices": front.backend.devices(),
    }))
}

async fn live<B: Backend>(State(front): State<Arc<Front<B>>>) -> Response {
    let live = front.backend.live();
    health(live, &json!({ "live": live }))
}

async fn ready<B: Backend>(State(front): State<Arc<Front<B>>>) -> Response {
    let live = front.backend.live();
    match front.backend.ready() {
        Ok(()) if live => health(true, &json!({ "live": true, "ready": true })),
        Ok(()) => health(false, &json!({ "live": false, "ready": false, "error": "the engine has stopped" })),
        Err(why) => health(false, &json!({ "live": live, "ready": false, "error": why })),
    }
}

/// Triton's repository index. It has no body, or an object that may say `ready`.
async fn index<B: Backend>(State(front): State<Arc<Front<B>>>, request: Request<Body>) -> Response {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Asked {
        ready: bool,
    }
    let body = match front.read(request.into_body()).await {
        Ok(body) => body,
        Err(why) => return refusal(&why),
    };
    let asked = match body.is_empty() {
        true => Asked::default(),
        false => match serde_json::from_slice(&body) {
            Ok(protocol::Object(asked)) => asked,
            Err(why) => {
                let why =
                    format!("the body of an index request is an object with `ready`, or nothing: {why}");
                return refusal(&Rejection::Invalid(why));
            }
        },
    };
    let listed = front.backend.index().into_iter();
    let listed = listed.filter(|listed| !asked.ready || listed.state == Listed::READY);
    ok(&json!(listed.collect::<Vec<_>>()))
}

async fn events<B: Backend>(State(front): State<Arc<Front<B>>>, RawQuery(query): RawQuery) -> Response {
    match Asked::parse(query.as_deref().unwrap_or_default()) {
        Ok(asked) => ok(&front.backend.events().page(asked).await.json()),
        Err(why) => refusal(&Rejection::Invalid(why)),
    }
}

type Named = Result<Path<Vec<String>>, PathRejection>;

/// Name and version of a path. A version that is not a number cannot exist, which is what 404 says.
fn named(path: Named) -> Result<(String, Option<u64>), Rejection> {
    let Path(parts) = path.map_err(|_| Rejection::Invalid("the path is not UTF-8 once decoded".into()))?;
    let mut parts = parts.into_iter();
    let model = parts.next().unwrap_or_default();
    numbered(model, parts.next().as_deref())
}

fn numbered(model: String, version: Option<&str>) -> Result<(String, Option<u64>), Rejection> {
    let Some(version) = version else { return Ok((model, None)) };
    match version.parse() {
        Ok(number) if version.bytes().all(|byte| byte.is_ascii_digit()) => Ok((model, Some(number))),
        _ => Err(Rejection::NoVersion { model, version: version.to_owned() }),
    }
}

async fn model<B: Backend>(State(front): State<Arc<Front<B>>>, path: Named) -> Response {
    let found = named(path).and_then(|(model, version)| front.backend.model(&model, version));
    match found {
        Ok(info) => ok(&described::metadata(&info)),
        Err(why) => refusal(&why),
    }
}

async fn config<B: Backend>(State(front): State<Arc<Front<B>>>, path: Named) -> Response {
    match named(path).and_then(|(model, version)| front.backend.model(&model, version)) {
        Ok(info) => ok(&described::configuration(&info)),
        Err(why) => refusal(&why),
    }
}

async fn statistics<B: Backend>(State(front): State<Arc<Front<B>>>, path: Named) -> Response {
    match named(path).and_then(|(model, version)| front.backend.statistics(&model, version)) {
        Ok(statistics) => ok(&json!({ "model_stats": statistics })),
        Err(why) => refusal(&why),
    }
}

async fn statistics_of_all<B: Backend>(State(front): State<Arc<Front<B>>>) -> Response {
    ok(&json!({ "model_stats": front.backend.statistics_of_all() }))
}

async fn steps<B: Backend>(State(front): State<Arc<Front<B>>>, path: Named) -> Response {
    match named(path).and_then(|(model, version)| front.backend.steps(&model, version)) {
        Ok(steps) => ok(&steps),
        Err(why) => refusal(&why),
    }
}

async fn model_ready<B: Backend>(State(front): State<Arc<Front<B>>>, path: Named) -> Response {
    let (name, version) = match named(path) {
        Ok(named) => named,
        Err(why) => return refusal(&why),
    };
    match front.backend.model_ready(&name, version) {
        Ok(()) => ok(&json!({ "name": name, "ready": true })),
        Err(why @ (Rejection::NotReady { .. } | Rejection::ShuttingDown)) => {
            health(false, &json!({ "name": name, "ready": false, "error": why.to_string() }))
        }
        Err(why) => refusal(&why),
    }
}

async fn infer_by_route<B: Backend>(
    State(front): State<Arc<Front<B>>>,
    path: Named,
    request: Request<Body>,
) -> Response {
    infer(&front, named(path), request).await
}

async fn infer<B: Backend>(
    front: &Front<B>,
    named: Result<(String, Option<u64>), Rejection>,
    request: Request<impl Content>,
) -> Response {
    let started = Instant::now();
    let (model, version) = match named {
        Ok(named) => named,
        Err(why) => {
            front.metrics.refused("", &why);
            return refusal(&why);
        }
    };
    // Dropped with the future when the client hangs up, and then the only one to know. Who closes its side of the connection alone has hung up too: the
    // two look the same from here, and to work for everybody who ran out of patience would cost the most when there is most to do.
    let mut waiting = Waiting { front, model: &model, over: false };
    let answered = front.infer(&model, version, request).await;
    waiting.over = true;
    match answered {
        Ok(response) => {
            front.metrics.answered(&model, started.elapsed());
            response
        }
        Err(why) => {
            front.metrics.refused(&model, &why);
            refusal(&why)
        }
    }
}

struct Waiting<'a, B> {
    front: &'a Front<B>,
    model: &'a str,
    over: bool,
}

impl<B> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        if !self.over {
            self.front.metrics.hung_up(self.model);
        }
    }
}

/// A body that comes in over the wire.
trait Content: HttpBody<Data = Bytes, Error: Display> + Unpin {}

impl<C: HttpBody<Data = Bytes, Error: Display> + Unpin> Content for C {}

/// A body above this is read by a blocking thread: a megabyte of JSON takes milliseconds, in which every other
/// connection of this worker would wait. Below, handing over costs more than reading.
const LARGE_BODY: usize = 256 << 10;

impl<B: Backend> Front<B> {
    async fn infer(
        &self,
        model: &str,
        version: Option<u64>,
        request: Request<impl Content>,
    ) -> Result<Response, Rejection> {
        let decoded = self.decoded(model, version, request).await;
        let decoded = decoded.map_err(|why| self.unknown(model, version).unwrap_or(why))?;
        let answer = self.backend.infer(decoded.request).await?;
        let encoded = protocol::encode(&answer, decoded.id.as_deref(), &decoded.wanted)?;
        let mut response = Response::new(Body::from(encoded.body));
        let headers = response.headers_mut();
        match encoded.json_length {
            None => headers.insert(CONTENT_TYPE, JSON),
            Some(length) => {
                headers.insert(JSON_LENGTH, HeaderValue::from(length));
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            }
        };
        Ok(response)
    }

    /// Whether there is no such model or version, which its sender is told before what is wrong with the rest.
    fn unknown(&self, model: &str, version: Option<u64>) -> Option<Rejection> {
        let why = self.backend.model(model, version).err()?;
        matches!(why, Rejection::UnknownModel { .. } | Rejection::UnknownVersion { .. }).then_some(why)
    }

    /// The request read. Nothing else of it is kept while its answer is awaited: head and body hold on to the buffer that the
    /// connection reads into.
    async fn decoded(
        &self,
        model: &str,
        version: Option<u64>,
        request: Request<impl Content>,
    ) -> Result<protocol::Decoded, Rejection> {
        let (head, body) = request.into_parts();
        if let Some(encoding) = head.headers.get(CONTENT_ENCODING).filter(|&value| value != "identity") {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
            return Err(Rejection::UnsupportedEncoding { encoding });
        }
        let body = self.read(body).await?;
        if body.len() <= LARGE_BODY {
            return decode(&*self.backend, model, version, &head.headers, &body);
        }
        let (model, headers, backend) = (model.to_owned(), head.headers, Arc::clone(&self.backend));
        let read = tokio::task::spawn_blocking(move || decode(&*backend, &model, version, &headers, &body));
        read.await.map_err(|why| Rejection::Internal(format!("reading the request failed: {why}")))?
    }

    /// The whole body as one piece. Pieces are joined as they come: a body sent as a million chunks of a byte takes
    /// a million bytes, not a million buffers. The usual body is one piece, and is not copied.
    async fn read(&self, mut body: impl Content) -> Result<Bytes, Rejection> {
        let BodyLimits { bytes: limit, pause } = self.limits;
        if body.size_hint().lower() > limit {
            return Err(Rejection::TooLarge { limit });
        }
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        // The alarm is set only when the next piece is not there yet.
        while let Some(frame) = tokio::time::timeout(pause, body.frame())
            .await
            .map_err(|_| Rejection::Stalled { waited: pause })?
        {
            let frame =
                frame.map_err(|why| Rejection::Invalid(format!("the body could not be read: {why}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let so_far = first.len().max(rest.len());
            if (so_far + data.len()) as u64 > limit {
                return Err(Rejection::TooLarge { limit });
            }
            if so_far == 0 {
                first = data;
                continue;
            }
            if rest.is_empty() {
                // What was announced, as far as that is believable before it has come.
                let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(1 << 20);
                rest.reserve(first.len() + data.len() + announced);
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }
}

fn decode<B: Backend>(
    backend: &B,
    model: &str,
    version: Option<u64>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<protocol::Decoded, Rejection> {
    let json_length = match headers.get(&JSON_LENGTH).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(word)) => Some(word),
        Some(Err(_)) => {
            return Err(Rejection::Invalid("Inference-Header-Content-Length is not a number".into()));
        }
    };
    let timeout = timeout(headers)?;
    let mut decoded = protocol::decode(model, version, json_length, body, || backend.model(model, version))?;
    // `None` is no limit, so the shorter of the limits that there are.
    decoded.request.timeout = decoded.request.timeout.into_iter().chain(timeout).min();
    Ok(decoded)
}

/// The shortest limit that the headers set, `None` when they set none.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
    let mut shortest = None;
    for value in headers.get_all(&TIMEOUT) {
        let word = value.to_str().unwrap_or_default();
        let micros = word.parse().ok().filter(|_| word.bytes().all(|byte| byte.is_ascii_digit()));
        let micros: u64 = micros.ok_or_else(|| {
            let rule = "Inference-Timeout-Us takes a whole number of microseconds, 0 for no limit";
            Rejection::Invalid(rule.into())
        })?;
        let limit = (micros > 0).then(|| Duration::from_micros(micros));
        shortest = shortest.into_iter().chain(limit).min();
    }
    Ok(shortest)
}

/// As a name, which needs no reading at every look-up.
const JSON_LENGTH: HeaderName = HeaderName::from_static(JSON_LENGTH_HEADER);

const TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_HEADER);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn answer(status: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn ok(body: &serde_json::Value) -> Response {
    answer(StatusCode::OK, JSON, body.to_string())
}

fn health(well: bool, body: &serde_json::Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, JSON, body.to_string())
}

fn error(status: StatusCode, text: &str) -> Response {
    answer(status, JSON, json!({ "error": text }).to_string())
}

fn refusal(why: &Rejection) -> Response {
    let wire = why.wire();
    let status = StatusCode::from_u16(wire.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = error(status, &why.to_string());
    if let Some(after) = wire.retry_after {
        // The header counts whole seconds; zero would invite a storm.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}
