//! Attention, rotary embeddings and RMS normalisation, said with the operators that they are made of.
//!
//! ```text
//!   q ─heads─▶ ·scale ─┐
//!   k ─heads─▶ repeat ─MatMul─ softcap ─ + bias ─ Softmax ─ rows that see nothing are 0 ─┐
//!   v ─heads─▶ repeat ──────────────────────────────────────────────────────────────── MatMul ─heads back─▶ y
//!   bias: the mask, and −∞ where a key comes later than its query, lies outside a window, or is padding
//! ```
//! Planning makes one step of it again ([`crate::rewrite`]); batching is proven of the parts, and they define the whole.

use crate::graph::ValueId;
use crate::onnx::convert::{float, int, invalid, rank, unsupported};
use crate::onnx::data::dtype;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Binary, Op, PadMode, Reduction, Unary};
use crate::tensor::Tensor;
use tessera_core::DType;

/// A node on the way.
fn node(site: &mut Site<'_, '_>, what: &str, op: Op, inputs: &[ValueId]) -> ValueId {
    site.inner(what, op, inputs.iter().copied().map(Some).collect())
}

fn binary(site: &mut Site<'_, '_>, what: &str, function: Binary, a: ValueId, b: ValueId) -> ValueId {
    node(site, what, Op::Binary(function), &[a, b])
}

/// Dimensions `from..to` of a value, as a list of integers.
fn dims(site: &mut Site<'_, '_>, what: &str, of: ValueId, from: i64, to: i64) -> ValueId {
    node(site, what, Op::Shape { start: from, end: Some(to) }, &[of])
}

fn concat(site: &mut Site<'_, '_>, what: &str, axis: i64, parts: &[ValueId]) -> ValueId {
    node(site, what, Op::Concat { axis }, parts)
}

fn unsqueeze(site: &mut Site<'_, '_>, what: &str, x: ValueId, axes: &[i64]) -> ValueId {
    let axes = site.integers("axes", axes);
    node(site, what, Op::Unsqueeze, &[x, axes])
}

fn reshape(site: &mut Site<'_, '_>, what: &str, x: ValueId, shape: &[i64]) -> ValueId {
    let shape = site.integers("shape", shape);
    node(site, what, Op::Reshape { allow_zero: false }, &[x, shape])
}

fn input(site: &Site<'_, '_>, index: usize) -> Option<ValueId> {
    site.inputs.get(index).copied().flatten()
}

fn required(site: &Site<'_, '_>, index: usize) -> ValueId {
    input(site, index).expect("required inputs are there")
}

/// `x·scale / √(mean of squares + ε)`; a half is normalised in single precision, as `stash_type` 1 has it.
pub(crate) fn rms_norm(site: &mut Site<'_, '_>) -> Made {
    match int(site, "stash_type", 1)? {
        1 => {}
        other => return Err(unsupported(format!("only stash_type 1 (float) is served, not {other}"))),
    }
    let epsilon = float(site, "epsilon", 1e-5)?;
    let rank = rank(site)?;
    let axis = int(site, "axis", -1)?;
    let first = crate::shape::axis(axis, rank).ok_or_else(|| invalid(format!("has no axis {axis}")))?;
    let (x, scale) = (required(site, 0), required(site, 1));
    let own = site.known(0).dtype.filter(|&own| own != DType::F32);
    let wide = own.map_or(x, |_| node(site, "wide", Op::Cast(DType::F32), &[x]));
    let square = binary(site, "square", Binary::Mul, wide, wide);
    let axes: Vec<i64> = (first as i64..rank as i64).collect();
    let axes = site.integers("axes", &axes);
    let op = Op::Reduce { kind: Reduction::Mean, keep_dims: true, noop_with_empty_axes: false };
    let mean = node(site, "mean", op, &[square, axes]);
    let epsilon = site.make_literal("epsilon", Tensor::scalar(epsilon));
    let shifted = binary(site, "shifted", Binary::Add, mean, epsilon);
    let root = node(site, "root", Op::Unary(Unary::Sqrt), &[shifted]);
    let mut normal = binary(site, "normal", Binary::Div, wide, root);
    if let Some(own) = own {
        normal = node(site, "own", Op::Cast(own), &[normal]);
    }
    site.finish(Op::Binary(Binary::Mul), vec![Some(normal), Some(scale)], 1);
    Ok(())
}

/// Pairs of elements of each head turned by an angle: `(a·cos − b·sin, a·sin + b·cos)`.
pub(crate) fn rotary_embedding(site: &mut Site<'_, '_>) -> Made {
    let interleaved = site.attributes.flag("interleaved", false)?;
    let heads = int(site, "num_heads", 0)?;
    let rotated = int(site, "rotary_embedding_dim", 0)?;
    if rotated < 0 || rotated % 2 != 0 {
        return Err(invalid(format!("turns {rotated} elements, but an even number is wanted")));
    }
    let (mut x, mut cos, mut sin) = (required(site, 0), required(site, 1), required(site, 2));
    // Tables are [batch, time, pairs]; heads are the third axis of a 3-D input, and the second of a 4-D one.
    let flat = match rank(site)? {
        3 if heads > 0 => true,
        3 => return Err(invalid("has a 3-D input, and no num_heads")),
        4 => false,
        other => return Err(invalid(format!("has an input of {other} dimensions, but 3 or 4 are wanted"))),
    };
    let whole = x;
    if flat {
        x = reshape(site, "heads", x, &[0, 0, heads, -1]);
    }
    if let Some(positions) = input(site, 3) {
        [cos, sin] = [(cos, "cos"), (sin, "sin")]
            .map(|(table, what)| node(site, what, Op::Gather { axis: 0 }, &[table, positions]));
    }
    let head_axis = if flat { 2 } else { 1 };
    let cos = unsqueeze(site, "cos of heads", cos, &[head_axis]);
    let sin = unsqueeze(site, "sin of heads", sin, &[head_axis]);
    let slice = |site: &mut Site<'_, '_>, what: &str, from: i64, to: i64, step: i64| {
        let lists = [("from", from), ("to", to), ("axes", -1), ("step", step)]
            .map(|(what, number)| site.integers(what, &[number]));
        node(site, what, Op::Slice, &[x, lists[0], lists[1], lists[2], lists[3]])
    };
    let end = if rotated == 0 { i64::MAX } else { rotated };
    let (a, b) = match (interleaved, rotated) {
        (true, _) => (slice(site, "a", 0, end, 2), slice(site, "b", 1, end, 2)),
        (false, 0) => {
            let halves = site.inner_of(Op::Split { axis: -1 }, vec![Some(x)], 2);
            (halves[0], halves[1])
        }
        (false, _) => (slice(site, "a", 0, rotated / 2, 1), slice(site, "b", rotated / 2, rotated, 1)),
    };
    let turned = |site: &mut Site<'_, '_>, what: &str, [p, q]: [ValueId; 2], function: Binary| {
        let left = binary(site, &format!("{what} of a"), Binary::Mul, a, p);
        let right = binary(site, &format!("{what} of b"), Binary::Mul, b, q);
        binary(site, what, function, left, right)
    };
    let real = turned(site, "real", [cos, sin], Binary::Sub);
    let imaginary = turned(site, "imaginary", [sin, cos], Binary::Add);
    let mut parts = if interleaved {
        // Side by side on a new axis, which the reshape joins with the one before it.
        let pairs = [real, imaginary].map(|part| unsqueeze(site, "pair", part, &[-1]));
        let joined = concat(site, "pairs", -1, &pairs);
        vec![reshape(site, "turned", joined, &[0, 0, 0, -1])]
    } else {
        vec![real, imaginary]
    };
    if rotated != 0 {
        parts.push(slice(site, "rest", rotated, i64::MAX, 1));
    }
    if flat {
        let joined = concat(site, "joined", -1, &parts);
        let shape = node(site, "shape", Op::Shape { start: 0, end: None }, &[whole]);
        site.finish(Op::Reshape { allow_zero: false }, vec![Some(joined), Some(shape)], 1);
    } else {
        site.finish(Op::Concat { axis: -1 }, parts.into_iter().map(Some).collect(), 1);
    }
    Ok(())
}

/// Which scores the fourth output holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scores {
    Product,
    Capped,
    Biased,
    Softmax,
}

/// The attributes that are left once heads have an axis of their own.
struct Attention {
    causal: bool,
    /// How many keys before and after its own place a query sees.
    window: [Option<i64>; 2],
    scale: Option<f32>,
    softcap: f32,
    softmax: Option<DType>,
    scores: Scores,
}

pub(crate) fn attention(site: &mut Site<'_, '_>) -> Made {
    let attributes = site.attributes;
    let heads = [attributes.int("q_num_heads")?, attributes.int("kv_num_heads")?];
    let flat = match rank(site)? {
        3 => true,
        4 => false,
        other => return Err(invalid(format!("has a query of {other} dimensions, but 3 or 4 are wanted"))),
    };
    let bound = |name: &str| -> Result<Option<i64>, Refusal> {
        match int(site, name, -1)? {
            -1 => Ok(None),
            bound if bound >= 0 => Ok(Some(bound)),
            other => Err(invalid(format!("has a {name} of {other}"))),
        }
    };
    let softmax = match attributes.int("softmax_precision")? {
        None => None,
        Some(number) => {
            let number = i32::try_from(number).map_err(|_| invalid("has an unknown softmax_precision"))?;
            Some(dtype(number).map_err(|word| unsupported(format!("a softmax in {word} is not served")))?)
        }
    };
    let all = Attention {
        causal: attributes.flag("is_causal", false)?,
        window: [bound("left_window_size")?, bound("right_window_size")?],
        scale: attributes.float("scale")?,
        softcap: float(site, "softcap", 0.0)?,
        softmax,
        scores: match int(site, "qk_matmul_output_mode", 0)? {
            0 => Scores::Product,
            1 => Scores::Capped,
            2 => Scores::Biased,
            3 => Scores::Softmax,
            other => return Err(invalid(format!("has an unknown qk_matmul_output_mode {other}"))),
        },
    };
    let [mut q, mut k, mut v] = [0, 1, 2].map(|index| required(site, index));
    if flat {
        let [Some(of_q), Some(of_k)] = heads.map(|heads| heads.filter(|&heads| heads > 0)) else {
            return Err(invalid("has 3-D inputs, and not both q_num_heads and kv_num_heads"));
        };
        [q, k, v] = [(q, of_q, "q"), (k, of_k, "k"), (v, of_k, "v")].map(|(x, heads, what)| {
            let split = reshape(site, &format!("{what} by heads"), x, &[0, 0, heads, -1]);
            node(site, what, Op::Transpose { perm: vec![0, 2, 1, 3] }, &[split])
        });
    }
    let past = [input(site, 4), input(site, 5)];
    if let [Some(past_k), Some(past_v)] = past {
        k = concat(site, "present key", 2, &[past_k, k]);
        v = concat(site, "present value", 2, &[past_v, v]);
    } else if past != [None; 2] {
        return Err(invalid("has one of past_key and past_value, but not both"));
    }
    site.alias_output(1, k);
    site.alias_output(2, v);

    let bias = all.bias(site, q, k, past[0])?;
    // Heads of q that share one of k: a 3-D input says how many.
    if !flat || heads[0] != heads[1] {
        [k, v] = [(k, "k"), (v, "v")].map(|(x, what)| repeated(site, what, x, q));
    }
    let softmax = all.softmax(site, q, k, bias);
    if !flat {
        site.finish_output(0, Op::MatMul, vec![Some(softmax), Some(v)]);
        return Ok(());
    }
    let mixed = node(site, "mixed", Op::MatMul, &[softmax, v]);
    let back = node(site, "by time", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[mixed]);
    let shape = site.integers("joined", &[0, 0, -1]);
    site.finish_output(0, Op::Reshape { allow_zero: false }, vec![Some(back), Some(shape)]);
    Ok(())
}

/// Heads of keys or values, each as often as heads of `q` share it.
fn repeated(site: &mut Site<'_, '_>, what: &str, x: ValueId, q: ValueId) -> ValueId {
    let [batch, heads, rest] = [(0, 1), (1, 2), (2, 4)].map(|(from, to)| dims(site, what, x, from, to));
    let wanted = dims(site, what, q, 1, 2);
    let times = binary(site, what, Binary::Div, wanted, heads);
    let grouped = unsqueeze(site, what, x, &[2]);
    let shape = concat(site, what, 0, &[batch, heads, times, rest]);
    let expanded = node(site, what, Op::Expand, &[grouped, shape]);
    let shape = concat(site, what, 0, &[batch, wanted, rest]);
    node(site, what, Op::Reshape { allow_zero: false }, &[expanded, shape])
}

/// What is added to the scores, and whether a query may see nothing.
struct Bias {
    value: ValueId,
    may_hide_all: bool,
}

impl Attention {
    /// A float that broadcasts to `[batch, heads, queries, keys]`; nothing when every query sees every key.
    fn bias(
        &self,
        site: &mut Site<'_, '_>,
        q: ValueId,
        k: ValueId,
        past: Option<ValueId>,
    ) -> Result<Option<Bias>, Refusal> {
        let (mask, filled) = (input(site, 3), input(site, 6));
        if filled.is_some() && past.is_some() {
            return Err(invalid("has nonpad_kv_seqlen beside past_key"));
        }
        let hidden = site.number("hidden", f64::NEG_INFINITY, 0);
        let seen = site.number("seen", 0.0, 0);
        let keys = dims(site, "keys", k, 2, 3);
        let mut bias = None;
        if let Some(mut mask) = mask {
            if site.known(3).dtype == Some(DType::Bool) {
                mask = node(site, "mask", Op::Where, &[mask, seen, hidden]);
            }
            // A mask may be shorter than the keys, which it then hides.
            let covered = dims(site, "covered", mask, -1, i64::MAX);
            let missing = binary(site, "missing", Binary::Sub, keys, covered);
            let none = site.integers("none", &[0]);
            let pads = concat(site, "pads", 0, &[none, missing]);
            let axis = site.integers("axis", &[-1]);
            bias = Some(node(site, "whole mask", Op::Pad(PadMode::Constant), &[mask, pads, hidden, axis]));
        }
        // Everything that hides keys by their place, as one truth.
        let mut visible: Option<ValueId> = None;
        let mut also = |site: &mut Site<'_, '_>, truth: ValueId| {
            visible = Some(match visible {
                None => truth,
                Some(others) => binary(site, "visible", Binary::And, others, truth),
            });
        };
        let places = counted(site, "place of key", keys);
        let batches = filled.map(|filled| unsqueeze(site, "filled", filled, &[1, 2, 3]));
        let [before, after] = self.window;
        // A causal query sees up to its own place, which is a window that ends there.
        let after = if self.causal { Some(after.map_or(0, |after| after.min(0))) } else { after };
        if before.is_some() || after.is_some() {
            let queries = dims(site, "queries", q, 2, 3);
            let row = counted(site, "query", queries);
            let mut own = unsqueeze(site, "row of query", row, &[1]);
            if let Some(past) = past {
                let offset = dims(site, "offset", past, 2, 3);
                own = binary(site, "place of query", Binary::Add, own, offset);
            } else if let Some(filled) = batches {
                let offset = binary(site, "offset", Binary::Sub, filled, queries);
                own = binary(site, "place of query", Binary::Add, own, offset);
            }
            if let Some(after) = after {
                let last = shifted(site, "last", own, after);
                let truth = binary(site, "not after", Binary::LessOrEqual, places, last);
                also(site, truth);
            }
            if let Some(before) = before {
                let first = shifted(site, "first", own, -before);
                let truth = binary(site, "not before", Binary::GreaterOrEqual, places, first);
                also(site, truth);
            }
        }
        if let Some(filled) = batches {
            let truth = binary(site, "not padding", Binary::Less, places, filled);
            also(site, truth);
        }
        if let Some(visible) = visible {
            let by_place = node(site, "by place", Op::Where, &[visible, seen, hidden]);
            bias = Some(match bias {
                None => by_place,
                Some(mask) => binary(site, "bias", Binary::Add, mask, by_place),
            });
        }
        // Of a causal query alone, the first key is always seen.
        let may_hide_all = mask.is_some() || filled.is_some() || before.is_some();
        Ok(bias.map(|value| Bias { value, may_hide_all }))
    }

    /// The mixture's weights.
    fn softmax(&self, site: &mut Site<'_, '_>, q: ValueId, k: ValueId, bias: Option<Bias>) -> ValueId {
        let own = site.known(0).dtype.unwrap_or(DType::F32);
        // Its root on either side, as ONNX has it.
        let scale = match self.scale {
            Some(scale) => site.number("scale", f64::from(scale).sqrt(), 0),
            None => {
                let width = dims(site, "width", q, 3, 4);
                let width = node(site, "width of head", Op::Cast(DType::F32), &[width]);
                let root = node(site, "root", Op::Unary(Unary::Sqrt), &[width]);
                let fourth_root = node(site, "fourth root", Op::Unary(Unary::Sqrt), &[root]);
                let scale = node(site, "scale", Op::Unary(Unary::Reciprocal), &[fourth_root]);
                if own == DType::F32 { scale } else { node(site, "own scale", Op::Cast(own), &[scale]) }
            }
        };
        let q = binary(site, "scaled q", Binary::Mul, q, scale);
        let columns = node(site, "columns", Op::Transpose { perm: vec![0, 1, 3, 2] }, &[k]);
        let columns = binary(site, "scaled k", Binary::Mul, columns, scale);
        let mut scores = node(site, "scores", Op::MatMul, &[q, columns]);
        self.publish(site, Scores::Product, scores);
        if self.softcap > 0.0 {
            let cap = site.number("cap", f64::from(self.softcap), 0);
            let small = binary(site, "small", Binary::Div, scores, cap);
            let bent = node(site, "bent", Op::Unary(Unary::Tanh), &[small]);
            scores = binary(site, "capped", Binary::Mul, bent, cap);
        }
        self.publish(site, Scores::Capped, scores);
        if let Some(bias) = &bias {
            scores = binary(site, "biased", Binary::Add, scores, bias.value);
        }
        self.publish(site, Scores::Biased, scores);
        let other = self.softmax.filter(|&other| other != own);
        if let Some(other) = other {
            scores = node(site, "precise scores", Op::Cast(other), &[scores]);
        }
        let mut softmax = node(site, "softmax", Op::Softmax { axis: -1, log: false }, &[scores]);
        if other.is_some() {
            softmax = node(site, "own softmax", Op::Cast(own), &[softmax]);
        }
        if let Some(bias) = bias.filter(|bias| bias.may_hide_all) {
            let axis = site.integers("axis", &[-1]);
            let op = Op::Reduce { kind: Reduction::Max, keep_dims: true, noop_with_empty_axes: false };
            let most = node(site, "most", op, &[bias.value, axis]);
            let hidden = site.number("hidden", f64::NEG_INFINITY, 0);
            let nothing = binary(site, "sees nothing", Binary::Equal, most, hidden);
            let zero = site.number("zero", 0.0, 0);
            softmax = node(site, "weights", Op::Where, &[nothing, zero, softmax]);
        }
        self.publish(site, Scores::Softmax, softmax);
        softmax
    }

    /// Makes the fourth output of scores, if it is these that it holds.
    fn publish(&self, site: &mut Site<'_, '_>, which: Scores, scores: ValueId) {
        if self.scores == which {
            site.alias_output(3, scores);
        }
    }
}

/// `0, 1, …` up to a length, which is a list of one integer.
fn counted(site: &mut Site<'_, '_>, what: &str, length: ValueId) -> ValueId {
    let axis = site.integers("axis", &[0]);
    let length = node(site, what, Op::Squeeze, &[length, axis]);
    let [start, step] =
        [("start", 0i64), ("step", 1)].map(|(what, number)| site.make_literal(what, Tensor::scalar(number)));
    node(site, what, Op::Range, &[start, length, step])
}

/// Integers moved by a known number.
fn shifted(site: &mut Site<'_, '_>, what: &str, x: ValueId, by: i64) -> ValueId {
    if by == 0 {
        return x;
    }
    let by = site.make_literal("by", Tensor::scalar(by));
    binary(site, what, Binary::Add, x, by)
}
