//! The programs' time.

use super::FlowsError;
use crate::dataplane::{
    pins::{PinDir, PinsError},
    sys::{self, SysError},
};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use mcs_proxy_ebpf::abi::TICK_SHIFT;
use std::{fmt, time::Duration};

/// The unit of the programs' dates: jiffies, shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate {
    hz: u32,
}

impl TickRate {
    #[must_use]
    pub const fn new(hz: u32) -> Self {
        Self { hz }
    }

    pub fn of_this_kernel() -> Result<Self, SysError> {
        Ok(Self::new(sys::kernel_hz()?))
    }

    /// Ticks in a second, rounded up.
    #[must_use]
    pub const fn per_second(self) -> u32 {
        self.hz.div_ceil(1 << TICK_SHIFT)
    }

    /// As many ticks as last at least this long; what the programs cannot tell from the past any more is "never".
    #[must_use]
    pub fn ticks(self, duration: Duration) -> u32 {
        let jiffies = duration.as_millis() * u128::from(self.hz) / 1000;
        u32::try_from((jiffies >> TICK_SHIFT) + 1).unwrap_or(u32::MAX)
    }

    /// How long ago `then` was at `now`. The tick wraps; and a packet may have dated a flow after `now` was read, so
    /// what lies ahead is just now.
    #[must_use]
    pub fn age(self, now: u32, then: u32) -> Duration {
        let ticks = now.wrapping_sub(then);
        if ticks > u32::MAX / 2 {
            return Duration::ZERO;
        }
        let jiffies = u64::from(ticks) << TICK_SHIFT;
        Duration::from_millis(jiffies * 1000 / u64::from(self.hz.max(1)))
    }
}

/// Tells the programs' time.
pub struct Clock {
    program: SchedClassifier,
    rate: TickRate,
}

impl Clock {
    pub fn open(dir: &PinDir) -> Result<Self, FlowsError> {
        let path = dir.clock();
        if !path.exists() {
            return Err(PinsError::NothingPinned { path: dir.path().to_owned() }.into());
        }
        let program = SchedClassifier::from_pin(path).map_err(FlowsError::Clock)?;
        Ok(Self { program, rate: TickRate::of_this_kernel().map_err(FlowsError::Hz)? })
    }

    /// In ticks, as flows are dated.
    pub fn now(&self) -> Result<u32, FlowsError> {
        // The kernel runs a classifier on no less than an Ethernet header (net/bpf/test_run.c).
        let frame = [0_u8; 14];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        Ok(self.program.test_run(options).map_err(FlowsError::Clock)?.return_value)
    }

    #[must_use]
    pub const fn rate(&self) -> TickRate {
        self.rate
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clock").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_wrapping_of_the_tick() {
        // 250 Hz >> 6: a tick is 256 ms.
        let rate = TickRate::new(250);
        for (now, then, milliseconds) in [
            (10, 10, 0),
            (14, 10, 1024),
            (2, u32::MAX - 1, 4 * 256),
            (10, 11, 0),
            (0, 5, 0),
            (u32::MAX / 2, 0, u64::from(u32::MAX / 2) * 256),
        ] {
            assert_eq!(rate.age(now, then), Duration::from_millis(milliseconds), "{now} - {then}");
        }
        assert_eq!(rate.ticks(Duration::from_secs(1)), 4);
        assert_eq!(rate.ticks(Duration::ZERO), 1);
        assert_eq!(rate.ticks(Duration::MAX), u32::MAX);
        assert_eq!(TickRate::new(100).age(1, 0), Duration::from_millis(640));
        assert_eq!(TickRate::new(1000).age(1, 0), Duration::from_millis(64));
        assert_eq!(TickRate::new(0).age(0, 0), Duration::ZERO);
    }
}
