//! Connections that are no use any more, and those that are there when the server stops.

use crate::client::{Answer, binary_request, head, json_request};
use crate::fake::{self, Served};
use crate::{ADD, add_body};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tessera_server::Settings;

#[test]
fn nonsense_on_the_socket_disturbs_nobody() {
    let served = Served::start();
    for nonsense in [&b"\0\xff\x16\x03\x01 hello\r\n\r\n"[..], b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"] {
        let mut socket = served.connect();
        socket.write_all(nonsense).unwrap();
        let _ = socket.read(&mut [0; 512]);
    }
    let endless = [b"GET /v2 HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100_000)].concat();
    let _ = served.connect().write_all(&endless);
    served.is_well();
}

/// A server that lets connections go that pause for 300 ms.
fn of_little_patience() -> Served {
    let mut settings = Settings::for_repository("unused");
    settings.idle_timeout = Duration::from_millis(300);
    Served::with(settings)
}

#[test]
fn a_body_that_stops_coming_is_refused_and_its_connection_closed() {
    let served = of_little_patience();
    let request = json_request(ADD, &add_body().to_string());
    let mut socket = served.connect();
    socket.write_all(&request[..request.len() - 5]).unwrap();
    let answer = Answer::read(&mut socket);
    assert_eq!(answer.status, 408);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("300ms") && error.contains("idle_timeout_s"), "{error}");
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "closed");
    served.is_well();
}

#[test]
fn a_client_that_never_reads_its_answer_is_let_go() {
    let served = of_little_patience();
    // As text it is three times as long, and more than sockets keep for each other.
    let many: Vec<f32> = (0..900_000).map(|number| 1.0 / (number as f32 + 0.7)).collect();
    let request = binary_request("/v2/models/echo/infer", &[("x", &many)], false, None);
    let mut socket = served.connect();
    socket.write_all(&request).unwrap();
    served.eventually(|| served.metrics_page().contains(r#"{tenant="echo",outcome="answered"} 1"#));
    served.eventually(|| served.metrics_page().contains("tessera_http_connections 0"));
    served.is_well();
}

/// The connection of a request that the model has, and that nobody has answered yet.
fn one_in_flight(served: &Served) -> TcpStream {
    let mut busy = served.connect();
    busy.write_all(&json_request("/v2/models/slow/infer", &add_body().to_string())).unwrap();
    served.eventually(|| served.fake.waiting() == 1);
    busy
}

#[test]
fn a_client_that_hangs_up_cancels_its_request() {
    let served = Served::start();
    let socket = one_in_flight(&served);
    drop(socket);
    served.eventually(|| served.fake.waiting() == 0);
    let counted = r#"tessera_requests_total{tenant="slow",outcome="hung_up"} 1"#;
    served.eventually(|| served.metrics_page().contains(counted));
    // Who closes its own side alone.
    let mut socket = one_in_flight(&served);
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    served.eventually(|| served.fake.waiting() == 0);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "there is no answer");
    // In the middle of a body, and in the middle of a head.
    for part in [head(ADD, 1000, None), b"POST /v2/mod".to_vec()] {
        served.connect().write_all(&part).unwrap();
    }
    served.is_well();
    served.eventually(|| served.metrics_page().contains("tessera_http_connections 0"));
}

#[test]
fn requests_in_flight_are_answered_after_the_signal_to_stop() {
    let served = Served::start();
    let mut idle = served.connect();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut busy = one_in_flight(&served);
    served.stop();
    // Who was idle is let go, nobody new is let in, and the busy one still waits.
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    served.eventually(|| TcpStream::connect(served.address).is_err());
    assert_eq!(served.fake.waiting(), 1);
    served.fake.release();
    assert_eq!(Answer::read(&mut busy).status, 200);
    assert_eq!(served.ended(), 0);
}

#[test]
fn the_grace_of_a_shutdown_has_an_end() {
    let served = Served::start();
    let mut busy = one_in_flight(&served);
    let asked = Instant::now();
    served.stop();
    assert_eq!(served.ended(), 1);
    assert!(asked.elapsed() >= fake::GRACE);
    assert_eq!(busy.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn who_is_in_a_hurry_does_not_wait_for_the_end_of_the_grace() {
    let served = Served::start();
    let mut busy = one_in_flight(&served);
    let asked = Instant::now();
    served.stop();
    served.hurry();
    assert_eq!(served.ended(), 1);
    assert!(asked.elapsed() < fake::GRACE);
    assert_eq!(busy.read(&mut [0; 1]).unwrap_or(0), 0);
}
