//! Tells the programs that a daemon looks after the maps.

use super::{Clock, FlowsError};
use crate::dataplane::{
    pins::PinDir,
    sys::{Access, MappedWords},
};
use mcs_proxy_ebpf::abi::MapName;

#[derive(Debug)]
pub struct Heartbeat {
    clock: Clock,
    word: MappedWords,
}

impl Heartbeat {
    pub fn open(dir: &PinDir) -> Result<Self, FlowsError> {
        let word = dir.map_words(MapName::Heartbeat, Access::ReadWrite)?;
        Ok(Self { clock: Clock::open(dir)?, word })
    }

    /// To be called often, by the task that would change the maps: what has come to a stop does not beat.
    pub fn beat(&self) -> Result<(), FlowsError> {
        // 0 would say that no daemon ever was.
        let now = u64::from(self.clock.now()?.max(1));
        // The map has one word.
        let _stored = self.word.store_release(0, now);
        Ok(())
    }
}
