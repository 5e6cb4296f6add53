//! Data that a model keeps in other files.
//!
//! A location is looked for beside the model's real file (and beside the link through which it was named: that is how download caches look).
//! Wherever it is found, it must resolve to inside of the folder where the model really is: a model must not be able to read
//! the host's other files into its answers.

use crate::graph::WeightSource;
use crate::onnx::proto::{StringStringEntryProto, TensorProto};
use crate::source::{SourceError, Stamp, stamp};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where external data may be, and the files that were found so far.
#[derive(Debug, Default)]
pub(crate) struct External {
    /// The folder of the model's real file; `None` for a model that came as bytes alone.
    real: Option<PathBuf>,
    /// The folder of the path that the model was named by.
    named: Option<PathBuf>,
    files: HashMap<String, (Arc<PathBuf>, Stamp)>,
}

impl External {
    /// `model` as the user named it, `real` the same with every link resolved.
    pub(crate) fn beside(model: &Path, real: &Path) -> External {
        let folder = |path: &Path| path.parent().map(Path::to_path_buf);
        External { real: folder(real), named: folder(model), files: HashMap::new() }
    }

    /// In `folder`, which must exist.
    pub(crate) fn within(folder: &Path) -> Result<External, SourceError> {
        let real = folder.canonicalize().map_err(|source| SourceError::Io { path: folder.into(), source })?;
        Ok(External { named: Some(real.clone()), real: Some(real), files: HashMap::new() })
    }

    /// Where the `want` bytes of `tensor` are. Errors say what the tensor's entry lacks or claims wrongly.
    pub(crate) fn source(
        &mut self,
        tensor: &TensorProto,
        want: usize,
    ) -> Result<WeightSource, ExternalError> {
        let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key() == key);
        let location = entry("location").map(StringStringEntryProto::value).unwrap_or_default();
        if location.is_empty() {
            return Err(ExternalError::Entry("names no `location` for its external data".into()));
        }
        let number = |key: &str| -> Result<Option<u64>, ExternalError> {
            let Some(entry) = entry(key) else { return Ok(None) };
            let number = entry.value().trim().parse();
            number.map(Some).map_err(|_| {
                ExternalError::Entry(format!(
                    "has external data with {key} `{}`",
                    entry.value().escape_debug()
                ))
            })
        };
        let (offset, len) = (number("offset")?.unwrap_or(0), number("length")?);
        let want = want as u64;
        if let Some(len) = len.filter(|&len| len != want) {
            return Err(ExternalError::Entry(format!(
                "has {len} bytes of external data, but its shape asks for {want}"
            )));
        }
        let (path, stamp) = self.file(location)?;
        match offset.checked_add(want) {
            Some(end) if end <= stamp.len => Ok(WeightSource::File { path, stamp, offset, len: want }),
            end => Err(ExternalError::Source(SourceError::Short {
                path: path.to_path_buf(),
                len: stamp.len,
                offset,
                end: end.unwrap_or(u64::MAX),
            })),
        }
    }

    fn file(&mut self, location: &str) -> Result<(Arc<PathBuf>, Stamp), ExternalError> {
        if let Some(found) = self.files.get(location) {
            return Ok(found.clone());
        }
        let Some(real) = &self.real else {
            return Err(ExternalError::Entry(format!(
                "has external data in `{location}`, but the model came without a folder"
            )));
        };
        let beside_real = real.join(location);
        let found = beside_real.canonicalize().or_else(|error| match &self.named {
            Some(named) if error.kind() == io::ErrorKind::NotFound => named.join(location).canonicalize(),
            _ => Err(error),
        });
        let found = found.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ExternalError::Entry(format!(
                "has external data in `{location}`, which is not in {}; put it beside the model",
                real.display()
            )),
            _ => SourceError::Io { path: beside_real, source }.into(),
        })?;
        if !found.starts_with(real) {
            return Err(ExternalError::Entry(format!(
                "has external data in `{location}`, outside of the model's folder {}; put it beside the model",
                real.display()
            )));
        }
        let found = (Arc::new(found.clone()), stamp(&found)?);
        self.files.insert(location.to_owned(), found.clone());
        Ok(found)
    }
}

/// Why external data could not be had.
#[derive(Debug)]
pub(crate) enum ExternalError {
    /// The tensor's entry is wrong.
    Entry(String),
    /// The file is.
    Source(SourceError),
}

impl From<SourceError> for ExternalError {
    fn from(error: SourceError) -> ExternalError {
        ExternalError::Source(error)
    }
}
