//! To standard output, where a reader that has seen enough, `head` say, is no trouble.

use anyhow::{Context, Result};
use std::fmt::{self, Display, Formatter};
use std::io::{ErrorKind, Write};

/// Prints this as it is. Errors when it cannot be written, unless nobody reads any more.
pub(crate) fn print(text: &dyn Display) -> Result<()> {
    read_or_not(print_to_a_reader(text))
}

/// The same for a command whose only work is to show something: errors with [`Unread`] when nobody reads any more.
pub(crate) fn print_to_a_reader(text: &dyn Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unread.into()),
        written => written.context("cannot write to stdout"),
    }
}

/// What came of printing, where [`Unread`] is no trouble.
pub(crate) fn read_or_not(printed: Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.is::<Unread>() => Ok(()),
        printed => printed,
    }
}

/// Nobody reads what is printed.
#[derive(Debug)]
struct Unread;

impl Display for Unread {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("nobody reads what is printed")
    }
}

impl std::error::Error for Unread {}
