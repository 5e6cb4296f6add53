//! The walk over a model: what is live, in which order, with which parameters.

mod site;

use crate::graph::{Dim, Graph, Input, Output, Param, ParamData, ParamId, ValueId, WeightSource};
use crate::onnx::attributes::Attributes;
use crate::onnx::data::{self, Loaded, MAX_RANK};
use crate::onnx::error::{ImportError, Unsupported};
use crate::onnx::external::External;
use crate::onnx::limits;
use crate::onnx::order;
use crate::onnx::proto::tensor_shape_proto::dimension::Value as DimProto;
use crate::onnx::proto::type_proto::Value as TypeValue;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::onnx::ranks::Known;
use crate::onnx::roles;
use crate::onnx::skeleton::{self, Skeleton};
use crate::onnx::table::{self, Refusal};
use crate::source::{SourceError, Stamp, stamp};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tessera_core::{Bytes as Size, DType};

/// The oldest operator set that is understood: PyTorch has written newer ones since 2019.
pub const OLDEST_OPSET: i64 = 9;
/// The newest operator set whose changes have been read (PyPI `onnx` 1.23).
pub const NEWEST_OPSET: i64 = 28;

/// Protobuf itself ends there: its lengths are 31 bits. Larger models keep their weights in other files.
const MAX_FILE: u64 = i32::MAX as u64;
/// Real models have some thousands. Bounds what a small hostile file can make us hold.
const MAX_NODES: usize = 200_000;

/// A graph with what only the file knew.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model.
    pub graph: Graph,
    /// For every parameter of the graph the initializer that holds it; `None` for what Constant nodes and attributes hold. Where
    /// an Identity node gave an initializer another name, the parameter has that name.
    pub origins: Vec<Option<String>>,
    /// Initializers that no answer depends on.
    pub unread: Vec<String>,
    /// What the file says of each output.
    pub outputs: Vec<DeclaredOutput>,
}

/// What a file says of an output. It may know more than shapes tell, or less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredOutput {
    /// Its element type, where the file says.
    pub dtype: Option<DType>,
    /// Its dimensions, where the file says; `None` inside for those that depend on the request.
    pub dims: Option<Vec<Option<u64>>>,
}

/// The graph of the ONNX file at `path`. Large weights are only looked for, in the file as in others beside it.
pub fn import(path: &Path) -> Result<Graph, ImportError> {
    Ok(import_file(path)?.graph)
}

/// As [`import`], with what only the file knew.
pub fn import_file(path: &Path) -> Result<Imported, ImportError> {
    let real = path.canonicalize().map_err(|source| SourceError::Io { path: path.into(), source })?;
    let stamp = stamp(&real)?;
    if stamp.len > MAX_FILE {
        return Err(SourceError::TooLarge { path: real, len: stamp.len, limit: MAX_FILE }.into());
    }
    let external = External::beside(path, &real);
    let skeleton = skeleton::read(&real, &stamp)?;
    import_model(skeleton, Some(&(Arc::new(real), stamp)), external)
}

/// The graph of an ONNX file's bytes; `folder` is where its external data would be.
pub fn import_bytes(bytes: impl Into<Bytes>, folder: Option<&Path>) -> Result<Imported, ImportError> {
    let external = folder.map(External::within).transpose()?.unwrap_or_default();
    import_model(Skeleton { bytes: bytes.into(), left_out: HashMap::new() }, None, external)
}

/// `file` is where what the skeleton leaves out is.
fn import_model(
    skeleton: Skeleton,
    file: Option<&(Arc<PathBuf>, Stamp)>,
    external: External,
) -> Result<Imported, ImportError> {
    let Skeleton { bytes, left_out } = skeleton;
    if bytes.is_empty() {
        return Err(ImportError::Empty);
    }
    let (need, allowed) = (limits::estimate(&bytes), limits::allowed(&bytes));
    if need > allowed {
        return Err(ImportError::TooLarge { need: Size(need), allowed: Size(allowed) });
    }
    let model = ModelProto::decode(bytes).map_err(|error| ImportError::NotOnnx(error.to_string()))?;
    let graph = model.graph.as_ref().ok_or_else(|| ImportError::NotOnnx("there is no graph in it".into()))?;
    let opset = opset(&model)?;
    for (what, got) in [("nodes", graph.node.len()), ("initializers", graph.initializer.len())] {
        if got > MAX_NODES {
            return Err(ImportError::TooMany { what, got, limit: MAX_NODES });
        }
    }
    let functions = model.functions.iter().map(|function| (function.domain(), function.name())).collect();
    let left_out = left_out.into_iter().filter_map(|(number, range)| {
        let ((path, stamp), Range { start: offset, end }) = (file.cloned()?, range);
        let source = WeightSource::File { path, stamp, offset, len: end - offset };
        Some((graph.initializer.get(number)?.name(), source))
    });
    let left_out = left_out.collect();
    let mut importer = Importer { opset, functions, external, left_out, ..Importer::over(graph)? };
    importer.inputs(graph)?;
    importer.nodes(graph)?;
    importer.outputs(graph)?;
    roles::split(&mut importer.graph, &mut importer.origins)?;
    let Importer { graph, origins, declared: outputs, initializers, values, .. } = importer;
    let unread = initializers.into_keys().filter(|name| !values.contains_key(name)).map(str::to_owned);
    let mut unread: Vec<String> = unread.collect();
    unread.sort_unstable();
    Ok(Imported { graph, origins, outputs, unread })
}

/// The version of ONNX's own operators that the model is written in.
fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    const CONVERT: &str = "export it again, or convert it with `onnx.version_converter`";
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let mut versions = model.opset_import.iter().filter(|set| own(set.domain())).map(|set| set.version());
    let problem = match (versions.next(), versions.next()) {
        (None, _) => "the model names no opset of ONNX's own operators".to_owned(),
        (Some(one), Some(two)) if one != two => format!("the model names two opsets, {one} and {two}"),
        (Some(version), _) if version < OLDEST_OPSET => {
            format!("the model is written in opset {version}, which is older")
        }
        (Some(version), _) if version > NEWEST_OPSET => {
            format!("the model is written in opset {version}, which is newer")
        }
        (Some(version), _) => return Ok(version),
    };
    Err(ImportError::Opset { problem, way_out: CONVERT })
}

/// How messages call a node.
pub(crate) fn describe(node: &NodeProto) -> String {
    let made = node.output.iter().find(|name| !name.is_empty());
    match (node.name(), made) {
        ("", Some(made)) => format!("{} (making `{made}`)", node.op_type()),
        (name, _) => format!("{} `{name}`", node.op_type()),
    }
}

/// The graph as it grows.
#[derive(Debug, Default)]
pub(crate) struct Importer<'m> {
    pub(crate) opset: i64,
    functions: HashSet<(&'m str, &'m str)>,
    external: External,
    graph: Graph,
    origins: Vec<Option<String>>,
    declared: Vec<DeclaredOutput>,
    /// Initializers that nothing has read yet become parameters when something does.
    initializers: HashMap<&'m str, &'m TensorProto>,
    /// Where the raw data of initializers is that was left in the file.
    left_out: HashMap<&'m str, WeightSource>,
    values: HashMap<&'m str, ValueId>,
    params: HashMap<ValueId, ParamId>,
    known: Vec<Known>,
    /// Ranks that the file declares for values on the way; used where operators alone do not tell.
    declared_ranks: HashMap<&'m str, usize>,
    /// Names that a live node or the answer reads.
    read: HashSet<&'m str>,
}

impl<'m> Importer<'m> {
    fn over(graph: &'m GraphProto) -> Result<Importer<'m>, ImportError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map(TensorProto::name).unwrap_or_default().to_owned();
            let problem = "is sparse, which Tessera does not read; export it dense".to_owned();
            return Err(ImportError::Tensor { name, problem });
        }
        let mut initializers = HashMap::new();
        for tensor in &graph.initializer {
            let name = tensor.name();
            if name.is_empty() {
                let problem = "has no name, so nothing can read it".to_owned();
                return Err(ImportError::Tensor { name: String::new(), problem });
            }
            if initializers.insert(name, tensor).is_some() {
                let (first, second) = ("an initializer".to_owned(), "another initializer".to_owned());
                return Err(ImportError::DefinedTwice { value: name.to_owned(), first, second });
            }
        }
        let infos = graph.value_info.iter().chain(&graph.output);
        let declared_ranks = infos.filter_map(|info| Some((info.name(), shape(info)?.len()))).collect();
        Ok(Importer { initializers, declared_ranks, ..Importer::default() })
    }

    fn inputs(&mut self, graph: &'m GraphProto) -> Result<(), ImportError> {
        for info in &graph.input {
            let name = info.name();
            let wrong = |problem: String| ImportError::Input { name: name.to_owned(), problem };
            if name.is_empty() {
                return Err(wrong("has no name".into()));
            }
            // Before IR version 4 every initializer was listed as an input, too. Requests do not replace weights here.
            if self.initializers.contains_key(name) {
                continue;
            }
            if self.values.contains_key(name) {
                return Err(wrong("is listed twice".into()));
            }
            let dtype = dtype(info).map_err(&wrong)?;
            let dims =
                shape(info).ok_or_else(|| wrong("declares no shape; export the model with one".into()))?;
            if dims.len() > MAX_RANK {
                return Err(wrong(format!("has {} dimensions, more than {MAX_RANK}", dims.len())));
            }
            let dims: Result<Vec<Dim>, String> =
                dims.iter().enumerate().map(|(axis, dim)| self.dim(name, axis, *dim)).collect();
            let dims = dims.map_err(&wrong)?;
            let fixed = dims.iter().filter_map(|dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Free(_) => None,
            });
            if fixed.into_iter().try_fold(1u64, u64::checked_mul).is_none_or(|size| size > 1 << 40) {
                return Err(wrong("declares a shape that overflows".into()));
            }
            let value = self.value(name.to_owned(), Known::rank(dims.len()).of(dtype));
            self.values.insert(name, value);
            self.graph.inputs.push(Input { name: name.to_owned(), value, dtype, dims });
        }
        Ok(())
    }

    fn dim(&mut self, input: &str, axis: usize, dim: Option<&'m DimProto>) -> Result<Dim, String> {
        let free = match dim {
            Some(DimProto::DimValue(size @ 1..)) => return Ok(Dim::Fixed(*size as u64)),
            Some(DimProto::DimValue(size)) => return Err(format!("has a dimension of {size} (axis {axis})")),
            Some(DimProto::DimParam(name)) if !name.is_empty() => name.clone(),
            // A dimension that the file does not even name is like no other.
            _ => format!("{input}.{axis}"),
        };
        let names = &mut self.graph.free_dims;
        let index = names.iter().position(|name| *name == free).unwrap_or_else(|| {
            names.push(free);
            names.len() - 1
        });
        Ok(Dim::Free(index))
    }

    fn nodes(&mut self, graph: &'m GraphProto) -> Result<(), ImportError> {
        let inputs: Vec<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
        let live = order::live(graph, &inputs, &self.initializers)?;
        let outputs = graph.output.iter().map(ValueInfoProto::name);
        self.read = live.iter().flat_map(|node| &node.input).map(String::as_str).chain(outputs).collect();
        let mut refused: Vec<Unsupported> = Vec::new();
        for node in live {
            let Err(refusal) = self.node(node) else { continue };
            let reason = match refusal {
                Refusal::Unsupported(reason) => reason,
                Refusal::Invalid(problem) => return Err(ImportError::Node { node: describe(node), problem }),
                Refusal::Import(error) => return Err(*error),
            };
            // Its outputs exist, so that the rest can be looked at, too.
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                let value = self.value(name.clone(), Known::default());
                self.values.insert(name, value);
            }
            let op = match node.domain() {
                "" | "ai.onnx" => node.op_type().to_owned(),
                domain => format!("{domain}.{}", node.op_type()),
            };
            match refused.iter_mut().find(|one| one.op == op && one.reason == reason) {
                Some(one) => one.count += 1,
                None => refused.push(Unsupported { op, count: 1, first: describe(node), reason }),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(ImportError::Unsupported(refused)) }
    }

    fn node(&mut self, node: &'m NodeProto) -> Result<(), Refusal> {
        if self.functions.contains(&(node.domain(), node.op_type())) {
            let reason =
                "a function of the model itself; inline it with `onnx.inliner.inline_local_functions`";
            return Err(Refusal::Unsupported(reason.into()));
        }
        let row = table::find(node, self.opset)?;
        let attributes = Attributes::new(node)?;
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(self.lookup(name)?);
        }
        // Trailing inputs that are left out are the same as none.
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        table::check(row, &inputs, node)?;
        (row.make)(&mut table::Site { importer: self, node, attributes: &attributes, inputs: &inputs })?;
        match attributes.unknown() {
            Some(name) => Err(Refusal::Invalid(format!(
                "has an attribute `{name}` that the operator of opset {} does not know",
                self.opset
            ))),
            None => Ok(()),
        }
    }

    fn outputs(&mut self, graph: &'m GraphProto) -> Result<(), ImportError> {
        if graph.output.is_empty() {
            return Err(ImportError::NotOnnx("its graph has no outputs".into()));
        }
        for info in &graph.output {
            let name = info.name();
            let wrong =
                |problem: &str| ImportError::Output { name: name.to_owned(), problem: problem.into() };
            if self.graph.outputs.iter().any(|output| output.name == name) {
                return Err(wrong("is listed twice"));
            }
            let value = self.lookup(name)?.ok_or_else(|| wrong("has no name"))?;
            self.graph.outputs.push(Output { name: name.to_owned(), value });
            let dims = shape(info).map(|dims| {
                let size = |dim: &Option<&DimProto>| match dim {
                    Some(DimProto::DimValue(size @ 1..)) => Some(*size as u64),
                    _ => None,
                };
                dims.iter().map(size).collect()
            });
            self.declared.push(DeclaredOutput { dtype: dtype(info).ok(), dims });
        }
        Ok(())
    }

    /// The value of that name, `None` for the empty name.
    fn lookup(&mut self, name: &'m str) -> Result<Option<ValueId>, ImportError> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(&value) = self.values.get(name) {
            return Ok(Some(value));
        }
        let tensor = self.initializers[name];
        let loaded = data::load(tensor, name, self.left_out.get(name), &mut self.external)?;
        self.param(name.to_owned(), &loaded, Some(name.to_owned())).map(|value| {
            self.values.insert(name, value);
            Some(value)
        })
    }

    fn value(&mut self, name: String, known: Known) -> ValueId {
        self.graph.values.push(name);
        self.known.push(known);
        ValueId(u32::try_from(self.graph.values.len() - 1).expect("limits keep values few"))
    }

    fn param(
        &mut self,
        name: String,
        loaded: &Loaded,
        origin: Option<String>,
    ) -> Result<ValueId, ImportError> {
        let data = match loaded.dtype.is_float() {
            true => ParamData::Weight(loaded.source.clone()),
            false => ParamData::Literal(loaded.literal(&name)?),
        };
        Ok(self.push_param(name, loaded.dtype, loaded.dims.clone(), data, origin))
    }

    fn push_param(
        &mut self,
        name: String,
        dtype: DType,
        dims: Vec<usize>,
        data: ParamData,
        origin: Option<String>,
    ) -> ValueId {
        let value = self.value(name.clone(), Known::dims(&dims).of(dtype));
        self.params.insert(value, ParamId(self.graph.params.len() as u32));
        self.graph.params.push(Param { value, name, dtype, dims, data });
        self.origins.push(origin);
        value
    }
}

/// The element type of an input or output.
fn dtype(info: &ValueInfoProto) -> Result<DType, String> {
    match info.r#type.as_ref().and_then(|proto| proto.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => data::dtype(tensor.elem_type())
            .map_err(|word| format!("has elements of an unsupported type, {word}; {}", data::SERVED)),
        Some(_) => Err("is not a tensor (a sequence, map, optional or sparse one)".into()),
        None => Err("declares no type".into()),
    }
}

/// The declared dimensions, when it is a tensor that has some.
fn shape(info: &ValueInfoProto) -> Option<Vec<Option<&DimProto>>> {
    match info.r#type.as_ref()?.value.as_ref()? {
        TypeValue::TensorType(tensor) => {
            Some(tensor.shape.as_ref()?.dim.iter().map(|dim| dim.value.as_ref()).collect())
        }
        _ => None,
    }
}
