//! What is opted in while the mode keeps this node from new flows: the maps then hold no frontend that tells of it.

use super::{catalog::protocol_name, mode::Modes};
use crate::{
    desired::is_ours,
    model::{Mode, Model},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The mode that holds, and what it keeps from new flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub modes: Modes,
    /// In the order of the Services' names; none if new flows may begin.
    pub frontends: Vec<DrainedFrontend>,
}

/// A frontend that would be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedFrontend {
    pub vip: IpAddr,
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub namespace: String,
    pub name: String,
    pub port_name: String,
}

impl Drained {
    /// `all_services`: as the flag says.
    #[must_use]
    pub fn of(model: &Model, modes: Modes, all_services: bool) -> Self {
        if modes.mode() == Mode::Active {
            return Self { modes, frontends: Vec::new() };
        }
        let mut services: Vec<_> =
            model.services().filter(|service| is_ours(service, all_services)).collect();
        services.sort_by_key(|service| &service.key);
        let frontends = services
            .into_iter()
            .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
            .flat_map(|(service, port)| {
                service.cluster_ips.iter().map(move |&vip| DrainedFrontend {
                    vip,
                    port: port.port,
                    protocol: protocol_name(port.protocol).to_owned(),
                    namespace: service.key.namespace.to_string(),
                    name: service.key.name.to_string(),
                    port_name: port.name.to_string(),
                })
            })
            .collect();
        Self { modes, frontends }
    }
}
