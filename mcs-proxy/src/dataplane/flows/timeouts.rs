use super::TickRate;
use mcs_proxy_ebpf::abi::{FlowState, Protocol, Silences};
use std::time::Duration;

/// How long a flow may be silent before it is forgotten. The defaults are those of netfilter
/// (`nf_conntrack_tcp_timeout_*`, `nf_conntrack_udp_timeout*`, `nf_conntrack_sctp_timeout_*`), which kube-proxy's
/// connections have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: the backend has not answered.
    pub tcp_syn_sent: Duration,
    /// TCP: the client has not confirmed the answer.
    pub tcp_syn_received: Duration,
    pub tcp_established: Duration,
    /// TCP: one side has sent a FIN.
    pub tcp_half_closed: Duration,
    /// TCP: both have, or one has reset the connection.
    pub tcp_closed: Duration,
    /// UDP, without an answer or not yet established.
    pub udp: Duration,
    /// UDP with traffic both ways for a while.
    pub udp_stream: Duration,
    /// SCTP: the backend has not answered the INIT.
    pub sctp_cookie_wait: Duration,
    /// SCTP: the client has not sent its COOKIE ECHO.
    pub sctp_cookie_echoed: Duration,
    /// SCTP: confirmed by the client. Heartbeats, every 30 s (RFC 9260, section 16), keep it open.
    pub sctp_established: Duration,
    /// SCTP: aborted, or its shutdown is complete.
    pub sctp_closed: Duration,
}

impl Timeouts {
    pub const DEFAULT: Self = Self {
        tcp_syn_sent: Duration::from_secs(120),
        tcp_syn_received: Duration::from_secs(60),
        tcp_established: Duration::from_secs(5 * 86_400),
        tcp_half_closed: Duration::from_secs(120),
        tcp_closed: Duration::from_secs(120),
        udp: Duration::from_secs(30),
        udp_stream: Duration::from_secs(120),
        sctp_cookie_wait: Duration::from_secs(3),
        sctp_cookie_echoed: Duration::from_secs(3),
        sctp_established: Duration::from_secs(210),
        sctp_closed: Duration::from_secs(10),
    };

    /// Those of established flows, in the programs' unit.
    #[must_use]
    pub fn silences(&self, rate: TickRate) -> Silences {
        Silences {
            tcp_established: rate.ticks(self.tcp_established),
            tcp_half_closed: rate.ticks(self.tcp_half_closed),
            tcp_closed: rate.ticks(self.tcp_closed),
            udp_stream: rate.ticks(self.udp_stream),
            sctp_established: rate.ticks(self.sctp_established),
            sctp_closed: rate.ticks(self.sctp_closed),
        }
    }

    #[must_use]
    pub const fn of(&self, protocol: Option<Protocol>, state: FlowState) -> Duration {
        match protocol {
            Some(Protocol::Tcp) => {
                if state.is_closed() {
                    self.tcp_closed
                } else if state.is_half_closed() {
                    self.tcp_half_closed
                } else if state.has(FlowState::ESTABLISHED) {
                    self.tcp_established
                } else if state.has(FlowState::ANSWERED) {
                    self.tcp_syn_received
                } else {
                    self.tcp_syn_sent
                }
            }
            Some(Protocol::Sctp) => {
                if state.is_closed() {
                    self.sctp_closed
                } else if state.has(FlowState::ESTABLISHED) {
                    self.sctp_established
                } else if state.has(FlowState::ANSWERED) {
                    self.sctp_cookie_echoed
                } else {
                    self.sctp_cookie_wait
                }
            }
            Some(Protocol::Udp) | None => {
                if state.has(FlowState::ESTABLISHED) {
                    self.udp_stream
                } else {
                    self.udp
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_allowed_by_protocol_and_state() {
        const ANSWERED: FlowState = FlowState::ANSWERED;
        const ESTABLISHED: FlowState = ANSWERED.with(FlowState::ESTABLISHED);
        const HALF: FlowState = ESTABLISHED.with(FlowState::CLIENT_FIN);
        for (protocol, state, seconds) in [
            (Some(Protocol::Tcp), FlowState::NEW, 120),
            (Some(Protocol::Tcp), ANSWERED, 60),
            (Some(Protocol::Tcp), ESTABLISHED, 432_000),
            (Some(Protocol::Tcp), HALF, 120),
            (Some(Protocol::Tcp), HALF.with(FlowState::BACKEND_FIN), 120),
            (Some(Protocol::Tcp), ANSWERED.with(FlowState::RESET), 120),
            (Some(Protocol::Udp), FlowState::NEW, 30),
            (Some(Protocol::Udp), ANSWERED, 30),
            (Some(Protocol::Udp), ESTABLISHED, 120),
            (Some(Protocol::Sctp), FlowState::NEW, 3),
            (Some(Protocol::Sctp), ANSWERED, 3),
            (Some(Protocol::Sctp), ESTABLISHED, 210),
            (Some(Protocol::Sctp), ESTABLISHED.with(FlowState::RESET), 10),
            (None, ESTABLISHED, 120),
            (None, FlowState::NEW, 30),
        ] {
            let timeout = Timeouts::DEFAULT.of(protocol, state);
            assert_eq!(timeout, Duration::from_secs(seconds), "{protocol:?} {state:?}");
        }
    }
}
