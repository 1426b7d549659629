//! Connections that are open.

use super::{Clock, FlowsError};
use crate::dataplane::pins::{PinDir, Pins};
use mcs_proxy_ebpf::abi::{FlowState, Protocol};
use std::{net::SocketAddr, time::Duration};

/// A datagram's sender that has been silent for so long waits for nothing.
const RECENT: Duration = Duration::from_secs(10);

/// Someone would notice if it were not translated any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenFlow {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub vip: SocketAddr,
}

/// Every connection that was answered and not closed; of datagrams, conversations that go on.
pub fn open_flows(dir: &PinDir) -> Result<Vec<OpenFlow>, FlowsError> {
    let clock = Clock::open(dir)?;
    let now = clock.now()?;
    let mut open = Vec::new();
    Pins::open(dir)?.for_each_flow(|tuple, flow| {
        if let Some(protocol) = Protocol::from_number(flow.protocol)
            && is_open(protocol, flow.state, clock.rate().age(now, flow.last_seen))
        {
            open.push(OpenFlow {
                protocol,
                client: SocketAddr::new(tuple.client.to_ip(), flow.client_port.get()),
                vip: SocketAddr::new(flow.vip.to_ip(), tuple.peer_port.get()),
            });
        }
    })?;
    open.sort_unstable();
    Ok(open)
}

fn is_open(protocol: Protocol, state: FlowState, silence: Duration) -> bool {
    match protocol {
        Protocol::Udp => state.has(FlowState::ESTABLISHED) && silence < RECENT,
        Protocol::Tcp | Protocol::Sctp => state.has(FlowState::ANSWERED) && !state.is_closed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_miss_is_not_open() {
        let second = Duration::from_secs(1);
        let answered = FlowState::NEW.with(FlowState::ANSWERED);
        let established = answered.with(FlowState::ESTABLISHED);
        let closed = established.with(FlowState::CLIENT_FIN).with(FlowState::BACKEND_FIN);
        for (protocol, state, silence, open) in [
            (Protocol::Tcp, FlowState::NEW, second, false),
            (Protocol::Tcp, answered, second, true),
            (Protocol::Tcp, established, 3600 * second, true),
            (Protocol::Tcp, established.with(FlowState::CLIENT_FIN), second, true),
            (Protocol::Tcp, closed, second, false),
            (Protocol::Tcp, established.with(FlowState::RESET), second, false),
            (Protocol::Udp, answered, second, false),
            (Protocol::Udp, established, second, true),
            (Protocol::Udp, established, 11 * second, false),
        ] {
            assert_eq!(is_open(protocol, state, silence), open, "{protocol:?} {state:?} {silence:?}");
        }
    }
}
