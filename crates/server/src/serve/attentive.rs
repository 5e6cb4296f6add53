//! A socket whose other side has to read.
//!
//! ```text
//!   answer ─▶ written │ written │ full: the other side reads nothing ── patience ──▶ an error, which ends the connection
//!                                      └─ it reads ─▶ written, and patience begins anew
//! ```
//! Whoever sends requests and never reads an answer would hold a connection, its place among `max_connections` and the answer for ever.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Attentive<S> {
    stream: S,
    patience: Duration,
    /// Set while what is to be written finds no room.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Attentive<S> {
    /// A stream that is given up when nothing can be written for so long.
    pub(super) fn new(stream: S, patience: Duration) -> Attentive<S> {
        Attentive { stream, patience, waits: None }
    }

    fn within_patience<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waits = None;
            return done;
        }
        let patience = self.patience;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waits.as_mut().poll(context));
        let why = format!("nothing of the answer was read for {patience:?}");
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attentive<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attentive<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.within_patience(context, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.within_patience(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_flush(context);
        this.within_patience(context, done)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_shutdown(context);
        this.within_patience(context, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Waker;

    /// What the other side has room for.
    struct Room(usize);

    impl AsyncWrite for Room {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn patience_begins_anew_whenever_something_was_read() {
        let mut socket = Attentive::new(Room(8), Duration::from_secs(3600));
        let write = |socket: &mut Attentive<Room>| {
            Pin::new(socket).poll_write(&mut Context::from_waker(Waker::noop()), &[0; 20])
        };
        assert!(matches!(write(&mut socket), Poll::Ready(Ok(8))));
        assert!(write(&mut socket).is_pending() && socket.waits.is_some());
        socket.stream.0 = 2;
        assert!(matches!(write(&mut socket), Poll::Ready(Ok(2))));
        assert!(socket.waits.is_none());
    }

    #[tokio::test]
    async fn who_reads_nothing_is_given_up() {
        let mut socket = Attentive::new(Room(0), Duration::from_millis(20));
        let error = poll_fn(|context| Pin::new(&mut socket).poll_write(context, &[0; 20])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "nothing of the answer was read for 20ms");
    }
}
