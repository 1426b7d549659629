//! What the programs need to know of each interface, in the kernel's map.

use crate::dataplane::{
    pins::{PinDir, PinsError},
    sys::Access,
};
use aya::maps::{HashMap, MapData, MapError};
use mcs_proxy_ebpf::abi::{MapName, Place};
use std::collections::BTreeSet;

/// Writes `interfaces`.
#[derive(Debug)]
pub struct PlaceMap {
    map: HashMap<MapData, u32, Place>,
}

impl PlaceMap {
    pub fn open(dir: &PinDir) -> Result<Self, PinsError> {
        Ok(Self { map: dir.open_as(MapName::Interfaces, Access::ReadWrite)? })
    }

    pub fn set(&mut self, index: u32, place: Place) -> Result<(), MapError> {
        self.map.insert(index, place, 0)
    }

    pub fn remove(&mut self, index: u32) -> Result<(), MapError> {
        match self.map.remove(&index) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// At the start: takes out what an earlier run has left of interfaces that are gone.
    pub fn retain(&mut self, ours: &BTreeSet<u32>) -> Result<(), MapError> {
        let stale: Vec<u32> =
            self.map.keys().filter_map(Result::ok).filter(|index| !ours.contains(index)).collect();
        stale.into_iter().try_for_each(|index| self.remove(index))
    }
}
