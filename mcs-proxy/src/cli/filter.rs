//! Which flows are asked for, and what they are called.

use crate::{
    config::{Ends, FlowFilter, Places},
    desired::FrontendKey,
    observe::catalog::{Catalog, CatalogFrontend},
};
use mcs_proxy_ebpf::abi::{Event, Protocol};
use std::{collections::BTreeMap, net::SocketAddr};

/// What a filter looks at.
pub(super) struct Flow<'a> {
    pub(super) client: Option<SocketAddr>,
    pub(super) backend: Option<SocketAddr>,
    pub(super) protocol: Option<Protocol>,
    pub(super) service: &'a str,
    pub(super) cluster: &'a str,
}

impl FlowFilter {
    /// Whether the flow is one of those that are asked for.
    pub(super) fn has(&self, flow: &Flow<'_>) -> bool {
        let is_at = |wanted: Option<Ends>, end: Option<SocketAddr>| {
            wanted.is_none_or(|wanted| end.is_some_and(|end| wanted.has(end)))
        };
        is_at(self.client, flow.client)
            && is_at(self.backend, flow.backend)
            && self.protocol.is_none_or(|wanted| flow.protocol == Some(wanted.into()))
            && self.service.as_deref().is_none_or(|wanted| wanted == flow.service)
            && self.cluster.as_deref().is_none_or(|wanted| wanted == flow.cluster)
    }

    /// Whether anything is asked for in particular.
    pub(super) const fn is_any(&self) -> bool {
        let Self { service, client, backend, cluster, protocol } = self;
        service.is_none() && client.is_none() && backend.is_none() && cluster.is_none() && protocol.is_none()
    }
}

/// The names that the daemon has left, for whoever goes on looking.
#[derive(Default)]
pub(super) struct Names(BTreeMap<FrontendKey, CatalogFrontend>);

impl Names {
    /// Nothing has a name if they cannot be read.
    pub(super) fn read(places: &Places) -> Self {
        let mut names = Self::default();
        names.refresh(places);
        names
    }

    /// The daemon may have written others.
    pub(super) fn refresh(&mut self, places: &Places) {
        if let Ok(catalog) = Catalog::read(&places.run_dir()) {
            let keyed = |names: CatalogFrontend| Some((names.key()?, names));
            self.0 = catalog.frontends.into_iter().filter_map(keyed).collect();
        }
    }

    /// Whether what the event is about has no name.
    pub(super) fn lack(&self, event: &Event) -> bool {
        let key = Protocol::from_number(event.protocol).map(|protocol| FrontendKey {
            vip: event.vip.to_ip(),
            port: event.vip_port.get(),
            protocol,
        });
        key.is_some_and(|key| !self.0.contains_key(&key))
    }

    /// The Service that has the frontend, and the cluster that has the backend; empty if unknown.
    pub(super) fn of(&self, frontend: Option<FrontendKey>, backend: Option<SocketAddr>) -> (String, String) {
        let Some(found) = frontend.and_then(|key| self.0.get(&key)) else { return Default::default() };
        let cluster = backend.and_then(|backend| found.cluster_of(backend));
        (found.service(), cluster.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProtocolName;

    #[test]
    fn a_flow_is_asked_for_by_everything_that_is_said() {
        let end = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let flow = Flow {
            client: end("10.12.0.9:40000"),
            backend: end("10.10.0.6:8080"),
            protocol: Some(Protocol::Tcp),
            service: "default/serve",
            cluster: "member1",
        };
        let any = FlowFilter::default();
        assert!(any.is_any() && any.has(&flow));
        let ends = |text: &str| Some(text.parse::<Ends>().unwrap());
        let filters = [
            ("service", FlowFilter { service: Some("default/serve".into()), ..any.clone() }, true),
            ("service", FlowFilter { service: Some("default/other".into()), ..any.clone() }, false),
            ("client", FlowFilter { client: ends("10.12.0.0/16"), ..any.clone() }, true),
            ("client", FlowFilter { client: ends("10.12.0.9:1"), ..any.clone() }, false),
            ("backend", FlowFilter { backend: ends("10.10.0.6:8080"), ..any.clone() }, true),
            ("backend", FlowFilter { backend: ends("10.12.0.9"), ..any.clone() }, false),
            ("cluster", FlowFilter { cluster: Some("member1".into()), ..any.clone() }, true),
            ("cluster", FlowFilter { cluster: Some("member2".into()), ..any.clone() }, false),
            ("protocol", FlowFilter { protocol: Some(ProtocolName::Tcp), ..any.clone() }, true),
            ("protocol", FlowFilter { protocol: Some(ProtocolName::Udp), ..any.clone() }, false),
        ];
        for (what, filter, expected) in &filters {
            assert_eq!(filter.has(&flow), *expected, "{what}: {filter:?}");
            assert!(!filter.is_any());
        }
        let nowhere = Flow { client: None, backend: None, ..flow };
        assert!(!FlowFilter { client: ends("0.0.0.0/0"), ..any.clone() }.has(&nowhere));
        assert!(any.has(&nowhere));
    }
}
