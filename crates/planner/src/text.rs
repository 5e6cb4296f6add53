//! A plan as people read it: `tessera inspect` shows it, and tests keep it.
//!
//! One line per step: `3  b5 f32[56·56·64] ← conv 3×3 /1 64→64 +relu  b4 w2   115.6 MFLOP  conv1+relu`.

use crate::describe::function_text;
use crate::net::activation_text;
use crate::op::{Cell, CellKind};
use crate::plan::{
    Access, BufferId, ConvShape, CumSum, ElementOp, Epilogue, Lines, LrnShape, Operand, Pick, Plan, Points,
    PoolKind, Resample, Scatter, Step, StepKind, TopK,
};
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = if self.batched { "items batched" } else { "one request is one item" };
        writeln!(
            f,
            "{}, {items}: {} and {} of arena per item; {}",
            count(self.steps.len(), "step"),
            flops(self.flops_per_item()),
            self.arena_per_item,
            count(self.constants.len(), "constant")
        )?;
        for (what, ports) in [("in ", &self.inputs), ("out", &self.outputs)] {
            for port in ports {
                writeln!(f, "{what} {} {}{:?}", operand(&port.at), port.dtype, port.dims)?;
            }
        }
        self.write_steps(f)?;
        writeln!(f, "buffers")?;
        for (index, buffer) in self.buffers.iter().enumerate() {
            let live = format!("{}..{}", buffer.live.start, buffer.live.end);
            writeln!(f, "  b{index} {}[{}] at {} live {live}", buffer.dtype, buffer.elements, buffer.offset)?;
        }
        Ok(())
    }
}

impl Plan {
    /// One line per step, and one before each segment where there are several.
    pub(crate) fn write_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first_lines = self.segments.iter().map(|run| run.start).collect::<Vec<_>>();
        for (index, step) in self.steps.iter().enumerate() {
            if self.segments.len() > 1 && first_lines.contains(&index) {
                writeln!(f, "--- segment {}", first_lines.iter().filter(|&&start| start <= index).count())?;
            }
            let work = if step.flops == 0 { String::new() } else { format!("  {}", flops(step.flops)) };
            writeln!(f, "{index:>3} {}{work}  ({})", self.step_text(step), step.name)?;
        }
        Ok(())
    }

    /// What a step does, reads and writes, without its name.
    pub(crate) fn step_text(&self, step: &Step) -> String {
        let written =
            |id: BufferId| format!("b{} {}[{}] ←", id.0, self.buffer(id).dtype, self.buffer(id).elements);
        match &step.kind {
            StepKind::Gemm { x, w, rows, k, n, epilogue, out } => {
                let x = access(x, &[*rows, *k]);
                format!("{} gemm {rows}×{k}·{k}×{n}{}  {x} w{}", written(*out), tail(epilogue), w.0)
            }
            StepKind::Conv { x, w, shape, epilogue, out } => {
                let (shape, tail) = (conv(shape), tail(epilogue));
                format!("{} conv {shape}{tail}  {} w{}", written(*out), operand(x), w.0)
            }
            StepKind::Depthwise { x, w, shape, epilogue, out } => {
                let (shape, tail) = (conv(shape), tail(epilogue));
                format!("{} depthwise {shape}{tail}  {} w{}", written(*out), operand(x), w.0)
            }
            StepKind::Pool { kind, x, shape, out } => {
                let kind = match kind {
                    PoolKind::Max => "max pool",
                    PoolKind::Sum => "sum pool",
                    PoolKind::Average { count_padding: true } => "mean pool (padding counts)",
                    PoolKind::Average { count_padding: false } => "mean pool",
                };
                format!("{} {kind} {}  {}", written(*out), conv(shape), operand(x))
            }
            StepKind::PoolIndices { x, shape, out } => format!(
                "{} indices of max pool {}×{:?}→{:?} k{:?} s{:?}  {}",
                written(*out),
                shape.planes,
                shape.input,
                shape.output,
                shape.kernel,
                shape.strides,
                operand(x)
            ),
            StepKind::GroupNorm { x, shape, epsilon, scale, bias, out } => format!(
                "{} group norm {}×{}×{} in {} groups ε {epsilon:?}  {} {} {}",
                written(*out),
                shape.images,
                shape.pixels,
                shape.channels,
                shape.groups,
                operand(x),
                operand(scale),
                operand(bias)
            ),
            StepKind::Lrn { x, pixels, channels, shape, out } => {
                let LrnShape { size, alpha, beta, bias } = shape;
                let factors = format!("{size} α {alpha:?} β {beta:?} + {bias:?}");
                format!("{} lrn {pixels}×{channels} of {factors}  {}", written(*out), operand(x))
            }
            StepKind::MatMul { batch, m, n, k, a, b, alpha, out } => {
                let dims = |last: [usize; 2]| [batch.as_slice(), &last].concat();
                let (a, b) = (access(a, &dims([*m, *k])), access(b, &dims([*k, *n])));
                let scale = if *alpha == 1.0 { String::new() } else { format!(" ·{alpha}") };
                format!("{} matmul {batch:?} {m}×{k}·{k}×{n}{scale}  {a} {b}", written(*out))
            }
            StepKind::Attention { shape, q, k, v, mask, out, out_strides } => {
                let q = access(q, &[shape.heads, shape.queries, shape.head_dim]);
                let k = access(k, &[shape.heads, shape.keys, shape.head_dim]);
                let v = access(v, &[shape.heads, shape.keys, shape.value_dim]);
                let mask = mask.as_ref().map_or(String::new(), |mask| {
                    format!(" mask {}", access(mask, &[shape.heads, shape.queries, shape.keys]))
                });
                format!(
                    "{} attention {} heads {}×{} d {}→{} ·{}  {q} {k} {v}{mask}  written {out_strides:?}",
                    written(*out),
                    shape.heads,
                    shape.queries,
                    shape.keys,
                    shape.head_dim,
                    shape.value_dim,
                    shape.scale
                )
            }
            StepKind::LayerNorm { x, rows, cols, centred, epsilon, scale, bias, out } => {
                let name = if *centred { "layer norm" } else { "rms norm" };
                let bias = bias.map_or(String::new(), |bias| format!(" {}", operand(&bias)));
                let (x, scale) = (operand(x), operand(scale));
                format!("{} {name} {rows}×{cols} ε {epsilon:?}  {x} {scale}{bias}", written(*out))
            }
            StepKind::Softmax { x, rows, cols, log, out } => {
                let name = if *log { "log softmax" } else { "softmax" };
                format!("{} {name} {rows}×{cols}  {}", written(*out), operand(x))
            }
            StepKind::Recurrent { shape, cell, x, weights, length, h0, c0, y, y_offset, y_stride, h, c } => {
                let out = |name: &str, id: &Option<BufferId>| {
                    id.map_or(String::new(), |id| format!("{name} b{} ", id.0))
                };
                let start = [h0, c0].map(|start| start.as_ref().map_or("0".to_string(), operand));
                let bias = weights.bias.map_or(String::new(), |bias| format!(" w{}", bias.0));
                let extra = [("peephole", weights.peephole), ("candidate", weights.candidate)]
                    .map(|(name, id)| id.map_or(String::new(), |id| format!(" {name} w{}", id.0)));
                let length = length.map_or(String::new(), |length| format!(" length {}", operand(&length)));
                let direction = if shape.reverse { "backwards " } else { "" };
                format!(
                    "{}{}{}← {} {direction}{}×{}→{}  {} w{} w{}{bias}{}{}{length} from {} {}  y at {y_offset}+t·{y_stride}",
                    out("y", y),
                    out("h", h),
                    out("c", c),
                    cell_text(cell),
                    shape.time,
                    shape.input,
                    shape.hidden,
                    access(x, &[shape.time, shape.input]),
                    weights.w.0,
                    weights.r.0,
                    extra[0],
                    extra[1],
                    start[0],
                    start[1],
                )
            }
            StepKind::Gather { table, ids, outer, rows, row, count, what, out } => {
                let (table, ids) = (operand(table), operand(ids));
                format!("{} gather {count} of {outer}·{rows}·{row}  {table} by {ids} `{what}`", written(*out))
            }
            StepKind::Reduce { kind, x, kept, reduced, out } => {
                let kind = format!("{kind:?}").to_lowercase();
                let x = access(x, &[kept.as_slice(), reduced].concat());
                format!("{} {kind} {kept:?} over {reduced:?}  {x}", written(*out))
            }
            StepKind::Elementwise { dims, inputs, program, out } => {
                let inputs: Vec<String> = inputs.iter().map(|input| access(input, dims)).collect();
                format!("{} {}  {dims:?} {}", written(*out), formula(program), inputs.join(" "))
            }
            StepKind::Copy { dims, x, out, out_offset, out_strides } => {
                let target = Access {
                    operand: Operand::Buffer(*out),
                    offset: *out_offset,
                    strides: out_strides.iter().map(|&stride| stride as isize).collect(),
                };
                format!("{} ← copy {dims:?}  {}", access(&target, dims), access(x, dims))
            }
            StepKind::Fill { value, out } => format!("{} fill {value:?}", written(*out)),
            StepKind::TopK(TopK { x, lines, k, largest, last, values, indices }) => {
                let out: Vec<String> =
                    [values, indices].into_iter().flatten().map(|&id| written(id)).collect();
                let (which, ties) =
                    (if *largest { "largest" } else { "smallest" }, if *last { ", last first" } else { "" });
                format!("{} {k} {which}{ties} of {}  {}", out.join(" "), self::lines(*lines), operand(x))
            }
            StepKind::CumSum(CumSum { x, lines, exclusive, reverse, out }) => {
                let exclusive = if *exclusive { " exclusive" } else { "" };
                let reverse = if *reverse { " backwards" } else { "" };
                let lines = self::lines(*lines);
                format!("{} running sum{exclusive}{reverse} of {lines}  {}", written(*out), operand(x))
            }
            StepKind::Resample(Resample { x, lines, count, taps, at, weights, out }) => format!(
                "{} resample {}→{count} by {taps}  {} c{} c{}",
                written(*out),
                self::lines(*lines),
                operand(x),
                at.0,
                weights.0
            ),
            StepKind::Pick(Pick { x, points, ids, what, out }) => {
                format!("{} pick {}  {}", written(*out), self::points(points, ids, what), operand(x))
            }
            StepKind::Scatter(Scatter { points, ids, what, updates, how, out }) => {
                let how = format!("{how:?}").to_lowercase();
                format!(
                    "{} scatter ({how}) {}  {}",
                    written(*out),
                    self::points(points, ids, what),
                    operand(updates)
                )
            }
        }
    }
}

/// `[3·224·3]` lines, the middle number being their length.
fn lines(lines: Lines) -> String {
    format!("{}·{}·{}", lines.outer, lines.length, lines.inner)
}

/// `[2, 5]·8 at [30][1]`: points, elements of each, what numbers choose from and how far apart it lies.
fn points(points: &Points, ids: &Operand, what: &str) -> String {
    let Points { dims, strides: _, sizes, along, row } = points;
    format!("{dims:?}·{row} at {sizes:?}·{along:?} by {} `{what}`", operand(ids))
}

fn operand(operand: &Operand) -> String {
    match operand {
        Operand::Buffer(id) => format!("b{}", id.0),
        Operand::Weight(id) => format!("w{}", id.0),
        Operand::Constant(id) => format!("c{}", id.0),
    }
}

/// `b3` when all of it is walked in order, else `b3+offset[strides]`.
fn access(access: &Access, dims: &[usize]) -> String {
    let name = operand(&access.operand);
    let dense = crate::lower::view::dense_strides(dims);
    let in_order =
        dims.iter().zip(access.strides.iter().zip(&dense)).all(|(&dim, (a, b))| dim == 1 || a == b);
    match (access.offset, in_order) {
        (0, true) => name,
        (0, false) => format!("{name}{:?}", access.strides),
        (offset, _) => format!("{name}+{offset}{:?}", access.strides),
    }
}

fn conv(shape: &ConvShape) -> String {
    let [[ih, iw], [oh, ow], [kh, kw]] = [shape.input, shape.output, shape.kernel];
    let channels = match (shape.groups, shape.in_per_group, shape.out_per_group) {
        (1, i, o) => format!("{i}→{o}"),
        (groups, 1, 1) => format!("{groups}"),
        (groups, i, o) => format!("{groups}×({i}→{o})"),
    };
    let mut text = format!("{kh}×{kw} {ih}×{iw}→{oh}×{ow} {channels}");
    if shape.strides != [1, 1] {
        text += &format!(" /{}", pair(shape.strides));
    }
    if shape.dilations != [1, 1] {
        text += &format!(" dilated {}", pair(shape.dilations));
    }
    if shape.before != [0, 0] || shape.after != [0, 0] {
        text += &format!(" pad {}", pair(shape.before));
        if shape.after != shape.before {
            text += &format!("…{}", pair(shape.after));
        }
    }
    text
}

fn pair([a, b]: [usize; 2]) -> String {
    if a == b { format!("{a}") } else { format!("{a},{b}") }
}

fn tail(epilogue: &Epilogue) -> String {
    let bias = epilogue.bias.map_or(String::new(), |bias| format!(" +w{}", bias.0));
    let residual = epilogue.residual.map_or(String::new(), |residual| format!(" +{}", operand(&residual)));
    let activation = activation_text(epilogue.activation);
    let space = if activation.is_empty() { "" } else { " " };
    format!("{bias}{residual}{space}{activation}")
}

/// The last register as a formula over the inputs `x0`, `x1`, …
fn formula(program: &[ElementOp]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(program.len());
    for instruction in program {
        let text = match *instruction {
            ElementOp::Load(input) => format!("x{input}"),
            ElementOp::Float(x) => format!("{x:?}"),
            ElementOp::Int(x) => format!("{x}"),
            ElementOp::Bool(x) => format!("{x}"),
            ElementOp::Unary(function, x) => {
                format!("{}({})", function_text(function), texts[x])
            }
            ElementOp::Binary(function, a, b) => {
                format!("{}({}, {})", format!("{function:?}").to_lowercase(), texts[a], texts[b])
            }
            ElementOp::Select(condition, yes, no) => {
                format!("where({}, {}, {})", texts[condition], texts[yes], texts[no])
            }
            ElementOp::Cast(to, x) => format!("{to}({})", texts[x]),
        };
        // A register that is read often would make the text grow without bound.
        let long = text.len() > 160;
        texts.push(if long { "…".to_string() } else { text });
    }
    texts.pop().unwrap_or_default()
}

/// `1 step`, `3 steps`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `1.5 MFLOP`.
pub(crate) fn flops(count: u64) -> String {
    match count {
        0..1000 => format!("{count} FLOP"),
        1000..1_000_000 => format!("{:.1} kFLOP", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MFLOP", count as f64 / 1e6),
        _ => format!("{:.2} GFLOP", count as f64 / 1e9),
    }
}

/// `lstm`, or `gru(reset first, relu, tanh, clip 3)`: what is not as usual.
fn cell_text(cell: &Cell) -> String {
    let mut unusual = Vec::new();
    let name = match cell.kind {
        CellKind::Lstm { input_forget } => {
            unusual.extend(input_forget.then(|| "input forget".to_string()));
            "lstm"
        }
        CellKind::Gru { linear_before_reset } => {
            unusual.extend((!linear_before_reset).then(|| "reset first".to_string()));
            "gru"
        }
        CellKind::Rnn => "rnn",
    };
    if cell.functions != cell.kind.usual_functions() {
        unusual.extend(cell.functions.iter().map(|&function| function_text(function)));
    }
    unusual.extend(cell.clip.map(|clip| format!("clip {clip}")));
    if unusual.is_empty() { name.to_string() } else { format!("{name}({})", unusual.join(", ")) }
}
