//! Answers of every route: a status, and JSON.

use crate::wire::Rejection;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn answer(status: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(super) fn ok(body: &serde_json::Value) -> Response {
    answer(StatusCode::OK, JSON, body.to_string())
}

pub(super) fn health(well: bool, body: &serde_json::Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, JSON, body.to_string())
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    answer(status, JSON, json!({ "error": text }).to_string())
}

pub(super) fn refusal(why: &Rejection) -> Response {
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
