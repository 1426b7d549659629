//! How full the maps are, and when an operator is told: once when a map is nearly full, again when it refuses what it
//! is asked for, from time to time as long as that lasts, and when it is over.

use crate::dataplane::{
    flows::Collected,
    loader::{Options, size_flag},
    pins::{PinDir, Pins, PinsError},
    table::{Fill, Usage},
};
use mcs_proxy_ebpf::abi::{MapName, Verdict};
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

/// Told again after this long.
const REPEAT: Duration = Duration::from_secs(600);
/// Nearly full, in percent.
const HIGH: u64 = 90;
/// The pressure is over below this.
const LOW: u64 = 80;

/// One look at one map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reading {
    pub(super) map: MapName,
    /// The interface that the entries are counted for, if each has a share of the map.
    pub(super) interface: Option<u32>,
    pub(super) in_use: u64,
    pub(super) capacity: u64,
    /// How often room was lacking since the last look.
    pub(super) refused: u64,
}

/// What to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Entries were refused.
    Full(Reading),
    NearlyFull(Reading),
    Over(Reading),
}

/// How often the programs found no room, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    /// Confirmed flows that were not made established ones; each is counted again with every packet.
    established: u64,
    transient: u64,
}

impl Refusals {
    pub(super) fn read(dir: &PinDir) -> Result<Self, PinsError> {
        let verdicts = Pins::open(dir)?.verdicts()?;
        let count =
            |wanted| verdicts.iter().filter(|(verdict, _)| *verdict == wanted).map(|(_, count)| count).sum();
        Ok(Self { established: count(Verdict::NotPromoted), transient: count(Verdict::FlowsFull) })
    }

    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            established: self.established.saturating_sub(earlier.established),
            transient: self.transient.saturating_sub(earlier.transient),
        }
    }
}

/// The readings of the maps that packets fill. What was refused is laid at the door of the interfaces that have used
/// up their share, if any, and else of the map.
pub(super) fn flow_readings(collected: &Collected, refused: Refusals, limits: &Options) -> Vec<Reading> {
    let share = u64::from(limits.flows_per_interface);
    let interfaces = || collected.by_interface.iter().map(|(&index, &count)| (index, count));
    let is_used_up = |count: u64| count * 100 >= share * HIGH;
    let by_share = interfaces().any(|(_, count)| is_used_up(count));
    let flows = Reading {
        map: MapName::Flows,
        interface: None,
        in_use: collected.established as u64,
        capacity: limits.sizes.flows.into(),
        refused: if by_share { 0 } else { refused.established },
    };
    let transient = Reading {
        map: MapName::Transient,
        interface: None,
        // An LRU is always full of what it may evict: that is no news, only that it could not.
        in_use: 0,
        capacity: limits.sizes.transient.into(),
        refused: refused.transient,
    };
    let shares = interfaces().map(|(index, in_use)| Reading {
        map: MapName::Flows,
        interface: Some(index),
        in_use,
        capacity: share,
        refused: if is_used_up(in_use) { refused.established } else { 0 },
    });
    [flows, transient].into_iter().chain(shares).collect()
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    told: BTreeMap<(MapName, Option<u32>), (Level, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    NearlyFull,
    Full,
}

impl Reading {
    fn percent(&self) -> u64 {
        self.in_use * 100 / self.capacity.max(1)
    }

    fn flag(&self) -> &'static str {
        match self.interface {
            Some(_) => "--max-flows-per-interface",
            None => size_flag(self.map).unwrap_or("no flag"),
        }
    }
}

/// The readings of the maps that user space fills. What they refuse is told for each Service that it concerns.
pub(super) fn table_readings(usage: &Usage) -> [Reading; 3] {
    let reading = |map, Fill { in_use, capacity }: Fill| Reading {
        map,
        interface: None,
        in_use: in_use.into(),
        capacity: capacity.into(),
        refused: 0,
    };
    [
        reading(MapName::Services, usage.frontends),
        reading(MapName::Backends, usage.elements),
        reading(MapName::BackendState, usage.backends),
    ]
}

impl Pressure {
    /// What is new about these maps. A share of an interface that is not read any more is over without a word.
    pub(super) fn update(&mut self, readings: Vec<Reading>, now: Instant) -> Vec<News> {
        self.told.retain(|&(map, interface), _| {
            interface.is_none() || readings.iter().any(|read| (read.map, read.interface) == (map, interface))
        });
        readings.into_iter().filter_map(|reading| self.look(reading, now)).collect()
    }

    fn look(&mut self, reading: Reading, now: Instant) -> Option<News> {
        let key = (reading.map, reading.interface);
        let level = if reading.refused > 0 {
            Level::Full
        } else if reading.percent() >= HIGH {
            Level::NearlyFull
        } else {
            if reading.percent() >= LOW {
                return None;
            }
            return self.told.remove(&key).map(|_| News::Over(reading));
        };
        let is_news = self.told.get(&key).is_none_or(|&(told, when)| level > told || now - when >= REPEAT);
        if !is_news {
            return None;
        }
        self.told.insert(key, (level, now));
        Some(match level {
            Level::Full => News::Full(reading),
            Level::NearlyFull => News::NearlyFull(reading),
        })
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, interface, in_use, capacity, .. } = self;
        write!(f, "map `{}`: {in_use} of {capacity} entries", map.as_str())?;
        match interface {
            Some(index) => write!(f, " that interface {index} may have are in use"),
            None => f.write_str(" are in use"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(reading) => write!(
                f,
                "{reading}; {} times room was lacking, and new flows, which would be established, may be evicted; \
                 raise {}",
                reading.refused,
                reading.flag()
            ),
            Self::NearlyFull(reading) => {
                write!(f, "{reading}, {} %; before it is full raise {}", reading.percent(), reading.flag())
            }
            Self::Over(reading) => write!(f, "{reading}: there is room again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{flows::Timeouts, hairpin::Hairpin};
    use mcs_proxy_ebpf::abi::MapSizes;

    fn reading(in_use: u64, refused: u64) -> Reading {
        Reading { map: MapName::Flows, interface: None, in_use, capacity: 1000, refused }
    }

    #[test]
    fn a_map_is_told_of_once_for_each_level_and_again_from_time_to_time() {
        let mut pressure = Pressure::default();
        let start = Instant::now();
        let mut tell = |in_use, refused, minutes: u64| {
            let now = start + Duration::from_secs(60 * minutes);
            pressure.update(vec![reading(in_use, refused)], now)
        };
        assert_eq!(tell(899, 0, 0), []);
        assert_eq!(tell(900, 0, 1), [News::NearlyFull(reading(900, 0))]);
        assert_eq!(tell(950, 0, 2), []);
        assert_eq!(tell(1000, 7, 3), [News::Full(reading(1000, 7))]);
        assert_eq!(tell(1000, 9, 4), [], "the rate is limited");
        assert_eq!(tell(950, 0, 5), [], "and what is milder is no news");
        assert_eq!(tell(1000, 9, 13), [News::Full(reading(1000, 9))]);
        assert_eq!(tell(850, 0, 14), [], "it might come back");
        assert_eq!(tell(700, 0, 15), [News::Over(reading(700, 0))]);
        assert_eq!(tell(700, 0, 16), []);
        assert_eq!(tell(1000, 1, 17), [News::Full(reading(1000, 1))]);
    }

    #[test]
    fn what_lacks_room_is_the_interface_that_has_used_up_its_share_or_else_the_map() {
        let limits = Options {
            sizes: MapSizes { flows: 1000, ..MapSizes::DEFAULT },
            flows_per_interface: 250,
            hairpin: Hairpin::DEFAULT,
            redirect: false,
            orphan_timeout: Duration::ZERO,
            timeouts: Timeouts::DEFAULT,
            socket_path: None,
            bpf_log: false,
        };
        let refused = Refusals { established: 5, transient: 0 };
        for (flows, culprit) in [([250, 10], Some(7)), ([200, 200], None)] {
            let collected = Collected {
                established: 400,
                by_interface: BTreeMap::from([(7, flows[0]), (8, flows[1])]),
                ..Collected::default()
            };
            let readings = flow_readings(&collected, refused, &limits);
            let blamed: Vec<_> = readings
                .iter()
                .filter(|reading| reading.refused > 0)
                .map(|reading| reading.interface)
                .collect();
            assert_eq!(blamed, [culprit]);
        }
    }

    #[test]
    fn a_line_names_map_use_capacity_and_flag() {
        let said = News::Full(reading(1000, 7)).to_string();
        for part in ["`flows`", "1000 of 1000", "7 times", "--max-flows"] {
            assert!(said.contains(part), "{said}");
        }
        let share = Reading { interface: Some(12), capacity: 250, ..reading(240, 0) };
        let said = News::NearlyFull(share).to_string();
        for part in ["interface 12", "240 of 250", "96 %", "--max-flows-per-interface"] {
            assert!(said.contains(part), "{said}");
        }
        let usage = Usage {
            frontends: Fill { in_use: 1, capacity: 16 },
            elements: Fill { in_use: 2, capacity: 64 },
            backends: Fill { in_use: 3, capacity: 32 },
        };
        let flags = table_readings(&usage).map(|reading| reading.flag());
        assert_eq!(flags, ["--max-frontends", "--max-slots", "--max-backends"]);
    }
}
