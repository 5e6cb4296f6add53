//! The numbers behind seeded weights: SplitMix64 (Steele, Lea and Flood, 2014) as a function of seed, tensor and position.
//!
//! No state is carried from one number to the next, so the loop runs as wide as the machine allows. Generating is no slower than
//! copying to a disk, which a cryptographic generator's would be: hundreds of tenants of 100 MB are an everyday wish.

use super::Range;
use std::io::{self, Write};

/// The numbers of one tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    start: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    pub(super) fn of(seed: u64, tensor: u64) -> Stream {
        Stream { start: mix(mix(seed).wrapping_add(tensor.wrapping_mul(GOLDEN))) }
    }

    /// 64 bits.
    fn at(self, position: u64) -> u64 {
        mix(self.start.wrapping_add(position.wrapping_mul(GOLDEN)))
    }
}

/// The finaliser of SplitMix64: every bit of the input moves half the bits of the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 24 bits as a number from -1 to below 1, exactly.
fn signed_unit(bits: u64) -> f32 {
    ((bits & 0xff_ffff) as i32 - 0x80_0000) as f32 * (1.0 / 0x80_0000 as f32)
}

/// Writes `count` little-endian floats.
pub(super) fn write(stream: Stream, range: Range, count: usize, out: &mut impl Write) -> io::Result<()> {
    const PAIRS: usize = 8192;
    let mut buffer = [0u8; 8 * PAIRS];
    let mut done = 0;
    while done < count {
        let part = (count - done).min(2 * PAIRS);
        let first = (done / 2) as u64;
        for (pair, bytes) in buffer[..8 * part.div_ceil(2)].chunks_exact_mut(8).enumerate() {
            let bits = stream.at(first + pair as u64);
            let number = |bits| (range.centre + range.bound * signed_unit(bits)).to_le_bytes();
            bytes[..4].copy_from_slice(&number(bits >> 40));
            bytes[4..].copy_from_slice(&number(bits >> 8));
        }
        out.write_all(&buffer[..4 * part])?;
        done += part;
    }
    Ok(())
}

/// As [`write()`], `part` of each row's mean taken off.
pub(super) fn write_rows(
    stream: Stream,
    range: Range,
    count: usize,
    row: usize,
    part: f32,
    out: &mut impl Write,
) -> io::Result<()> {
    let number = |at: usize| {
        let bits = stream.at((at / 2) as u64);
        range.centre + range.bound * signed_unit(if at.is_multiple_of(2) { bits >> 40 } else { bits >> 8 })
    };
    let mut numbers = vec![0.0f32; row];
    let mut bytes = Vec::with_capacity(4 * row);
    for first in (0..count).step_by(row) {
        numbers.iter_mut().enumerate().for_each(|(at, slot)| *slot = number(first + at));
        let off = part * numbers.iter().sum::<f32>() / row as f32;
        bytes.clear();
        bytes.extend(numbers.iter().flat_map(|number| (number - off).to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, tensor: u64, range: Range, count: usize) -> Vec<f32> {
        let mut bytes = Vec::new();
        write(Stream::of(seed, tensor), range, count, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    #[test]
    fn numbers_fill_their_range_evenly() {
        let numbers = drawn(3, 0, Range { centre: 1.0, bound: 0.5 }, 100_001);
        assert_eq!(numbers.len(), 100_001);
        assert!(numbers.iter().all(|x| (0.5..=1.5).contains(x)));
        let mean = numbers.iter().sum::<f32>() / 100_001.0;
        let variance = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 100_001.0;
        assert!((mean - 1.0).abs() < 3e-3, "{mean}");
        assert!((variance - 0.25 / 3.0).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn centred_rows_sum_to_zero_and_are_else_the_same() {
        let range = Range::of_variance(1.0);
        let mut bytes = Vec::new();
        write_rows(Stream::of(3, 4), range, 5 * 301, 301, 1.0, &mut bytes).unwrap();
        let plain = drawn(3, 4, range, 5 * 301);
        for (row, plain) in bytes.chunks_exact(4 * 301).zip(plain.chunks_exact(301)) {
            let row: Vec<f32> =
                row.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            let mean = plain.iter().sum::<f32>() / 301.0;
            assert!(row.iter().sum::<f32>().abs() < 1e-3);
            assert!(row.iter().zip(plain).all(|(centred, plain)| (plain - mean - centred).abs() < 1e-5));
        }
    }

    #[test]
    fn tensors_and_seeds_have_nothing_in_common() {
        let range = Range::of_variance(1.0);
        let [a, b, c] = [(1, 0), (1, 1), (2, 0)].map(|(seed, tensor)| drawn(seed, tensor, range, 10_000));
        for (one, other) in [(&a, &b), (&a, &c), (&b, &c)] {
            let product = one.iter().zip(other).map(|(x, y)| x * y).sum::<f32>() / 10_000.0;
            assert!(product.abs() < 0.05, "{product}");
        }
    }
}
