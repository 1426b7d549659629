//! Neighbours that deliver answers past our hooks: told when it begins and when it ends.

use crate::{
    dataplane::flows::Silence,
    observe::interfaces::{self, SilentInterface},
};
use std::{collections::BTreeMap, path::Path};
use tracing::{info, warn};

/// The interfaces that are known to be silent.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    silent: BTreeMap<u32, SilentInterface>,
    /// Whether what an earlier daemon wrote has been replaced.
    is_written: bool,
}

impl Neighbours {
    pub(super) fn silent(&self) -> Vec<SilentInterface> {
        self.silent.values().cloned().collect()
    }

    /// Takes in what a scan of the flows has found. `names`: of the interfaces that are attached.
    pub(super) fn update(
        &mut self,
        found: &BTreeMap<u32, Silence>,
        names: &BTreeMap<u32, String>,
        run_dir: &Path,
    ) {
        let silent: BTreeMap<u32, SilentInterface> = found
            .iter()
            .filter_map(|(&index, silence)| {
                let Silence { connections, backends, answer_elsewhere } = *silence;
                let name = names.get(&index)?.clone();
                Some((index, SilentInterface { index, name, connections, backends, answer_elsewhere }))
            })
            .collect();
        // The file first: who reads the log and asks `services` finds there what the log has said.
        if silent != self.silent || !self.is_written {
            let written = interfaces::write(run_dir, &silent.values().cloned().collect::<Vec<_>>());
            if let Err(failure) = &written {
                warn!(
                    "{}: {failure}; `mcs-proxy services` does not tell of silent interfaces",
                    run_dir.display()
                );
            }
            self.is_written = written.is_ok();
        }
        for interface in silent.values().filter(|interface| !self.silent.contains_key(&interface.index)) {
            warn!("{interface}");
        }
        for interface in self.silent.values().filter(|interface| !silent.contains_key(&interface.index)) {
            info!(interface = interface.name, interface.index, "no longer without answers");
        }
        self.silent = silent;
    }
}
