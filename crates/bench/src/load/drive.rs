//! Sends, waits, and hears of every request exactly once.

use super::{Ended, Sample, Tally, Target, Times};
use crate::arrivals::{Arrival, Popularity};
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Time for everything to be in its place before the clock starts.
const HEAD_START: Duration = Duration::from_millis(20);

/// What a client waits after a refusal before it asks again: a loop of refusals would measure nothing else.
const AFTER_A_REFUSAL: Duration = Duration::from_millis(1);

/// Live figures of a running load.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests sent so far.
    pub sent: AtomicU64,
    /// Requests that have ended so far.
    pub ended: AtomicU64,
    /// When an open loop's clock started.
    pub began: OnceLock<Instant>,
}

/// One request's sample: told when this is dropped, so that no request is forgotten, however its task ends.
struct Owed {
    sample: Sample,
    due: Instant,
    heard: UnboundedSender<Sample>,
}

impl Drop for Owed {
    fn drop(&mut self) {
        let ended = std::mem::replace(&mut self.sample.ended, Ended::Unanswered);
        let sample = Sample { latency: self.due.elapsed(), ended, ..self.sample.clone() };
        // Nobody listens only when the whole load was given up.
        let _ = self.heard.send(sample);
    }
}

impl Owed {
    fn new((tenant, at): (usize, Duration), due: Instant, heard: UnboundedSender<Sample>) -> Owed {
        let (lag, latency) = (due.elapsed(), Duration::ZERO);
        Owed { sample: Sample { tenant, due: at, lag, latency, ended: Ended::Unanswered }, due, heard }
    }

    /// Asks, until `closing`; whether it was refused.
    async fn ask(mut self, target: &impl Target, number: u64, closing: Instant) -> bool {
        let asked = target.ask(self.sample.tenant, number);
        if let Ok(ended) = tokio::time::timeout_at(closing.into(), asked).await {
            self.sample.ended = ended;
        }
        self.sample.ended == Ended::Refused
    }
}

/// Sends what is due, when it is due, whether or not earlier requests are answered. Arrivals are in order; those after the end are not
/// sent. The tally has every one that was.
pub async fn open<T: Target>(
    target: &Arc<T>,
    arrivals: impl Iterator<Item = Arrival> + Send + 'static,
    times: Times,
    mut tally: Tally,
    progress: &Arc<Progress>,
) -> Result<Tally> {
    let (heard, samples) = unbounded_channel();
    let (target, sent, runtime) = (target.clone(), progress.clone(), Handle::current());
    // A thread of its own: the runtime's timers are good to a millisecond, a sleeping thread to a tenth.
    let pace = tokio::task::spawn_blocking(move || {
        let start = *sent.began.get_or_init(|| Instant::now() + HEAD_START);
        let closing = start + times.end() + times.grace;
        let due = arrivals.take_while(|arrival| arrival.at < times.end());
        for (number, Arrival { at, tenant }) in due.enumerate() {
            let due = start + at;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.sent.fetch_add(1, Ordering::Relaxed);
            let (target, heard) = (target.clone(), heard.clone());
            runtime.spawn(async move {
                Owed::new((tenant, at), due, heard).ask(&*target, number as u64, closing).await
            });
        }
    });
    gather(samples, &mut tally, progress).await;
    pace.await.context("the thread that sends was lost")?;
    Ok(tally)
}

/// Keeps `clients` requests on their way, each for a tenant drawn by popularity.
pub async fn closed<T: Target>(
    target: &Arc<T>,
    clients: usize,
    (popularity, seed): (Popularity, u64),
    times: Times,
    mut tally: Tally,
    progress: &Arc<Progress>,
) -> Tally {
    let (heard, samples) = unbounded_channel();
    let mut sum = 0.0;
    let shares = popularity.weights(tally.tenants()).into_iter().map(|weight| {
        sum += weight;
        sum
    });
    let shares: Arc<[f64]> = shares.collect();
    let start = Instant::now();
    for client in 0..clients {
        let (target, heard, shares, progress) =
            (target.clone(), heard.clone(), shares.clone(), progress.clone());
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(client as u64));
        tokio::spawn(async move {
            let closing = start + times.end() + times.grace;
            for round in 0.. {
                let due = Instant::now();
                let at = due - start;
                if at >= times.end() {
                    break;
                }
                let drawn: f64 = random.random();
                let tenant = shares.partition_point(|share| *share <= drawn).min(shares.len() - 1);
                progress.sent.fetch_add(1, Ordering::Relaxed);
                let number = round * clients as u64 + client as u64;
                if Owed::new((tenant, at), due, heard.clone()).ask(&*target, number, closing).await {
                    tokio::time::sleep(AFTER_A_REFUSAL).await;
                }
            }
        });
    }
    drop(heard);
    gather(samples, &mut tally, progress).await;
    tally
}

/// Until the last request has ended.
async fn gather(mut samples: UnboundedReceiver<Sample>, tally: &mut Tally, progress: &Progress) {
    while let Some(sample) = samples.recv().await {
        progress.ended.fetch_add(1, Ordering::Relaxed);
        tally.count(&sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Level, Row, Tenant};

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Answers one request at a time, each after `takes`; the third of every four never, when told so.
    struct Slow {
        takes: Duration,
        forgets: bool,
        turn: tokio::sync::Mutex<()>,
    }

    impl Slow {
        fn new(takes: Duration, forgets: bool) -> Arc<Slow> {
            Arc::new(Slow { takes, forgets, turn: tokio::sync::Mutex::default() })
        }
    }

    impl Target for Slow {
        async fn ask(&self, _: usize, number: u64) -> Ended {
            match number % 4 {
                1 if self.forgets => return Ended::Refused,
                2 if self.forgets => std::future::pending().await,
                3 if self.forgets => panic!("a task that is lost"),
                _ => {}
            }
            let _turn = self.turn.lock().await;
            tokio::time::sleep(self.takes).await;
            Ended::Answered
        }
    }

    const TIMES: Times =
        Times { warmup: Duration::ZERO, length: Duration::from_millis(400), grace: Duration::from_secs(5) };

    fn every(gap: Duration) -> impl Iterator<Item = Arrival> + Send + 'static {
        (0..).map(move |number| Arrival { at: gap * number, tenant: 0 })
    }

    fn tally(times: Times) -> Tally {
        Tally::new(vec![Tenant { name: "t".into(), slo: Some(ms(100)) }], times, 1)
    }

    async fn under(target: Arc<Slow>, gap: Duration, times: Times) -> Row {
        let done = open(&target, every(gap), times, tally(times), &Arc::default()).await.unwrap();
        done.row(Level::Trace)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_falls_behind_is_charged_for_its_queue() {
        // It answers a request in 20 ms and is asked every 10: the last of 40 waits for about as long as the load lasted.
        let row = under(Slow::new(ms(20), false), ms(10), TIMES).await;
        assert_eq!((row.sent, row.answered), (40, 40));
        assert!(row.latency_ms.p99 > 350.0, "{row:?}");
        assert!(row.latency_ms.p50 > 150.0, "{row:?}");
        assert!(row.in_time < 20, "only the first were answered within 100 ms: {row:?}");
        // What is answered after the end is no throughput.
        assert!(row.throughput < 55.0, "{row:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_has_no_answer_at_the_end_is_counted_even_if_its_task_was_lost() {
        let times = Times { grace: ms(200), ..TIMES };
        let row = under(Slow::new(ms(1), true), ms(10), times).await;
        assert_eq!((row.sent, row.answered, row.refused, row.unanswered), (40, 10, 10, 20), "{row:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_closed_loop_has_so_many_requests_on_their_way_and_no_more() {
        let target = Slow::new(ms(10), false);
        let popularity = (Popularity::Uniform, 1);
        let done = closed(&target, 2, popularity, TIMES, tally(TIMES), &Arc::default()).await;
        let row = done.row(Level::Concurrency(2));
        // Two take turns: each waits for the other's 10 ms and its own.
        assert!((15..=40).contains(&row.answered), "{row:?}");
        assert!(row.latency_ms.p50 >= 19.0, "{row:?}");
        assert_eq!(row.sent, row.answered);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_due_in_the_warm_up_is_sent_and_not_counted() {
        let times = Times { warmup: ms(200), length: ms(200), ..TIMES };
        let progress = Arc::default();
        let target = Slow::new(ms(1), false);
        let done = open(&target, every(ms(10)), times, tally(times), &progress).await.unwrap();
        assert_eq!(done.row(Level::Trace).sent, 20);
        assert_eq!(progress.sent.load(Ordering::Relaxed), 40);
    }
}
