use crate::desired::FrontendKey;
use mcs_proxy_ebpf::abi::{
    Address, BackendState, Element, FrontendWord, Port, Protocol, ServiceKey, VipFlags,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the maps hold, as far as a [`Table`](super::table::Table) needs to know; the arrays in full length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    pub services: BTreeMap<ServiceKey, u32>,
    pub vips: BTreeMap<Address, VipFlags>,
    pub frontends: Vec<FrontendWord>,
    pub backends: Vec<Element>,
    pub backend_state: Vec<BackendState>,
    pub hot: Vec<u64>,
    /// Everything that flows of any state refer to.
    pub flows: BTreeSet<FlowRef>,
}

/// What one or many flows refer to. It is all that still tells the address of a backend that is out of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowRef {
    pub vip: Address,
    pub service: u32,
    pub backend: Address,
    pub backend_port: Port,
    pub backend_id: u32,
    pub generation: u32,
}

/// A frontend as the maps know it. IPv4 addresses in IPv6 clothes are IPv4 there, so they are here.
#[must_use]
pub fn service_key(key: &FrontendKey) -> ServiceKey {
    ServiceKey::new(Address::from(key.vip), Port::new(key.port), key.protocol.number())
}

/// A key of `services` as people know it; `None` if its protocol is none that a Service may have.
#[must_use]
pub fn frontend_key(key: &ServiceKey) -> Option<FrontendKey> {
    let protocol = Protocol::from_number(key.protocol)?;
    Some(FrontendKey { vip: key.vip.to_ip(), port: key.port.get(), protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_survives_the_map() {
        for vip in ["10.13.181.116", "fd00:10:13::74"] {
            let key = FrontendKey { vip: vip.parse().unwrap(), port: 80, protocol: Protocol::Udp };
            assert_eq!(frontend_key(&service_key(&key)), Some(key));
        }
    }

    #[test]
    fn an_unknown_protocol_is_no_frontend() {
        assert_eq!(frontend_key(&ServiceKey::new(Address::UNSPECIFIED, Port::new(80), 1)), None);
    }
}
