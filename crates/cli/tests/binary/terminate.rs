//! SIGTERM under load: who was in time is answered, nobody new is let in, and the process ends well.

use crate::client::{Answer, connect, eventually, send};
use crate::models::{Body, KINDS, SLOW};
use crate::process::Tessera;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A whole request to a tenant, with one more line in its head.
fn whole(tenant: &str, body: &Body, line: &str) -> Vec<u8> {
    let head = format!(
        "POST /v2/models/{tenant}/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {}\r\n{line}\r\n",
        body.bytes.len(),
        body.json_bytes
    );
    [head.into_bytes(), body.bytes.to_vec()].concat()
}

#[test]
fn requests_in_flight_are_answered_nobody_new_is_let_in_and_the_exit_code_is_zero() {
    let repository = tempfile::tempdir().unwrap();
    let tenants = ["slow-0", "slow-1", "slow-2"];
    for (seed, tenant) in tenants.iter().enumerate() {
        fs::write(repository.path().join(format!("{tenant}.onnx")), SLOW.onnx(seed as u64)).unwrap();
    }
    let tessera = Tessera::serve(repository.path(), &[]);
    let body = SLOW.request(2, 0, 7);
    let alone = tenants.map(|tenant| send(tessera.http, &whole(tenant, &body, "")));
    assert!(alone.iter().all(|answer| answer.status == 200));
    assert_ne!(alone[0].body, alone[1].body);

    // One that was answered and is kept open, with nothing to say.
    let mut idle = connect(tessera.http);
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    // Many whose heads the server has read, for it says so. Every fourth one is still sending its body when the signal comes;
    // the others are whole.
    let half = body.bytes.len() / 2;
    let mut in_flight: Vec<(usize, TcpStream, Vec<u8>)> = (0..48)
        .map(|number| {
            let mut request = whole(tenants[number % 3], &body, "Expect: 100-continue\r\n");
            let rest = request.split_off(request.len() - half);
            let mut socket = connect(tessera.http);
            socket.write_all(&request).unwrap();
            let mut go_on = [0; 25];
            socket.read_exact(&mut go_on).unwrap();
            assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            (number, socket, rest)
        })
        .collect();
    let still_sends = |number: usize| number.is_multiple_of(4);
    for (_, socket, rest) in in_flight.iter_mut().filter(|(number, ..)| !still_sends(*number)) {
        socket.write_all(rest).unwrap();
    }
    // Most of them wait now; on a machine that is slow to say so, some may be answered already.
    tessera.terminate();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "who was idle is let go");
    eventually("nobody new is let in", || TcpStream::connect(tessera.http).is_err());
    for (number, socket, rest) in &mut in_flight {
        if still_sends(*number) {
            socket.write_all(rest).unwrap();
        }
        let answer = Answer::read(socket);
        assert_eq!(answer.status, 200, "number {number}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.body, alone[*number % 3].body, "number {number}");
    }
    assert_eq!(tessera.ended().code(), Some(0));
}

#[test]
fn clients_that_keep_sending_hear_answers_and_then_nothing() {
    let repository = tempfile::tempdir().unwrap();
    for kind in &KINDS[..3] {
        fs::write(repository.path().join(format!("{}.onnx", kind.name)), kind.onnx(1)).unwrap();
    }
    let tessera = Tessera::serve(repository.path(), &[]);
    let http = tessera.http;
    std::thread::scope(|scope| {
        let client = move |number: usize| {
            let kind = &KINDS[number % 3];
            let request = whole(kind.name, &kind.request(1, 0, number as u64), "");
            let mut answered = 0;
            // A connection that the server closes between two requests ends a client; nothing it reads may be an error.
            let mut socket = connect(http);
            while socket.write_all(&request).is_ok() && socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                let answer = Answer::read(&mut socket);
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                answered += 1;
            }
            answered
        };
        let clients: Vec<_> = (0..8).map(|number| scope.spawn(move || client(number))).collect();
        eventually("they are answered", || tessera.sample("tessera_requests_total{") > 500.0);
        tessera.terminate();
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered > 500, "{answered}");
    });
    assert!(TcpStream::connect(http).is_err());
    assert_eq!(tessera.ended().code(), Some(0));
}

#[test]
fn a_second_signal_cuts_off_who_is_still_waited_for() {
    let repository = tempfile::tempdir().unwrap();
    fs::write(repository.path().join("slow.onnx"), SLOW.onnx(1)).unwrap();
    let tessera = Tessera::serve(repository.path(), &["--shutdown-grace-s", "3600"]);
    let request = whole("slow", &SLOW.request(1, 0, 7), "Expect: 100-continue\r\n");
    let mut never_ends = connect(tessera.http);
    never_ends.write_all(&request[..request.len() / 2]).unwrap();
    never_ends.read_exact(&mut [0; 25]).unwrap();
    tessera.terminate();
    eventually("nobody new is let in", || TcpStream::connect(tessera.http).is_err());
    tessera.terminate();
    assert_eq!(tessera.ended().code(), Some(1), "somebody was cut off");
}
