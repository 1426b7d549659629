//! The socket path of this node, or what is said in its place.

use crate::{
    config::Run,
    dataplane::{
        loader::Programs,
        pins::PinDir,
        sockets::{SocketsError, attach, detach, judge},
    },
    observe::{vitals::SocketFacts, with_causes},
};
use mcs_proxy_ebpf::abi::SocketScope;
use tracing::warn;

/// Without a socket path, host-network processes are left to what is beneath us, and pods to the packet path.
pub(super) fn serve(programs: &mut Programs, pins: &PinDir, run: &Run) -> SocketFacts {
    let served = match run.socket_path.scope() {
        None => detach(pins).map(|()| SocketFacts::Off),
        Some(scope) => serve_in(programs, pins, run, scope),
    };
    served.unwrap_or_else(|failure| {
        let failure = with_causes(&failure);
        warn!("{failure}; sockets are not translated (--socket-path off), only packets");
        // What an earlier daemon left at another cgroup goes as well.
        take_off(pins);
        SocketFacts::Failed(failure)
    })
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
