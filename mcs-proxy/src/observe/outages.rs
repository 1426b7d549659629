//! What does not answer, as `mcs-proxy status` tells it.

use super::{
    health::{FamilyName, Unanswered, What},
    line::Line,
    status::age,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Single endpoints that have a line of their own; there may be a great many.
const ENDPOINTS: usize = 3;

/// As the last look at the counters found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutageFacts {
    /// Whose new flows others take.
    pub diverted: Vec<Unanswered>,
    /// Clusters, each by one family, that keep theirs though they do not answer: nothing else could take them.
    pub kept: Vec<(String, FamilyName)>,
}

/// A cluster by one family, or a single endpoint, that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutageStatus {
    pub cluster: String,
    /// `IPv4` or `IPv6`; absent for a single endpoint.
    pub family: Option<String>,
    /// Absent for a whole cluster.
    pub endpoint: Option<SocketAddr>,
    /// Whether others take its new flows; if not, no other could.
    pub diverted: bool,
    /// For how long they have.
    pub diverted_seconds: Option<u64>,
}

impl OutageFacts {
    /// A line for each cluster, and for the first few endpoints; or one that says that there are none.
    pub(super) fn lines(&self) -> Vec<Line> {
        let (mut lines, mut endpoints) = (Vec::new(), 0);
        for (cluster, family) in &self.kept {
            lines.push(Line::failed(
                "answers",
                format!("cluster {cluster} does not answer over {family:?}, and nothing else could take its new flows"),
                "see to the cluster, and to the way there from this node; another cluster's endpoints, or a tier with \
                 `others`, would take them",
            ));
        }
        for one in &self.diverted {
            if matches!(one.what, What::Endpoint(_)) {
                endpoints += 1;
                if endpoints > ENDPOINTS {
                    continue;
                }
            }
            lines.push(Line::warning(
                "answers",
                format!("for {}: {one}", age(since(one))),
                "see to it, and to the way there from this node; with its first answer it is back",
            ));
        }
        if endpoints > ENDPOINTS {
            lines.push(Line::warning(
                "answers",
                format!("{} more endpoints do not answer", endpoints - ENDPOINTS),
                "`mcs-proxy status -o json` and `mcs-proxy services` name all",
            ));
        }
        if lines.is_empty() {
            lines.push(Line::ok("answers", "nobody is left out for want of answers"));
        }
        lines
    }

    pub(super) fn told(&self) -> Vec<OutageStatus> {
        let kept = self.kept.iter().map(|(cluster, family)| OutageStatus {
            cluster: cluster.clone(),
            family: Some(format!("{family:?}")),
            endpoint: None,
            diverted: false,
            diverted_seconds: None,
        });
        let diverted = self.diverted.iter().map(|one| {
            let (family, endpoint) = match one.what {
                What::Family(family) => (Some(format!("{family:?}")), None),
                What::Endpoint(endpoint) => (None, Some(endpoint)),
            };
            let seconds = Some(since(one).as_secs());
            OutageStatus {
                cluster: one.cluster.clone(),
                family,
                endpoint,
                diverted: true,
                diverted_seconds: seconds,
            }
        });
        kept.chain(diverted).collect()
    }
}

fn since(one: &Unanswered) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    Duration::from_secs(now.saturating_sub(one.since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    fn cluster(name: &str) -> Unanswered {
        Unanswered { cluster: name.into(), what: What::Family(FamilyName::IPv4), since: 7 }
    }

    #[test]
    fn each_cluster_has_a_line_and_endpoints_share_one_when_they_are_many() {
        let endpoint = |last: u8| Unanswered {
            what: What::Endpoint(SocketAddr::from(([10, 10, 0, last], 8080))),
            ..cluster("member3")
        };
        let diverted = [cluster("member1")].into_iter().chain((1..=5).map(endpoint)).collect();
        let facts = OutageFacts { diverted, kept: vec![("member2".into(), FamilyName::IPv6)] };
        let lines = facts.lines();
        let says: Vec<_> = lines.iter().map(|line| (line.level, line.says.as_str())).collect();
        assert_eq!(says.len(), 1 + 1 + ENDPOINTS + 1, "{says:?}");
        assert!(
            says[0].0 == Level::Failed && says[0].1.contains("member2 does not answer over IPv6"),
            "{says:?}"
        );
        assert!(
            says[1].0 == Level::Warning && says[1].1.contains("member1 does not answer over IPv4"),
            "{says:?}"
        );
        assert!(says[2].1.contains("10.10.0.1:8080 in cluster member3"), "{says:?}");
        assert_eq!(says[5], (Level::Warning, "2 more endpoints do not answer"));
        let told = facts.told();
        assert_eq!(told.len(), 7, "{told:?}");
        assert!(!told[0].diverted && told[0].family.as_deref() == Some("IPv6"), "{told:?}");
        assert!(told[6].diverted && told[6].endpoint.is_some() && told[6].family.is_none(), "{told:?}");
    }

    #[test]
    fn nothing_amiss_is_one_line() {
        let lines = OutageFacts::default().lines();
        assert!(matches!(&lines[..], [line] if line.level == Level::Ok), "{lines:?}");
    }
}
