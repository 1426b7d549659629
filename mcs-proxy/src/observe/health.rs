//! What does not answer, in `health.json` in the run directory: for `services`, and for the next daemon, which goes on from
//! there.

use super::json_file;
use crate::{desired::Family, health::Subject};
use serde::{Deserialize, Serialize};
use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc};

/// In the run directory.
pub const FILE: &str = "health.json";

/// A cluster by one family, or a single endpoint, that has no new flows because it does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    pub cluster: String,
    #[serde(flatten)]
    pub what: What,
    /// Seconds since the epoch.
    pub since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All of the cluster's endpoints, by `IPv4` or `IPv6`.
    Family(FamilyName),
    Endpoint(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyName {
    IPv4,
    IPv6,
}

impl From<Family> for FamilyName {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::IPv4,
            Family::V6 => Self::IPv6,
        }
    }
}

impl Unanswered {
    #[must_use]
    pub fn of(subject: &Subject, since: u64) -> Self {
        let (cluster, what) = match subject {
            Subject::Cluster((cluster, family)) => (cluster, What::Family((*family).into())),
            Subject::Endpoint(cluster, address) => (cluster, What::Endpoint(*address)),
        };
        Self { cluster: cluster.to_string(), what, since }
    }

    #[must_use]
    pub fn subject(&self) -> Subject {
        let cluster: Arc<str> = Arc::from(&*self.cluster);
        match self.what {
            What::Family(FamilyName::IPv4) => Subject::Cluster((cluster, Family::V4)),
            What::Family(FamilyName::IPv6) => Subject::Cluster((cluster, Family::V6)),
            What::Endpoint(address) => Subject::Endpoint(cluster, address),
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, what, since: _ } = self;
        match what {
            What::Family(family) => write!(formatter, "cluster {cluster} does not answer over {family:?}")?,
            What::Endpoint(address) => write!(formatter, "{address} in cluster {cluster} does not answer")?,
        }
        formatter.write_str(
            ": where others could, they take its new flows, but for one from time to time that tries it",
        )
    }
}

/// What the last daemon of this run directory has found out; nothing if none has.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read(run_dir: &Path) -> io::Result<Vec<Unanswered>> {
    json_file::read(run_dir, FILE)
}

/// Puts this in the place of what was found out before.
///
/// # Errors
/// The run directory cannot be made or written to.
pub fn write(run_dir: &Path, unanswered: &[Unanswered]) -> io::Result<()> {
    json_file::write(run_dir, FILE, &unanswered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_next_daemon() {
        let member: Arc<str> = Arc::from("member1");
        let subjects = [
            Subject::Cluster((Arc::clone(&member), Family::V4)),
            Subject::Cluster((Arc::clone(&member), Family::V6)),
            Subject::Endpoint(member, "[fd10:10::6]:8080".parse().unwrap()),
        ];
        let run_dir = std::env::temp_dir().join(format!("mcs-proxy-health-{}", std::process::id()));
        let written: Vec<_> = subjects.iter().map(|subject| Unanswered::of(subject, 7)).collect();
        write(&run_dir, &written).unwrap();
        let found = read(&run_dir).unwrap();
        std::fs::remove_dir_all(&run_dir).unwrap();
        assert_eq!(found, written);
        assert_eq!(found.iter().map(Unanswered::subject).collect::<Vec<_>>(), subjects);
        assert!(
            found[1].to_string().starts_with("cluster member1 does not answer over IPv6: "),
            "{}",
            found[1]
        );
    }
}
