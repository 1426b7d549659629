use crate::{model::ObjectKind, observe::with_causes, source::Reach};
use kube::runtime::watcher;
use std::{future, time::Duration};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

/// An API server that has not answered at all by then is told of.
const PATIENCE: Duration = Duration::from_secs(15);
/// A failure that lasts is told of again after so long.
const REMINDER: Duration = Duration::from_secs(300);

/// How it goes with one kind at the API server, told in the log at every turn but not at every attempt.
#[derive(Debug)]
pub(super) struct Health {
    kind: ObjectKind,
    /// The API server's URL and where it came from.
    server: String,
    started: Instant,
    ever_answered: bool,
    /// What was told last, and when; `None` while all is well.
    told: Option<(String, Instant)>,
    reach: Reach,
}

impl Health {
    pub(super) fn new(kind: ObjectKind, server: &str, reach: &Reach) -> Self {
        let (server, reach) = (server.to_owned(), reach.clone());
        Self { kind, server, started: Instant::now(), ever_answered: false, told: None, reach }
    }

    pub(super) const fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Whether the API server does not serve the kind.
    pub(super) fn is_absence(error: &watcher::Error) -> bool {
        status(error).is_some_and(|status| status.code == 404)
    }

    /// Returns when it is time to say that nothing has come yet; never, if something has or it was said.
    pub(super) async fn patience(&self) {
        if self.ever_answered || self.told.is_some() {
            future::pending::<()>().await;
        }
        sleep_until(self.started + PATIENCE).await;
    }

    pub(super) fn silent(&mut self) {
        let Self { kind, server, .. } = self;
        let said = "no answer";
        warn!(
            "{kind}s: {said} from the API server at {server} for {} s; waiting on; see whether it is up and can be \
             reached from here, and whether the address is right",
            PATIENCE.as_secs()
        );
        self.reach.failed(*kind, format!("{said} from the API server at {server}"));
        self.told = Some((said.to_owned(), Instant::now()));
    }

    pub(super) fn failed(&mut self, error: &watcher::Error, now: Instant) {
        let Self { kind, server, .. } = self;
        if is_expiry(error) {
            debug!("{kind}s: the API server at {server} forgot where we were; listing anew");
            return;
        }
        // A status is what the API server says; the library's words have all its fields beside.
        let said = status(error).map(|status| status.message.clone()).filter(|message| !message.is_empty());
        let said = said.unwrap_or_else(|| with_causes(error));
        self.reach.failed(*kind, format!("the API server at {server}: {said}; {}", advice(*kind, error)));
        let repeated = self
            .told
            .as_ref()
            .is_some_and(|(before, when)| *before == said && now.duration_since(*when) < REMINDER);
        if repeated {
            debug!("{kind}s: {server}: {said}");
            return;
        }
        let meanwhile = if self.ever_answered { "what was last known stays" } else { "nothing is known yet" };
        warn!(
            "{kind}s: the API server at {server}: {said}; {}; {meanwhile}, trying again",
            advice(*kind, error)
        );
        self.told = Some((said, now));
    }

    pub(super) fn answered(&mut self) {
        let Self { kind, server, .. } = self;
        if self.told.take().is_some() || !self.ever_answered {
            info!("{kind}s: following those of the API server at {server}");
        }
        self.reach.answered(*kind);
        self.ever_answered = true;
    }
}

/// The watched version is older than the API server remembers: in the nature of watching, not a failure. (A list that takes
/// longer than that is one.)
fn is_expiry(error: &watcher::Error) -> bool {
    !matches!(error, watcher::Error::InitialListFailed(_))
        && status(error).is_some_and(|status| status.code == 410)
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            if let kube::Error::Api(status) = error {
                Some(status)
            } else {
                None
            }
        }
        watcher::Error::NoResourceVersion => None,
    }
}

/// What to look at.
fn advice(kind: ObjectKind, error: &watcher::Error) -> &'static str {
    match status(error).map(|status| status.code) {
        Some(401) => "see whether the credentials in use are valid",
        Some(403) => rights(kind),
        Some(_) => "see the API server's log",
        None => {
            "see whether it is up and can be reached from here, and whether address and certificates are right"
        }
    }
}

const fn rights(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Service => "grant get, list and watch on services (see deploy/base)",
        ObjectKind::EndpointSlice => {
            "grant get, list and watch on endpointslices.discovery.k8s.io (see deploy/base)"
        }
        ObjectKind::ServiceImport => {
            "grant get, list and watch on serviceimports.multicluster.x-k8s.io (see deploy/base)"
        }
        ObjectKind::Node => "grant get, list and watch on nodes (see deploy/base)",
        ObjectKind::ConfigMap | ObjectKind::File => {
            "grant get, list and watch on the ConfigMap that --settings names (see deploy/base)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn advice_fits_the_failure() {
        let refused = |code| {
            let status = Status { code, ..Status::failure("no", "Forbidden") };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(advice(ObjectKind::Node, &refused(403)).contains("grant get, list and watch on nodes"));
        assert!(advice(ObjectKind::Node, &refused(401)).contains("credentials"));
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let broken = watcher::Error::WatchFailed(kube::Error::ReadEvents(broken));
        assert!(advice(ObjectKind::Node, &broken).contains("reached from here"));
        assert!(with_causes(&broken).contains("connection reset"), "{}", with_causes(&broken));
        let gone = Box::new(Status { code: 410, ..Status::failure("old", "Expired") });
        let expired = watcher::Error::WatchStartFailed(kube::Error::Api(gone));
        assert!(!is_expiry(&broken) && !is_expiry(&refused(410)) && is_expiry(&expired));
    }

    #[test]
    fn a_failure_is_told_once_and_again_only_after_a_while_or_a_recovery() {
        let mut health =
            Health::new(ObjectKind::Service, "https://10.0.0.1:6443/ (in-cluster)", &Reach::default());
        let error = watcher::Error::NoResourceVersion;
        let start = Instant::now();
        for (after, told_at) in [(0, 0), (150, 0), (299, 0), (300, 300), (400, 300)] {
            health.failed(&error, start + Duration::from_secs(after));
            let when = health.told.as_ref().map(|(_, when)| when.duration_since(start).as_secs());
            assert_eq!(when, Some(told_at), "after {after} s");
        }
        health.answered();
        assert_eq!(health.told, None);
    }
}
