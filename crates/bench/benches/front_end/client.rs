//! The clients: keep-alive connections, each with one request on its way at a time.
//!
//! Bytes are written as they are and answers are only measured, not parsed, so that the clients' core is never the one that
//! both servers wait for; the first answer is held against the sum.

use crate::servers::{Kind, PATH};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tessera_bench::latency::Latencies;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(server: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("no {server}"))?;
        stream.set_nodelay(true)?;
        let data: Vec<f32> = (0..16).map(|number| number as f32 * 1.25 - 7.3).collect();
        let input = json!({ "name": "x", "shape": [1, 16], "datatype": "FP32", "data": data });
        let body = json!({ "inputs": [input] }).to_string();
        let head =
            format!("POST {PATH} HTTP/1.1\r\nhost: {server}\r\ncontent-length: {}\r\n\r\n", body.len());
        Ok(Client { stream, request: (head + &body).into_bytes(), answer: Vec::with_capacity(4096) })
    }

    /// Asks once, and returns the answer's head and body.
    async fn ask(&mut self) -> Result<(&str, &[u8])> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let body = loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server closed the connection");
            let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("an answer without its length")?.parse()?;
            if self.answer.len() >= end + 4 + length {
                break end + 4;
            }
        };
        let (head, body) = self.answer.split_at(body);
        Ok((std::str::from_utf8(head)?, body))
    }
}

fn is_answer(head: &str) -> bool {
    head.starts_with("HTTP/1.1 200 ")
}

/// Waits for the model, and holds the answer against the sum.
pub(crate) async fn wait_until_ready(server: SocketAddr, kind: Kind) -> Result<()> {
    let mut client = Client::connect(server).await?;
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let (head, body) = client.ask().await?;
        if is_answer(head) {
            return check(body).with_context(|| format!("{} answers wrongly", kind.name()));
        }
        if Instant::now() > give_up {
            bail!("{}: {}", kind.name(), String::from_utf8_lossy(body));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn check(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let data = answer["outputs"][0]["data"].as_array().context("the answer has no data")?;
    ensure!(data.len() == 16, "{} numbers came", data.len());
    for (number, got) in data.iter().enumerate() {
        let want = (number as f32 * 1.25 - 7.3) + 0.5;
        ensure!(got.as_f64().is_some_and(|got| got as f32 == want), "{got} came where {want} was wanted");
    }
    Ok(())
}

/// `clients` connections, each asking again as soon as it is answered, for `length`.
pub(crate) async fn run(
    server: SocketAddr,
    kind: Kind,
    clients: usize,
    length: Duration,
) -> Result<Latencies> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(Client::connect(server).await?);
    }
    let end = Instant::now() + length;
    let mut running = JoinSet::new();
    for mut client in connected {
        running.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok(latencies);
                }
                let (head, body) = client.ask().await?;
                latencies.push(sent.elapsed());
                if !is_answer(head) {
                    bail!("{}: {head} {}", kind.name(), String::from_utf8_lossy(body));
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = running.join_next().await {
        all.extend(latencies.context("a client was lost")??);
    }
    Ok(all.into_iter().collect())
}
