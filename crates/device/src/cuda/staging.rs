//! How a launch's inputs get to the card: input by input, the items of all lanes one after the other.
//!
//! ```text
//!   adopted      ■──────────────────▶ copied from where they lie, neighbours as one
//!   all others   ■─▶ staged ─▶ copied                  in chunks: one is staged while the one before is copied
//!                    ■───────▶ staged ─▶ copied
//! ```
//! See [`super::landing`] for what is adopted, and why not everything.

use super::landing::Lying;
use crate::Lane;
use bytes::Bytes;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::ops::Range;

/// The bus takes 80 µs for so many bytes, and staging them twice that, so little of a copy is left when the last chunk is staged; and the calls that a chunk
/// costs take a few µs.
const CHUNK: usize = 4 << 20;

/// Bytes above which one core takes longer to copy than it takes to ask others for help.
pub(crate) const WORTH_SHARING: usize = 1 << 20;
/// Of one helping.
const HELPING: usize = 256 << 10;

/// How the inputs of one launch go.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    /// What is copied from where it lies, and to where among the staged bytes.
    pub(crate) pieces: Vec<(usize, Lying)>,
    /// What is staged, in order.
    pub(crate) chunks: Vec<Chunk<'a>>,
}

/// What is staged, and then copied, at once.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// Where, among the staged bytes. Between inputs there may be bytes that nobody reads.
    pub(crate) range: Range<usize>,
    inputs: Vec<(usize, &'a [u8])>,
}

impl<'a> Route<'a> {
    /// Of a launch whose inputs begin at `offsets`. What lies nowhere is staged.
    pub(crate) fn new(
        lanes: &'a [Lane],
        offsets: &[usize],
        lying: impl Fn(&[u8]) -> Option<Lying>,
    ) -> Route<'a> {
        let mut pieces: Vec<(usize, Lying)> = Vec::new();
        let mut chunks: Vec<Chunk<'a>> = Vec::new();
        // Whether what is staged next may go with the last chunk: nothing that is copied from elsewhere lies between.
        let mut open = false;
        for (at, input) in places(lanes, offsets) {
            if let Some(lying) = lying(input) {
                open = false;
                match pieces.last_mut() {
                    Some((before, last)) if *before + last.range.len() == at && last.goes_on_with(&lying) => {
                        last.range.end = lying.range.end;
                    }
                    _ => pieces.push((at, lying)),
                }
                continue;
            }
            for (at, part) in (at..).step_by(CHUNK).zip(input.chunks(CHUNK)) {
                let end = at + part.len();
                match chunks.last_mut() {
                    Some(last) if open && last.range.len() < CHUNK => {
                        last.range.end = end;
                        last.inputs.push((at, part));
                    }
                    _ => chunks.push(Chunk { range: at..end, inputs: vec![(at, part)] }),
                }
                open = true;
            }
        }
        Route { pieces, chunks }
    }
}

impl Chunk<'_> {
    /// Copies its inputs to their places among all staged bytes.
    pub(crate) fn stage(&self, stagers: &ThreadPool, staged: &mut [u8]) {
        let total: usize = self.inputs.iter().map(|(_, input)| input.len()).sum();
        let places = self.split(staged);
        if total < WORTH_SHARING {
            return places.for_each(|(to, from)| to.copy_from_slice(from));
        }
        let pieces: Vec<(&mut [u8], &[u8])> =
            places.flat_map(|(to, from)| to.chunks_mut(HELPING).zip(from.chunks(HELPING))).collect();
        stagers.install(|| pieces.into_par_iter().for_each(|(to, from)| to.copy_from_slice(from)));
    }

    /// The place of each input, and what goes there.
    fn split<'s>(&'s self, staged: &'s mut [u8]) -> impl Iterator<Item = (&'s mut [u8], &'s [u8])> {
        let (mut rest, mut from) = (staged, 0);
        self.inputs.iter().map(move |&(at, input)| {
            let (place, after) = std::mem::take(&mut rest)[at - from..].split_at_mut(input.len());
            (rest, from) = (after, at + input.len());
            (place, input)
        })
    }
}

/// Where each input of each request goes, and what it is, in the order of the places. Every lane has a request.
fn places<'a>(lanes: &'a [Lane], offsets: &[usize]) -> impl Iterator<Item = (usize, &'a Bytes)> {
    offsets.iter().enumerate().flat_map(move |(input, &offset)| {
        let requests = lanes.iter().flat_map(|lane| &lane.requests);
        requests.scan(offset, move |at, request| {
            let bytes = &request.inputs[input];
            let start = *at;
            *at += bytes.len();
            Some((start, bytes))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LaneRequest, Slot};
    use rayon::ThreadPoolBuilder;
    use std::sync::Arc;
    use tessera_core::SlotId;

    fn lane(requests: &[[Bytes; 2]]) -> Lane {
        let requests = requests.iter().map(|inputs| LaneRequest { items: 1, inputs: inputs.to_vec() });
        Lane { slot: Slot::new(SlotId(0), 1, Arc::new(())), requests: requests.collect() }
    }

    fn staged(route: &Route<'_>, bytes: usize) -> Vec<u8> {
        let stagers = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let mut staged = vec![b'.'; bytes];
        route.chunks.iter().for_each(|chunk| chunk.stage(&stagers, &mut staged));
        staged
    }

    #[test]
    fn inputs_lie_one_after_the_other_each_where_its_place_begins() {
        let request = |first: &'static [u8], second: &'static [u8]| [first, second].map(Bytes::from_static);
        let lanes = [lane(&[request(b"ab", b"1"), request(b"cdef", b"23")]), lane(&[request(b"gh", b"4")])];
        let route = Route::new(&lanes, &[2, 12], |_| None);
        assert_eq!(staged(&route, 20), b"..abcdefgh..1234....");
        assert_eq!((route.chunks.len(), &route.chunks[0].range), (1, &(2..16)));
    }

    #[test]
    fn what_is_staged_is_cut_into_chunks_that_leave_no_byte_out() {
        let input = |bytes: usize| Bytes::from((0..bytes).map(|at| at as u8).collect::<Vec<_>>());
        let small = Bytes::from_static(b"small");
        let lanes = [lane(&[[input(CHUNK + 7), small.clone()], [input(CHUNK - 9), small]])];
        let offsets = [256, 256 + 2 * CHUNK];
        let route = Route::new(&lanes, &offsets, |_| None);
        assert!(route.chunks.len() > 1 && route.chunks.iter().all(|chunk| chunk.range.len() < 2 * CHUNK));
        let staged = staged(&route, offsets[1] + 10);
        let first: Vec<u8> =
            lanes[0].requests.iter().flat_map(|request| request.inputs[0].to_vec()).collect();
        assert!(staged[256..256 + first.len()] == first);
        assert_eq!(&staged[offsets[1]..], b"smallsmall");
    }

    #[test]
    fn adopted_neighbours_are_copied_as_one_and_the_others_staged_around_them() {
        let input = |text: &'static [u8]| Bytes::from_static(text);
        let lanes = [
            lane(&[[input(b"A0"), input(b"x")], [input(b"A2"), input(b"y")]]),
            lane(&[[input(b"B9"), input(b"z")], [input(b"st"), input(b"w")]]),
        ];
        let lying = |bytes: &[u8]| {
            let stretch =
                usize::from(*bytes.first()?).checked_sub(b'A'.into()).filter(|stretch| *stretch < 2)?;
            let start = usize::from(bytes[1] - b'0');
            Some(Lying { stretch, range: start..start + bytes.len() })
        };
        let route = Route::new(&lanes, &[4, 12], lying);
        assert_eq!(
            route.pieces,
            [(4, Lying { stretch: 0, range: 0..4 }), (8, Lying { stretch: 1, range: 9..11 })]
        );
        assert_eq!(staged(&route, 16), b"..........stxyzw");
        let chunks: Vec<_> = route.chunks.iter().map(|chunk| (chunk.range.start, chunk.range.end)).collect();
        assert_eq!(chunks, [(10, 16)]);
    }
}
