//! How tensors lie in a slot: plain loops from a dense row-major tensor to the layout that its readers walk.
//!
//! ```text
//!   matrix [k, n]                 ─▶ [n / width][k][width]                 one panel's rows are one contiguous stream
//!   kernel [out, in, taps]        ─▶ per group: [out / width][taps][in][width]
//!   depthwise [channels, 1, taps] ─▶ [taps][channels]
//! ```
//! Only bytes are moved: an element is `ELEMENT` of them.

use super::Layout;
use crate::fold::Role;

/// Bytes of one element, an f32.
const ELEMENT: usize = 4;

/// Writes the tensor of dimensions `dims` and elements `from` as `layout` into `to`, which is zero where nothing is
/// written: the ends of last panels.
pub(super) fn lay(role: Role, dims: &[usize], from: &[u8], layout: &Layout, to: &mut [u8]) {
    match (role, layout) {
        (Role::Plain, _) => to.copy_from_slice(from),
        (Role::Depthwise, _) => depthwise(dims[0], from, to),
        (_, &Layout::Panels { groups, k, n, width }) => {
            let sizes = Panels { k, n, width };
            let (from_group, to_group) = (k * n * ELEMENT, n.div_ceil(width) * k * width * ELEMENT);
            for group in 0..groups {
                let (from, to) =
                    (&from[group * from_group..][..from_group], &mut to[group * to_group..][..to_group]);
                match role {
                    Role::Conv { .. } => sizes.kernels(dims[1], from, to),
                    _ => sizes.matrix(from, to),
                }
            }
        }
        (Role::Matrix | Role::Conv { .. }, Layout::Plain { .. }) => {
            unreachable!("a slot layout gives matrices panels")
        }
    }
}

/// One matrix in panels.
struct Panels {
    k: usize,
    n: usize,
    width: usize,
}

impl Panels {
    /// From `[k][n]`, a panel's part of a row at a time.
    fn matrix(&self, from: &[u8], to: &mut [u8]) {
        let Panels { k, n, width } = *self;
        for first in (0..n).step_by(width) {
            let columns = width.min(n - first);
            for row in 0..k {
                let source = &from[(row * n + first) * ELEMENT..][..columns * ELEMENT];
                to[(first * k + row * width) * ELEMENT..][..columns * ELEMENT].copy_from_slice(source);
            }
        }
    }

    /// From the kernels of one group, `[out][in][taps]`: the row of a tap and an input is `tap·inputs + input`.
    fn kernels(&self, inputs: usize, from: &[u8], to: &mut [u8]) {
        let Panels { k, n, width } = *self;
        let taps = k.checked_div(inputs).unwrap_or(0);
        for column in 0..n {
            let panel = column / width * width * k + column % width;
            for input in 0..inputs {
                for tap in 0..taps {
                    let source = (column * inputs + input) * taps + tap;
                    let row = tap * inputs + input;
                    copy_element(from, source, to, panel + row * width);
                }
            }
        }
    }
}

/// From `[channels][taps]` to `[taps][channels]`.
fn depthwise(channels: usize, from: &[u8], to: &mut [u8]) {
    let taps = (from.len() / ELEMENT).checked_div(channels).unwrap_or(0);
    for channel in 0..channels {
        for tap in 0..taps {
            copy_element(from, channel * taps + tap, to, tap * channels + channel);
        }
    }
}

fn copy_element(from: &[u8], source: usize, to: &mut [u8], target: usize) {
    to[target * ELEMENT..][..ELEMENT].copy_from_slice(&from[source * ELEMENT..][..ELEMENT]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<u8> {
        (1..=count).flat_map(|number| (number as f32).to_le_bytes()).collect()
    }

    fn laid(role: Role, dims: &[usize], layout: &Layout) -> Vec<f32> {
        let mut to = vec![0; layout.elements() * ELEMENT];
        lay(role, dims, &numbers(dims.iter().product()), layout, &mut to);
        to.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Element `(row, column)` of a group, by the definition of [`Layout::Panels`].
    fn at(panels: &[f32], layout: &Layout, group: usize, row: usize, column: usize) -> f32 {
        let Layout::Panels { k, n, width, .. } = *layout else { panic!("panels") };
        panels[((group * n.div_ceil(width) + column / width) * k + row) * width + column % width]
    }

    #[test]
    fn a_matrix_in_panels_unpacks_to_itself_and_ends_in_zeros() {
        for (k, n, width) in [(3, 5, 4), (1, 1, 16), (7, 32, 16), (2, 16, 16), (4, 3, 1)] {
            let layout = Layout::Panels { groups: 1, k, n, width };
            let panels = laid(Role::Matrix, &[k, n], &layout);
            let unpacked: Vec<f32> =
                (0..k * n).map(|index| at(&panels, &layout, 0, index / n, index % n)).collect();
            assert_eq!(unpacked, (1..=k * n).map(|number| number as f32).collect::<Vec<_>>());
            let padding = panels.len() - k * n;
            assert_eq!(panels.iter().filter(|&&element| element == 0.0).count(), padding);
        }
    }

    #[test]
    fn a_kernel_in_panels_has_a_row_per_tap_and_input() {
        let (groups, out, inputs, taps, width) = (2, 3, 2, 6, 4);
        let layout = Layout::Panels { groups, k: taps * inputs, n: out, width };
        let panels = laid(Role::Conv { groups }, &[groups * out, inputs, 2, 3], &layout);
        for group in 0..groups {
            for column in 0..out {
                for input in 0..inputs {
                    for tap in 0..taps {
                        let number = ((group * out + column) * inputs + input) * taps + tap + 1;
                        assert_eq!(at(&panels, &layout, group, tap * inputs + input, column), number as f32);
                    }
                }
            }
        }
    }

    #[test]
    fn a_depthwise_kernel_lies_tap_by_tap() {
        let layout = Layout::Plain { dims: vec![2, 3] };
        assert_eq!(laid(Role::Depthwise, &[3, 1, 2], &layout), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn nothing_lies_as_nothing() {
        assert!(laid(Role::Matrix, &[0, 5], &Layout::Panels { groups: 1, k: 0, n: 5, width: 4 }).is_empty());
        let layout = Layout::Panels { groups: 1, k: 0, n: 4, width: 4 };
        assert!(laid(Role::Conv { groups: 1 }, &[4, 0, 3, 3], &layout).is_empty());
        assert!(laid(Role::Depthwise, &[0, 1, 3, 3], &Layout::Plain { dims: vec![9, 0] }).is_empty());
    }
}
