use super::{another, close_hole, open_hole, ports, stage, traffic::Traffic, wait_for_verdicts};
use crate::stage::{PODS, PODS_V6, v4, v6};
use anyhow::Result;
use mcs_proxy_tests::{
    POD_PORT,
    karmada::{Endpoint, Port, Slice},
};
use std::net::SocketAddr;

#[test]
fn the_last_cluster_that_could_take_the_flows_is_never_drained() -> Result<()> {
    let mut stage = stage(|service| service, &[])?;
    open_hole(&stage.pods[0])?;
    open_hole(&stage.pods[1])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    for cluster in ["member1", "member2"] {
        for family in ["IPv4", "IPv6"] {
            let words =
                format!("{cluster} over {family}: its new flows stay without an answer; no other cluster");
            stage.daemon.wait_for_warning(&words)?;
        }
        wait_for_verdicts(&mut stage, cluster, "used")?;
    }
    close_hole(&stage.pods[1])?;
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    wait_for_verdicts(&mut stage, "member2", "used")?;
    // And the other way round: who is left now fails, while the first is still drained.
    open_hole(&stage.pods[1])?;
    stage
        .daemon
        .wait_for_warning("member2 over IPv4: its new flows stay without an answer; no other cluster")?;
    wait_for_verdicts(&mut stage, "member2", "used")?;
    traffic.end()
}

#[test]
fn what_one_service_finds_out_counts_for_all_and_one_that_has_no_other_cluster_keeps_it() -> Result<()> {
    let mut stage = stage(|service| service, &[])?;
    let clusters = |name: &str, last: u8| another(name, last);
    let pod = |cluster: usize, address: &str| {
        Endpoint::new(address, ["member1-node-1", "member2-node-1"][cluster], "serve")
    };
    let to: Vec<Port> = ports().into_iter().map(|port| Port { port: POD_PORT, ..port }).collect();
    for (name, last) in [("quiet", 117), ("only", 118)] {
        stage.manifests.service(&clusters(name, last)?)?;
        for (cluster, addresses) in [(0, [PODS[0], PODS_V6[0]]), (1, [PODS[1], PODS_V6[1]])] {
            for (family, address) in ["v4", "v6"].into_iter().zip(addresses) {
                if name == "only" && cluster == 1 {
                    continue;
                }
                let provider = ["member1", "member2"][cluster];
                let slice = format!("{provider}-{name}-{family}");
                let slice = Slice::new(&slice, name, "member2", provider, &[pod(cluster, address)?]);
                stage.manifests.slice(&slice.with_ports(&to))?;
            }
        }
    }
    let is_there = |rows: &[mcs_proxy_tests::ServiceRow], name: &str, cluster: &str, verdict: &str| {
        let rows: Vec<_> = rows.iter().filter(|row| row.name == name).cloned().collect();
        let verdicts = super::verdicts(&rows, cluster);
        verdicts.len() == 4 && verdicts.iter().all(|it| *it == verdict)
    };
    stage.daemon.wait_for_services("three Services", |rows| {
        ["serve", "quiet", "only"].iter().all(|name| is_there(rows, name, "member1", "used"))
    })?;

    open_hole(&stage.pods[0])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    stage.daemon.wait_for_services("both that have another cluster leave it", |rows| {
        ["serve", "quiet"].iter().all(|name| is_there(rows, name, "member1", "cluster unanswered"))
    })?;
    assert!(is_there(&stage.daemon.services()?, "only", "member1", "used"));
    let said = stage.daemon.show(&["explain", "default/only"])?;
    assert!(said.contains("though its cluster does not answer"), "{said}");
    traffic.end()?;

    // Its flows are as good as probes.
    close_hole(&stage.pods[0])?;
    let only: [SocketAddr; 2] = ["10.13.181.118:80".parse()?, "[fd10:13::118]:80".parse()?];
    let traffic = Traffic::start(&stage.client.namespace, &only);
    stage.daemon.wait_for_services("all of them have it again", |rows| {
        ["serve", "quiet", "only"].iter().all(|name| is_there(rows, name, "member1", "used"))
    })?;
    traffic.end()
}
