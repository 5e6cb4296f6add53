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
mod infer;
mod reply;
mod site;

use self::infer::infer;
use self::reply::{answer, error, health, ok, refusal};
use crate::events::Asked;
use crate::frontend::{Backend, Listed};
use crate::metrics::Metrics;
use crate::protocol;
use crate::wire::Rejection;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

pub(crate) use infer::BodyLimits;
pub(crate) use site::Site;

/// What every handler shares.
struct Front<B> {
    backend: Arc<B>,
    metrics: Arc<Metrics>,
    limits: BodyLimits,
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

/// What Triton has and we do not, by a part of its path, and what to do instead.
const NOT_OFFERED: [(&str, &str); 6] = [
    (
        "/v2/repository/models/",
        "models are loaded and unloaded by their files in the model repository, not by requests",
    ),
    ("/v2/systemsharedmemory", "shared memory is not offered; send tensors in the request's body"),
    ("/v2/cudasharedmemory", "shared memory is not offered; send tensors in the request's body"),
    ("/trace/setting", "traces are not offered; /v2/models/NAME/steps tells where a model's time goes"),
    ("/v2/logging", "the log is set at the start, by `log_level` and `log_format`"),
    ("/generate", "generating text is not offered; POST /v2/models/NAME/infer takes tensors"),
];

async fn nothing_there(path: Uri) -> Response {
    let instead =
        NOT_OFFERED.iter().find(|(part, _)| path.path().contains(part)).map(|(_, instead)| *instead);
    let way = instead.unwrap_or(
        "the server is at /v2, a model at /v2/models/NAME, and POST /v2/repository/index lists all; metrics have a port of their own",
    );
    error(StatusCode::NOT_FOUND, &format!("nothing is at `{}`: {way}", path.path()))
}

async fn wrong_verb(verb: Method, path: Uri) -> Response {
    let way = "POST is for inference and /v2/repository/index, GET for everything else";
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{verb} does nothing at `{}`: {way}", path.path()))
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
