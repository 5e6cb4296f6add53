//! A client on a blocking socket that can say anything, also what no decent client would.
#![allow(dead_code)] // each test binary uses some of it

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Long enough for two busy cores; a test that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Sends on a connection of its own, while reading: a server may answer before it has heard everything.
pub(crate) fn send(to: SocketAddr, request: &[u8]) -> Answer {
    let mut socket = connect(to);
    let mut writer = socket.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server may close on us in the middle; then its answer tells why.
            let _ = writer.write_all(request);
        });
        Answer::read(&mut socket)
    })
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Answer {
    send(to, format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes())
}

pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
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
