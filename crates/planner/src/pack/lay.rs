//! How tensors lie in a slot: plain loops from a dense row-major tensor to the layout that its readers walk.
//!
//! ```text
//!   matrix [k, n]                 ─▶ (k, n)                            panels or blocks, see [`Layout`]
//!   kernel [out, in, taps]        ─▶ per group: (tap·in + input, out)   likewise; of three axes (height and width, depth, input)
//!   phases of a transposed kernel ─▶ per group: the same rows, (phase·out + output) columns
//!   depthwise [channels, 1, taps] ─▶ [taps][channels]
//! ```
//! Elements are f32 when they come; halves are rounded to nearest, ties to even, as they are laid. So are singles in blocks, to the ten bits
//! of fraction that a matrix unit reads of them (tf32): it would cut what is below, and every product would be a little too small.

use super::{Layout, PackedTensor};
use crate::fold::{Role, volume};
use half::{bf16, f16};
use tessera_core::DType;

/// Bytes of one element as it comes, an f32.
const ELEMENT: usize = 4;

/// Writes the tensor of dimensions `dims` and f32 elements `from` into its place in a slot, which is zero where nothing is
/// written: beyond the ends of a matrix.
pub fn lay(role: Role, dims: &[usize], from: &[u8], packed: &PackedTensor, slot: &mut [u8]) {
    let to = &mut slot[packed.offset..][..packed.bytes()];
    match packed.dtype {
        DType::BF16 => laid(role, dims, from, &packed.layout, to, |x| bf16::from_f32(x).to_le_bytes()),
        DType::F16 => laid(role, dims, from, &packed.layout, to, |x| f16::from_f32(x).to_le_bytes()),
        _ if matches!(packed.layout, Layout::Blocks { .. }) => {
            laid(role, dims, from, &packed.layout, to, |x| tf32(x).to_le_bytes());
        }
        _ => laid(role, dims, from, &packed.layout, to, f32::to_le_bytes),
    }
}

/// The nearest number with ten bits of fraction, ties to even; infinities and NaNs stay.
fn tf32(x: f32) -> f32 {
    const CUT: u32 = 13;
    if !x.is_finite() {
        return x;
    }
    let bits = x.to_bits();
    let odd = bits >> CUT & 1;
    // A carry out of the fraction rounds up to the next power of two, as it should.
    f32::from_bits((bits + (1 << (CUT - 1)) - 1 + odd) >> CUT << CUT)
}

fn laid<const SIZE: usize>(
    role: Role,
    dims: &[usize],
    from: &[u8],
    layout: &Layout,
    to: &mut [u8],
    stored: impl Fn(f32) -> [u8; SIZE],
) {
    let mut put = |source: usize, target: usize| {
        let bytes = &from[source * ELEMENT..][..ELEMENT];
        let x = f32::from_le_bytes(bytes.try_into().expect("a slice of four"));
        to[target * SIZE..][..SIZE].copy_from_slice(&stored(x));
    };
    match (role, layout) {
        (Role::Plain, _) => (0..from.len() / ELEMENT).for_each(|index| put(index, index)),
        (Role::Depthwise, _) => {
            let channels = dims[0];
            let taps = (from.len() / ELEMENT).checked_div(channels).unwrap_or(0);
            for channel in 0..channels {
                (0..taps).for_each(|tap| put(channel * taps + tap, tap * channels + channel));
            }
        }
        (Role::Matrix, &(Layout::Panels { k, n, .. } | Layout::Blocks { k, n, .. })) => {
            for row in 0..k {
                (0..n).for_each(|column| put(row * n + column, layout.element(0, row, column)));
            }
        }
        (Role::Conv { .. }, &(Layout::Panels { groups, k, n, .. } | Layout::Blocks { groups, k, n, .. })) => {
            let inputs = dims[1];
            let taps = k.checked_div(inputs).unwrap_or(0);
            // A kernel of three axes meets the slices under it side by side, as so many times the channels.
            let depth = if dims.len() == 5 { dims[2] } else { 1 };
            let flat = taps.checked_div(depth).unwrap_or(0);
            for (group, column) in (0..groups).flat_map(|group| (0..n).map(move |column| (group, column))) {
                for (input, tap) in (0..inputs).flat_map(|input| (0..taps).map(move |tap| (input, tap))) {
                    let source = ((group * n + column) * inputs + input) * taps + tap;
                    let row = (tap % flat * depth + tap / flat) * inputs + input;
                    put(source, layout.element(group, row, column));
                }
            }
        }
        (
            Role::Phases { strides, .. },
            &(Layout::Panels { groups, n, .. } | Layout::Blocks { groups, n, .. }),
        ) => {
            let (inputs, kernel) = (dims[1], volume(&dims[2..], 1));
            let per_phase = per_phase(&dims[2..], strides);
            let outputs = n / strides.iter().product::<usize>();
            let taps = kernel.iter().product::<usize>();
            for tap in 0..taps {
                let at = [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
                // Tap k of the transposed kernel is number k / stride of phase k mod stride; both are met in opposite order.
                let back: [usize; 3] = std::array::from_fn(|axis| kernel[axis] - 1 - at[axis]);
                let [kd, ky, kx] =
                    std::array::from_fn(|axis| per_phase[axis] - 1 - back[axis] / strides[axis]);
                let phase = (0..3).fold(0, |phase, axis| phase * strides[axis] + back[axis] % strides[axis]);
                let row = (ky * per_phase[2] + kx) * per_phase[0] + kd;
                for (group, output) in (0..groups).flat_map(|group| (0..outputs).map(move |o| (group, o))) {
                    for input in 0..inputs {
                        let source = ((group * outputs + output) * inputs + input) * taps + tap;
                        put(source, layout.element(group, row * inputs + input, phase * outputs + output));
                    }
                }
            }
        }
        (Role::Matrix | Role::Conv { .. } | Role::Phases { .. }, Layout::Plain { .. }) => {
            unreachable!("a slot layout gives matrices panels or blocks")
        }
    }
}

/// Taps that one phase of a transposed convolution sees, of depth, height and width.
pub(crate) fn per_phase(kernel: &[usize], strides: [usize; 3]) -> [usize; 3] {
    let kernel = volume(kernel, 1);
    std::array::from_fn(|axis| kernel[axis].div_ceil(strides[axis]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<u8> {
        (1..=count).flat_map(|number| (number as f32).to_le_bytes()).collect()
    }

    fn packed(layout: Layout, dtype: DType) -> PackedTensor {
        PackedTensor { name: String::new(), layout, dtype, offset: 0 }
    }

    fn laid(role: Role, dims: &[usize], layout: &Layout) -> Vec<f32> {
        let tensor = packed(layout.clone(), DType::F32);
        let mut to = vec![0; tensor.bytes()];
        lay(role, dims, &numbers(dims.iter().product()), &tensor, &mut to);
        to.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn layouts(groups: usize, k: usize, n: usize) -> [Layout; 3] {
        [
            Layout::Panels { groups, k, n, width: 16 },
            Layout::Panels { groups, k, n, width: 1 },
            Layout::Blocks { groups, k, n, depth: 32 },
        ]
    }

    #[test]
    fn a_matrix_unpacks_to_itself_and_ends_in_zeros() {
        for (k, n) in [(3, 5), (1, 1), (7, 32), (2, 16), (33, 62), (31, 66), (4, 3)] {
            for layout in layouts(1, k, n) {
                let matrix = laid(Role::Matrix, &[k, n], &layout);
                let unpacked: Vec<f32> =
                    (0..k * n).map(|index| matrix[layout.element(0, index / n, index % n)]).collect();
                assert_eq!(unpacked, (1..=k * n).map(|number| number as f32).collect::<Vec<_>>());
                let padding = matrix.len() - k * n;
                assert_eq!(matrix.iter().filter(|&&element| element == 0.0).count(), padding);
            }
        }
    }

    #[test]
    fn a_kernel_has_a_row_per_tap_and_input() {
        let (groups, out, inputs, taps) = (2, 3, 2, 6);
        for layout in layouts(groups, taps * inputs, out) {
            let matrix = laid(Role::Conv { groups }, &[groups * out, inputs, 2, 3], &layout);
            for (group, column) in (0..groups * out).map(|column| (column / out, column % out)) {
                for (input, tap) in (0..inputs * taps).map(|row| (row % inputs, row / inputs)) {
                    let number = ((group * out + column) * inputs + input) * taps + tap + 1;
                    assert_eq!(matrix[layout.element(group, tap * inputs + input, column)], number as f32);
                }
            }
        }
    }

    #[test]
    fn a_block_is_what_a_matrix_unit_reads_with_the_128_byte_swizzle() {
        let layout = Layout::Blocks { groups: 1, k: 128, n: 64, depth: 64 };
        // The first chunk of column 1 moves to place 1, the second to place 0.
        assert_eq!(layout.element(0, 0, 1), 64 + 8);
        assert_eq!(layout.element(0, 8, 1), 64);
        assert_eq!(layout.element(0, 64, 0), 64 * 64, "the next block of rows");
        let all: std::collections::BTreeSet<usize> =
            (0..128 * 64).map(|index| layout.element(0, index / 64, index % 64)).collect();
        assert_eq!(all.len(), layout.elements(), "every element has a place of its own");
    }

    #[test]
    fn halves_are_rounded_to_nearest() {
        let layout = Layout::Plain { dims: vec![2, 1] };
        let from: Vec<u8> = [1.0f32 + 1.0 / 256.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = packed(layout, DType::BF16);
        let mut to = vec![0; tensor.bytes()];
        lay(Role::Plain, &[2, 1], &from, &tensor, &mut to);
        let halves: Vec<f32> =
            to.chunks(2).map(|two| bf16::from_le_bytes(two.try_into().unwrap()).to_f32()).collect();
        assert_eq!(halves, [1.0, 3.0]);
    }

    #[test]
    fn singles_for_a_matrix_unit_are_rounded_to_what_it_reads() {
        let step = 1.0 / 1024.0;
        for (x, rounded) in [
            (1.0, 1.0),
            (1.0 + step, 1.0 + step),
            (1.0 + 0.4 * step, 1.0),
            (1.0 + 0.6 * step, 1.0 + step),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (-2.0 + 0.1 * step, -2.0),
            (0.0, 0.0),
            (f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(tf32(x), rounded, "{x:?}");
        }
        assert!(tf32(f32::NAN).is_nan());
        let matrix = laid(Role::Matrix, &[1, 1], &Layout::Blocks { groups: 1, k: 1, n: 1, depth: 32 });
        assert_eq!(matrix[0], 1.0);
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
