//! An answer that somebody waits for.
//!
//! ```text
//!   on ─▶ a sender, to be handed in with the request ─▶ the engine
//!      └▶ Wait ─ answer ─▶ the outputs, or why not        dropped before it came: the request is called off
//! ```
//! A client that hangs up drops the future that waits for its answer, and so do deadlines of whoever asks. A request that was not launched then never is.

use super::handle::{Answer, EngineHandle, NotAnswered};
use tessera_core::RequestId;
use tokio::sync::oneshot;

/// A request's answer, on its way.
#[derive(Debug)]
#[must_use = "the request is called off when this is dropped"]
pub struct Wait<'a> {
    engine: &'a EngineHandle,
    request: RequestId,
    answer: oneshot::Receiver<Answer>,
    over: bool,
}

impl<'a> Wait<'a> {
    /// For a request of this number that is handed in next, with the sender.
    pub fn on(engine: &'a EngineHandle, request: RequestId) -> (oneshot::Sender<Answer>, Wait<'a>) {
        let (reply, answer) = oneshot::channel();
        (reply, Wait { engine, request, answer, over: false })
    }

    /// The answer, once it is there.
    pub async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.over = true;
        answer.unwrap_or_else(|_| Err(NotAnswered::Lost("the engine has stopped".to_owned())))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.engine.cancel(self.request);
        }
    }
}
