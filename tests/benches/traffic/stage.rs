//! All arms at one size, each ready to be called.

use crate::{
    lane::Lane,
    objects::{self, SERVICE_RANGE},
    plan::{Plan, Size},
    progress::Progress,
};
use anyhow::{Context, Result};
use mcs_proxy_tests::{World, api::ApiServer};
use std::time::Duration;

/// Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) lanes: Vec<Lane>,
    api: ApiServer,
    _world: World,
}

impl Stage {
    pub(crate) fn new(plan: &Plan, size: &Size, progress: &mut Progress) -> Result<Self> {
        let estimated = Plan::setting_up(size);
        progress.step(size, "an API server", Duration::ZERO);
        let mut world = World::new()?;
        let api = ApiServer::start(&world, SERVICE_RANGE)?;
        api.grant()?;
        objects::create(&world, &api, size)?;
        let (mut lanes, arms) = (Vec::new(), plan.arms_at(size));
        for &arm in &arms {
            progress.step(size, &format!("a node for {arm}"), estimated / arms.len() as u32);
            lanes.push(Lane::new(&mut world, &api, arm, size).with_context(|| arm.to_string())?);
        }
        Ok(Self { lanes, api, _world: world })
    }

    /// Stops everything but clients and servers, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) -> Result<()> {
        self.api.pause(paused)?;
        self.lanes.iter().try_for_each(|lane| lane.pause(paused))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is stopped does not end when it is asked to.
        drop(self.pause(false));
    }
}
