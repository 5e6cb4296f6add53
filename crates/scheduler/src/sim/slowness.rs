//! How much longer than their costs launches take, from one moment to the next.
//!
//! ```text
//!   launches that ran   1.0 1.0 1.3 1.4 1.3 1.0 …     by when they were handed over
//!   pieces of them      [1.3 1.4 1.3][1.0 1.0 …       from a place that is drawn, each as long in time as another
//! ```
//! What slows a host does so for a while: as many launches are slow as run in that time, many short ones or a few long ones, one after the other.

use std::sync::Arc;
use std::time::Duration;
use tessera_core::Moment;

/// See the module's text. A ratio is a launch's time over what its cost says.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Slowness {
    /// Launches take what their costs say.
    #[default]
    Never,
    /// A launch has one of these ratios, whatever the one before had.
    Drawn(Vec<f64>),
    /// A launch has the ratio of one that ran. They are taken in pieces that are so long, from places that are drawn (a block bootstrap: Künsch 1989).
    Pieces {
        /// Ratios of launches, by when they were handed over, in order.
        ran: Arc<[(Moment, f64)]>,
        /// Longer than what slows a host.
        length: Duration,
    },
    /// A launch has the ratio of the last one of a run that was handed over before.
    AsRan(Arc<[(Moment, f64)]>),
}

/// A piece that is in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    from: Moment,
    began: Moment,
    until: Moment,
}

impl Slowness {
    /// The ratio of a launch that is handed over now.
    pub(super) fn at(&self, now: Moment, piece: &mut Option<Piece>, drawn: impl FnOnce() -> usize) -> f64 {
        match self {
            Slowness::Never => 1.0,
            Slowness::Drawn(ratios) if ratios.is_empty() => 1.0,
            Slowness::Drawn(ratios) => ratios[drawn() % ratios.len()],
            Slowness::AsRan(ran) => last_before(ran, now),
            Slowness::Pieces { ran, length } => {
                let in_force = piece.filter(|piece| now < piece.until).unwrap_or_else(|| {
                    let (first, last) = ran
                        .first()
                        .zip(ran.last())
                        .map_or_else(Default::default, |(one, other)| (one.0, other.0));
                    let places = last.since(first).saturating_sub(*length).as_nanos() + 1;
                    // The remainder is below `places`, and so fits.
                    let from = first + Duration::from_nanos((drawn() as u128 % places) as u64);
                    Piece { from, began: now, until: now + *length }
                });
                *piece = Some(in_force);
                last_before(ran, in_force.from + now.since(in_force.began))
            }
        }
    }
}

/// The ratio of the last launch up to a moment, or of the first.
fn last_before(ran: &[(Moment, f64)], now: Moment) -> f64 {
    let before = ran.partition_point(|(at, _)| *at <= now).saturating_sub(1);
    ran.get(before).map_or(1.0, |(_, ratio)| *ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(at: u64) -> Moment {
        Moment::at(Duration::from_millis(at))
    }

    #[test]
    fn a_slow_stretch_is_as_long_in_time_however_many_launches_run_in_it() {
        // Launches every ms, those of a stretch of 20 ms in 1,000 twice as long.
        let slow = |at| (200..220).contains(&(at % 1000));
        let ran = (0..4000).map(|at| (ms(at), if slow(at) { 2.0 } else { 1.0 })).collect();
        let slowness = Slowness::Pieces { ran, length: Duration::from_millis(100) };
        for every in [1, 5] {
            let (mut random, mut piece) = (1u64, None);
            let mut drawn = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) as usize
            };
            let ratios: Vec<f64> = (0..400_000 / every)
                .map(|nth| slowness.at(ms(nth * every), &mut piece, &mut drawn))
                .collect();
            let stretches = ratios.chunk_by(|one, other| one == other).filter(|stretch| stretch[0] == 2.0);
            let lengths: Vec<u64> = stretches.map(|stretch| stretch.len() as u64 * every).collect();
            let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
            // Pieces of 100 ms cut a sixth of the stretches of 20 in two.
            assert!((14.0..=22.0).contains(&mean), "launches every {every} ms: slow for {mean} ms");
            let part = ratios.iter().filter(|ratio| **ratio == 2.0).count() as f64 / ratios.len() as f64;
            assert!((part / 0.02 - 1.0).abs() < 0.3, "launches every {every} ms: {part} of them are slow");
        }
    }

    #[test]
    fn pieces_of_nothing_and_of_less_than_a_piece_are_no_trouble() {
        let length = Duration::from_millis(50);
        let at = |ran: &[(Moment, f64)], now| {
            Slowness::Pieces { ran: ran.into(), length }.at(now, &mut None, || 7)
        };
        assert_eq!(at(&[], ms(3)), 1.0);
        assert_eq!(at(&[(ms(1), 1.5)], ms(3)), 1.5);
        assert_eq!(Slowness::Drawn(vec![]).at(ms(3), &mut None, || 7), 1.0);
    }
}
