//! Chains of element-wise operators, a block at a time: each instruction runs over a block of elements before the next one,
//! so that the loop over elements is the inner one and vectorises.

use super::register::{self, Places, Register, cast, load, store};
use super::walk::walk;
use super::{Bench, activation};
use tessera_core::DType;
use tessera_planner::element;
use tessera_planner::integer::compare;
use tessera_planner::op::{Binary, Unary};
use tessera_planner::plan::{Access, ElementOp, StepKind};

/// Elements per block: every register of a chain of a dozen stays in the first-level cache.
const BLOCK: usize = 256;

/// Bytes of the arena's words. A block of any type is whole words.
const WORD: usize = size_of::<u64>();

/// Multiply-adds of a product that take as long as an instruction does for one element.
const AS_LONG: usize = 16;

use Register::{Floats, Integers};

/// Why the chain cannot run here.
pub(super) fn refusal(inputs: &[DType], program: &[ElementOp]) -> Option<String> {
    element::types(inputs, program).err().map(|error| error.to_string())
}

pub(super) fn elementwise(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Elementwise { dims, inputs, program, out } = kind else { return };
    let items = bench.items;
    let stored = bench.plan.buffer(*out).dtype;
    let count: usize = dims.iter().product();
    let crew = bench.crew.for_work(count * program.len() * AS_LONG);
    let (reads, [out_words], scratch, _) = bench.open([*out]);
    let input_types: Vec<DType> = inputs.iter().map(|access| reads.dtype(access.operand)).collect();
    // Checked when the program was made.
    let Ok(types) = element::types(&input_types, program) else { return };
    let offsets: Vec<Option<Vec<usize>>> = inputs.iter().map(|access| scattered(access, dims)).collect();
    // A block of some elements of an item, to `out` from its element `to` on.
    let block = |registers: &mut Vec<Register>, item, first, length, out: &mut [u64], to| {
        registers.clear();
        for instruction in program {
            let register = match *instruction {
                ElementOp::Load(input) => {
                    let places = match &offsets[input] {
                        Some(offsets) => Places::These(&offsets[first..first + length]),
                        None => Places::Row(inputs[input].offset + first, length),
                    };
                    load(&reads, inputs[input].operand, item, places)
                }
                ElementOp::Float(x) => Floats(vec![x; length]),
                ElementOp::Int(x) => Integers(vec![x; length]),
                ElementOp::Bool(x) => Integers(vec![i64::from(x); length]),
                ElementOp::Unary(function, of) => unary(function, types[of], &registers[of]),
                ElementOp::Binary(function, a, b) => binary(function, types[a], &registers[a], &registers[b]),
                ElementOp::Select(condition, yes, no) => {
                    select(&registers[condition], &registers[yes], &registers[no])
                }
                ElementOp::Cast(to, of) => cast(to, types[of], &registers[of]),
            };
            registers.push(register);
        }
        if let Some(last) = registers.last() {
            store(out, to, last, stored);
        }
    };
    let words = (count * stored.size()).div_ceil(WORD);
    // Items lie one after the other, without a gap: they are shared one by one if each begins with a word.
    if !crew.is_alone() && (items == 1 || count * stored.size() == words * WORD) {
        let some = crew.share(count.div_ceil(BLOCK)) * BLOCK;
        for (item, out) in out_words[..items * words].chunks_exact_mut(words.max(1)).enumerate() {
            let parts = (0..count).step_by(some).zip(out.chunks_mut(some * stored.size() / WORD));
            crew.each(scratch, parts, |(start, out), _| {
                let mut registers = Vec::with_capacity(program.len());
                for first in (start..count.min(start + some)).step_by(BLOCK) {
                    block(&mut registers, item, first, BLOCK.min(count - first), out, first - start);
                }
            });
        }
        return;
    }
    let mut registers = Vec::with_capacity(program.len());
    for item in 0..items {
        for first in (0..count).step_by(BLOCK) {
            let length = BLOCK.min(count - first);
            block(&mut registers, item, first, length, out_words, item * count + first);
        }
    }
}

/// The offsets of a walk, or `None` when it is the dense one.
fn scattered(access: &Access, dims: &[usize]) -> Option<Vec<usize>> {
    let mut dense = 1;
    let is_dense = dims.iter().zip(&access.strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == dense;
        dense *= dim as isize;
        fits
    });
    if is_dense {
        return None;
    }
    let mut offsets = Vec::with_capacity(dims.iter().product());
    walk(dims, &access.strides, access.offset as isize, |at| offsets.push(at));
    Some(offsets)
}

fn unary(function: Unary, dtype: DType, x: &Register) -> Register {
    match x {
        Floats(x) => {
            let mut x = x.clone();
            activation::unary(function, &mut x);
            Floats(x)
        }
        Integers(x) => Integers(register::unary(function, dtype, x)),
    }
}

fn binary(function: Binary, dtype: DType, a: &Register, b: &Register) -> Register {
    match (a, b) {
        (Floats(a), Floats(b)) if function.is_comparison() => {
            Integers(a.iter().zip(b).map(|(a, b)| i64::from(compare(function, a, b))).collect())
        }
        (Floats(a), Floats(b)) => Floats(floats(function, a, b)),
        (Integers(a), Integers(b)) => Integers(register::binary(function, dtype, a, b)),
        // The typing rules leave no mixture.
        (Floats(_), Integers(_)) | (Integers(_), Floats(_)) => Floats(Vec::new()),
    }
}

fn floats(function: Binary, a: &[f32], b: &[f32]) -> Vec<f32> {
    // The match is outside the loop: one function per call.
    let each = |value: fn(f32, f32) -> f32| a.iter().zip(b).map(|(a, b)| value(*a, *b)).collect();
    match function {
        Binary::Add => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        Binary::Sub => a.iter().zip(b).map(|(a, b)| a - b).collect(),
        Binary::Mul => a.iter().zip(b).map(|(a, b)| a * b).collect(),
        Binary::Div => a.iter().zip(b).map(|(a, b)| a / b).collect(),
        Binary::Pow => each(f32::powf),
        Binary::PRelu => each(|a, b| if a < 0.0 { a * b } else { a }),
        Binary::Min => each(|a, b| if a.is_nan() || a < b { a } else { b }),
        Binary::Max => each(|a, b| if a.is_nan() || a > b { a } else { b }),
        Binary::Mod { fmod: true } => each(|a, b| a % b),
        // The typing rules leave only the remainder with the divisor's sign.
        _ => each(|a, b| {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }),
    }
}

fn select(condition: &Register, yes: &Register, no: &Register) -> Register {
    let Integers(condition) = condition else { return Floats(Vec::new()) }; // a condition is boolean
    fn pick<T: Copy>(condition: &[i64], yes: &[T], no: &[T]) -> Vec<T> {
        condition
            .iter()
            .zip(yes.iter().zip(no))
            .map(|(c, (yes, no))| if *c != 0 { *yes } else { *no })
            .collect()
    }
    match (yes, no) {
        (Floats(yes), Floats(no)) => Floats(pick(condition, yes, no)),
        (Integers(yes), Integers(no)) => Integers(pick(condition, yes, no)),
        (Floats(_), Integers(_)) | (Integers(_), Floats(_)) => Floats(Vec::new()),
    }
}
