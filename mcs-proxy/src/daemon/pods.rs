//! The programs come and go with the pods' interfaces, and with the mode.

use super::{Daemon, RETRY_DELAY, sockets};
use crate::{
    dataplane::{flows::GONE, interfaces::InterfaceEvent, links::LinkError},
    model::Mode,
    observe::with_causes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time;
use tracing::{debug, error, info, warn};

impl Daemon {
    /// Takes every program off while the mode is bypass, and puts them on again afterwards.
    ///
    /// # Errors
    /// As [`Self::ensure_pinned`].
    pub(super) fn follow_mode(&mut self) -> anyhow::Result<()> {
        let bypassed = self.writer.modes().mode() == Mode::Bypass;
        if bypassed == self.bypassed {
            return Ok(());
        }
        self.bypassed = bypassed;
        if !bypassed {
            info!("no longer bypassed");
            self.serve_sockets();
            return self.pods.clone().iter().try_for_each(|(&index, name)| self.attach(index, name));
        }
        self.take_all_off();
        warn!("mode bypass: every program is off; flows that were open end, and what is beneath serves all");
        Ok(())
    }

    /// Those of an earlier daemon as well.
    pub(super) fn take_all_off(&mut self) {
        self.unattached.clear();
        let attached: Vec<u32> = self.links.attached().keys().copied().collect();
        for index in attached {
            if let Err(failure) = self.links.detach(index) {
                warn!(index, "{}", with_causes(&failure));
            }
        }
        let swept = self.links.sweep(&BTreeSet::new()).map(drop);
        if let Err(failure) = swept {
            warn!("{}", with_causes(&failure));
        }
        sockets::take_off(&self.pin_dir);
        self.detach_predecessors();
    }

    /// # Errors
    /// As [`Self::ensure_pinned`].
    pub(super) fn follow_interface(&mut self, event: InterfaceEvent) -> anyhow::Result<()> {
        match event {
            InterfaceEvent::Snapshot(pods) => {
                self.pods.clone_from(&pods);
                self.adopt_interfaces(&pods)?;
                self.finish_growth();
                Ok(())
            }
            InterfaceEvent::Appeared { index, name } => {
                self.pods.insert(index, name.clone());
                self.attach(index, &name)
            }
            InterfaceEvent::Placed { index, place } => {
                debug!(index, ?place, "placed");
                if let Err(failure) = self.places.set(index, place) {
                    self.ensure_pinned()?;
                    warn!(
                        index,
                        "{}; its pod's packets go through the host, and its own connections to backends are not seen",
                        with_causes(&failure)
                    );
                }
                Ok(())
            }
            InterfaceEvent::Vanished { index } => {
                self.pods.remove(&index);
                self.unattached.remove(&index);
                self.detach(index);
                let gone = time::Instant::now() + GONE + Duration::from_secs(1);
                self.collection_due = self.collection_due.min(gone.max(self.collection_rests_until));
                Ok(())
            }
        }
    }

    /// Those that are gone, or not a pod's any more, lose their programs.
    fn adopt_interfaces(&mut self, pods: &BTreeMap<u32, String>) -> anyhow::Result<()> {
        let stale: Vec<u32> =
            self.links.attached().keys().filter(|index| !pods.contains_key(index)).copied().collect();
        stale.into_iter().for_each(|index| self.detach(index));
        match self.links.sweep(&pods.keys().copied().collect()) {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => info!(indices = ?swept, "interfaces of an earlier run are gone: detached"),
            Err(failure) => warn!("{}", with_causes(&failure)),
        }
        if let Err(failure) = self.places.retain(&pods.keys().copied().collect()) {
            warn!("{}", with_causes(&failure));
        }
        self.unattached.clear();
        pods.iter().try_for_each(|(&index, name)| self.attach(index, name))
    }

    fn attach(&mut self, index: u32, name: &str) -> anyhow::Result<()> {
        if self.bypassed {
            return Ok(());
        }
        match self.links.attach(index, name) {
            Ok(attachment) => info!(interface = name, index, ?attachment, "attached"),
            Err(LinkError::Gone { .. }) => debug!(interface = name, index, "gone before it was attached"),
            Err(failure) => {
                self.ensure_pinned()?;
                // Told once; tried again until it succeeds or the interface goes.
                if self.unattached.insert(index, name.to_owned()).is_none() {
                    let meanwhile = if self.links.has_both(index) {
                        "an earlier daemon's programs serve its pod"
                    } else {
                        "its pod is not served by us"
                    };
                    error!(interface = name, "{}; until that ends {meanwhile}", with_causes(&failure));
                }
                self.attach_due = Some(time::Instant::now() + RETRY_DELAY);
                return Ok(());
            }
        }
        self.unattached.remove(&index);
        Ok(())
    }

    pub(super) fn attach_again(&mut self) -> anyhow::Result<()> {
        self.attach_due = None;
        let unattached = self.unattached.clone();
        unattached.iter().try_for_each(|(&index, name)| self.attach(index, name))?;
        self.finish_growth();
        Ok(())
    }

    fn detach(&mut self, index: u32) {
        if let Err(failure) = self.places.remove(index) {
            warn!(index, "{}", with_causes(&failure));
        }
        let name = self.links.attached().get(&index).cloned().unwrap_or_default();
        match self.links.detach(index) {
            Ok(()) => info!(interface = name, index, "detached: gone, or not a pod's any more"),
            Err(failure) => warn!(interface = name, index, "{}", with_causes(&failure)),
        }
    }
}
