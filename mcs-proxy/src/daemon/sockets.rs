//! The socket path of this node, or what is said in its place.

use super::{Daemon, RETRY_DELAY};
use crate::{
    config::Run,
    dataplane::{
        loader::Programs,
        pins::PinDir,
        sockets::{SocketsError, attach, detach, has_all, judge},
    },
    observe::{vitals::SocketFacts, with_causes},
};
use mcs_proxy_ebpf::abi::SocketScope;
use std::time::Duration;
use tokio::time;
use tracing::{debug, info, warn};

/// A program that the kernel refuses for good is not to be loaded every second.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(300);

/// When that which may pass is tried again, and how long after the last time: twice as long every time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    at: time::Instant,
    delay: Duration,
}

impl Again {
    fn after(delay: Duration) -> Self {
        Self { at: time::Instant::now() + delay, delay }
    }

    pub(super) const fn at(self) -> time::Instant {
        self.at
    }
}

/// Without a socket path, host-network processes are left to what is beneath us, and pods to the packet path.
pub(super) fn serve(programs: &mut Programs, pins: &PinDir, run: &Run) -> (SocketFacts, Option<Again>) {
    let facts = attempt(programs, pins, run);
    warn_of(&facts);
    let again = matches!(facts, SocketFacts::Delayed { .. }).then(|| Again::after(RETRY_DELAY));
    (facts, again)
}

impl Daemon {
    pub(super) fn serve_sockets(&mut self) {
        (self.sockets, self.sockets_again) = serve(self.links.programs(), &self.pin_dir, &self.run);
    }

    /// After a failure that was told.
    pub(super) fn serve_sockets_again(&mut self) {
        let Some(again) = self.sockets_again.take().filter(|_| !self.bypassed) else { return };
        self.sockets = attempt(self.links.programs(), &self.pin_dir, &self.run);
        match &self.sockets {
            SocketFacts::Off => {}
            SocketFacts::Served { .. } => info!("sockets are translated by this daemon's programs now"),
            SocketFacts::Failed(_) => warn_of(&self.sockets),
            SocketFacts::Delayed { why, .. } => {
                debug!("{why}");
                self.sockets_again = Some(Again::after((2 * again.delay).min(LONGEST_RETRY_DELAY)));
            }
        }
    }
}

/// What an earlier daemon has left goes on if what stands in the way may pass.
fn attempt(programs: &mut Programs, pins: &PinDir, run: &Run) -> SocketFacts {
    let served = match run.socket_path.scope() {
        None => detach(pins).map(|()| SocketFacts::Off),
        Some(scope) => serve_in(programs, pins, run, scope),
    };
    served.unwrap_or_else(|failure| {
        let why = with_causes(&failure);
        if !failure.may_pass() {
            // What is at another cgroup goes as well.
            take_off(pins);
            return SocketFacts::Failed(why);
        }
        let meanwhile = if has_all(pins) {
            "an earlier daemon's programs translate sockets"
        } else {
            "sockets are not translated, only packets"
        };
        SocketFacts::Delayed { why, meanwhile }
    })
}

fn warn_of(facts: &SocketFacts) {
    match facts {
        SocketFacts::Off | SocketFacts::Served { .. } => {}
        SocketFacts::Delayed { why, meanwhile } => warn!("{why}; until that ends {meanwhile}"),
        SocketFacts::Failed(why) => {
            warn!("{why}; sockets are not translated (--socket-path off), only packets");
        }
    }
}

fn serve_in(
    programs: &mut Programs,
    pins: &PinDir,
    run: &Run,
    scope: SocketScope,
) -> Result<SocketFacts, SocketsError> {
    let place = judge(run.cgroup.as_deref())?;
    attach(programs, pins, &place)?;
    if let Some(remark) = place.remark(scope) {
        warn!("{remark}");
    }
    let whose = match scope {
        SocketScope::Host => "host",
        SocketScope::All => "all",
    };
    Ok(SocketFacts::Served { whose, cgroup: place.cgroup.display().to_string() })
}

pub(super) fn take_off(pins: &PinDir) {
    if let Err(failure) = detach(pins) {
        warn!("{}", with_causes(&failure));
    }
}
