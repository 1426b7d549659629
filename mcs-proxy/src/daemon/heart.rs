//! Tells the programs, time and again, that a daemon looks after the maps.

use crate::{
    dataplane::{
        flows::{FlowsError, Heartbeat},
        pins::PinDir,
    },
    observe::with_causes,
};
use tracing::{info, warn};

#[derive(Debug)]
pub(super) struct Heart {
    heartbeat: Heartbeat,
    failing: bool,
}

impl Heart {
    /// Its first beat included.
    pub(super) fn start(pin_dir: &PinDir) -> Result<Self, FlowsError> {
        let heartbeat = Heartbeat::open(pin_dir)?;
        heartbeat.beat()?;
        Ok(Self { heartbeat, failing: false })
    }

    pub(super) fn beat(&self) -> Result<(), FlowsError> {
        self.heartbeat.beat()
    }

    /// That it fails is told once, and that it does no longer.
    pub(super) fn tell(&mut self, beaten: Result<(), FlowsError>) {
        let failed = std::mem::replace(&mut self.failing, beaten.is_err());
        match beaten {
            Ok(()) if failed => info!("the programs hear of this daemon again"),
            Err(failure) if !failed => warn!(
                "{}; to the programs there is no daemon as long as that lasts: after --orphan-timeout new flows pass",
                with_causes(&failure)
            ),
            Ok(()) | Err(_) => {}
        }
    }
}
