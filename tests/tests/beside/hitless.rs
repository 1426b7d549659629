//! Opting in and out: whoever began a connection finishes it, and nobody notices.

use crate::{
    in_both_modes,
    load::Load,
    stage::{Stage, vips},
    witness::Witness,
};
use anyhow::Result;
use mcs_proxy_tests::{
    ProxyMode, ServiceRow,
    client::{self, Connection},
};
use std::net::SocketAddr;

const CYCLES: u32 = 10;
/// Above those that Linux gives out by itself.
const PORT: u16 = 60_999;
/// More than a socket keeps for whoever does not read.
const LARGE: usize = 16 << 20;
/// Streams of each family from the beginning; each half cycle adds one more.
const STREAMS: u32 = 8;

in_both_modes! {
    finishing: connections_finish_as_they_began_beside_nftables, connections_finish_as_they_began_beside_iptables;
    datagrams: datagrams_move_at_once_beside_nftables, datagrams_move_at_once_beside_iptables;
    same_port: a_port_used_again_reaches_whoever_serves_now_beside_nftables, a_port_used_again_reaches_whoever_serves_now_beside_iptables;
    half_closed: connections_closed_by_one_side_finish_as_they_began_beside_nftables,
        connections_closed_by_one_side_finish_as_they_began_beside_iptables;
    under_load: ten_times_in_and_out_under_load_beside_nftables, ten_times_in_and_out_under_load_beside_iptables;
}

fn flows(rows: &[ServiceRow], protocol: &str) -> u64 {
    rows.iter().filter(|row| row.protocol == protocol).map(|row| row.flows).sum()
}

fn finishing(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let open = |number: usize| {
        let all = vips().into_iter().flat_map(|vip| std::iter::repeat_n(vip, number));
        all.map(|vip| Connection::open(&stage.client.namespace, vip)).collect::<Result<Vec<_>>>()
    };
    let ask = |all: &mut Vec<Connection>| all.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>();

    let mut theirs = open(4)?;
    let their_pods = ask(&mut theirs)?;
    assert_eq!(witness.passed()?.syns, 8);

    stage.opt_in(&mut daemon)?;
    assert_eq!(ask(&mut theirs)?, their_pods);
    let mut ours = open(4)?;
    let our_pods = ask(&mut ours)?;
    assert_eq!(flows(&daemon.services()?, "TCP"), 8);
    assert_eq!(ask(&mut theirs)?, their_pods);
    assert_eq!(witness.passed()?.syns, 8);

    stage.opt_out(&mut daemon)?;
    let mut last = open(2)?;
    let last_pods = ask(&mut last)?;
    assert_eq!(witness.passed()?.syns, 12);
    assert_eq!(ask(&mut ours)?, our_pods);
    assert_eq!(ask(&mut theirs)?, their_pods);

    stage.opt_in(&mut daemon)?;
    for (connections, pods) in [(&mut last, last_pods), (&mut ours, our_pods), (&mut theirs, their_pods)] {
        assert_eq!(ask(connections)?, pods);
    }
    assert_eq!(flows(&daemon.services()?, "TCP"), 0);
    Ok(())
}

/// What a client has asked for still comes when it has nothing more to say, whoever serves others meanwhile.
fn half_closed(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    let ask = || -> Result<Vec<Connection>> {
        let open = |vip| {
            let mut connection = Connection::open(&stage.client.namespace, vip)?;
            connection.ask_last(LARGE)?;
            Ok(connection)
        };
        vips().into_iter().map(open).collect()
    };
    let heard = |connections: Vec<Connection>| -> Result<()> {
        connections.into_iter().try_for_each(|mut connection| connection.hear(LARGE).map(drop))
    };
    let theirs = ask()?;
    stage.opt_in(&mut daemon)?;
    let ours = ask()?;
    heard(theirs)?;
    stage.opt_out(&mut daemon)?;
    let theirs = ask()?;
    heard(ours)?;
    heard(theirs)
}

fn datagrams(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let mut sockets = Vec::new();
    for vip in vips() {
        for _ in 0..4 {
            sockets.push((client::udp_socket(&stage.client.namespace, vip)?, vip));
        }
    }
    let ask = |words: &str| -> Result<()> {
        sockets.iter().try_for_each(|(socket, vip)| client::udp_ask(socket, *vip, words).map(drop))
    };
    ask("before")?;
    assert_eq!(witness.passed()?.datagrams, 8);
    for cycle in 1..=3 {
        stage.opt_in(&mut daemon)?;
        ask("ours")?;
        ask("ours again")?;
        assert_eq!(flows(&daemon.services()?, "UDP"), 8);
        assert_eq!(witness.passed()?.datagrams, 8 * cycle);

        stage.opt_out(&mut daemon)?;
        ask("theirs")?;
        assert_eq!(witness.passed()?.datagrams, 8 * (cycle + 1));
    }
    Ok(())
}

/// The pod closes first, so its end waits and the client's is free: a busy client comes by its ports again within seconds.
fn same_port(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let clients = stage.client.addresses.clone();
    let call = || -> Result<()> {
        for (vip, client) in vips().into_iter().zip(&clients) {
            // Both pods, and each again.
            for _ in 0..4 {
                client::http_from(&stage.client.namespace, SocketAddr::new(*client, PORT), vip)?;
            }
        }
        Ok(())
    };
    for cycle in 0..3 {
        call()?;
        assert_eq!(witness.passed()?.syns, 8 * (cycle + 1));
        stage.opt_in(&mut daemon)?;
        call()?;
        assert_eq!(flows(&daemon.services()?, "TCP"), 8);
        assert_eq!(witness.passed()?.syns, 8 * (cycle + 1));
        stage.opt_out(&mut daemon)?;
    }
    call()
}

fn under_load(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let mut load = Load::new(&stage.client.namespace);
    for vip in vips() {
        load.come_and_go(vip);
        for _ in 0..STREAMS {
            load.stream(vip)?;
        }
    }
    for _ in 0..CYCLES {
        stage.opt_in(&mut daemon)?;
        vips().into_iter().try_for_each(|vip| load.stream(vip))?;
        load.wait_for_rounds(3)?;
        // The two streams, and what came and went.
        assert!(flows(&daemon.services()?, "TCP") > 2);

        let before = witness.passed()?.syns;
        stage.opt_out(&mut daemon)?;
        vips().into_iter().try_for_each(|vip| load.stream(vip))?;
        load.wait_for_rounds(3)?;
        assert!(witness.passed()?.syns > before + 2);
    }
    // The streams that were opened while the Service was ours are still.
    assert!(daemon.connections()? >= 2 * CYCLES as usize);
    load.end()
}
