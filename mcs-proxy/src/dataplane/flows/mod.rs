//! Old flows, and what flows refer to.

mod answers;
mod clock;
mod collector;
mod heartbeat;
mod open;
mod timeouts;

pub use answers::{Answers, Silence};
pub use clock::{Clock, TickRate};
pub use collector::{Collected, Collector, GONE, reply_key};
pub use heartbeat::Heartbeat;
pub use open::{OpenFlow, open_flows};
pub use timeouts::Timeouts;

use super::{pins::PinsError, sys::SysError};
use aya::{maps::MapError, programs::ProgramError};

#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("the pinned clock program")]
    Clock(#[source] ProgramError),
    #[error("map `{map}`: {source}")]
    Scan { map: &'static str, source: SysError },
    #[error("map `{map}`: {source}")]
    Remove { map: &'static str, source: MapError },
    #[error("the kernel's clock: {0}")]
    Hz(#[source] SysError),
}
