//! Steps along one axis of a dense value, and those that go to elements by number.

use super::RequestError;
use super::memory::Memory;
use super::number::Number;
use crate::op;
use crate::plan::{CumSum, Lines, Operand, Pick, Points, Resample, Scatter, TopK};
use tessera_core::DType;

/// Calls a function for the Rust type of a number.
macro_rules! of_number {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::U8 => $function::<u8>($($argument),*),
            DType::U16 => $function::<u16>($($argument),*),
            DType::U32 => $function::<u32>($($argument),*),
            DType::U64 => $function::<u64>($($argument),*),
            DType::I8 => $function::<i8>($($argument),*),
            DType::I16 => $function::<i16>($($argument),*),
            DType::I32 => $function::<i32>($($argument),*),
            DType::I64 => $function::<i64>($($argument),*),
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            other => panic!("a verified step has no numbers of {other}"),
        }
    };
}

/// The places of the elements of every line, in order.
fn each_line(lines: Lines) -> impl Iterator<Item = Vec<usize>> {
    let Lines { outer, length, inner } = lines;
    (0..outer).flat_map(move |o| {
        (0..inner).map(move |i| (0..length).map(|at| (o * length + at) * inner + i).collect())
    })
}

pub(super) fn top_k(memory: &mut Memory<'_>, step: &TopK) {
    of_number!(memory.dtype(step.x), top_k_of(memory, step));
}

fn top_k_of<T: Number>(memory: &mut Memory<'_>, step: &TopK) {
    let x = memory.elements::<T>(step.x);
    let made = step.lines.with_length(step.k);
    let (mut values, mut indices) = (vec![T::ZERO; made.elements()], vec![0i64; made.elements()]);
    for (line, to) in each_line(step.lines).zip(each_line(made)) {
        let mut order: Vec<usize> = (0..line.len()).collect();
        if step.last {
            order.reverse();
        }
        // Stable, so equals stay as they are.
        order.sort_by(|&a, &b| {
            let (a, b) = (x[line[a]], x[line[b]]);
            b.comes_before(a, step.largest).cmp(&a.comes_before(b, step.largest))
        });
        for (&to, &at) in to.iter().zip(&order) {
            values[to] = x[line[at]];
            indices[to] = i64::try_from(at).expect("a line fits memory");
        }
    }
    if let Some(out) = step.values {
        memory.set(out, &values);
    }
    if let Some(out) = step.indices {
        memory.set(out, &indices);
    }
}

pub(super) fn cum_sum(memory: &mut Memory<'_>, step: &CumSum) {
    of_number!(memory.dtype(step.x), cum_sum_of(memory, step));
}

fn cum_sum_of<T: Number>(memory: &mut Memory<'_>, step: &CumSum) {
    let x = memory.elements::<T>(step.x);
    let mut sums = vec![T::ZERO; x.len()];
    for mut line in each_line(step.lines) {
        if step.reverse {
            line.reverse();
        }
        let mut sum = T::ZERO;
        for at in line {
            let with = sum.add(x[at]);
            sums[at] = if step.exclusive { sum } else { with };
            sum = with;
        }
    }
    memory.set(step.out, &sums);
}

pub(super) fn resample(memory: &mut Memory<'_>, step: &Resample) {
    let x = memory.floats(step.x);
    let at = memory.elements::<i32>(Operand::Constant(step.at));
    let weights = memory.floats(Operand::Constant(step.weights));
    let made = step.lines.with_length(step.count);
    let mut out = vec![0.0f32; made.elements()];
    for (line, to) in each_line(step.lines).zip(each_line(made)) {
        for (position, &to) in to.iter().enumerate() {
            let taps = position * step.taps..(position + 1) * step.taps;
            let from = |tap: usize| x[line[usize::try_from(at[tap]).expect("verified to be in its line")]];
            out[to] = taps.fold(0.0, |sum, tap| sum + weights[tap] * from(tap));
        }
    }
    memory.set(step.out, &out);
}

/// The places that the numbers lead to.
fn places(
    memory: &Memory<'_>,
    points: &Points,
    ids: Operand,
    what: &str,
) -> Result<Vec<usize>, RequestError> {
    let ids: Vec<i64> = match memory.dtype(ids) {
        DType::I32 => memory.elements::<i32>(ids).into_iter().map(i64::from).collect(),
        _ => memory.elements::<i64>(ids),
    };
    let dims: Vec<isize> =
        points.strides.iter().map(|&s| isize::try_from(s).expect("it fits memory")).collect();
    let spots = super::memory::walk(0, &dims, &points.dims);
    let place = |(spot, ids): (usize, &[i64])| {
        ids.iter().zip(points.sizes.iter().zip(&points.along)).try_fold(
            spot,
            |place, (&id, (&size, along))| {
                let rows = i64::try_from(size).expect("a dimension fits memory");
                if id < -rows || id >= rows {
                    return Err(RequestError::IdOutOfRange { what: what.to_owned(), id, rows: size });
                }
                Ok(place + usize::try_from(id.rem_euclid(rows)).expect("just brought into range") * along)
            },
        )
    };
    spots.zip(ids.chunks(points.sizes.len())).map(place).collect()
}

pub(super) fn pick(memory: &mut Memory<'_>, step: &Pick) -> Result<(), RequestError> {
    let places = places(memory, &step.points, step.ids, &step.what)?;
    let size = memory.dtype(step.x).size();
    let bytes = memory.bytes(step.x);
    let row = step.points.row * size;
    let picked: Vec<u8> = places.iter().flat_map(|place| &bytes[place * size..][..row]).copied().collect();
    memory.put(Operand::Buffer(step.out), &picked);
    Ok(())
}

pub(super) fn scatter(memory: &mut Memory<'_>, step: &Scatter) -> Result<(), RequestError> {
    let places = places(memory, &step.points, step.ids, &step.what)?;
    if step.how == op::Scatter::Replace {
        let row = step.points.row * memory.dtype(step.updates).size();
        let size = memory.dtype(step.updates).size();
        let updates = memory.bytes(step.updates).to_vec();
        let out = memory.buffer_mut(step.out);
        for (place, update) in places.iter().zip(updates.chunks(row.max(1))) {
            out[place * size..][..row].copy_from_slice(&update[..row]);
        }
        return Ok(());
    }
    of_number!(memory.dtype(step.updates), combine(memory, step, &places));
    Ok(())
}

fn combine<T: Number>(memory: &mut Memory<'_>, step: &Scatter, places: &[usize]) {
    let updates = memory.elements::<T>(step.updates);
    let mut out = memory.elements::<T>(Operand::Buffer(step.out));
    for (place, update) in places.iter().zip(updates.chunks(step.points.row.max(1))) {
        for (out, &update) in out[*place..].iter_mut().zip(update) {
            *out = out.updated(update, step.how);
        }
    }
    memory.set(step.out, &out);
}
