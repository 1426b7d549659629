use super::{ExplainedFrontend, ExplainedMaps, Explanation};
use crate::{
    dataplane::pins::DumpedFrontend,
    desired::FrontendKey,
    model::algorithm_name,
    observe::catalog::{protocol_name, protocol_of},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// What the maps hold for one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub key: FrontendKey,
    pub algorithm: String,
    pub packets_only: bool,
    pub backends: Vec<HeldBackend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBackend {
    pub address: SocketAddr,
    pub slots: u32,
}

impl From<&DumpedFrontend> for Held {
    /// The backends by address.
    fn from(dumped: &DumpedFrontend) -> Self {
        let mut slots: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for slot in &dumped.slots {
            *slots.entry(SocketAddr::new(slot.address.to_ip(), slot.port.get())).or_default() += 1;
        }
        Self {
            key: dumped.key,
            algorithm: algorithm_name(dumped.header.algorithm).to_owned(),
            packets_only: dumped.header.packets_only,
            backends: slots.into_iter().map(|(address, slots)| HeldBackend { address, slots }).collect(),
        }
    }
}

/// What should be there for one frontend.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Empty: it is not known.
    pub algorithm: &'a str,
    pub packets_only: bool,
    /// How many slots each backend should have; `None`: any number.
    pub backends: BTreeMap<SocketAddr, Option<u32>>,
}

/// In what the maps differ from what should be there, in words.
#[must_use]
pub fn differences(wanted: &Wanted<'_>, held: &Held) -> Vec<String> {
    let present: BTreeMap<SocketAddr, u32> =
        held.backends.iter().map(|backend| (backend.address, backend.slots)).collect();
    let mut differences = Vec::new();
    if !wanted.algorithm.is_empty() && held.algorithm != wanted.algorithm {
        differences.push(format!("they choose by {}", held.algorithm));
    }
    match (wanted.packets_only, held.packets_only) {
        (true, false) => differences.push("they serve sockets".into()),
        (false, true) => differences.push("they leave sockets alone".into()),
        (true, true) | (false, false) => {}
    }
    for (address, slots) in &wanted.backends {
        match (present.get(address), slots) {
            (None, _) => differences.push(format!("they lack {address}")),
            (Some(found), Some(slots)) if found != slots => {
                differences.push(format!("{address} has {found} slots in place of {slots}"));
            }
            (Some(_), _) => {}
        }
    }
    let surplus = present.keys().filter(|address| !wanted.backends.contains_key(address));
    differences.extend(surplus.map(|address| format!("they hold {address}, which should get nothing")));
    differences
}

/// Puts beside what should be in the maps what is in them. `vips`: addresses at which nothing else should be, if the
/// whole Service was asked for.
pub fn compare(explanation: &mut Explanation, held: &[Held], vips: &[IpAddr]) {
    let only_names = explanation.told_by == "names";
    for frontend in &mut explanation.frontends {
        if frontend.lost_to.is_none() {
            let held = held.iter().find(|held| is_of(&held.key, frontend));
            if only_names {
                take_over(frontend, held);
            }
            frontend.maps = Some(beside(frontend, held));
        }
    }
    let known = |key: &FrontendKey| explanation.frontends.iter().any(|frontend| is_of(key, frontend));
    explanation.strays = held
        .iter()
        .filter(|held| vips.contains(&held.key.vip) && !known(&held.key))
        .map(|held| held.key.to_string())
        .collect();
}

/// Without a daemon the maps are all that says how many slots an endpoint has.
fn take_over(frontend: &mut ExplainedFrontend, held: Option<&Held>) {
    let Some(held) = held else { return };
    frontend.algorithm.clone_from(&held.algorithm);
    frontend.packets_only = held.packets_only;
    let all: u32 = held.backends.iter().map(|backend| backend.slots).sum();
    for endpoint in &mut frontend.endpoints {
        let address = SocketAddr::new(endpoint.address, endpoint.port);
        let backend = held.backends.iter().find(|backend| backend.address == address);
        if let Some(backend) = backend.filter(|_| endpoint.verdict.starts_with("used")) {
            endpoint.slots = backend.slots;
            endpoint.share = f64::from(backend.slots) / f64::from(all);
        }
    }
}

fn is_of(key: &FrontendKey, frontend: &ExplainedFrontend) -> bool {
    key.vip == frontend.vip
        && key.port == frontend.port
        && protocol_of(&frontend.protocol)
            .is_some_and(|protocol| protocol_name(protocol) == protocol_name(key.protocol))
}

fn beside(frontend: &ExplainedFrontend, held: Option<&Held>) -> ExplainedMaps {
    let Some(held) = held else {
        let says =
            "the maps do not hold it: `mcs-proxy services` and the daemon's log say whether they are full";
        return ExplainedMaps { agree: false, says: says.into() };
    };
    let used = frontend.endpoints.iter().filter(|endpoint| endpoint.slots > 0);
    let wanted = Wanted {
        algorithm: &frontend.algorithm,
        packets_only: frontend.packets_only,
        backends: used
            .map(|endpoint| (SocketAddr::new(endpoint.address, endpoint.port), Some(endpoint.slots)))
            .collect(),
    };
    let differences = differences(&wanted, held);
    let backends = held.backends.len();
    if differences.is_empty() {
        let slots: u32 = held.backends.iter().map(|backend| backend.slots).sum();
        let says = format!("the maps hold the same: {slots} slots, {backends} backends");
        return ExplainedMaps { agree: true, says };
    }
    let says = format!("the maps differ: {}; a change may be under way, look again", differences.join(", "));
    ExplainedMaps { agree: false, says }
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
