//! Who hands out indices and runs of elements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A run of elements of `backends`: a header and the slots behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub(super) first: u32,
    pub(super) len: u32,
}

/// Free runs of elements, found first-fit, merged with their neighbours when they come back.
#[derive(Clone, Debug)]
pub(super) struct Extents {
    /// Length by first element. No two touch.
    free: BTreeMap<u32, u32>,
}

impl Extents {
    /// All elements but 0, which means "vacant" in `frontends`.
    pub(super) fn new(capacity: u32) -> Self {
        Self { free: (capacity > 1).then(|| (1, capacity - 1)).into_iter().collect() }
    }

    pub(super) fn allocate(&mut self, len: u32) -> Option<Extent> {
        let (&first, &room) = self.free.iter().find(|&(_, &room)| room >= len)?;
        self.free.remove(&first);
        if room > len {
            self.free.insert(first + len, room - len);
        }
        Some(Extent { first, len })
    }

    pub(super) fn release(&mut self, Extent { first, len }: Extent) {
        let mut start = first;
        let mut end = first + len;
        if let Some((&before, &room)) = self.free.range(..first).next_back() {
            debug_assert!(before + room <= first, "released twice");
            if before + room == first {
                start = before;
            }
        }
        if let Some(room) = self.free.remove(&end) {
            end += room;
        }
        self.free.insert(start, end - start);
    }

    pub(super) fn available(&self) -> u32 {
        self.free.values().sum()
    }

    /// The longest run, which is what one frontend can have at most.
    pub(super) fn longest(&self) -> u32 {
        self.free.values().copied().max().unwrap_or(0)
    }
}

/// What is left of `capacity` elements, 0 aside, between runs that do not overlap.
pub(super) fn gaps(used: impl IntoIterator<Item = Extent>, capacity: u32) -> Vec<Extent> {
    let used: BTreeSet<Extent> = used.into_iter().collect();
    let mut gaps = Vec::new();
    let mut next = 1;
    for Extent { first, len } in used {
        if first > next {
            gaps.push(Extent { first: next, len: first - next });
        }
        next = next.max(first + len);
    }
    if capacity > next {
        gaps.push(Extent { first: next, len: capacity - next });
    }
    gaps
}

/// Free indices: those never used first, then those that have been free longest, so that what still remembers an
/// index meets its next owner as late as possible.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    /// Everything from here to `capacity` was never used.
    next: u32,
    capacity: u32,
    /// As runs, of the first index and how many follow on each other: nearly always there are few.
    freed: VecDeque<(u32, u32)>,
    /// How many are in the runs.
    count: usize,
}

impl Ids {
    pub(super) fn new(first: u32, capacity: u32) -> Self {
        Self { next: first.min(capacity), capacity, freed: VecDeque::new(), count: 0 }
    }

    /// None is free.
    pub(super) fn exhausted(capacity: u32) -> Self {
        Self::new(capacity, capacity)
    }

    /// All or none.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<u32>> {
        if self.available() < count {
            return None;
        }
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.next < self.capacity {
                taken.push(self.next);
                self.next += 1;
            } else {
                taken.push(self.take_freed()?);
            }
        }
        Some(taken)
    }

    fn take_freed(&mut self) -> Option<u32> {
        let (first, len) = self.freed.front_mut()?;
        let taken = *first;
        (*first, *len) = (*first + 1, *len - 1);
        if *len == 0 {
            self.freed.pop_front();
        }
        self.count -= 1;
        Some(taken)
    }

    pub(super) fn release(&mut self, id: u32) {
        debug_assert!(
            self.freed.len() > 4096
                || !self.freed.iter().any(|&(first, len)| (first..first + len).contains(&id)),
            "released twice"
        );
        match self.freed.back_mut() {
            Some((first, len)) if *first + *len == id => *len += 1,
            Some(_) | None => self.freed.push_back((id, 1)),
        }
        self.count += 1;
    }

    pub(super) fn available(&self) -> usize {
        (self.capacity - self.next) as usize + self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_run_that_fits_is_taken_and_element_0_never() {
        let mut extents = Extents::new(10);
        let a = extents.allocate(3).unwrap();
        let b = extents.allocate(2).unwrap();
        let c = extents.allocate(4).unwrap();
        assert_eq!([a.first, b.first, c.first], [1, 4, 6]);
        assert_eq!(extents.allocate(1), None);
        extents.release(a);
        extents.release(c);
        assert_eq!(extents.allocate(4), Some(Extent { first: 6, len: 4 }));
        assert_eq!(extents.allocate(2), Some(Extent { first: 1, len: 2 }));
    }

    #[test]
    fn there_is_no_room_in_nothing() {
        assert_eq!(Extents::new(0).allocate(1), None);
        assert_eq!(Extents::new(1).allocate(1), None);
        assert_eq!(Ids::new(1, 0).available(), 0);
    }

    #[test]
    fn gaps_are_what_is_left() {
        let used = [Extent { first: 8, len: 2 }, Extent { first: 1, len: 3 }];
        assert_eq!(gaps(used, 12), [Extent { first: 4, len: 4 }, Extent { first: 10, len: 2 }]);
        assert_eq!(gaps([], 5), [Extent { first: 1, len: 4 }]);
        assert_eq!(gaps([Extent { first: 1, len: 4 }], 5), []);
    }

    #[test]
    fn ids_rest_as_long_as_possible() {
        let mut ids = Ids::new(1, 4);
        assert_eq!(ids.take(2), Some(vec![1, 2]));
        ids.release(2);
        ids.release(1);
        assert_eq!(ids.take(4), None);
        assert_eq!(ids.take(3), Some(vec![3, 2, 1]));
    }

    proptest! {
        #[test]
        fn what_comes_back_makes_the_whole_again(
            lens in prop::collection::vec(1u32..9, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let mut extents = Extents::new(100);
            let mut held: Vec<Extent> = lens.into_iter().filter_map(|len| extents.allocate(len)).collect();
            let mut sorted = held.clone();
            sorted.sort_unstable();
            for pair in sorted.windows(2) {
                prop_assert!(pair[0].first + pair[0].len <= pair[1].first, "{pair:?} overlap");
            }
            for pick in order {
                if !held.is_empty() {
                    extents.release(held.swap_remove(pick.index(held.len())));
                }
            }
            prop_assert_eq!(extents.available(), 99);
            prop_assert_eq!(extents.longest(), 99);
        }
    }
}
