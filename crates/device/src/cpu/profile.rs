//! What each step of a launch takes on one core, and what one core can do: for benches.
//!
//! The launch's runs follow each other on the thread that asks, with a clock around every step, so a step's time is that of all lanes
//! on one core. The workers rest meanwhile; where they do not, or others use the machine, the median forgets the worst of it.

use super::arena::Arena;
use super::fence::{Kernel, burst, dispatch};
use super::running::Running;
use super::steps::Scratch;
use crate::{Rates, StepTime};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Rounds are made until so much time is over, but three at least: a bench of large models should end.
const ENOUGH: Duration = Duration::from_secs(3);
const LEAST: usize = 3;

/// Runs a launch up to `rounds` times and takes the median of each step.
pub(super) fn profile(running: &Running, rounds: NonZeroUsize) -> Vec<StepTime> {
    let (mut arena, mut scratch) = (Arena::default(), Scratch::default());
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); running.program.plan.steps.len()];
    let start = Instant::now();
    for round in 0..rounds.get() {
        if round >= LEAST && start.elapsed() > ENOUGH {
            break;
        }
        took.iter_mut().for_each(|took| took.push(Duration::ZERO));
        running.each_step(&mut arena, &mut scratch, |step, time| took[step][round] += time);
    }
    let median = |(step, mut took): (usize, Vec<Duration>)| {
        took.sort_unstable();
        StepTime { step, took: took[took.len() / 2] }
    };
    took.into_iter().enumerate().map(median).collect()
}

/// What the core that asks can do now: the best of several short tries.
pub(super) fn rates() -> Rates {
    const TRIES: usize = 20;
    const ROUNDS: usize = 200_000;
    /// More than any cache holds.
    const BYTES: usize = 128 << 20;
    let best = |tries: usize, work: &mut dyn FnMut() -> f64| {
        let rate = |_| {
            let start = Instant::now();
            let done = work();
            done / start.elapsed().as_secs_f64()
        };
        (0..tries).map(rate).fold(0.0, f64::max)
    };
    let flops_per_s = best(TRIES, &mut || burst(ROUNDS));
    let numbers = vec![1.0f32; BYTES / size_of::<f32>()];
    let bytes_per_s = best(TRIES / 4, &mut || {
        dispatch(Sum(&numbers));
        BYTES as f64
    });
    Rates { flops_per_s, bytes_per_s }
}

/// Reads everything once.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let mut sums = [0.0f32; 64];
        for chunk in self.0.chunks_exact(64) {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += x;
            }
        }
        black_box(sums);
    }
}
