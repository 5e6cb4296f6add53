//! How much single launches took more, or less, than the typical one of their size, and when.
//!
//! ```text
//!   points    [launches of one size][of the next size] …        moments go on from one to the next
//!   kept      ▪▪▪▪     ▪▪▪▪▪     ▪▪▪▪                            pieces of one length, from everywhere
//! ```
//! By time and not by number, as what slows a host does so for a while, however many launches run in it.

use std::time::{Duration, Instant};

/// How long a piece is: longer than what was seen to slow a host, a few tens of milliseconds.
pub(super) const PIECE: Duration = Duration::from_millis(50);

/// Ratios that are kept at most.
const MOST: usize = 4096;

/// Ratios so far, by milliseconds from the first.
#[derive(Default)]
pub(super) struct Slow {
    ratios: Vec<(f64, f64)>,
}

impl Slow {
    /// Those of launches that ran one after the other, by when they were handed over. What came before them ended then.
    pub(super) fn add(&mut self, launches: impl Iterator<Item = (Instant, f64)>) {
        let mut launches: Vec<(Instant, f64)> = launches.collect();
        launches.sort_by_key(|(at, _)| *at);
        let Some(&(first, _)) = launches.first() else { return };
        let clock = self.ratios.last().map_or(0.0, |(at, _)| *at);
        let ms = |at: Instant| at.saturating_duration_since(first).as_secs_f64() * 1e3;
        self.ratios.extend(launches.into_iter().map(|(at, ratio)| (clock + ms(at), ratio)));
    }

    /// Moments in milliseconds, and ratios: at most as many as are kept, in whole pieces from everywhere, one behind the other; all of them where they are few.
    pub(super) fn kept(self) -> (Vec<f64>, Vec<f64>) {
        if self.ratios.len() <= MOST {
            return self.ratios.into_iter().unzip();
        }
        let piece_ms = PIECE.as_secs_f64() * 1e3;
        let number = |at: f64| (at / piece_ms).floor();
        let pieces: Vec<&[(f64, f64)]> =
            self.ratios.chunk_by(|one, other| number(one.0) == number(other.0)).collect();
        let kept = (pieces.len() * MOST / self.ratios.len()).max(1);
        let moved = |nth: usize| {
            let piece = pieces[nth * pieces.len() / kept];
            let by = (nth as f64 - number(piece[0].0)) * piece_ms;
            piece.iter().map(move |(at, ratio)| (at + by, *ratio))
        };
        (0..kept).flat_map(moved).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_on_from_point_to_point() {
        let (mut slow, began) = (Slow::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        slow.add([(at(12), 1.2), (at(10), 1.0)].into_iter());
        slow.add(std::iter::empty());
        slow.add([(at(500), 1.5), (at(503), 1.6)].into_iter());
        let (moments, ratios) = slow.kept();
        assert_eq!(ratios, [1.0, 1.2, 1.5, 1.6]);
        let rounded: Vec<f64> = moments.iter().map(|ms| ms.round()).collect();
        assert_eq!(rounded, [0.0, 2.0, 2.0, 5.0]);
    }

    #[test]
    fn of_many_ratios_whole_pieces_from_the_whole_time_are_kept() {
        let (mut slow, began) = (Slow::default(), Instant::now());
        // A launch each millisecond: its ratio is its number.
        let launches = 0..100_000u32;
        slow.add(launches.map(|number| (began + Duration::from_millis(number.into()), f64::from(number))));
        let (moments, ratios) = slow.kept();
        assert!((MOST - 100..=MOST).contains(&ratios.len()) && moments.is_sorted(), "{}", ratios.len());
        let ends = ratios.windows(2).filter(|two| two[1] != two[0] + 1.0).count();
        assert!((70..=82).contains(&ends), "some 80 pieces of 50 launches: {ends} end");
        assert!(ratios[0] == 0.0 && ratios[ratios.len() - 1] > 95_000.0, "from everywhere");
        let wide = moments[moments.len() - 1] - moments[0];
        assert!(
            (wide / ratios.len() as f64 - 1.0).abs() < 0.05,
            "pieces are one behind the other: {wide} ms"
        );
        assert_eq!(Slow::default().kept(), (vec![], vec![]));
    }
}
