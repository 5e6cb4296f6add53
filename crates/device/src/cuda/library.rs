//! Kernels, compiled once and kept: in this process while a program uses them, on disk for the next one.
//!
//! ```text
//!   specs ─▶ loaded here? ─▶ on disk? ─▶ NVRTC, all missing ones in parallel ─▶ disk
//! ```
//! The name of a file covers everything that can change its bytes: the sources, the specialisation, the options, the compiler's version. So a
//! file is never stale, only unused (`files.rs`). The folder only ever helps; each of its errors leaves the caller where a missing file would.

use super::call::{KernelCall, KernelSpec};
use super::compile;
use super::fence::{Compiler, Context, CudaError, Function, Shape, Stream};
use super::files::{self, Found};
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

/// Every kernel of a device.
#[derive(Debug)]
pub(crate) struct Library {
    context: Arc<Context>,
    compiler: Compiler,
    folder: Option<PathBuf>,
    /// Of what every file's name covers.
    common: blake3::Hasher,
    loaded: Mutex<HashMap<KernelSpec, Weak<Function>>>,
}

/// Machine code, or why there is none.
type Cubin = Result<Vec<u8>, String>;

/// Functions by specialisation.
pub(crate) type Functions = HashMap<KernelSpec, Arc<Function>>;

impl Library {
    /// No kernels yet; `folder` is where compiled ones are kept.
    pub(crate) fn new(context: &Arc<Context>, compiler: Compiler, folder: Option<PathBuf>) -> Library {
        let folder = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok());
        let mut common = blake3::Hasher::new();
        compile::sources().chain([compiler.version()]).for_each(|part| add(&mut common, &part));
        Library { context: context.clone(), compiler, folder, common, loaded: Mutex::default() }
    }

    /// All of `specs`, ready to be launched. Compiling takes about 0.1 to 0.5 s a kernel and core. The error is the compiler's or the driver's.
    pub(crate) fn load(&self, specs: BTreeSet<KernelSpec>) -> Result<Functions, String> {
        let mut functions = Functions::new();
        let mut missing = Vec::new();
        {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.retain(|_, function| function.strong_count() > 0);
            for spec in specs {
                match loaded.get(&spec).and_then(Weak::upgrade) {
                    Some(function) => drop(functions.insert(spec, function)),
                    None => missing.push(spec),
                }
            }
        }
        // The lock is free meanwhile: two programs may compile one kernel twice, and both do the right thing.
        let cubins = self.cubins(&missing)?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        for (spec, cubin) in missing.into_iter().zip(cubins) {
            let function = Function::load(&self.context, &cubin).map_err(|error| error.to_string())?;
            let function = Arc::new(function);
            loaded.insert(spec.clone(), Arc::downgrade(&function));
            functions.insert(spec, function);
        }
        Ok(functions)
    }

    /// The machine code of all of `specs`, in their order, on every core.
    fn cubins(&self, specs: &[KernelSpec]) -> Result<Vec<Vec<u8>>, String> {
        let next = AtomicUsize::new(0);
        let cubins: Vec<Mutex<Option<Cubin>>> = specs.iter().map(|_| Mutex::default()).collect();
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let work = || {
            while let Some((spec, cubin)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                specs.get(index).zip(cubins.get(index))
            } {
                *cubin.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.cubin(spec));
            }
        };
        thread::scope(|scope| {
            // A helper that the system refuses is done without.
            (1..cores.min(specs.len())).for_each(|_| _ = thread::Builder::new().spawn_scoped(scope, work));
            work();
        });
        let done = |cubin: Mutex<Option<Cubin>>| {
            cubin.into_inner().unwrap_or_else(PoisonError::into_inner).expect("every index was taken")
        };
        cubins.into_iter().map(done).collect()
    }

    fn cubin(&self, spec: &KernelSpec) -> Cubin {
        let path = self.folder.as_ref().map(|folder| folder.join(self.file_name(spec)));
        if let Some(Found::Whole(cubin)) = path.as_deref().map(files::read) {
            return Ok(cubin);
        }
        let cubin = compile::compile(&self.compiler, spec)?.cubin;
        if let Some(path) = path {
            files::write(&path, &cubin);
        }
        Ok(cubin)
    }

    fn file_name(&self, spec: &KernelSpec) -> String {
        let mut hasher = self.common.clone();
        compile::identity(spec).for_each(|part| add(&mut hasher, &part));
        format!("{}.cubin", hasher.finalize().to_hex())
    }
}

/// One part of what is named, told apart from its neighbours by its length.
fn add(hasher: &mut blake3::Hasher, part: &str) {
    hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
}

/// Puts one call of a loaded kernel into a stream, to overlap the one before: see [`Function::launch`].
pub(crate) fn launch(functions: &Functions, call: &KernelCall, stream: &Stream) -> Result<(), CudaError> {
    launch_by(Function::launch, functions, call, stream)
}

/// As [`launch`], behind all that the stream holds.
pub(crate) fn launch_apart(
    functions: &Functions,
    call: &KernelCall,
    stream: &Stream,
) -> Result<(), CudaError> {
    launch_by(Function::launch_apart, functions, call, stream)
}

fn launch_by(
    launch: fn(&Function, &Stream, &Shape, &[u8]) -> Result<(), CudaError>,
    functions: &Functions,
    call: &KernelCall,
    stream: &Stream,
) -> Result<(), CudaError> {
    let shape =
        Shape { grid: call.grid, block: call.block, shared_bytes: call.shared_bytes, cluster: call.cluster };
    let function = &functions[&call.spec];
    let launched = function.allow(&shape).and_then(|()| launch(function, stream, &shape, &call.params));
    launched.map_err(|error| error.to(format_args!("{}, {shape:?}", call.spec)))
}
