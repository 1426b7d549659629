use crate::{dataplane::loader::size_flag, desired::Desired};
use mcs_proxy_ebpf::abi::MapName;
use std::collections::BTreeSet;

/// A frontend does not fit. Others do; and if this one had been there before, it stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("map `services` is full: {in_use} of {capacity} frontends are in use; raise --max-frontends")]
    Frontends { capacity: u32, in_use: u32 },
    #[error(
        "map `backends` is short: {needed} elements in a row are needed (one for each slot and one for the header), \
         {in_use} of {capacity} are in use and the longest free run is {longest}; raise --max-slots"
    )]
    Slots { capacity: u32, in_use: u32, needed: u32, longest: u32 },
    #[error(
        "map `backend_state` is short: {needed} new backends are needed, {in_use} of {capacity} ids are in use; \
         raise --max-backends"
    )]
    Backends { capacity: u32, in_use: u32, needed: u32 },
}

/// How full the maps are. What waits for a grace period counts as in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub frontends: Fill,
    /// Elements of `backends`: slots, and one header for each frontend.
    pub elements: Fill,
    pub backends: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub in_use: u32,
    pub capacity: u32,
}

/// What all frontends together would need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub frontends: u64,
    pub elements: u64,
    pub backends: u64,
}

impl Demand {
    #[must_use]
    pub fn of(desired: &Desired) -> Self {
        desired.values().fold(Self::default(), |sum, frontend| {
            let backends: BTreeSet<_> = frontend.slots.iter().chain(&frontend.serving).collect();
            Self {
                frontends: sum.frontends + 1,
                elements: sum.elements
                    + 1
                    + frontend.slots.len() as u64
                    + u64::from(frontend.probe.is_some()),
                backends: sum.backends + backends.len() as u64,
            }
        })
    }

    /// The maps that are too small for it.
    #[must_use]
    pub fn shortages(&self, usage: &Usage) -> Vec<Shortage> {
        [
            (MapName::Services, "frontends", self.frontends, usage.frontends),
            (MapName::Backends, "elements", self.elements, usage.elements),
            (MapName::BackendState, "backends", self.backends, usage.backends),
        ]
        .into_iter()
        .filter(|(_, _, wanted, fill)| *wanted > u64::from(fill.capacity))
        .map(|(map, what, wanted, fill)| Shortage { map, what, wanted, capacity: fill.capacity })
        .collect()
    }
}

/// A map that is too small for all that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "map `{}` is short by {}: {wanted} {what} are wanted, {capacity} fit; raise {} by that much or more",
    .map.as_str(), .wanted - u64::from(*.capacity), size_flag(*.map).unwrap_or_default()
)]
pub struct Shortage {
    pub map: MapName,
    what: &'static str,
    wanted: u64,
    capacity: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_names_map_amount_and_flag() {
        let fill = |capacity| Fill { in_use: 0, capacity };
        let usage = Usage { frontends: fill(8), elements: fill(100), backends: fill(20) };
        let demand = Demand { frontends: 11, elements: 100, backends: 21 };
        let said: Vec<_> = demand.shortages(&usage).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "map `services` is short by 3: 11 frontends are wanted, 8 fit; raise --max-frontends by that much or more",
                "map `backend_state` is short by 1: 21 backends are wanted, 20 fit; raise --max-backends by that much or more",
            ]
        );
    }
}
