//! How long a request may take, by its header, its body, or both.

use crate::client::{head, json_request};
use crate::fake::Served;
use crate::{ADD, add_body, changed};
use serde_json::json;
use std::time::Duration;

#[test]
fn timeouts_reach_the_backend_and_parameters_that_are_not_kept_disturb_nothing() {
    let served = Served::start();
    let body = changed(|body| body["parameters"] = json!({ "timeout": 1500, "priority": 2, "mine": "x" }));
    assert_eq!(served.post(ADD, &body).status, 200);
    let seen = served.fake.last();
    assert_eq!(seen.timeout, Some(Duration::from_micros(1500)));
}

#[test]
fn the_shortest_timeout_counts_whether_a_header_or_the_body_says_it() {
    let served = Served::start();
    for (headers, parameter, expected) in [
        (&["700"][..], None, Some(700)),
        (&["700"], Some(1500), Some(700)),
        (&["1500"], Some(700), Some(700)),
        (&["1500", "700"], None, Some(700)),
        (&["0"], Some(700), Some(700)),
        (&["700"], Some(0), Some(700)),
        (&["0"], None, None),
        (&[], None, None),
    ] {
        println!("headers {headers:?}, parameter {parameter:?}");
        let body = match parameter {
            Some(micros) => changed(|body| body["parameters"] = json!({ "timeout": micros })),
            None => add_body().to_string(),
        };
        let answer = served.send(&with_timeouts(&json_request(ADD, &body), headers));
        assert_eq!(answer.status, 200);
        assert_eq!(served.fake.last().timeout, expected.map(Duration::from_micros));
    }
}

#[test]
fn a_body_without_json_has_the_timeout_of_its_header() {
    let served = Served::start();
    let request = [head("/v2/models/echo/infer", 16, Some("0")), vec![0; 16]].concat();
    assert_eq!(served.send(&with_timeouts(&request, &["700"])).status, 200);
    assert_eq!(served.fake.last().timeout, Some(Duration::from_micros(700)));
}

#[test]
fn a_timeout_header_that_is_no_number_is_refused() {
    let served = Served::start();
    let request = json_request(ADD, &add_body().to_string());
    for wrong in ["soon", "-1", "+1", "1.5", "", "99999999999999999999999", "\u{e9}"] {
        served.refused(&with_timeouts(&request, &[wrong]), 400, "Inference-Timeout-Us");
        served.refused(&with_timeouts(&request, &["700", wrong]), 400, "Inference-Timeout-Us");
    }
    served.is_well();
}

/// The request with a header for each of the timeouts.
fn with_timeouts(request: &[u8], timeouts: &[&str]) -> Vec<u8> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let headers: String = timeouts.iter().map(|word| format!("\r\nInference-Timeout-Us: {word}")).collect();
    [&request[..end], headers.as_bytes(), &request[end..]].concat()
}
