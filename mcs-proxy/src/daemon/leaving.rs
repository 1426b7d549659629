//! Leaving the node for good, as the settings' ConfigMap orders it: no new flow begins, those there may end, then everything
//! is taken off and the cluster told so.

use super::{Daemon, lock, socket, vitals::PULSE};
use crate::{
    dataplane::{
        flows::{OpenFlow, open_flows},
        layouts, leftovers,
        pins::PinDir,
    },
    model::Uninstall,
    observe::{catalog, events::Report, health, interfaces, mode, with_causes},
    source::{Event, Object, Told},
};
use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};
use tokio::{
    select,
    signal::unix::Signal,
    sync::mpsc,
    task::{self, JoinHandle},
    time,
};
use tracing::{error, info, warn};

/// How often the open connections are counted, and more seldom where that takes long.
const LOOK: Duration = Duration::from_millis(500);
const REST: u32 = 8;

/// So many connections are named; the log has them all.
const NAMED: usize = 8;

pub(super) type Found = (Duration, anyhow::Result<Vec<OpenFlow>>);

/// An order to leave that is being followed.
#[derive(Debug)]
pub(super) struct Leaving {
    order: Uninstall,
    until: time::Instant,
    due: time::Instant,
    /// Connections at the last look.
    open: usize,
}

/// What was open when the time was up.
#[derive(Debug)]
pub(super) struct Outlived {
    order: Uninstall,
    flows: Vec<OpenFlow>,
    /// Why nobody knows of them, if so.
    uncounted: Option<String>,
}

/// What a daemon makes in its run directory.
#[must_use]
pub fn files() -> Vec<String> {
    let written = [catalog::FILE, health::FILE, interfaces::FILE, mode::FILE];
    // What a daemon that was killed had not finished.
    let partial = written.map(|name| format!("{name}.partial"));
    written.into_iter().chain([socket::FILE, lock::FILE]).map(str::to_owned).chain(partial).collect()
}

impl Leaving {
    pub(super) const fn due(&self) -> time::Instant {
        self.due
    }
}

impl Daemon {
    /// Begins to leave, or thinks better of it.
    pub(super) fn follow_uninstall(&mut self) {
        let now = time::Instant::now();
        match self.writer.uninstall() {
            Some(order) if self.leaving.as_ref().is_none_or(|leaving| leaving.order.id != order.id) => {
                info!("leaving this node: no new connections, and {:?} for those there to end", order.drain);
                let until = now + order.drain;
                self.leaving = Some(Leaving { order: order.clone(), until, due: now, open: usize::MAX });
            }
            Some(_) => {}
            None => {
                if self.leaving.take().is_some() {
                    info!("no longer leaving this node");
                }
            }
        }
    }

    /// Looks for open connections, which takes long, on a thread of its own.
    pub(super) fn look_at_open(&mut self) {
        let pin_dir = self.pin_dir.clone();
        self.leaving_look = Some(task::spawn_blocking(move || {
            let start = Instant::now();
            let found = of_every_layout(&pin_dir);
            (start.elapsed(), found)
        }));
    }

    /// Whether it is time, and what is open then.
    pub(super) fn may_leave(&mut self, (took, found): Found) -> Option<Outlived> {
        let leaving = self.leaving.as_mut()?;
        let now = time::Instant::now();
        leaving.due = (now + LOOK.max(REST * took)).min(leaving.until.max(now + LOOK));
        let is_time = now >= leaving.until;
        let (flows, uncounted) = match found {
            Ok(flows) => (flows, None),
            Err(failure) => {
                error!("{failure:#}; how many connections are open cannot be told");
                if !is_time {
                    return None;
                }
                (Vec::new(), Some(format!("{failure:#}")))
            }
        };
        if !flows.is_empty() && !is_time {
            if flows.len() != leaving.open {
                leaving.open = flows.len();
                info!(open = flows.len(), "connections are still open");
            }
            return None;
        }
        Some(Outlived { order: leaving.order.clone(), flows, uncounted })
    }

    /// Takes everything off, reports it, and stays until it is ended, as nobody is to start a daemon anew meanwhile.
    ///
    /// # Errors
    /// It is no longer to leave: a new start serves again.
    pub(super) async fn leave(
        mut self,
        outlived: Outlived,
        mut source: JoinHandle<anyhow::Result<()>>,
        mut events: mpsc::Receiver<Told>,
        [mut terminate, mut interrupt]: [Signal; 2],
    ) -> anyhow::Result<()> {
        let id = outlived.order.id.clone();
        let service_of = |vip| self.writer.service_of(vip).map(ToString::to_string);
        for flow in &outlived.flows {
            warn!("a connection outlives the drain: {}", named(flow, service_of));
        }
        let note = outlived.note(service_of);
        self.take_all_off();
        let Self { pin_dir, run_dir, board, _locks: locks, writer, links, vitals, .. } = self;
        drop((writer, links));
        // The lock stays for as long as this process does.
        let files: Vec<_> = files().into_iter().filter(|file| file != lock::FILE).collect();
        let mut failures = Vec::new();
        match leftovers::find(&pin_dir, &run_dir, &files).await {
            Ok(found) => {
                for leftover in found {
                    if let Err(failure) = leftover.remove().await {
                        failures.push(with_causes(&failure));
                    }
                }
            }
            Err(failure) => failures.push(with_causes(&failure)),
        }
        let is_clean = failures.is_empty();
        let note = if is_clean {
            note
        } else {
            format!("not all could be removed: {}; {note}", failures.join("; "))
        };
        let is_warning = !is_clean || !outlived.flows.is_empty() || outlived.uncounted.is_some();
        if is_warning {
            warn!("{note}");
        } else {
            info!("{note}");
        }
        let reason = if is_clean { "Uninstalled" } else { "UninstallFailed" };
        board.report(Report { reason, is_warning, note, uninstall: id });
        // The probes are still answered.
        let mut pulse = time::interval(PULSE);
        let ended = loop {
            vitals.turn();
            select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                Some(told) = events.recv() => if takes_it_back(&told.event) {
                    break Err(anyhow::anyhow!("no longer to leave this node; ending, so that a new start serves again"));
                },
                _ = pulse.tick() => {}
                ended = &mut source => break ended?.and_then(|()| anyhow::bail!("the source has ended")),
            }
        };
        // Nothing but an empty directory is lost if they stay.
        drop(fs::remove_file(run_dir.join(lock::FILE)));
        drop(fs::remove_dir(&run_dir));
        drop(locks);
        ended
    }
}

impl Outlived {
    /// What the node reports.
    fn note(&self, service_of: impl Fn(IpAddr) -> Option<String> + Copy) -> String {
        let version = env!("CARGO_PKG_VERSION");
        if let Some(why) = &self.uncounted {
            return format!(
                "mcs-proxy {version} has left; whether connections outlived the drain cannot be told: {why}"
            );
        }
        let count = self.flows.len();
        let names: Vec<_> = self.flows.iter().take(NAMED).map(|flow| named(flow, service_of)).collect();
        let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
        match count {
            0 => format!("mcs-proxy {version} has left; no connection outlived the drain"),
            1 => {
                format!("mcs-proxy {version} has left; a connection outlived the drain: {}", names.join(", "))
            }
            _ => format!(
                "mcs-proxy {version} has left; {count} connections outlived the drain: {}{more}",
                names.join(", ")
            ),
        }
    }
}

fn named(flow: &OpenFlow, service_of: impl Fn(IpAddr) -> Option<String>) -> String {
    let service = service_of(flow.vip.ip()).map_or_else(String::new, |service| format!(" ({service})"));
    format!("{} {} to {}{service}", catalog::protocol_name(flow.protocol), flow.client, flow.vip)
}

/// What ours have open, and what those of other layouts have that come to their end behind them.
fn of_every_layout(pin_dir: &PinDir) -> anyhow::Result<Vec<OpenFlow>> {
    let mut open = open_flows(pin_dir)?;
    for layout in layouts::others(pin_dir)? {
        open.extend(layout.open_flows()?);
    }
    open.sort_unstable();
    Ok(open)
}

/// The ConfigMap is there, and says nothing of leaving. (That it is gone says nothing: it goes with all the rest.)
fn takes_it_back(event: &Event) -> bool {
    let is = |object: &Object| matches!(object, Object::Settings(settings) if settings.settings.uninstall.is_none());
    match event {
        Event::Applied(object) => is(object),
        Event::Replaced(_, objects) => objects.iter().any(is),
        Event::Deleted(..) | Event::Problem(_) | Event::Mended(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcs_proxy_ebpf::abi::Protocol;

    fn note(flows: u16, uncounted: Option<&str>) -> String {
        let flow = |port| OpenFlow {
            protocol: Protocol::Tcp,
            client: ([10, 12, 0, 9], port).into(),
            vip: ([10, 13, 0, 1], 80).into(),
        };
        let order = Uninstall { id: "1".into(), drain: Duration::ZERO, mode: None };
        let flows = (1..=flows).map(flow).collect();
        Outlived { order, flows, uncounted: uncounted.map(str::to_owned) }
            .note(|_| Some("default/serve".into()))
    }

    #[test]
    fn what_outlived_the_drain_is_counted_and_named_and_no_claim_is_made_of_what_could_not_be_read() {
        assert!(note(0, None).ends_with("no connection outlived the drain"));
        assert!(
            note(1, None).ends_with(
                "a connection outlived the drain: TCP 10.12.0.9:1 to 10.13.0.1:80 (default/serve)"
            )
        );
        let many = note(10, None);
        assert!(many.contains("10 connections outlived the drain: TCP 10.12.0.9:1 to"), "{many}");
        assert!(many.ends_with(" and 2 more"), "{many}");
        let unknown = note(0, Some("map `flows`: no memory"));
        assert!(unknown.ends_with("cannot be told: map `flows`: no memory"), "{unknown}");
    }
}
