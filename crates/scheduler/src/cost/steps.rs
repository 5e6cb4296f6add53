//! At which counts costs are kept.
//!
//! ```text
//!   lanes   1  2  3  4     6  8     12     16     24     32     …     half octaves
//!   items   1  2  3  4  5  6  8  9  12     16 17  24     32 33  …     those, and the count behind each power of two
//! ```
//! Graphs and tiles hold powers of two of items: the one behind them may cost a fifth more (ResNet-50 in bf16 on an H200, 12 lanes: 16 items take 725 µs, 17 take 863,
//! 24 take 1027), so no line may lead from 16 to 24. Each lane costs about as much as the one before (6 µs there), and a step of theirs holds several.

/// 1, 2, 3, 4–5, 6–7, 8–11, 12–15, 16–23, …: where twice the logarithm of n falls.
pub(crate) fn half_octave(n: u32) -> usize {
    let log = n.max(1).ilog2();
    let upper_half = log > 0 && n & (1 << (log - 1)) != 0;
    (2 * log as usize + usize::from(upper_half)).saturating_sub(1)
}

/// The first count of a half octave.
pub(crate) fn corner(step: usize) -> u32 {
    // Steps of a power of two, 1 aside, are odd; those half way to the next are even.
    let log = u32::try_from(step.div_ceil(2)).unwrap_or(u32::MAX);
    if step > 0 && step.is_multiple_of(2) {
        3u32.checked_shl(log - 1).unwrap_or(u32::MAX)
    } else {
        1u32.checked_shl(log).unwrap_or(u32::MAX)
    }
}

/// Half octaves that are whole below this: 1, 2 and 3 have each a step of its own.
const WHOLE: u32 = 4;

/// The same of items: 1, 2, 3, 4, 5, 6–7, 8, 9–11, 12–15, 16, 17–23, …
pub(super) fn item_step(n: u32) -> usize {
    let halves = half_octave(n);
    // Behind each power of two from four on there is one step more.
    let octaves = n.max(1).ilog2().saturating_sub(WHOLE.ilog2()) as usize;
    let behind = n > WHOLE && !n.is_power_of_two();
    halves + octaves + usize::from(behind)
}

/// The first count of a step of items.
pub(super) fn item_corner(step: usize) -> u32 {
    let first = half_octave(WHOLE);
    let Some(beyond) = step.checked_sub(first) else { return corner(step) };
    let power = corner(first + 2 * (beyond / 3));
    match beyond % 3 {
        0 => power,
        1 => power.saturating_add(1),
        _ => power.saturating_add(power / 2),
    }
}

/// The half octave at or before a count, and how far it is to the next. Beyond the last corner the line goes on.
pub(crate) fn between(n: u32, corners: usize) -> (usize, f64) {
    along(n, half_octave(n).min(corners - 2), corner)
}

/// The same of items.
pub(super) fn between_items(n: u32, corners: usize) -> (usize, f64) {
    along(n, item_step(n).min(corners - 2), item_corner)
}

fn along(n: u32, step: usize, corner: fn(usize) -> u32) -> (usize, f64) {
    let (from, to) = (f64::from(corner(step)), f64::from(corner(step + 1)));
    (step, (f64::from(n.max(1)) - from) / (to - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(step: fn(u32) -> usize) -> Vec<u32> {
        (1..70).filter(|&n| n == 1 || step(n) != step(n - 1)).collect()
    }

    #[test]
    fn steps_of_lanes_are_half_octaves_and_corners_their_first() {
        let firsts = firsts(half_octave);
        assert_eq!(firsts, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]);
        assert!(firsts.iter().enumerate().all(|(step, &n)| half_octave(n) == step && corner(step) == n));
        assert_eq!(half_octave(u32::MAX), 62);
    }

    #[test]
    fn steps_of_items_end_with_a_power_of_two_and_begin_again_behind_it() {
        let firsts = firsts(item_step);
        assert_eq!(firsts, [1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 24, 32, 33, 48, 64, 65]);
        assert!(firsts.iter().enumerate().all(|(step, &n)| item_step(n) == step && item_corner(step) == n));
        assert!(item_corner(item_step(u32::MAX)) > 1 << 31);
    }
}
