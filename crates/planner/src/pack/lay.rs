//! How tensors lie in a slot: from dense lines of elements to the layout that its readers walk.
//!
//! ```text
//!   matrix [k, n]                 ─▶ (k, n)                            panels or blocks, see [`Layout`]
//!   kernel [out, in, taps]        ─▶ per group: (tap·in + input, out)   likewise; of three axes (height and width, depth, input)
//!   phases of a transposed kernel ─▶ per group: the same rows, (phase·out + output) columns
//!   depthwise [channels, 1, taps] ─▶ [taps][channels]
//! ```
//! A tensor comes in pieces of whole lines: rows of a matrix, or output channels with all their taps. A piece fits a core's cache, so that a
//! weight crosses memory twice, once from its file and once into its slot. Places are counted up, never divided out.
//!
//! Elements are f32 when they come; halves are rounded to nearest, ties to even, as they are laid. So are singles in blocks, to the ten bits
//! of fraction that a matrix unit reads of them (tf32): it would cut what is below, and every product would be a little too small.

mod blocks;
mod turn;

use super::{BLOCK_COLUMNS, Layout, PackedTensor};
use crate::fold::{Role, volume};
use blocks::Blocks;
use half::{bf16, f16};
use tessera_core::DType;
use turn::{MOST_LINES, Rows, turned};

/// Bytes of one element as it comes, an f32.
pub(super) const ELEMENT: usize = 4;

/// What the lines of a tensor are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Single elements, in the order in which they lie.
    Dense,
    /// The taps of each channel of a depthwise kernel.
    Channels { channels: usize, taps: usize },
    /// Rows of a matrix, each beginning at `column` of the matrix that is laid.
    Rows { column: usize, columns: usize },
    /// Columns of the matrices, the first of them `column` (counted through all groups): `inputs × taps` elements each.
    Columns { column: usize, inputs: usize, taps: usize },
}

impl<'a> Elements<'a> {
    /// A whole tensor of these dimensions.
    fn of(role: Role, dims: &'a [usize]) -> Elements<'a> {
        let order = match (role, dims) {
            (Role::Conv { .. }, [_, _, _, _, _]) | (Role::Phases { .. }, _) => {
                return Elements::Kernel { role, dims };
            }
            (Role::Matrix, &[_, columns]) => Order::Rows { column: 0, columns },
            (Role::Conv { .. }, [_, inputs, kernel @ ..]) => {
                Order::Columns { column: 0, inputs: *inputs, taps: kernel.iter().product() }
            }
            (Role::Depthwise, [channels, kernel @ ..]) => {
                Order::Channels { channels: *channels, taps: kernel.iter().product() }
            }
            _ => Order::Dense,
        };
        Elements::Lines(Lines { order, first: 0, scale: None })
    }
}

impl Order {
    /// Elements of one line.
    pub(super) fn line(&self) -> usize {
        match *self {
            Order::Dense => 1,
            Order::Channels { taps, .. } => taps,
            Order::Rows { columns, .. } => columns,
            Order::Columns { inputs, taps, .. } => inputs * taps,
        }
    }
}

/// Writes the tensor of dimensions `dims` and f32 elements `from` into its place in a slot, which is zero where nothing is
/// written: beyond the ends of a matrix.
pub fn lay(role: Role, dims: &[usize], from: &[u8], packed: &PackedTensor, slot: &mut [u8]) {
    let to = &mut slot[packed.offset..][..packed.bytes()];
    lay_elements(Elements::of(role, dims), from, packed, to);
}

/// Lines of a tensor, in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'a> {
    pub(super) order: Order,
    /// The number of the first of them.
    pub(super) first: usize,
    /// What each of them is multiplied by, if they are columns.
    pub(super) scale: Option<&'a [f32]>,
}

/// Writes lines of a tensor into `to`, its place.
pub(super) fn lay_piece(lines: Lines<'_>, from: &[u8], packed: &PackedTensor, to: &mut [u8]) {
    lay_elements(Elements::Lines(lines), from, packed, to);
}

/// What elements are, when some or all of a tensor come.
#[derive(Clone, Copy)]
enum Elements<'a> {
    /// Some or all lines.
    Lines(Lines<'a>),
    /// A whole kernel whose lines are scattered over the matrix.
    Kernel { role: Role, dims: &'a [usize] },
}

fn lay_elements(elements: Elements<'_>, from: &[u8], packed: &PackedTensor, to: &mut [u8]) {
    if from.is_empty() {
        return; // lines may have no elements, and none can be counted then
    }
    let layout = &packed.layout;
    match packed.dtype {
        DType::BF16 => laid(elements, from, layout, to, |x| bf16::from_f32(x).to_le_bytes()),
        DType::F16 => laid(elements, from, layout, to, |x| f16::from_f32(x).to_le_bytes()),
        _ if matches!(layout, Layout::Blocks { .. }) => {
            laid(elements, from, layout, to, |x| tf32(x).to_le_bytes());
        }
        _ => laid(elements, from, layout, to, f32::to_le_bytes),
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
    elements: Elements<'_>,
    from: &[u8],
    layout: &Layout,
    to: &mut [u8],
    stored: impl Fn(f32) -> [u8; SIZE],
) {
    let (from, _) = from.as_chunks::<ELEMENT>();
    let (to, _) = to.as_chunks_mut::<SIZE>();
    let stored = |element: &[u8; ELEMENT]| stored(f32::from_le_bytes(*element));
    let Lines { order, first, scale } = match elements {
        Elements::Lines(lines) => lines,
        Elements::Kernel { role, dims } => {
            let put = |source: usize, target: usize| to[target] = stored(&from[source]);
            return scattered(role, dims, layout, put);
        }
    };
    match (order, layout) {
        (Order::Dense, _) => put(from, &mut to[first..], &stored),
        (Order::Channels { channels, taps }, _) => {
            for (channel, line) in (first..).zip(from.chunks_exact(taps)) {
                let places = to[channel..].iter_mut().step_by(channels);
                places.zip(line).for_each(|(to, element)| *to = stored(element));
            }
        }
        (Order::Rows { column, columns }, &Layout::Panels { k, width, .. }) => {
            for (row, line) in (first..).zip(from.chunks_exact(columns)) {
                let (mut panel, mut within, mut rest) = (column / width, column % width, line);
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(width - within));
                    put(now, &mut to[(panel * k + row) * width + within..], &stored);
                    (panel, within, rest) = (panel + 1, 0, later);
                }
            }
        }
        (Order::Rows { column, columns }, &Layout::Blocks { k, .. }) => {
            let blocks = Blocks::<SIZE>::of(k);
            for (row, line) in (first..).zip(from.chunks_exact(columns)) {
                for (column, element) in (column..).zip(line) {
                    to[blocks.column(0, column) + Blocks::<SIZE>::row(row, column)] = stored(element);
                }
            }
        }
        (Order::Columns { column, inputs, taps }, &Layout::Panels { k, n, width, .. }) => {
            let panels = n.div_ceil(width);
            let (mut group, mut column, mut rest) = ((column + first) / n, (column + first) % n, from);
            let mut scale = scale;
            while !rest.is_empty() {
                let (panel, within) = (column / width, column % width);
                let lines = (rest.len() / k).min(width - within).min(n - column).min(MOST_LINES);
                let (now, later) = rest.split_at(lines * k);
                let to = &mut to[(group * panels + panel) * k * width + within..];
                turned(now, scale, Rows { inputs, taps, width }, to, &stored);
                (column, rest, scale) = (column + lines, later, scale.map(|scale| &scale[lines..]));
                if column == n {
                    (group, column) = (group + 1, 0);
                }
            }
        }
        (Order::Columns { column, inputs, taps }, &Layout::Blocks { k, n, .. }) => {
            let blocks = Blocks::<SIZE>::of(k);
            let columns_of_group = n.div_ceil(BLOCK_COLUMNS);
            for (number, line) in from.chunks_exact(k).enumerate() {
                let stored = |element: &[u8; ELEMENT]| match scale {
                    Some(scale) => stored(&times(*element, scale[number])),
                    None => stored(element),
                };
                let column = column + first + number;
                let (group, column) = (column / n, column % n);
                let base = blocks.column(group * columns_of_group, column);
                let mut line = line.iter();
                for input in 0..inputs {
                    for (tap, element) in line.by_ref().take(taps).enumerate() {
                        to[base + Blocks::<SIZE>::row(tap * inputs + input, column)] = stored(element);
                    }
                }
            }
        }
        (Order::Rows { .. } | Order::Columns { .. }, Layout::Plain { .. }) => {
            unreachable!("a slot layout gives matrices panels or blocks")
        }
    }
}

/// The places of the elements of a kernel, one after the other: for kernels that are rare.
fn scattered(role: Role, dims: &[usize], layout: &Layout, mut put: impl FnMut(usize, usize)) {
    match (role, layout) {
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
        _ => unreachable!("only kernels are scattered, over panels or blocks"),
    }
}

/// Taps that one phase of a transposed convolution sees, of depth, height and width.
pub(crate) fn per_phase(kernel: &[usize], strides: [usize; 3]) -> [usize; 3] {
    let kernel = volume(kernel, 1);
    std::array::from_fn(|axis| kernel[axis].div_ceil(strides[axis]))
}

/// Elements to places that follow each other.
fn put<const SIZE: usize>(
    from: &[[u8; ELEMENT]],
    to: &mut [[u8; SIZE]],
    stored: &impl Fn(&[u8; ELEMENT]) -> [u8; SIZE],
) {
    to[..from.len()].iter_mut().zip(from).for_each(|(to, element)| *to = stored(element));
}

/// An element times a scale, rounded.
pub(super) fn times(element: [u8; ELEMENT], scale: f32) -> [u8; ELEMENT] {
    (f32::from_le_bytes(element) * scale).to_le_bytes()
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
