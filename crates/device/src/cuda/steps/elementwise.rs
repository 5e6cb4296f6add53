//! Chains of element-wise operators: each becomes straight-line code of its own, see `kernels/elementwise.cu`.

use super::functions::{binary, literal, register_type, unary};
use super::vector::{placement, width};
use super::{Dims, blocks};
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::Site;
use bytemuck::{Pod, Zeroable};
use std::fmt::Write;
use tessera_core::DType;
use tessera_planner::element;
use tessera_planner::plan::{Access, ElementOp, StepKind};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Shape {
    launch: LaunchParams,
    out: OperandParams,
    dims: [u32; MAX_AXES],
    packs: u32,
    unused: u32,
}
params!(Shape);
const _: () = assert!(size_of::<Shape>() == 112);

/// Inputs of one chain: their walks must fit a kernel's parameters, which are 4 KiB.
const MAX_INPUTS: usize = 32;
/// Neighbours that a thread computes at most, so that wide registers beside narrow ones do not spill.
const MAX_WIDTH: usize = 8;

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Elementwise { dims, inputs, program, out } = kind else {
        unreachable!("called for its own kind")
    };
    if inputs.len() > MAX_INPUTS {
        return Err(format!("its chain reads {} values, and kernels read {MAX_INPUTS}", inputs.len()));
    }
    let mut dense = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        dense[axis - 1] = dense[axis] * dims[axis] as isize;
    }
    let strides: Vec<&[isize]> =
        inputs.iter().map(|access| access.strides.as_slice()).chain([dense.as_slice()]).collect();
    let walk = Dims::joined(dims, &strides)?;
    let width = neighbours(site, inputs, &walk);
    let axes = walk.dims.len().max(1);
    let mut packs = walk.padded_dims();
    packs[axes - 1] /= width as u32;
    let params = Shape {
        launch: site.launch,
        out: site.buffer(*out),
        dims: packs,
        packs: walk.elements() / width as u32,
        unused: 0,
    };
    let mut walks: Vec<WalkParams> = inputs
        .iter()
        .enumerate()
        .map(|(input, access)| WalkParams {
            operand: site.operand(access.operand),
            offset: access.offset as i64,
            strides: walk.padded_strides(input),
        })
        .collect();
    if walks.is_empty() {
        walks.push(Zeroable::zeroed()); // an array of the kernel's has an element
    }
    let mut spec = KernelSpec::new("elementwise.cu").define("WIDTH", width).define("AXES", axes);
    let types = inputs
        .iter()
        .enumerate()
        .map(|(input, access)| Input {
            stored: site.stored(access.operand),
            width: if walk.strides[input].last() == Some(&0) { 1 } else { width },
        })
        .collect::<Vec<_>>();
    let out = site.precision().stored(site.plan.buffer(*out).dtype);
    spec.generated = generated(&types, program, out)?.into();
    let grid = [blocks(params.packs, 256), site.capacity.items, 1];
    Ok(vec![KernelCall::with_list(spec, &params, &walks, grid, 256)])
}

/// Elements along the innermost axis that one thread may load and store at once.
fn neighbours(site: &Site<'_>, inputs: &[Access], walk: &Dims) -> usize {
    let Some(&inner) = walk.dims.last() else { return 1 };
    let mut divided = vec![inner];
    let mut size = MAX_WIDTH;
    for (access, strides) in inputs.iter().zip(&walk.strides) {
        let bytes = site.stored(access.operand).size();
        match strides.split_last() {
            Some((0, _)) => {}
            Some((1, outer)) => {
                divided.extend(outer.iter().map(|stride| stride.unsigned_abs()));
                divided.extend([access.offset, placement(&site.operand(access.operand), bytes)]);
                size = size.min(bytes);
            }
            _ => return 1,
        }
    }
    // The out's packs are aligned too: its item is a whole number of innermost axes.
    width((16 / size).min(MAX_WIDTH), divided)
}

/// An input as the chain's code finds it.
struct Input {
    stored: DType,
    /// Elements that a thread loads.
    width: usize,
}

/// The text of `generated.cuh`.
fn generated(inputs: &[Input], program: &[ElementOp], out: DType) -> Result<String, String> {
    let stored: Vec<DType> = inputs.iter().map(|input| input.stored).collect();
    let types = element::types(&stored, program).map_err(|error| error.to_string())?;
    let register = |dtype: DType| register_type(dtype).ok_or_else(|| format!("a chain holds no {dtype}"));
    let result = types.last().copied().ok_or("a chain has an instruction")?;
    let mut pointers = String::new();
    let mut finds = String::new();
    let mut members = String::new();
    let mut loads = String::new();
    for (input, Input { stored, width, .. }) in inputs.iter().enumerate() {
        let memory = memory_type(*stored)?;
        // Writing to a string does not fail.
        let _ = writeln!(pointers, "    const {memory}* x{input};");
        let _ =
            writeln!(finds, "        x{input} = find_input<{memory}>(launch, walks[{input}], item, index);");
        let _ = writeln!(members, "    Pack<{memory}, {width}> x{input};");
        let _ = writeln!(loads, "        x{input} = load_pack<{memory}, {width}>(inputs.x{input});");
    }
    let mut code = String::new();
    for (at, (instruction, &dtype)) in program.iter().zip(&types).enumerate() {
        let r = |register: usize| format!("r{register}");
        let value = match *instruction {
            ElementOp::Load(input) => {
                let element = if inputs[input].width == 1 { "0" } else { "e" };
                format!("value_of<{}>(x.x{input}.at[{element}])", register(dtype)?)
            }
            ElementOp::Float(x) => literal(x),
            ElementOp::Int(x) => format!("i64({:#x}ull)", x.cast_unsigned()),
            ElementOp::Bool(x) => x.to_string(),
            ElementOp::Unary(function, of) => unary(function, &r(of)),
            ElementOp::Binary(function, a, b) => binary(function, &r(a), &r(b)),
            ElementOp::Select(condition, yes, no) => format!("r{condition} ? r{yes} : r{no}"),
            ElementOp::Cast(to, of) => format!("op::Cast<{}>::of(r{of})", register(to)?),
        };
        let _ = writeln!(code, "    const {} r{at} = {value};", register(dtype)?);
    }
    Ok(format!(
        "constexpr int INPUTS = {count};\n\
         typedef {out} Out;\n\
         struct Inputs {{\n{pointers}    \
         __device__ __forceinline__ void find(const Launch& launch, const Walk (&walks)[INPUTS], u32 item, \
         const u32 (&index)[AXES]) {{\n{finds}    }}\n}};\n\
         struct Loaded {{\n{members}    \
         __device__ __forceinline__ void load(const Inputs& inputs) {{\n{loads}    }}\n}};\n\
         __device__ __forceinline__ {result} chain(const Loaded& x, int e) {{\n{code}    return r{last};\n}}\n",
        count = inputs.len().max(1),
        out = memory_type(out)?,
        result = register(result)?,
        last = program.len() - 1,
    ))
}

/// What an element is loaded and stored as.
fn memory_type(stored: DType) -> Result<&'static str, String> {
    match stored {
        DType::BF16 => Ok("bf16"),
        DType::F16 => Ok("half"),
        DType::F64 => Ok("double"),
        // Whatever a request's byte is, it is true or false only once it is compared with 0.
        DType::Bool => Ok("u8"),
        other => register_type(other).ok_or_else(|| format!("a chain holds no {other}")),
    }
}
