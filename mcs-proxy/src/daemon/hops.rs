//! Sees to it that open flows follow the host's routes and neighbours at once.

use super::RETRY_DELAY;
use crate::{dataplane::hops::Hops, observe::with_causes};
use tokio::time;
use tracing::warn;

/// For ever: what ends one attempt is told, and the next begins by forgetting everything.
pub(super) async fn follow(hops: Hops) {
    while let Err(failure) = hops.follow().await {
        warn!("{}; open flows hear of a pod's new MAC address within a second", with_causes(&failure));
        time::sleep(RETRY_DELAY).await;
    }
}
