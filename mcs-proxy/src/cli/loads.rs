use super::view::View;
use crate::desired::FrontendKey;
use std::{collections::BTreeMap, net::SocketAddr};

/// Flows that are open, of each frontend by backend: how many are not closing, and how many are.
pub(super) struct Loads(BTreeMap<FrontendKey, BTreeMap<SocketAddr, [u32; 2]>>);

impl Loads {
    pub(super) fn of(view: &View) -> Self {
        let mut loads: BTreeMap<FrontendKey, BTreeMap<SocketAddr, [u32; 2]>> = BTreeMap::new();
        for flow in &view.flows {
            let Some(key) = flow.frontend() else { continue };
            loads.entry(key).or_default().entry(flow.backend).or_default()[usize::from(flow.is_closing)] += 1;
        }
        Self(loads)
    }

    /// To one backend of a frontend.
    pub(super) fn to(&self, frontend: &FrontendKey, backend: SocketAddr) -> [u32; 2] {
        self.0.get(frontend).and_then(|loads| loads.get(&backend)).copied().unwrap_or_default()
    }

    /// To all backends of a frontend, also those that are gone.
    pub(super) fn all(&self, frontend: &FrontendKey) -> [u32; 2] {
        let loads = self.0.get(frontend).into_iter().flat_map(BTreeMap::values);
        loads.fold([0; 2], |[active, inactive], load| [active + load[0], inactive + load[1]])
    }
}
