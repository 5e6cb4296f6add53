//! Short sleeps.

#[cfg(target_os = "linux")]
use std::cell::Cell;

#[cfg(target_os = "linux")]
thread_local! {
    /// Whether this thread wakes promptly.
    static PROMPT: Cell<bool> = const { Cell::new(false) };
}

/// Has the system wake this thread when it asked to be woken. Otherwise it may sleep 50 µs longer than it asked for, so that others wake with it: more than a small
/// launch takes. Systems other than Linux keep their own ways. Costs nothing a second time.
pub(crate) fn wake_promptly() {
    #[cfg(target_os = "linux")]
    if !PROMPT.replace(true) {
        // SAFETY: changes how long this thread's sleeps may be prolonged, in nanoseconds, and touches no memory. A refusal would leave sleeps as they were.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_wakes_promptly_has_hardly_any_slack() {
        let slack = std::thread::spawn(|| {
            wake_promptly();
            // SAFETY: asks for a number.
            unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
        });
        assert_eq!(slack.join().unwrap(), 1_000);
    }
}
