//! One keep-alive HTTP connection, as small as a load generator wants it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::RETRY_AFTER;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection that sends one request after another.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Whether it says when to try again (`Retry-After`).
    pub try_again: bool,
    /// Where its JSON ends and its binary tensors begin, when it has any.
    pub json_bytes: Option<usize>,
    /// Everything after the headers.
    pub body: Bytes,
}

impl Connection {
    /// Connects, without delay for small packets.
    pub async fn open(to: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // An error here is one of the request in progress too, which reports it.
            let _ = connection.await;
        });
        Ok(Connection { sender, host: to.to_string() })
    }

    /// Whether the other side has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Reads a page.
    pub async fn get(&mut self, path: &str) -> Result<Reply> {
        self.send(Request::get(path), Bytes::new()).await
    }

    /// Sends a request whose first `json_bytes` are JSON and whose rest are binary tensors; `None` is JSON alone.
    pub async fn post(&mut self, path: &str, json_bytes: Option<usize>, body: Bytes) -> Result<Reply> {
        let mut request = Request::post(path);
        if let Some(json_bytes) = json_bytes {
            request = request.header("inference-header-content-length", json_bytes);
        }
        self.send(request, body).await
    }

    async fn send(&mut self, request: hyper::http::request::Builder, body: Bytes) -> Result<Reply> {
        let request = request.header("host", &self.host).body(Full::new(body))?;
        self.sender.ready().await.context("the connection was closed")?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let try_again = response.headers().contains_key(RETRY_AFTER);
        let header = response.headers().get("inference-header-content-length");
        let json_bytes = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            json_bytes.is_none_or(|json| json <= body.len()),
            "the answer is shorter than its header says"
        );
        Ok(Reply { status, try_again, json_bytes, body })
    }
}
