//! Frontends in a ring, each with the next one's address as its only backend, in random order.
//!
//! BPF_PROG_TEST_RUN repeats a program on one packet, and on what the program makes of it. A packet to one frontend of
//! the ring becomes a packet to the next, so that every repetition looks up another flow, frontend and backend:
//! random keys at the speed of repetition, without a system call between them.

use crate::programs::{Frontend, Programs};
use mcs_proxy_ebpf::{
    abi::{Address, Algorithm, Flow, FlowState, MapName, Port, Reply, Tuple},
    transition::{reply_key_of, reply_of},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) const TCP: u8 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Address `number` of network `network`.
    fn address(self, network: u8, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from((u32::from(network) << 24) | number).into(),
            Self::V6 => {
                Ipv6Addr::from((0xfd00_u128 << 112) | (u128::from(network) << 64) | u128::from(number)).into()
            }
        }
    }

    pub(crate) fn client(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(11, 9), port)
    }

    /// Nobody of ours.
    pub(crate) fn stranger(self, number: u32) -> SocketAddr {
        SocketAddr::new(self.address(100, number), 80)
    }

    fn frontend(self, number: u32) -> SocketAddr {
        SocketAddr::new(self.address(10, number), 80)
    }
}

pub(crate) struct Chain {
    family: Family,
    /// Numbers of the frontends in the order of the ring.
    ring: Vec<u32>,
}

impl Chain {
    /// Enters the frontends.
    pub(crate) fn new(programs: &mut Programs, family: Family, length: u32) -> Self {
        let mut ring: Vec<u32> = (0..length).collect();
        Random::new().shuffle(&mut ring);
        let chain = Self { family, ring };
        for (number, (vip, backend)) in chain.links().enumerate() {
            let slots = [(backend, number as u32 + 1)];
            let algorithm = Algorithm::RoundRobin;
            programs.add(&Frontend { vip, protocol: TCP, algorithm, affinity_seconds: 0, slots: &slots });
        }
        chain
    }

    pub(crate) const fn len(&self) -> u32 {
        self.ring.len() as u32
    }

    pub(crate) fn first(&self) -> SocketAddr {
        self.family.frontend(self.ring[0])
    }

    /// Each frontend with its backend, which is the next frontend.
    fn links(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let next = self.ring.iter().cycle().skip(1);
        self.ring
            .iter()
            .zip(next)
            .map(|(own, next)| (self.family.frontend(*own), self.family.frontend(*next)))
    }

    /// Enters an established flow of the client's to every frontend, in another order than that of the ring.
    pub(crate) fn establish(&self, programs: &mut Programs, client: SocketAddr, now: u32) {
        let mut pairs: Vec<_> =
            self.links().zip(1..).map(|((vip, backend), id)| pair(client, vip, backend, id, now)).collect();
        Random::new().shuffle(&mut pairs);
        let mut flows = programs.hash::<Tuple, Flow>(MapName::Flows);
        for (key, flow, _, _) in &pairs {
            flows.insert(key, flow, 0).unwrap();
        }
        let mut replies = programs.hash::<Tuple, Reply>(MapName::Replies);
        for (_, _, key, reply) in &pairs {
            replies.insert(key, reply, 0).unwrap();
        }
    }
}

/// Both halves of an established flow with their keys. `id` is that of the backend and of the service.
fn pair(
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
    id: u32,
    now: u32,
) -> (Tuple, Flow, Tuple, Reply) {
    let address = |of: SocketAddr| (Address::from(of.ip()), Port::new(of.port()));
    let ((vip, vip_port), (backend, backend_port), (client, client_port)) =
        (address(vip), address(backend), address(client));
    let interface = crate::programs::POD;
    let flow = Flow {
        backend,
        vip,
        backend_port,
        wire_port: client_port,
        client_port,
        protocol: TCP,
        state: FlowState::ANSWERED.with(FlowState::ESTABLISHED),
        backend_id: id,
        generation: 1,
        interface,
        isn: 1,
        service: id,
        last_seen: now,
    };
    let key = Tuple::new(client, client_port, vip, vip_port, TCP);
    (key, flow, reply_key_of(&key, &flow), reply_of(&key, &flow))
}

/// The same numbers in every run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) const fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((random * bound as u64) >> 32) as u32
    }
    fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}
