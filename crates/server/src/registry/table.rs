//! Which versions there are and how each stands: what requests are looked up in, and the manager alone writes.
//!
//! ```text
//!   Loading ─▶ Ready ─▶ Ready, of newer files       while those load the older ones answer; also if they cannot be loaded, and then `outdated` says why
//!      │         │
//!      └─▶ Failed ◀─ its device was lost            tried again when its files change, and after a while
//! ```

use super::Served;
use crate::frontend::Listed;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Where a version stands.
#[derive(Clone, Debug)]
pub(super) enum Version {
    /// On its way, and none of its files answers.
    Loading,
    /// Answers. While a newer file loads, the older one stays here.
    Ready(Arc<Served>),
    /// Could not be loaded, and why.
    Failed(String),
}

impl Version {
    fn served(&self) -> Option<&Arc<Served>> {
        if let Version::Ready(served) = self { Some(served) } else { None }
    }
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub enum Found {
    /// It answers.
    Ready(Arc<Served>),
    /// It will.
    Loading,
    /// It could not be loaded, and why; it is tried again.
    Failed(String),
    /// There is no such tenant, or no such version of it.
    Unknown,
}

/// Versions by how they stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// That answer.
    pub ready: usize,
    /// On their way.
    pub loading: usize,
    /// That could not be loaded, and entries of the folder that make no sense.
    pub failed: usize,
}

/// What went with a change of the folder.
#[derive(Default)]
pub(super) struct Gone {
    /// Versions that answered.
    pub(super) served: Vec<Arc<Served>>,
    /// Tenants of which no version is left.
    pub(super) names: Vec<String>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Table {
    tenants: HashMap<String, BTreeMap<u64, Version>>,
    /// Tenants of the folder whose entries make no sense; of some an earlier version answers.
    problems: BTreeMap<String, String>,
    /// Versions that answer as their files were before: why what is there now cannot be loaded.
    outdated: HashMap<(String, u64), String>,
}

impl Table {
    /// The version of a tenant that a request means: the one it names, else the greatest that answers.
    pub(super) fn find(&self, name: &str, version: Option<u64>) -> Found {
        let Some(versions) = self.tenants.get(name) else {
            return self.problems.get(name).map_or(Found::Unknown, |why| Found::Failed(why.clone()));
        };
        let ready = || versions.values().rev().find(|version| version.served().is_some());
        let found = match version {
            Some(version) => versions.get(&version),
            None => ready().or_else(|| versions.values().next_back()),
        };
        match found {
            Some(Version::Ready(served)) => Found::Ready(served.clone()),
            Some(Version::Loading) => Found::Loading,
            Some(Version::Failed(why)) => Found::Failed(why.clone()),
            None => Found::Unknown,
        }
    }

    /// The versions of a tenant that answer, smallest first.
    pub(super) fn ready_versions(&self, name: &str) -> Vec<u64> {
        let versions = self.tenants.get(name).into_iter().flatten();
        versions.filter(|(_, version)| version.served().is_some()).map(|(number, _)| *number).collect()
    }

    /// Who pays for a tenant, if a version of it answers.
    pub(super) fn owner_of(&self, name: &str) -> Option<String> {
        let mut served = self.tenants.get(name)?.values().filter_map(Version::served);
        served.next().map(|served| served.who.owner.clone())
    }

    /// Every version, by name and number, and the tenants that have none to show.
    pub(super) fn index(&self) -> Vec<Listed> {
        let listed = |name: &str, version: &str, state, reason: &str| Listed {
            name: name.to_owned(),
            version: version.to_owned(),
            state,
            reason: reason.to_owned(),
        };
        let versions = self.tenants.iter().flat_map(|(name, versions)| {
            versions.iter().map(move |(number, version)| (name, *number, version))
        });
        let versions = versions.map(|(name, number, version)| {
            let (state, reason) = match version {
                Version::Ready(_) => (Listed::READY, self.behind(name, number).unwrap_or_default()),
                Version::Loading => ("LOADING", String::new()),
                Version::Failed(why) => ("UNAVAILABLE", why.clone()),
            };
            ((name, number), listed(name, &number.to_string(), state, &reason))
        });
        let problems = self.nothing_to_show();
        let problems = problems.map(|(name, why)| ((name, 0), listed(name, "", "UNAVAILABLE", why)));
        versions.chain(problems).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Why a version answers as its files were before, if so.
    fn behind(&self, name: &str, number: u64) -> Option<String> {
        let why = self.outdated.get(&(name.to_owned(), number)).or_else(|| self.problems.get(name))?;
        Some(format!("answers as it was loaded before; what is there now cannot be loaded: {why}"))
    }

    /// Entries of the folder that make no sense, of tenants that are not served.
    fn nothing_to_show(&self) -> impl Iterator<Item = (&String, &String)> {
        self.problems.iter().filter(|(name, _)| !self.tenants.contains_key(*name))
    }

    /// How many versions answer, are loading and have failed.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { failed: self.nothing_to_show().count(), ..Counts::default() };
        for version in self.tenants.values().flat_map(BTreeMap::values) {
            match version {
                Version::Ready(_) => counts.ready += 1,
                Version::Loading => counts.loading += 1,
                Version::Failed(_) => counts.failed += 1,
            }
        }
        counts
    }

    /// Every version with its tenant's name and its number, to be changed.
    pub(super) fn versions_mut(&mut self) -> impl Iterator<Item = (&String, u64, &mut Version)> {
        self.tenants.iter_mut().flat_map(|(name, versions)| {
            versions.iter_mut().map(move |(&number, version)| (name, number, version))
        })
    }

    /// Keeps the versions that are wanted, of a folder with these problems.
    pub(super) fn keep(
        &mut self,
        wanted: impl Fn(&str, u64) -> bool,
        problems: &BTreeMap<String, String>,
    ) -> Gone {
        let mut gone = Gone::default();
        self.tenants.retain(|name, versions| {
            versions.retain(|&number, version| {
                let keep = wanted(name, number);
                if !keep {
                    gone.served.extend(version.served().cloned());
                }
                keep
            });
            if versions.is_empty() {
                gone.names.push(name.clone());
            }
            !versions.is_empty()
        });
        self.problems.clone_from(problems);
        let Table { tenants, outdated, .. } = self;
        outdated.retain(|(name, version), _| {
            tenants.get(name).is_some_and(|versions| versions.contains_key(version))
        });
        gone
    }

    /// Shows a version that does not answer yet as loading, or as failed. One that answers goes on doing so, and is shown as behind its files.
    pub(super) fn show(&mut self, key: &(String, u64), failed: Option<String>) {
        let versions = self.tenants.entry(key.0.clone()).or_default();
        let version = versions.entry(key.1).or_insert(Version::Loading);
        match (&version, failed) {
            (Version::Ready(_), Some(why)) => drop(self.outdated.insert(key.clone(), why)),
            (Version::Ready(_), None) => {}
            (_, Some(why)) => *version = Version::Failed(why),
            (_, None) => *version = Version::Loading,
        }
    }

    /// From now on a version answers like this. What answered before, if it did.
    pub(super) fn serve(&mut self, key: (String, u64), served: Arc<Served>) -> Option<Arc<Served>> {
        self.outdated.remove(&key);
        let earlier = self.tenants.entry(key.0).or_default().insert(key.1, Version::Ready(served));
        earlier.as_ref().and_then(Version::served).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_as_was_shown_last_and_are_gone_with_what_the_folder_has() {
        let mut table = Table::default();
        let version = |number| ("a".to_owned(), number);
        table.show(&version(1), Some("no memory".to_owned()));
        table.show(&version(1), None);
        table.show(&version(2), Some("broken".to_owned()));
        assert_eq!(table.counts(), Counts { ready: 0, loading: 1, failed: 1 });
        assert!(matches!(table.find("a", Some(1)), Found::Loading));
        assert!(matches!(table.find("a", None), Found::Failed(why) if why == "broken"), "the greatest");
        assert!(matches!(table.find("b", None), Found::Unknown));

        let problems = BTreeMap::from([("b".to_owned(), "no model".to_owned())]);
        let gone = table.keep(|_, number| number == 1, &problems);
        assert!(gone.served.is_empty() && gone.names.is_empty(), "a version of it is left");
        assert!(matches!(table.find("b", None), Found::Failed(why) if why == "no model"));
        let index = table.index();
        let listed = index.iter().map(|listed| (&*listed.name, &*listed.version, listed.state));
        assert_eq!(listed.collect::<Vec<_>>(), [("a", "1", "LOADING"), ("b", "", "UNAVAILABLE")]);
        assert_eq!(table.keep(|_, _| false, &BTreeMap::new()).names, ["a"]);
        assert_eq!((table.counts(), table.index().len()), (Counts::default(), 0));
    }
}
