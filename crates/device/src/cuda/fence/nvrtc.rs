//! The run-time compiler: source and options in, machine code and the assembler's report out.

use cudarc::nvrtc::{result, sys};
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The variable that names a folder with `lib/libnvrtc.so.13`, where the system's linker finds none.
const VARIABLE: &str = "TESSERA_NVRTC";

/// NVRTC, found and loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compiler {
    version: (i32, i32),
}

/// What came of one compilation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Compiled {
    /// Machine code for one architecture.
    pub(crate) cubin: Vec<u8>,
    /// The assembler's words: registers, shared memory, spills.
    pub(crate) log: String,
}

impl Compiler {
    /// Loads NVRTC: from the folder in `TESSERA_NVRTC` if that is set, else from where the system keeps libraries. The error says what is
    /// missing and what to do. Costs nothing after the first call.
    pub(crate) fn find() -> Result<Compiler, String> {
        static FOUND: OnceLock<Result<Compiler, String>> = OnceLock::new();
        FOUND.get_or_init(Compiler::load).clone()
    }

    fn load() -> Result<Compiler, String> {
        if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
            preload(Path::new(&folder))?;
        }
        // SAFETY: only opens and closes a library of NVIDIA's, whose initialisers have no preconditions.
        if !unsafe { sys::is_culib_present() } {
            return Err(format!(
                "the run-time compiler NVRTC (libnvrtc.so.13) is not found; install the CUDA toolkit, or the PyPI package \
                 nvidia-cuda-nvrtc and set {VARIABLE} to its folder"
            ));
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to integers of ours that live through the call.
        let asked = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result();
        asked.map_err(|error| format!("NVRTC does not answer: {error:?}"))?;
        Ok(Compiler { version: (major, minor) })
    }

    /// As `13.0`: part of what names compiled kernels on disk.
    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// Compiles `source`, which may include the `headers` (name and text). The error is the compiler's log.
    pub(crate) fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(&str, &str)],
        options: &[String],
    ) -> Result<Compiled, String> {
        let text = |text: &str| CString::new(text).map_err(|_| format!("{name}: a NUL in the source"));
        let (source, file) = (text(source)?, text(name)?);
        let names: Vec<CString> = headers.iter().map(|(name, _)| text(name)).collect::<Result<_, _>>()?;
        let texts: Vec<CString> = headers.iter().map(|(_, body)| text(body)).collect::<Result<_, _>>()?;
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let texts: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let count = i32::try_from(headers.len()).expect("a handful of headers");
        let mut program: sys::nvrtcProgram = std::ptr::null_mut();
        // SAFETY: every string is terminated and outlives the call, and both arrays have `count` entries.
        let created = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                source.as_ptr(),
                file.as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        created.result().map_err(|error| format!("{name}: NVRTC takes no program: {error:?}"))?;
        let program = Program(program);
        // SAFETY: the program was created above and is destroyed when `program` is dropped.
        let compiled = unsafe { result::compile_program(program.0, options) };
        let log = program.log();
        compiled.map_err(|error| format!("{name} does not compile ({error:?}):\n{log}"))?;
        let cubin = program.cubin().map_err(|error| format!("{name}: no machine code: {error:?}"))?;
        Ok(Compiled { cubin, log })
    }
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program lives.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0usize;
        // SAFETY: the program lives, and the size is an integer of ours.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) }.result()?;
        let mut cubin = vec![0u8; size];
        // SAFETY: the buffer has the size that was just asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once. That it cannot be destroyed would leak a little memory and is nobody's error.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Loads the compiler's libraries out of a folder, by path. They stay loaded, and the bindings then find them by name; the builtins come first,
/// as the compiler has no path of its own to find them by.
fn preload(folder: &Path) -> Result<(), String> {
    let found = [folder.to_path_buf(), folder.join("lib")].into_iter().find_map(|folder| {
        Some((library(&folder, "libnvrtc-builtins.so.")?, library(&folder, "libnvrtc.so.")?))
    });
    let (builtins, nvrtc) = found
        .ok_or_else(|| format!("{VARIABLE} is {}, which holds no lib/libnvrtc.so.*", folder.display()))?;
    for path in [builtins, nvrtc] {
        // SAFETY: NVIDIA's libraries, whose initialisers have no preconditions.
        let library = unsafe { libloading::Library::new(&path) };
        std::mem::forget(library.map_err(|error| format!("{} cannot be loaded: {error}", path.display()))?);
    }
    Ok(())
}

/// The first library of a folder whose name begins so.
fn library(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut named: Vec<PathBuf> = entries
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    named.sort();
    named.into_iter().next()
}
