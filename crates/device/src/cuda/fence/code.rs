//! Machine code, and graphs of kernels that are launched as one.

use super::context::{Context, CudaError, Doing};
use super::order::Stream;
use super::share::Share;
use cudarc::driver::{result, sys};
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Loaded machine code.
struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: the driver lets any thread use a module.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    fn load(context: &Arc<Context>, cubin: &[u8]) -> Result<Module, CudaError> {
        context.bind()?;
        // SAFETY: a cubin is an ELF image that says its own length; ours come from the compiler, or from a cache that checks them.
        let raw = unsafe { result::module::load_data(cubin.as_ptr().cast()) }.doing("load a kernel")?;
        Ok(Module { context: context.clone(), raw })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, unloaded once; functions hold their module.
        let _ = self.context.bind().map(|()| unsafe { result::module::unload(self.raw) });
    }
}

/// A kernel that can be launched.
pub(crate) struct Function {
    module: Module,
    raw: sys::CUfunction,
    /// Dynamic shared memory that launches may ask for: the most that any has, as the programs of a kernel differ in it.
    allowed: Mutex<u32>,
}

// SAFETY: the driver lets any thread launch a function.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Blocks of a cluster; 1 for none.
    pub(crate) cluster: u32,
}

/// Clusters larger than this work only where the card's layout allows, and must be asked for.
const PORTABLE_CLUSTER: u32 = 8;
/// Shared memory of a block beyond this must be asked for: what the kernel has of its own, and what its launch adds.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

impl Function {
    /// Loads the function called `kernel` of a cubin.
    pub(crate) fn load(context: &Arc<Context>, cubin: &[u8]) -> Result<Function, CudaError> {
        let module = Module::load(context, cubin)?;
        let name = CString::new("kernel").expect("no NUL in it");
        // SAFETY: the module lives, in the function itself.
        let raw = unsafe { result::module::get_function(module.raw, name) }.doing("find a kernel")?;
        let own = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the function lives, in its module.
        let own = unsafe { result::function::get_function_attribute(raw, own) }
            .doing("ask for a kernel's shared memory")?;
        let allowed = DEFAULT_SHARED_BYTES.saturating_sub(own.unsigned_abs());
        Ok(Function { module, raw, allowed: Mutex::new(allowed) })
    }

    /// Allows what a launch of this shape needs beyond the defaults.
    pub(crate) fn allow(&self, shape: &Shape) -> Result<(), CudaError> {
        self.module.context.bind()?;
        use sys::CUfunction_attribute_enum as Attribute;
        let allow = |which, value: u32| {
            // SAFETY: the function lives.
            unsafe { result::function::set_function_attribute(self.raw, which, value as i32) }
                .doing("give a kernel its shared memory")
        };
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if shape.shared_bytes > *allowed {
            allow(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shape.shared_bytes)?;
            *allowed = shape.shared_bytes;
        }
        if shape.cluster > PORTABLE_CLUSTER {
            allow(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        Ok(())
    }

    /// Puts one launch into a stream. It may begin before the kernel ahead of it has ended (programmatic dependent launch): kernels wait
    /// themselves, see `abi.cuh`. `params` are the bytes of the kernel's one parameter; addresses in them are the caller's duty.
    pub(crate) fn launch(&self, stream: &Stream, shape: &Shape, params: &[u8]) -> Result<(), CudaError> {
        self.launch_after(stream, shape, params, true)
    }

    /// As [`Function::launch`], once all that the stream waits for has ended: for the first kernel behind an event of another stream.
    pub(crate) fn launch_apart(
        &self,
        stream: &Stream,
        shape: &Shape,
        params: &[u8],
    ) -> Result<(), CudaError> {
        self.launch_after(stream, shape, params, false)
    }

    fn launch_after(
        &self,
        stream: &Stream,
        shape: &Shape,
        params: &[u8],
        overlap: bool,
    ) -> Result<(), CudaError> {
        stream.bind()?;
        // SAFETY: structs of integers, pointers and unions of those: all zeros are valid.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        attributes[0].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[0].value.programmaticStreamSerializationAllowed = i32::from(overlap);
        attributes[1].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[1].value.clusterDim.x = shape.cluster;
        attributes[1].value.clusterDim.y = 1;
        attributes[1].value.clusterDim.z = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: shape.grid[0],
            gridDimY: shape.grid[1],
            gridDimZ: shape.grid[2],
            blockDimX: shape.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared_bytes,
            hStream: stream.raw,
            attrs: attributes.as_mut_ptr(),
            numAttrs: if shape.cluster > 1 { 2 } else { 1 },
        };
        let mut arguments = [params.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes one parameter, whose size is the length of `params` (asserted where both are compiled), and the driver
        // copies it during the call. Config and attributes outlive the call.
        unsafe {
            sys::cuLaunchKernelEx(&raw const config, self.raw, arguments.as_mut_ptr(), std::ptr::null_mut())
        }
        .result()
        .doing("launch a kernel")
    }
}

/// A sequence of launches, captured once and launched as one.
pub(crate) struct Graph {
    /// Where it was captured, and so where it runs, whatever stream it is launched into.
    share: Share,
    exec: sys::CUgraphExec,
}

// SAFETY: launches of one graph are serialised by its owner, which holds it in one place.
unsafe impl Send for Graph {}
// SAFETY: `launch` is the only method, and the driver locks the stream it is put into.
unsafe impl Sync for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    /// Captures what `fill` puts into `stream`, which nobody else uses meanwhile. Nothing of it runs now.
    pub(crate) fn capture(
        stream: &Stream,
        fill: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        stream.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives and is not capturing.
        unsafe { result::stream::begin_capture(stream.raw, mode) }.doing("begin a graph")?;
        let filled = fill();
        // SAFETY: begun above; ended also when filling failed, so that the stream can be used again.
        let graph = unsafe { result::stream::end_capture(stream.raw) }.doing("end a graph");
        filled?;
        let graph = graph?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was just captured.
        let exec = unsafe { result::graph::instantiate(graph, flags) }.doing("prepare a graph");
        // SAFETY: the executable graph does not need it any more.
        let _ = unsafe { result::graph::destroy(graph) };
        let graph = Graph { share: stream.share().clone(), exec: exec? };
        // SAFETY: both live.
        unsafe { result::graph::upload(graph.exec, stream.raw) }.doing("upload a graph")?;
        Ok(graph)
    }

    /// Puts the whole sequence into a stream. Runs of one graph follow each other, whatever their streams.
    pub(crate) fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        stream.bind()?;
        // SAFETY: both live; what its kernels read and write is kept by the program that owns the graph.
        unsafe { result::graph::launch(self.exec, stream.raw) }.doing("launch a graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once; the driver keeps what is in flight.
        let _ = self.share.context().bind().map(|()| unsafe { result::graph::exec_destroy(self.exec) });
    }
}
