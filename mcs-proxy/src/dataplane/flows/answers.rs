//! Whether answers come by our hooks at all.
//!
//! A neighbour that redirects to the pod's end of a veth (Cilium, Calico's eBPF dataplane), or ends the hook's chain before
//! us, delivers answers that our program on the way to the pod never sees. The pod then gets them from an address that
//! it never called, and none of its connections comes about. What shows is SYNs without a reply, on that interface, all of
//! them. So it shows if a backend is dead; hence the second sign: such a backend answers elsewhere, or it is not only one.

use mcs_proxy_ebpf::abi::{Address, Flow, FlowState, Port, Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Fewer unanswered connections say nothing.
const CONNECTIONS: usize = 3;
/// A SYN that is younger may still be answered: this is when it is sent again (RFC 6298).
const PATIENCE: Duration = Duration::from_secs(1);
/// A flow that is older tells of another time: unanswered ones are not kept for longer either.
const WINDOW: Duration = Duration::from_secs(120);

type Backend = (Address, Port);

/// What a scan of the flows saw of answers, by interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    interfaces: BTreeMap<u32, Seen>,
    /// Backends that have answered somebody.
    answering: BTreeSet<Backend>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    answered: bool,
    unanswered: usize,
    /// Which have not answered.
    backends: BTreeSet<Backend>,
}

/// An interface on which no answer has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Connections without an answer.
    pub connections: usize,
    /// How many backends they were for.
    pub backends: usize,
    /// Some of these backends have answered on other interfaces.
    pub answer_elsewhere: bool,
}

impl Answers {
    /// Takes in a flow that had its last packet so long ago.
    pub fn note(&mut self, flow: &Flow, age: Duration) {
        if flow.protocol != Protocol::Tcp.number() || age > WINDOW {
            return;
        }
        let backend = (flow.backend, flow.backend_port);
        let seen = self.interfaces.entry(flow.interface).or_default();
        if flow.state.has(FlowState::ANSWERED) {
            seen.answered = true;
            self.answering.insert(backend);
        } else if age > PATIENCE {
            seen.unanswered += 1;
            seen.backends.insert(backend);
        }
    }

    /// The interfaces that no answer has shown on though some should have.
    #[must_use]
    pub fn silences(&self) -> BTreeMap<u32, Silence> {
        let silence = |(&interface, seen): (&u32, &Seen)| {
            let answer_elsewhere = !seen.backends.is_disjoint(&self.answering);
            let is_silent = !seen.answered
                && seen.unanswered >= CONNECTIONS
                && (answer_elsewhere || seen.backends.len() > 1);
            let (connections, backends) = (seen.unanswered, seen.backends.len());
            is_silent.then_some((interface, Silence { connections, backends, answer_elsewhere }))
        };
        self.interfaces.iter().filter_map(silence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn flow(interface: u32, backend: u8, state: FlowState) -> Flow {
        let address = |last| Address::from(IpAddr::from(Ipv4Addr::new(10, 10, 0, last)));
        Flow {
            backend: address(backend),
            vip: address(200),
            backend_port: Port::new(8080),
            wire_port: Port::new(40_000),
            client_port: Port::new(40_000),
            protocol: Protocol::Tcp.number(),
            state,
            backend_id: 1,
            generation: 1,
            interface,
            isn: 1,
            service: 1,
            last_seen: 0,
        }
    }

    const LONG_AGO: Duration = Duration::from_secs(7);

    fn silent(flows: &[(Flow, Duration)]) -> BTreeMap<u32, Silence> {
        let mut answers = Answers::default();
        flows.iter().for_each(|(flow, age)| answers.note(flow, *age));
        answers.silences()
    }

    #[test]
    fn an_interface_is_silent_where_others_are_answered_by_the_same_backend() {
        let mut flows = vec![(flow(1, 6, FlowState::NEW), LONG_AGO); 3];
        assert_eq!(silent(&flows), BTreeMap::new(), "the backend may be dead");
        flows.push((flow(2, 6, FlowState::NEW.with(FlowState::ANSWERED)), LONG_AGO));
        let expected = Silence { connections: 3, backends: 1, answer_elsewhere: true };
        assert_eq!(silent(&flows), BTreeMap::from([(1, expected)]));
        flows.remove(0);
        assert_eq!(silent(&flows), BTreeMap::new(), "two may be chance");
    }

    #[test]
    fn an_interface_is_silent_if_several_backends_do_not_answer() {
        let flows = [6, 6, 7].map(|backend| (flow(1, backend, FlowState::NEW), LONG_AGO));
        let expected = Silence { connections: 3, backends: 2, answer_elsewhere: false };
        assert_eq!(silent(&flows), BTreeMap::from([(1, expected)]));
    }

    #[test]
    fn one_answer_ends_the_silence_unless_it_is_old() {
        let unanswered = [6, 6, 7].map(|backend| (flow(1, backend, FlowState::NEW), LONG_AGO));
        for (age, is_silent) in [(LONG_AGO, false), (WINDOW + LONG_AGO, true)] {
            let answered = flow(1, 8, FlowState::ANSWERED.with(FlowState::ESTABLISHED));
            let flows = [unanswered.to_vec(), vec![(answered, age)]].concat();
            assert_eq!(!silent(&flows).is_empty(), is_silent, "{age:?}");
        }
    }

    #[test]
    fn fresh_connections_and_datagrams_say_nothing() {
        let fresh = [6, 6, 7].map(|backend| (flow(1, backend, FlowState::NEW), PATIENCE));
        assert_eq!(silent(&fresh), BTreeMap::new());
        let datagrams = [6, 6, 7].map(|backend| {
            let protocol = Protocol::Udp.number();
            (Flow { protocol, ..flow(1, backend, FlowState::NEW) }, LONG_AGO)
        });
        assert_eq!(silent(&datagrams), BTreeMap::new());
    }
}
