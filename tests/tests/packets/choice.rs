//! Which backend a new flow gets: affinity, Maglev, and turns that nothing but a new flow takes.

use crate::{
    Net, TCP, UDP, assert_comes_from, assert_goes_to, nets, opening,
    programs::{Frontend, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::{Algorithm, BackendState, Liveness, Verdict};
use std::net::SocketAddr;

/// In these tests a tick is a second.
const TIMEOUT: u32 = 60;
const SHORT: u32 = 9;

fn slots(net: &Net) -> [(SocketAddr, u32); 2] {
    [(net.backends[0], 1), (net.backends[1], 2)]
}

/// Both families, both protocols; a frontend in round robin with affinity.
fn each_affine(check: impl Fn(Net, u8, &mut Programs)) {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            programs.add(&affine(&net, protocol, TIMEOUT, &slots(&net)));
            check(net, protocol, &mut programs);
        }
    }
}

fn affine<'a>(
    net: &Net,
    protocol: u8,
    affinity_seconds: u32,
    slots: &'a [(SocketAddr, u32)],
) -> Frontend<'a> {
    Frontend { affinity_seconds, ..round_robin(net, protocol, slots) }
}

/// A new flow of the client, from this port.
#[track_caller]
fn assert_new(programs: &mut Programs, net: &Net, protocol: u8, port: u16, backend: usize) {
    let first = opening(protocol, with_port(net.client, port), net.vip, 1);
    assert_goes_to(programs, &first, net.backends[backend], Verdict::NewFlow);
    assert_comes_from(programs, &first.answer(net.backends[backend], "SA"), net.vip);
}

/// Another client of the same family.
fn neighbour(net: &Net) -> Net {
    Net { client: with_port(net.stranger, net.client.port()), ..*net }
}

/// Where a client's new flow goes, whatever the backend.
fn target(programs: &mut Programs, segment: &Segment) -> SocketAddr {
    let outcome = programs.from_pod(&segment.bytes());
    assert_eq!(outcome.verdict, Verdict::NewFlow);
    Segment::parse(&outcome.bytes).to
}

#[test]
fn with_affinity_a_clients_flows_stay_together_and_take_one_turn() {
    each_affine(|net, protocol, programs| {
        for port in 1..=20 {
            assert_new(programs, &net, protocol, port, 0);
        }
        for port in 1..=20 {
            assert_new(programs, &neighbour(&net), protocol, port, 1);
        }
        assert_new(programs, &net, protocol, 30, 0);
        assert_eq!([1, 2].map(|backend| programs.backend_counters(backend).flows), [21, 20]);
    });
}

#[test]
fn affinity_ends_after_its_timeout_and_every_new_flow_renews_it() {
    let net = nets()[0];
    let mut programs = Programs::load();
    programs.add(&affine(&net, TCP, SHORT, &slots(&net)));
    assert_new(&mut programs, &net, TCP, 1, 0);
    for port in 2..=4 {
        // Together longer than the timeout.
        programs.wait_ticks(SHORT * 2 / 3);
        assert_new(&mut programs, &net, TCP, port, 0);
    }
    // Packets of flows that are there already renew nothing.
    programs.wait_ticks(SHORT * 2 / 3);
    let ack = Segment::tcp(with_port(net.client, 4), net.vip, "A", 2);
    assert_goes_to(&mut programs, &ack, net.backends[0], Verdict::Forwarded);
    programs.wait_ticks(SHORT * 2 / 3);
    assert_new(&mut programs, &net, TCP, 5, 1);
    assert_new(&mut programs, &net, TCP, 6, 1);
}

#[test]
fn affinity_follows_only_a_backend_that_is_live_and_the_same() {
    for state in [
        BackendState::new(1, Liveness::Serving),
        BackendState::new(1, Liveness::Gone),
        BackendState::new(2, Liveness::Live),
    ] {
        each_affine(|net, protocol, programs| {
            assert_new(programs, &net, protocol, 1, 0);
            let other = [(net.backends[1], 2)];
            let extent = programs.write_extent(1, &affine(&net, protocol, TIMEOUT, &other));
            programs.publish(1, extent);
            programs.set_backend(1, state);
            assert_new(programs, &net, protocol, 2, 1);
            // And stays there when the first comes back.
            let extent = programs.write_extent(1, &affine(&net, protocol, TIMEOUT, &slots(&net)));
            programs.publish(1, extent);
            for port in 3..=6 {
                assert_new(programs, &net, protocol, port, 1);
            }
        });
    }
}

#[test]
fn affinity_is_switched_on_off_and_changed_under_traffic_for_new_flows_alone() {
    each_affine(|net, protocol, programs| {
        let switch = |programs: &mut Programs, seconds| {
            let extent = programs.write_extent(1, &affine(&net, protocol, seconds, &slots(&net)));
            programs.publish(1, extent);
        };
        switch(programs, 0);
        for (port, backend) in [(1, 0), (2, 1), (3, 0)] {
            assert_new(programs, &net, protocol, port, backend);
        }
        switch(programs, TIMEOUT);
        for port in 4..=6 {
            assert_new(programs, &net, protocol, port, 1);
        }
        // What was there before stays where it is.
        let old = Segment::udp(with_port(net.client, 1), net.vip);
        let old = if protocol == TCP { Segment::tcp(old.from, net.vip, "A", 2) } else { old };
        assert_goes_to(programs, &old, net.backends[0], Verdict::Forwarded);
        switch(programs, 0);
        for (port, backend) in [(7, 0), (8, 1)] {
            assert_new(programs, &net, protocol, port, backend);
        }
        switch(programs, 1);
        programs.wait_ticks(3);
        assert_new(programs, &net, protocol, 9, 0);
    });
}

#[test]
fn affinity_of_one_frontend_says_nothing_about_another() {
    each_affine(|net, protocol, programs| {
        let second = Net { vip: with_port(net.vip, 81), ..net };
        let moved = [(with_port(net.backends[0], 81), 3), (with_port(net.backends[1], 81), 4)];
        programs.add(&affine(&second, protocol, TIMEOUT, &moved));
        assert_new(programs, &net, protocol, 1, 0);
        let first = opening(protocol, with_port(net.client, 2), second.vip, 1);
        assert_goes_to(programs, &first, moved[0].0, Verdict::NewFlow);
        assert_new(programs, &net, protocol, 3, 0);
    });
}

#[test]
fn an_affinity_entry_that_does_not_fit_its_seal_is_none() {
    each_affine(|net, protocol, programs| {
        assert_new(programs, &net, protocol, 1, 0);
        assert_new(programs, &net, protocol, 2, 0);
        programs.tear_affinity();
        assert_new(programs, &net, protocol, 3, 1);
        assert_new(programs, &net, protocol, 4, 1);
    });
}

#[test]
fn maglev_depends_on_the_flow_and_on_nothing_else() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let maglev = || {
                let mut programs = Programs::load();
                let slots = slots(&net);
                programs
                    .add(&Frontend { algorithm: Algorithm::Maglev, ..round_robin(&net, protocol, &slots) });
                programs
            };
            let (mut node, mut other) = (maglev(), maglev());
            // The other node has seen other flows before.
            for port in 30_000..30_007 {
                target(&mut other, &opening(protocol, with_port(net.client, port), net.vip, 1));
            }
            let mut flows = [0; 2];
            for port in 1..=200 {
                let first = opening(protocol, with_port(net.client, port), net.vip, u32::from(port));
                let to = target(&mut node, &first);
                assert_eq!(target(&mut other, &first), to);
                flows[usize::from(to == net.backends[1])] += 1;
            }
            // One in 10^11 hashes has fewer than 55 of 200 on one side.
            assert!(flows.iter().all(|count| *count > 55), "{flows:?}");
        }
    }
}

#[test]
fn a_probes_slot_is_taken_by_one_flow_alone_and_by_no_client_whose_affinity_holds() {
    for net in nets() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::Maglev] {
            let mut programs = Programs::load();
            let slots = [(net.backends[0], 1)];
            let frontend = Frontend { algorithm, ..affine(&net, TCP, TIMEOUT, &slots) };
            programs.add(&frontend);
            assert_new(&mut programs, &net, TCP, 1, 0);
            let extent = programs.write_extent(1, &frontend);
            programs.write_probe(extent, (net.backends[1], 2));
            programs.publish(1, extent);
            // Its last flow was answered where it went.
            assert_new(&mut programs, &net, TCP, 2, 0);

            let other = neighbour(&net);
            let probe = opening(TCP, with_port(other.client, 1), net.vip, 1);
            assert_goes_to(&mut programs, &probe, net.backends[1], Verdict::NewFlow);
            assert_goes_to(&mut programs, &probe, net.backends[1], Verdict::Forwarded);
            // Nor does affinity keep whoever made the probe there.
            for port in 2..=20 {
                assert_new(&mut programs, &other, TCP, port, 0);
            }
            assert_eq!([1, 2].map(|backend| programs.backend_counters(backend).flows), [21, 1]);
        }
    }
}
