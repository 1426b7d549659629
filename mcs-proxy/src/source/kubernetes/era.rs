//! Whether the API server's storage was put back to an earlier state: what was watched then lies in its future, and a watch from
//! there stays silent until it is past that, which may take hours.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is known of versions, by all that is followed at one API server. They are revisions of its storage, so that what one
/// kind has seen counts for the others (where kinds are kept apart, a list too many is the price).
#[derive(Debug, Default)]
pub(super) struct Eras {
    /// The highest version of any object.
    highest: AtomicU64,
    /// How often the storage was put back.
    count: AtomicU64,
}

impl Eras {
    /// An object has this version. What is no number is none of ours to compare.
    pub(super) fn note(&self, version: Option<&str>) {
        if let Some(version) = parse(version) {
            self.highest.fetch_max(version, Ordering::Relaxed);
        }
    }

    /// The era that a list belongs to which begins now.
    pub(super) fn now(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the storage, which is at this version now, was put back since that era.
    pub(super) fn is_over(&self, era: u64, version: Option<&str>) -> bool {
        if let Some(version) = parse(version)
            && self.highest.load(Ordering::Relaxed) > version
        {
            self.highest.store(version, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        self.now() != era
    }
}

fn parse(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_below_what_was_seen_ends_the_era_for_all_once() {
        let eras = Eras::default();
        let [services, slices] = [eras.now(), eras.now()];
        for version in [Some("7"), Some("90"), Some("8"), Some("odd"), Some(""), None] {
            eras.note(version);
        }
        for version in [Some("90"), Some("91"), Some("odd"), None] {
            assert!(!eras.is_over(services, version), "{version:?}");
        }
        assert!(eras.is_over(services, Some("40")));
        // By then it has gone on from there.
        assert!(eras.is_over(slices, Some("41")), "one kind after the other finds out");
        eras.note(Some("42"));
        assert!(!eras.is_over(eras.now(), Some("42")));
    }
}
