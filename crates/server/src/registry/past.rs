//! What became of a version so far, which says whether it is to be loaded now.
//!
//! ```text
//!   new ──────────────────────────┐
//!   its files or terms changed ───┼▶ due ─▶ loaded ─▶ not before something changes
//!   failed, and a while is over ──┘       ─▶ failed ─▶ once that, or after a while: what a model points to may arrive after it
//! ```

use crate::again::Again;
use crate::catalog::{Source, TenantFile};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tessera_planner::source::Stamp;

/// Of one version of one tenant.
#[derive(Default)]
pub(super) struct Past {
    /// What it was made from the last time, loaded or failed.
    tried: Option<Tried>,
    /// When it is tried again although nothing of it changed; of one that failed only.
    again: Option<Again>,
    /// The failure that was told last, and of which file.
    told: Option<(Source, String)>,
}

impl Past {
    /// The folder has this of it now. Costs a look at every file that its weights were in.
    pub(super) fn compare(&mut self, source: &Source, terms: &TenantFile) {
        self.tried = self.tried.take().filter(|tried| tried.still_is_of(source, terms));
    }

    /// Whether it is to be loaded.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.tried.is_none() || self.again.is_some_and(|again| again.is_due(now))
    }

    /// Whether it could not be loaded the last time.
    pub(super) fn failed(&self) -> bool {
        self.again.is_some()
    }

    /// It could not be loaded from this. Which other files it would have read is not known then.
    pub(super) fn has_failed(&mut self, source: &Source, terms: &TenantFile, now: Instant) {
        self.tried = Some(Tried { source: source.clone(), terms: terms.clone(), files: Vec::new() });
        self.again = Some(Again::after(self.again, now));
    }

    /// It was loaded from this, and from these files beside it.
    pub(super) fn has_loaded(
        &mut self,
        source: &Source,
        terms: &TenantFile,
        files: Vec<(Arc<PathBuf>, Stamp)>,
    ) {
        *self = Past {
            tried: Some(Tried { source: source.clone(), terms: terms.clone(), files }),
            ..Past::default()
        };
    }

    /// What it builds on is missing: it is due as soon as that is there.
    pub(super) fn untried(&mut self) {
        self.tried = None;
    }

    /// It is loaded anew, as if for the first time; a failure that was told is still known.
    pub(super) fn forget(&mut self) {
        (self.tried, self.again) = (None, None);
    }

    /// Whether a failure is to be told, once: a model is tried again and again, and a base that is missing is looked for at every poll.
    pub(super) fn is_news(&mut self, source: &Source, why: &str) -> bool {
        let known = self.told.as_ref().is_some_and(|(of, told)| of == source && told == why);
        if !known {
            self.told = Some((source.clone(), why.to_owned()));
        }
        !known
    }
}

/// What a version was made from.
struct Tried {
    source: Source,
    terms: TenantFile,
    /// Where its weights were, beside its own file too: an exporter may put them into another one, which may be replaced alone.
    files: Vec<(Arc<PathBuf>, Stamp)>,
}

impl Tried {
    /// Whether nothing of it has changed.
    fn still_is_of(&self, source: &Source, terms: &TenantFile) -> bool {
        self.source == *source
            && self.terms == *terms
            && self.files.iter().all(|(path, stamp)| stamp.still_stands_for(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tessera_planner::source::stamp;

    #[test]
    fn a_version_is_due_when_something_of_it_changed_and_after_a_failure_when_a_while_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            std::fs::write(path(name), text).unwrap();
            Source { path: path(name), stamp: stamp(&path(name)).unwrap() }
        };
        let (terms, now) = (TenantFile::default(), Instant::now());
        let (model, weights) = (write("model.onnx", "x"), write("weights.bin", "x"));
        let mut past = Past::default();
        assert!(past.is_due(now), "it is new");

        past.has_failed(&model, &terms, now);
        past.compare(&model, &terms);
        assert!(!past.is_due(now) && past.is_due(now + Duration::from_secs(1)));

        past.has_loaded(&model, &terms, vec![(Arc::new(weights.path.clone()), weights.stamp)]);
        past.compare(&model, &terms);
        assert!(!past.is_due(now + Duration::from_secs(3600)));

        let changed = |change: &dyn Fn(&mut Past)| {
            let mut past = Past::default();
            past.has_loaded(&model, &terms, vec![(Arc::new(weights.path.clone()), weights.stamp)]);
            change(&mut past);
            past.is_due(now)
        };
        let others = TenantFile { share: Some(2.0), ..terms.clone() };
        assert!(changed(&|past| past.compare(&model, &others)), "its terms");
        let rewritten = write("model.onnx", "longer");
        assert!(changed(&|past| past.compare(&rewritten, &terms)), "its file");
        write("weights.bin", "longer");
        assert!(changed(&|past| past.compare(&model, &terms)), "the file of its weights");
    }
}
