//! Arithmetic on shapes that inference and the reference share: axes, strides, broadcasting, slices.

use crate::op::PadMode;

/// `axis` of a tensor of rank `rank`, negative ones counted from the end; `None` when there is no such axis.
pub(crate) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}

/// Several axes, each at most once, in increasing order; `None` when one is out of range or named twice.
pub(crate) fn axes(wanted: &[i64], rank: usize) -> Option<Vec<usize>> {
    let mut axes = wanted.iter().map(|&wanted| axis(wanted, rank)).collect::<Option<Vec<_>>>()?;
    axes.sort_unstable();
    axes.windows(2).all(|pair| pair[0] != pair[1]).then_some(axes)
}

/// Elements between neighbours along each axis of a dense row-major tensor.
pub(crate) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; dims.len()];
    for axis in (1..dims.len()).rev() {
        // An empty tensor may have dimensions whose product overflows; its strides are never used.
        strides[axis - 1] = strides[axis].saturating_mul(dims[axis]);
    }
    strides
}

/// The number of elements, `None` when it overflows.
pub(crate) fn count(dims: &[usize]) -> Option<usize> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The shape that `a` and `b` broadcast to as NumPy does, `None` when they do not.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (a, b) if a == b => Some(a),
            (1, b) => Some(b),
            (a, 1) => Some(a),
            _ => None,
        })
        .collect()
}

/// Strides with which a tensor of shape `dims` is walked as `to`, a shape that it broadcasts to.
pub(crate) fn broadcast_strides(dims: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(dims);
    let missing = to.len() - dims.len();
    let stride = |axis: usize| match axis.checked_sub(missing) {
        Some(at) if dims[at] != 1 => own[at],
        _ => 0,
    };
    (0..to.len()).map(stride).collect()
}

/// The part of one axis that a slice takes: every `step`-th element from `first` on, `count` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub first: usize,
    pub step: i64,
    pub count: usize,
}

/// What ONNX's `starts`, `ends` and `steps` take of an axis of `len` elements: negative bounds count from the end and all are clamped.
/// `None` for a step of zero.
pub(crate) fn slice(start: i64, end: i64, step: i64, len: usize) -> Option<Taken> {
    let len = len as i128;
    let from_end = |bound: i64| if bound < 0 { i128::from(bound) + len } else { i128::from(bound) };
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let (start, end) = (from_end(start).clamp(low.max(0).min(high), high), from_end(end).clamp(low, high));
    let span = match step {
        0 => return None,
        1.. => end - start,
        _ => start - end,
    };
    let stride = i128::from(step).abs();
    let count = if span <= 0 { 0 } else { (span + stride - 1) / stride };
    Some(Taken { first: start.max(0) as usize, step, count: count as usize })
}

/// The permutation that a transpose means: none is all axes reversed. `None` when it is not one.
pub(crate) fn permutation(perm: &[usize], rank: usize) -> Option<Vec<usize>> {
    if perm.is_empty() {
        return Some((0..rank).rev().collect());
    }
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    sorted.iter().copied().eq(0..rank).then(|| perm.to_vec())
}

/// Lengths of the parts of an axis that is split into `parts`, evenly but for the last one.
pub(crate) fn even_parts(length: usize, parts: usize) -> Option<Vec<usize>> {
    let part = length.div_ceil(parts.max(1));
    (0..parts).map(|index| length.checked_sub(index * part).map(|left| left.min(part))).collect()
}

/// The length of a padded axis. The error says why it cannot be padded so.
pub(crate) fn padded(mode: PadMode, length: usize, before: i64, after: i64) -> Result<usize, String> {
    let most_cut = before.min(after).min(0).unsigned_abs();
    if most_cut > length as u64 {
        return Err(format!("{most_cut} elements cannot be cut off {length}"));
    }
    let padded = i128::try_from(length).unwrap_or(i128::MAX) + i128::from(before) + i128::from(after);
    let padded = usize::try_from(padded)
        .map_err(|_| format!("padding {length} by {before} and {after} leaves nothing"))?;
    let most = before.max(after).max(0) as u64;
    let reach = match mode {
        PadMode::Constant => u64::MAX,
        PadMode::Reflect => (length as u64).saturating_sub(1),
        // The border, or a whole round, repeats as often as it must, unless there is nothing to repeat.
        PadMode::Edge | PadMode::Wrap if length == 0 => 0,
        PadMode::Edge | PadMode::Wrap => u64::MAX,
    };
    if most > reach {
        return Err(format!("{length} elements cannot be padded by {most} in this mode"));
    }
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(start: i64, end: i64, step: i64, len: usize) -> Vec<i64> {
        let taken = slice(start, end, step, len).unwrap();
        (0..taken.count as i64).map(|i| taken.first as i64 + i * taken.step).collect()
    }

    #[test]
    fn slices_clamp_and_count_from_the_end_as_numpy_does() {
        assert_eq!(taken(1, 3, 1, 5), [1, 2]);
        assert_eq!(taken(-2, i64::MAX, 1, 5), [3, 4]);
        assert_eq!(taken(0, -1, 2, 6), [0, 2, 4]);
        assert_eq!(taken(-1, i64::MIN, -1, 3), [2, 1, 0]);
        assert_eq!(taken(10, 0, -2, 5), [4, 2]);
        assert_eq!(taken(3, 1, 1, 5), [0i64; 0]);
        assert_eq!(taken(0, 5, 1, 0), [0i64; 0]);
        assert_eq!(taken(-1, i64::MIN, -1, 0), [0i64; 0]);
        assert_eq!(slice(0, 1, 0, 5), None);
    }

    #[test]
    fn shapes_broadcast_from_the_right() {
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(broadcast(&[], &[0]), Some(vec![0]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast_strides(&[2, 1], &[5, 2, 3]), [0, 1, 0]);
    }

    #[test]
    fn axes_are_normalised_and_distinct() {
        assert_eq!(axis(-1, 3), Some(2));
        assert_eq!(axis(3, 3), None);
        assert_eq!(axis(i64::MIN, 3), None);
        assert_eq!(axes(&[-1, 0], 3), Some(vec![0, 2]));
        assert_eq!(axes(&[2, -1], 3), None);
    }
}
