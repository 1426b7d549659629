//! What `services` says on a node whose mode lets no new flow begin.

use super::{align::align, loads::Loads, stats::full_name, view::View};
use crate::{
    config::Places,
    daemon::socket::{self, AskError, Request, Response},
    desired::FrontendKey,
    model::{Mode, NodeMode},
    observe::{
        catalog::protocol_of,
        drained::{Drained, DrainedFrontend},
        mode,
    },
};
use std::net::SocketAddr;

/// Why the maps hold no frontend, if it is for the mode of this node.
pub(super) fn why_none(places: &Places, view: &View) -> Option<Why> {
    if !view.frontends.is_empty() {
        return None;
    }
    let run_dir = places.run_dir();
    match socket::ask(&run_dir, &Request::Drained) {
        Ok(Response::Drained(drained)) => {
            (drained.modes.mode() != Mode::Active).then_some(Why::Told(drained))
        }
        // Of another version, or it may not be asked: then others tell of it.
        Ok(_) | Err(AskError::Denied { .. }) => None,
        Err(AskError::NoAnswer { .. }) => match mode::read(&run_dir) {
            Ok(ordered @ (NodeMode::Drain | NodeMode::Bypass)) => Some(Why::Ordered(ordered)),
            Ok(NodeMode::Auto | NodeMode::Active) | Err(_) => None,
        },
    }
}

pub(super) enum Why {
    /// The daemon says so.
    Told(Drained),
    /// None answers, and this is noted.
    Ordered(NodeMode),
}

impl Why {
    /// In one line.
    pub(super) fn headline(&self) -> String {
        match self {
            Self::Told(Drained { modes, .. }) => {
                format!("No new flow begins on this node, and there are no frontends: mode {modes}.\n")
            }
            Self::Ordered(ordered) => {
                let word = if *ordered == NodeMode::Bypass { "bypass" } else { "drain" };
                format!(
                    "No new flow begins on this node, and there are no frontends: mode {word} was ordered on it (`mcs-proxy mode \
                     auto` takes that back), and no daemon runs that could name what is opted in.\n"
                )
            }
        }
    }

    /// What is opted in, and which flows remain; `None` if the Service that was asked for is not among it.
    pub(super) fn text(&self, view: &View, service: Option<&str>) -> Option<String> {
        let Self::Told(Drained { modes, frontends }) = self else {
            return Some(format!("{}{}", self.headline(), remaining(view.flows.len())));
        };
        let asked = |one: &&DrainedFrontend| {
            service.is_none_or(|service| service == format!("{}/{}", one.namespace, one.name))
        };
        let frontends: Vec<&DrainedFrontend> = frontends.iter().filter(asked).collect();
        if frontends.is_empty() {
            return service.is_none().then(|| format!("{}No Service is opted in.\n", self.headline()));
        }
        let mut rows =
            vec![["Prot", "VIP:Port", "ActiveConn", "InActConn", "Service"].map(str::to_owned).to_vec()];
        let loads = Loads::of(view);
        rows.extend(frontends.into_iter().map(|one| row(one, &loads)));
        let flows = if modes.mode() == Mode::Bypass {
            "the programs are off, and flows that were open have ended"
        } else {
            "flows that are open go on, as `mcs-proxy connections` lists them"
        };
        Some(format!("{}These are opted in; {flows}:\n{}", self.headline(), align(&rows)))
    }
}

fn remaining(flows: usize) -> String {
    match flows {
        0 => "No flow is left.\n".to_owned(),
        flows => format!("{flows} flows are in the maps; `mcs-proxy connections` lists them.\n"),
    }
}

fn row(one: &DrainedFrontend, loads: &Loads) -> Vec<String> {
    let key =
        protocol_of(&one.protocol).map(|protocol| FrontendKey { vip: one.vip, port: one.port, protocol });
    let [active, inactive] = key.map(|key| loads.all(&key)).unwrap_or_default();
    vec![
        one.protocol.clone(),
        SocketAddr::new(one.vip, one.port).to_string(),
        active.to_string(),
        inactive.to_string(),
        full_name(&one.namespace, &one.name, &one.port_name),
    ]
}
