//! Tenants as files: a model repository that `tessera serve` reads.

use super::{Model, tenant_seed};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct WriteError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Writes `tenants` files `ARCHITECTURE-0.onnx`, … into `folder`, which is made if need be, and returns their paths. Each
/// appears whole or not at all, so a server may be watching. `wrote` hears of every file.
pub fn write_tenants(
    model: &Model,
    tenants: usize,
    seed: u64,
    folder: &Path,
    wrote: &mut dyn FnMut(&Path),
) -> Result<Vec<PathBuf>, WriteError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let name = model.architecture.name;
    let digits = tenants.saturating_sub(1).to_string().len();
    let mut paths = Vec::with_capacity(tenants);
    for tenant in 0..tenants {
        let path = folder.join(format!("{name}-{tenant:0digits$}.onnx"));
        // A name with a dot before it is not looked at by servers.
        let partial = folder.join(format!(".{name}-{tenant:0digits$}.onnx.partial"));
        let written = File::create(&partial).and_then(|file| {
            let mut out = BufWriter::new(file);
            model.onnx.write(tenant_seed(seed, tenant), &mut out)?;
            out.flush()
        });
        written.and_then(|()| fs::rename(&partial, &path)).map_err(failed(&path)).inspect_err(|_| {
            // What is left of it helps nobody; if it cannot be removed either, the first error says more.
            let _ = fs::remove_file(&partial);
        })?;
        wrote(&path);
        paths.push(path);
    }
    Ok(paths)
}
