//! What the programs tell, as one of their listeners hears it.

use super::{
    flows::{Clock, FlowsError},
    pins::{PinDir, PinsError},
    sys::{Access, MappedWords},
};
use mcs_proxy_ebpf::abi::{EVENTS, Event, EventKind, MapName, Switch, lease};
use std::{mem::offset_of, time::Duration};

/// For how long the programs go on telling after the listener has said last that it listens.
const LEASE: Duration = Duration::from_secs(5);

/// Listens to the programs. Any number may; none takes anything from another.
#[derive(Debug)]
pub struct Listener {
    ring: MappedWords,
    clock: Clock,
    kinds: Vec<EventKind>,
    /// The number of the next event.
    next: u64,
    /// It could not be read when it was looked at last: someone may just be writing it.
    stuck: bool,
}

impl Listener {
    /// Begins to listen to events of these kinds; what was told before is not heard.
    ///
    /// # Errors
    /// Nothing is pinned, or it may not be opened.
    pub fn open(dir: &PinDir, kinds: Vec<EventKind>) -> Result<Self, FlowsError> {
        let ring = dir.map_words(MapName::Events, Access::ReadWrite).map_err(FlowsError::Pins)?;
        let mut listener = Self { ring, clock: Clock::open(dir)?, kinds, next: 0, stuck: false };
        listener.next = listener.count() + 1;
        listener.renew()?;
        Ok(listener)
    }

    /// Says that it still listens: to be said once a second. Nobody need say that nobody does.
    ///
    /// # Errors
    /// The programs' time cannot be read.
    pub fn renew(&self) -> Result<(), FlowsError> {
        let until = lease(self.clock.now()?.wrapping_add(self.clock.rate().ticks(LEASE)));
        for &kind in &self.kinds {
            let word = offset_of!(Switch, leases) / 8 + kind as usize;
            self.ring.store_release(word, until).ok_or_else(|| FlowsError::Pins(too_short()))?;
        }
        Ok(())
    }

    /// Calls `hear` with every event since the last time, in order, and returns how many were lost meanwhile: more came
    /// than the ring has room for.
    pub fn poll(&mut self, mut hear: impl FnMut(&Event)) -> u64 {
        let count = self.count();
        let mut lost = 0;
        // The maps were made anew.
        if count + 1 < self.next {
            self.next = 1;
        }
        let oldest = (count + 1).saturating_sub(u64::from(EVENTS));
        if self.next < oldest {
            lost += oldest - self.next;
            self.next = oldest;
        }
        while self.next <= count {
            let place = Event::element(self.next) as usize;
            match self.ring.read_event(place).filter(Event::is_whole) {
                Some(event) if event.sequence == self.next => {
                    if EventKind::from_number(event.kind).is_some_and(|kind| self.kinds.contains(&kind)) {
                        hear(&event);
                    }
                }
                // A later one has taken its place.
                Some(event) if event.sequence > self.next => lost += 1,
                // Yet to be written; or, if it was so the last time, never to be.
                Some(_) | None if !self.stuck => {
                    self.stuck = true;
                    return lost;
                }
                Some(_) | None => lost += 1,
            }
            self.stuck = false;
            self.next += 1;
        }
        lost
    }

    fn count(&self) -> u64 {
        self.ring.read(offset_of!(Switch, count) / 8).unwrap_or(0)
    }
}

fn too_short() -> PinsError {
    PinsError::Sys {
        map: MapName::Events.as_str(),
        source: super::sys::SysError {
            call: "mmap",
            source: std::io::Error::other("the map is shorter than its switch"),
        },
    }
}
