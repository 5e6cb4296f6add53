//! Where inputs land when they arrive: pinned memory, from which the card copies them by itself.
//!
//! ```text
//!   request ─adopt, on the asker's thread─▶ piece ─▶ queue ─▶ launch ─▶ copied from where it lies
//!                    └─ small, huge, or no room ─▶ as it came           staged by the feeder, then copied
//! ```
//! Copied when they arrive, inputs are copied by as many threads as there are askers, and before their launch is formed; in the launch only the bus is left.
//! A piece is lent until the last clone of its [`Bytes`] is dropped: a launch holds those of its requests until it is over. There is no waiting for a
//! piece, so nobody can wait in vain: what finds no room goes as it came.

use super::fence::{Context, CudaError, Piece, Pieces};
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// Of fewer bytes, an input is staged with its neighbours. A copy of its own costs the host about 2 µs, and the card as much: staging takes that long for 20 KB,
/// and three times as much here, so a launch of many inputs of this size never takes longer for being copied piece by piece.
const LEAST: usize = 64 << 10;
/// Of more bytes, too: one thread copies a megabyte in 100 µs, and askers' threads have other requests to read. The stagers share such an input.
const MOST: usize = 4 << 20;
/// Launches whose inputs find room: those that are under way, and one that waits.
const LAUNCHES: usize = 5;
/// Pinned memory is taken from everybody on the host, so there is a limit whatever launches bring.
const LIMIT: usize = 512 << 20;

/// The pieces of one card.
#[derive(Debug)]
pub(crate) struct Landing {
    context: Arc<Context>,
    ground: RwLock<Ground>,
}

#[derive(Debug, Default)]
struct Ground {
    stretches: Vec<Arc<Pieces>>,
    /// Programs whose launches land here.
    programs: usize,
}

/// Where bytes lie that were adopted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lying {
    /// Which of the stretches.
    pub(crate) stretch: usize,
    /// Where in it.
    pub(crate) range: Range<usize>,
}

impl Lying {
    /// Of bytes that were adopted, or a part of them that is worth a copy of its own.
    pub(crate) fn of(bytes: &[u8], stretches: &[Arc<Pieces>]) -> Option<Lying> {
        if bytes.len() < LEAST {
            return None;
        }
        let place = |(stretch, pieces): (usize, &Arc<Pieces>)| {
            pieces.place_of(bytes).map(|range| Lying { stretch, range })
        };
        stretches.iter().enumerate().find_map(place)
    }

    /// Whether `after` begins where this ends, so that both are copied as one.
    pub(crate) fn goes_on_with(&self, after: &Lying) -> bool {
        self.stretch == after.stretch && self.range.end == after.range.start
    }
}

/// A program's. With the last of them the memory goes, but for pieces that are lent: they go when they come back.
#[derive(Debug)]
pub(crate) struct LandingRights(Arc<Landing>);

impl Drop for LandingRights {
    fn drop(&mut self) {
        let mut ground = self.0.ground.write().unwrap_or_else(PoisonError::into_inner);
        ground.programs -= 1;
        if ground.programs == 0 {
            ground.stretches.clear();
        }
    }
}

impl Landing {
    pub(crate) fn new(context: &Arc<Context>) -> Landing {
        Landing { context: context.clone(), ground: RwLock::default() }
    }

    /// Makes room for a few launches whose inputs have these sizes, for as long as the answer lives. Never on the serving path: pinning takes milliseconds.
    pub(crate) fn reserve(
        self: &Arc<Landing>,
        inputs: impl Iterator<Item = usize>,
    ) -> Result<LandingRights, CudaError> {
        let launch: usize = inputs.filter(|&bytes| bytes >= LEAST).sum();
        let wanted = (LAUNCHES * launch).min(LIMIT);
        let mut ground = self.ground.write().unwrap_or_else(PoisonError::into_inner);
        let have: usize = ground.stretches.iter().map(|stretch| stretch.len()).sum();
        if wanted > have {
            ground.stretches.push(Arc::new(Pieces::new(&self.context, wanted - have)?));
        }
        ground.programs += 1;
        Ok(LandingRights(self.clone()))
    }

    /// The same bytes, in a piece if that is worth it and there is room.
    pub(crate) fn adopt(&self, bytes: Bytes) -> Bytes {
        if !(LEAST..=MOST).contains(&bytes.len()) {
            return bytes;
        }
        let stretches = self.stretches();
        if Lying::of(&bytes, &stretches).is_some() {
            return bytes;
        }
        let piece: Option<Piece> = stretches.iter().find_map(|stretch| stretch.lend(&bytes));
        piece.map_or(bytes, Bytes::from_owner)
    }

    /// All there is now, so that nobody copies bytes under the lock.
    pub(crate) fn stretches(&self) -> Vec<Arc<Pieces>> {
        self.ground.read().unwrap_or_else(PoisonError::into_inner).stretches.clone()
    }
}
