//! LSTM, GRU and RNN: their attributes resolved, and layout 1 (batch first) as transposes around layout 0.

use crate::onnx::convert::{invalid, unsupported};
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Cell, CellKind, Direction, Op, Recurrent, Unary};

pub(crate) fn lstm(site: &mut Site<'_, '_>) -> Made {
    let input_forget = site.attributes.flag("input_forget", false)?;
    recurrent(site, CellKind::Lstm { input_forget })
}

pub(crate) fn gru(site: &mut Site<'_, '_>) -> Made {
    let linear_before_reset = site.attributes.flag("linear_before_reset", false)?;
    recurrent(site, CellKind::Gru { linear_before_reset })
}

pub(crate) fn rnn(site: &mut Site<'_, '_>) -> Made {
    recurrent(site, CellKind::Rnn)
}

fn recurrent(site: &mut Site<'_, '_>, kind: CellKind) -> Made {
    let attributes = site.attributes;
    let direction = match attributes.string("direction")?.unwrap_or("forward") {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Bidirectional,
        other => return Err(invalid(format!("has an unknown direction `{other}`"))),
    };
    let functions = functions(site, kind, direction.count())?;
    let clip = attributes.float("clip")?;
    if clip.is_some_and(|clip| clip.is_nan() || clip <= 0.0) {
        return Err(invalid(format!(
            "has a clip of {}, but a positive one is wanted",
            clip.unwrap_or_default()
        )));
    }
    let batch_first = attributes.flag("layout", false)?;
    let from_weights = site.param_dims(2).and_then(|dims| dims.last().map(|&hidden| hidden as i64));
    let hidden = attributes.int("hidden_size")?.or(from_weights);
    let hidden = hidden.and_then(|hidden| usize::try_from(hidden).ok()).filter(|&hidden| hidden > 0);
    let hidden = hidden.ok_or_else(|| invalid("has no hidden_size, and its weights do not tell one"))?;
    let op = Op::Recurrent(Recurrent { hidden, direction, cell: Cell { kind, functions, clip } });
    let outputs = if let CellKind::Lstm { .. } = kind { 3 } else { 2 };
    if !batch_first {
        site.finish(op, site.inputs.to_vec(), outputs);
        return Ok(());
    }
    let mut inputs = site.inputs.to_vec();
    for (index, name) in [(0, "x"), (5, "h0"), (6, "c0")] {
        if let Some(Some(value)) = inputs.get(index).copied() {
            inputs[index] = Some(site.inner(name, swapped(3), vec![Some(value)]));
        }
    }
    let made = site.inner_of(op, inputs, outputs);
    // Y is [time, dirs, batch, hidden], and [batch, time, dirs, hidden] is wanted.
    site.finish_output(0, Op::Transpose { perm: vec![2, 0, 1, 3] }, vec![Some(made[0])]);
    for (index, &last) in made.iter().enumerate().skip(1) {
        site.finish_output(index, swapped(3), vec![Some(last)]);
    }
    Ok(())
}

/// The first two axes exchanged.
fn swapped(rank: usize) -> Op {
    Op::Transpose { perm: [1, 0].into_iter().chain(2..rank).collect() }
}

/// The functions of all directions, with their parameters. Lists of parameters hold those of the functions that have one, in their order.
fn functions(site: &Site<'_, '_>, kind: CellKind, directions: usize) -> Result<Vec<Unary>, Refusal> {
    let attributes = site.attributes;
    let alphas = attributes.floats("activation_alpha")?.unwrap_or_default();
    let betas = attributes.floats("activation_beta")?.unwrap_or_default();
    let Some(names) = attributes.strings("activations")?.filter(|names| !names.is_empty()) else {
        return Ok(kind.usual_functions().repeat(directions));
    };
    let count = kind.functions() * directions;
    if names.len() != count {
        return Err(invalid(format!("names {} activations, but {count} are wanted", names.len())));
    }
    let (mut alphas, mut betas) = (alphas.iter().copied(), betas.iter().copied());
    let mut alpha = |usual: f32| alphas.next().unwrap_or(usual);
    let mut beta = |usual: f32| betas.next().unwrap_or(usual);
    let function = |name: &&str| {
        Ok(match name.to_ascii_lowercase().as_str() {
            "affine" => Unary::Affine { alpha: alpha(1.0), beta: beta(0.0) },
            "elu" => Unary::Elu { alpha: alpha(1.0) },
            "hardsigmoid" => Unary::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
            "leakyrelu" => Unary::LeakyRelu { alpha: alpha(0.01) },
            "relu" => Unary::Relu,
            "scaledtanh" => Unary::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) },
            "sigmoid" => Unary::Sigmoid,
            "softplus" => Unary::Softplus,
            "softsign" => Unary::Softsign,
            "tanh" => Unary::Tanh,
            "thresholdedrelu" => Unary::ThresholdedRelu { alpha: alpha(1.0) },
            _ => return Err(unsupported(format!("the activation `{name}` is not served"))),
        })
    };
    names.iter().map(function).collect()
}
