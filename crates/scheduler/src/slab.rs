//! Things by place: a place is handed out, stays the same for as long as the thing is kept, and is used again.
//!
//! A look-up is one access to memory. A map by id asks a table first, then reads the thing, and a table of a hundred thousand is in no cache: with dozens of
//! requests in a launch that is what a decision would spend its time on.

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    things: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Where the next thing will be kept.
    pub(crate) fn next(&self) -> u32 {
        let end = || u32::try_from(self.things.len()).expect("fewer than 2³² things are kept");
        self.free.last().copied().unwrap_or_else(end)
    }

    /// Keeps a thing, at what [`Slab::next`] said.
    pub(crate) fn insert(&mut self, thing: T) -> u32 {
        let place = self.next();
        match self.free.pop() {
            Some(_) => self.things[place as usize] = Some(thing),
            None => self.things.push(Some(thing)),
        }
        place
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        let thing = self.things.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(thing)
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.things.get(place as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.things.get_mut(place as usize)?.as_mut()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.things.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_while_its_thing_is_kept_and_is_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!((slab.remove(a), slab.remove(a)), (Some("a"), None));
        assert_eq!(slab.next(), a);
        assert_eq!((slab.insert("c"), slab.get(a), slab.get(b)), (a, Some(&"c"), Some(&"b")));
        assert!(slab.get(7).is_none() && !slab.is_empty());
    }
}
