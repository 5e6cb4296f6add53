//! To standard output, where a reader that has seen enough, `head` say, is no trouble.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints this as it is. Errors when it cannot be written, unless nobody reads any more.
pub(crate) fn print(text: &dyn Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
