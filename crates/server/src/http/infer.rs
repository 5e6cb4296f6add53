//! A request for inference: its body, as far as it is let in, and its answer.

use super::Front;
use super::reply::{JSON, refusal};
use crate::frontend::Backend;
use crate::protocol::{self, JSON_LENGTH_HEADER, TIMEOUT_HEADER};
use crate::wire::Rejection;
use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a request's body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Most bytes of it.
    pub bytes: u64,
    /// Longest time in which nothing more of it comes. A client that is gone without a word would keep its connection for ever.
    pub pause: Duration,
}

/// As a name, which needs no reading at every look-up.
const JSON_LENGTH: HeaderName = HeaderName::from_static(JSON_LENGTH_HEADER);

const TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_HEADER);

pub(super) async fn infer<B: Backend>(
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
pub(super) trait Content: HttpBody<Data = Bytes, Error: Display> + Unpin {}

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
    pub(super) async fn read(&self, mut body: impl Content) -> Result<Bytes, Rejection> {
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
