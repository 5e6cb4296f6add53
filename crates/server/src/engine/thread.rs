//! The engine's thread, from its start to its end.
//!
//! ```text
//!   start ─▶ Running ─ stop ─▶ everything that was let in is answered ─▶ joined
//!               └── dropped ─▶ the same, and nobody waits for it               so that who gives up half way leaves no thread behind
//! ```

use super::handle::{Command, EngineHandle};
use crate::mailbox::Mailbox;
use std::sync::Arc;
use std::thread::JoinHandle;

/// An engine that runs. Dropped, it ends once everybody is answered whom it let in.
#[derive(Debug)]
pub struct Running {
    engine: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(super) fn start(
        engine: EngineHandle,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Running> {
        let gone = Gone(engine.commands.clone());
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _gone = gone;
            body();
        })?;
        Ok(Running { engine, thread: Some(thread) })
    }

    /// Answers everything that was let in, refuses everything new, and waits for the end.
    pub fn stop(mut self) {
        self.engine.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the engine was told on its own thread, and everybody who waited for it has been answered.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// Says that the engine is gone when it is, on every way out, a panic included.
struct Gone(Arc<Mailbox<Command>>);

impl Drop for Gone {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}
