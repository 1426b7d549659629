//! Daemons of other layouts that ran here before, and maps of ours that grow: their programs go on behind ours until nothing
//! is lost by taking them off.

use super::{Daemon, lock::Holder};
use crate::{
    config::Run,
    dataplane::{
        layouts::{self, Draining},
        pins::PinDir,
    },
    observe::{catalog, health, interfaces, with_causes},
};
use mcs_proxy_ebpf::abi::ABI_VERSION;
use std::{fs, path::Path, time::Duration};
use tracing::{error, info, warn};

/// # Errors
/// One is newer than this one, which is not told to take over from it.
pub(super) fn find(pin_dir: &PinDir, run: &Run, before: Option<&Holder>) -> anyhow::Result<Vec<Draining>> {
    let others = layouts::others(pin_dir)?;
    if let Some(newer) = others.iter().rfind(|layout| layout.version > ABI_VERSION)
        && !run.take_over_newer
    {
        let whose = before.filter(|holder| holder.layout == newer.version);
        let version = whose.map_or_else(
            || format!("a version with layout {}", newer.version),
            |holder| format!("version {}", holder.version),
        );
        anyhow::bail!(
            "{}: pinned by a newer mcs-proxy; this one, version {}, knows layout {ABI_VERSION}. What runs goes on as it is: \
             run {version} here; or start this one with --take-over-newer, which lets the newer one's connections end",
            newer.path().display(),
            env!("CARGO_PKG_VERSION")
        );
    }
    for layout in &others {
        info!(
            layout = layout.version,
            "another layout is pinned: our programs go first, and its connections come to their end behind them"
        );
    }
    Ok(others.into_iter().map(Draining::new).collect())
}

/// What a run directory tells of maps that are gone, as it does where it has outlived a boot, is no more true than they are.
/// `goes_on`: whether maps were there. What was ordered on this node still holds.
pub(super) fn forget_what_is_of_other_maps(
    run_dir: &Path,
    before: Option<&Holder>,
    now: &Holder,
    goes_on: bool,
) {
    let boot = before.filter(|before| !before.boot.is_empty() && before.boot != now.boot);
    if let Some(before) = boot {
        info!(before = %before, "the first start since this node was booted");
    } else if goes_on {
        return;
    }
    for file in [catalog::FILE, health::FILE, interfaces::FILE] {
        // What stays is overwritten soon.
        drop(fs::remove_file(run_dir.join(file)));
    }
}

/// Takes those off that have no flow left, and returns the others. Takes long, with many flows.
pub(super) fn retire(predecessors: Vec<Draining>, silence: Duration) -> Vec<Draining> {
    let has_flows = |draining: &mut Draining| {
        let version = draining.layout().version;
        match draining.flows(silence) {
            Ok(0) => {}
            Ok(_) => return true,
            Err(failure) => {
                warn!(layout = version, "{}; it stays", with_causes(&failure));
                return true;
            }
        }
        match layouts::remove(draining.layout().path()) {
            Ok(()) => {
                info!(layout = version, "the last connection of another layout has ended: taken off");
                false
            }
            Err(failure) => {
                error!(layout = version, "{}", with_causes(&failure));
                true
            }
        }
    };
    let mut predecessors = predecessors;
    // One that is not closed yet still opens flows.
    predecessors.retain_mut(|draining| !draining.is_closed() || has_flows(draining));
    predecessors
}

impl Daemon {
    /// Our maps hold everything: from here on the others open no flow.
    pub(super) fn close_predecessors(&mut self) {
        if !self.writer.is_in_step() {
            return;
        }
        for draining in self.predecessors.iter_mut().filter(|draining| !draining.is_closed()) {
            if let Err(failure) = draining.close() {
                error!(
                    layout = draining.layout().version,
                    "{}; it may open flows still",
                    with_causes(&failure)
                );
            }
        }
    }

    pub(super) fn detach_predecessors(&self) {
        let others = layouts::others(&self.pin_dir).unwrap_or_default();
        for failure in others.iter().filter_map(|layout| layout.detach().err()) {
            warn!("{}", with_causes(&failure));
        }
    }

    /// Once our programs are everywhere.
    pub(super) fn finish_growth(&mut self) {
        if !self.unattached.is_empty() {
            return;
        }
        let Some(growth) = self.growth.take() else { return };
        match growth.finish(&self.pin_dir) {
            Ok(()) => info!("maps are larger than before, and hold what the smaller ones held"),
            Err(failure) => {
                error!(
                    "{}; connections of the smaller maps go on, and the next start tries again",
                    with_causes(&failure)
                );
            }
        }
    }
}
