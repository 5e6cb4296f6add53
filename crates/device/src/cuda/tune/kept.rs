//! Choices, kept: in this process and on disk for the next one.
//!
//! ```text
//!   card, driver, compiler, sources of kernels ─┐
//!   the product's kernels, with parameters      ┴▶ key ─▶ place of the one that was fastest, and the times
//! ```
//! The key covers everything that can change which kernel is fastest, the list of those to choose from and its order included. So a file is never stale, only
//! unused; one that cannot be understood counts as none, and is told of.

use super::race::Won;
use crate::cuda::call::KernelCall;
use crate::cuda::files::{self, Found};
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the text of a file begins with.
const HEAD: &str = "tessera-tile-1";
/// What stands in the place of a winner's, of a product that there was no time for; the seconds that there were follow.
const NO_TIME: &str = "no-time";

/// Names what a choice depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key([u8; 32]);

/// What is known of a product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Choice {
    /// One of its kernels won.
    Won(Won),
    /// The rule's stays: so much time for all products of a plan was not enough to come to this one.
    NoTime(Duration),
}

/// Every choice that was made.
#[derive(Debug)]
pub(super) struct Kept {
    folder: Option<PathBuf>,
    /// Of all that is the same for every product.
    common: blake3::Hasher,
    known: Mutex<HashMap<Key, Choice>>,
}

/// A file that is no choice.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} holds no choice of a tile; it is made anew", .0.display())]
pub(super) struct Foreign(PathBuf);

impl Kept {
    /// No choices yet but those in `folder`. `common` is everything but the product that can change a time.
    pub(super) fn new(folder: Option<PathBuf>, common: impl Iterator<Item = String>) -> Kept {
        let folder = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok());
        let mut hasher = blake3::Hasher::new();
        common.for_each(|part| add(&mut hasher, part.as_bytes()));
        Kept { folder, common: hasher, known: Mutex::default() }
    }

    /// The key of a product that `kernels` compute alike, lowered for addresses that are the same in every process.
    pub(super) fn key(&self, kernels: &[KernelCall]) -> Key {
        let mut hasher = self.common.clone();
        for KernelCall { spec, params, grid, block, shared_bytes, cluster } in kernels {
            add(&mut hasher, spec.to_string().as_bytes());
            add(&mut hasher, spec.generated.as_bytes());
            add(&mut hasher, params);
            add(&mut hasher, format!("{grid:?} {block} {shared_bytes} {cluster}").as_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }

    /// What was chosen for a product that so many kernels compute.
    pub(super) fn find(&self, key: Key, kernels: usize) -> Result<Option<Choice>, Foreign> {
        if let Some(choice) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(*choice));
        }
        let Some(path) = self.path(key) else { return Ok(None) };
        let choice = match files::read(&path) {
            Found::Nothing => return Ok(None),
            Found::Damaged => None,
            Found::Whole(bytes) => std::str::from_utf8(&bytes).ok().and_then(read),
        };
        let possible = |choice: &Choice| !matches!(choice, Choice::Won(won) if won.place >= kernels);
        let choice = choice.filter(possible).ok_or(Foreign(path))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, choice);
        Ok(Some(choice))
    }

    /// Keeps a choice. Of two processes that choose at once the later is kept; both are right.
    pub(super) fn keep(&self, key: Key, choice: Choice) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, choice);
        if let Some(path) = self.path(key) {
            let text = match choice {
                Choice::Won(Won { place, ruled, chosen }) => format!("{HEAD} {place} {ruled} {chosen}"),
                Choice::NoTime(budget) => format!("{HEAD} {NO_TIME} {}", budget.as_secs_f64()),
            };
            files::write(&path, text.as_bytes());
        }
    }

    fn path(&self, key: Key) -> Option<PathBuf> {
        let name = blake3::Hash::from_bytes(key.0).to_hex();
        self.folder.as_ref().map(|folder| folder.join(format!("{name}.tile")))
    }
}

/// A choice, from the text of its file.
fn read(text: &str) -> Option<Choice> {
    let mut words = text.strip_prefix(HEAD)?.split_whitespace().peekable();
    let choice = if words.next_if_eq(&NO_TIME).is_some() {
        Choice::NoTime(Duration::try_from_secs_f64(word(&mut words)?).ok()?)
    } else {
        let won = Won { place: word(&mut words)?, ruled: word(&mut words)?, chosen: word(&mut words)? };
        let sound = [won.ruled, won.chosen].iter().all(|took| (0.0..1e9).contains(took));
        Choice::Won(sound.then_some(won)?)
    };
    words.next().is_none().then_some(choice)
}

fn word<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

fn add(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::call::KernelSpec;
    use std::path::Path;

    const WON: Choice = Choice::Won(Won { place: 1, ruled: 12.5, chosen: 11.0 });

    fn kernels(rows: [usize; 2]) -> Vec<KernelCall> {
        let call = |rows: usize| KernelCall {
            spec: KernelSpec::new("product_float.cu").define("BN", rows),
            params: vec![1, 2, 3],
            grid: [7, 1, 1],
            block: 128,
            shared_bytes: 1024,
            cluster: 1,
        };
        rows.map(call).to_vec()
    }

    fn kept(folder: &Path, card: &str) -> Kept {
        Kept::new(Some(folder.to_owned()), [card.to_owned(), "driver 13000".to_owned()].into_iter())
    }

    #[test]
    fn a_choice_is_found_again_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = kept(folder.path(), "H200");
        let key = first.key(&kernels([64, 32]));
        assert_eq!(first.find(key, 2), Ok(None));
        first.keep(key, WON);
        assert_eq!(first.find(key, 2), Ok(Some(WON)));
        let next = kept(folder.path(), "H200");
        assert_eq!(next.find(next.key(&kernels([64, 32])), 2), Ok(Some(WON)));
    }

    #[test]
    fn what_there_was_no_time_for_is_known_until_it_is_timed() {
        let folder = tempfile::tempdir().unwrap();
        let first = kept(folder.path(), "H200");
        let key = first.key(&kernels([64, 32]));
        let no_time = Choice::NoTime(Duration::from_millis(1500));
        first.keep(key, no_time);
        let next = kept(folder.path(), "H200");
        assert_eq!(next.find(key, 2), Ok(Some(no_time)));
        next.keep(key, WON);
        assert_eq!(kept(folder.path(), "H200").find(key, 2), Ok(Some(WON)));
    }

    #[test]
    fn without_a_folder_a_choice_lasts_as_long_as_the_process() {
        let kept = Kept::new(None, std::iter::empty());
        let key = kept.key(&kernels([64, 32]));
        kept.keep(key, WON);
        assert_eq!(kept.find(key, 2), Ok(Some(WON)));
    }

    #[test]
    fn another_card_another_list_or_another_order_has_a_key_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (kept(folder.path(), "H200"), kept(folder.path(), "H100"));
        let key = one.key(&kernels([64, 32]));
        assert_ne!(key, other.key(&kernels([64, 32])));
        assert_ne!(key, one.key(&kernels([64, 56])));
        assert_ne!(key, one.key(&kernels([32, 64])));
        assert_ne!(key, one.key(&kernels([64, 32])[..1]));
        let mut launched = kernels([64, 32]);
        launched[1].grid = [8, 1, 1];
        assert_ne!(key, one.key(&launched), "another number of lanes");
    }

    #[test]
    fn broken_and_foreign_files_are_told_of_and_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let writer = kept(folder.path(), "H200");
        let key = writer.key(&kernels([64, 32]));
        let path = writer.path(key).unwrap();
        let found = || kept(folder.path(), "H200").find(key, 2);
        std::fs::write(&path, b"half a fi").unwrap();
        assert_eq!(found(), Err(Foreign(path.clone())));
        for text in [
            "",
            "tessera-tile-1",
            "tessera-tile-1 1 2.5",
            "tessera-tile-1 1 2.5 2 more",
            "tessera-tile-1 1 NaN 2",
            "tessera-tile-1 1 -3 2",
            "tessera-tile-1 2 2.5 2",
            "tessera-tile-2 1 2.5 2",
            "tessera-tile-1 no-time",
            "tessera-tile-1 no-time -1",
            "tessera-tile-1 no-time 1 2",
            "\u{fffd}",
        ] {
            files::write(&path, text.as_bytes());
            assert_eq!(found(), Err(Foreign(path.clone())), "{text:?}");
        }
        writer.keep(key, WON);
        assert_eq!(found(), Ok(Some(WON)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no parts are left");
    }
}
