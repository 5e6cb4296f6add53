//! Elements taken or changed by number, with the bounds check that keeps a request inside its own model.

use super::gather::{id, in_range};
use super::numbers::of_number;
use super::{Bench, Failures, Reads};
use crate::RequestError;
use bytemuck::Pod;
use tessera_planner::interpret::Number;
use tessera_planner::op;
use tessera_planner::plan::{Operand, Pick, Points, Scatter};

/// Numbers that lead to places, and the input that they come from.
struct Numbers<'a> {
    points: &'a Points,
    ids: Operand,
    what: &'a str,
}

impl Numbers<'_> {
    /// The place of every point of one item, in order. A number out of range fails the item: its answer is thrown away, and what it computes
    /// meanwhile stays inside its own model.
    fn places(&self, reads: &Reads<'_>, item: usize, failures: &mut Failures) -> Vec<usize> {
        let Points { dims, strides, sizes, along, .. } = self.points;
        let mut places = vec![0];
        for (&dim, &stride) in dims.iter().zip(strides) {
            places =
                places.iter().flat_map(|place| (0..dim).map(move |index| place + index * stride)).collect();
        }
        for (point, place) in places.iter_mut().enumerate() {
            for (component, (&rows, &along)) in sizes.iter().zip(along).enumerate() {
                let position = point * sizes.len() + component;
                let id = id(reads, self.ids, item, position);
                match in_range(id, rows) {
                    Some(number) => *place += number * along,
                    None => {
                        let input = self.what.to_owned();
                        failures.push((item, RequestError::IdOutOfRange { input, id, position, rows }));
                    }
                }
            }
        }
        places
    }
}

pub(super) fn pick(bench: &mut Bench<'_>, step: &Pick) {
    let Pick { x, points, ids, what, out } = step;
    let items = bench.items;
    let (reads, [out], _, failures) = bench.open([*out]);
    let numbers = Numbers { points, ids: *ids, what };
    let size = reads.dtype(*x).size();
    let (row, per_item) = (points.row * size, reads.source::<u8>(*x).per_item() * size);
    let x = reads.source::<u8>(*x).whole();
    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
    for item in 0..items {
        let places = numbers.places(&reads, item, failures);
        let (x, out) = (&x[item * per_item..], &mut out[item * places.len() * row..]);
        for (point, place) in places.iter().enumerate() {
            out[point * row..][..row].copy_from_slice(&x[place * size..][..row]);
        }
    }
}

pub(super) fn scatter(bench: &mut Bench<'_>, step: &Scatter) {
    let dtype = super::dtype(bench.plan, step.updates);
    match (step.how, dtype.size()) {
        // Whatever it means, it is moved.
        (op::Scatter::Replace, 1) => scatter_of::<u8>(bench, step),
        (op::Scatter::Replace, 2) => scatter_of::<u16>(bench, step),
        (op::Scatter::Replace, 4) => scatter_of::<u32>(bench, step),
        (op::Scatter::Replace, _) => scatter_of::<u64>(bench, step),
        _ => of_number!(dtype, scatter_of(bench, step)),
    }
}

fn scatter_of<T: Number + Pod>(bench: &mut Bench<'_>, step: &Scatter) {
    let Scatter { points, ids, what, updates, how, out } = step;
    let (items, per_item) = (bench.items, bench.plan.buffer(*out).elements);
    let (reads, [out], _, failures) = bench.open([*out]);
    let numbers = Numbers { points, ids: *ids, what };
    let updates = reads.source::<T>(*updates);
    let out: &mut [T] = bytemuck::cast_slice_mut(out);
    for item in 0..items {
        let places = numbers.places(&reads, item, failures);
        let (updates, out) = (updates.at(item), &mut out[item * per_item..]);
        for (point, place) in places.iter().enumerate() {
            let update = &updates[point * points.row..][..points.row];
            for (out, &update) in out[*place..].iter_mut().zip(update) {
                *out = out.updated(update, *how);
            }
        }
    }
}
