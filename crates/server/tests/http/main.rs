//! The wire, over real sockets, with a few lines of arithmetic behind it.
//!
//! `add` gives x + y, element by element; `echo` gives x; `slow` answers when it is told to, `full` never. The
//! client is written by hand on a blocking socket, because most of what it says no decent client would.

// What fails to be as it should, in a test or its helpers, is best told where it was.
#![allow(clippy::unwrap_used)]

#[path = "../client/mod.rs"]
mod client;
#[path = "../fake/mod.rs"]
mod fake;

mod connections;
mod forms;
mod refused;
mod timeouts;
mod told;

use serde_json::{Value, json};

const ADD: &str = "/v2/models/add/infer";

fn add_body() -> Value {
    json!({ "id": "7", "inputs": [
        { "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [[1, 2, 3, 4]] },
        { "name": "y", "shape": [1, 4], "datatype": "FP32", "data": [0.5, 0.25, 0, -1] },
    ] })
}

/// `add_body` with one change.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut body = add_body();
    change(&mut body);
    body.to_string()
}
