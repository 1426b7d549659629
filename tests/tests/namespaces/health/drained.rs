use super::{WINDOW, close_hole, open_hole, stage, swallowed, traffic::Traffic, verdicts, wait_for_verdicts};
use crate::{
    settings::{families, set},
    stage::{PODS, Stage, v4, v6},
};
use anyhow::Result;
use mcs_proxy_tests::{
    ServiceRow,
    client::{self, Connection, Tally},
};
use std::{net::IpAddr, time::Instant};

/// All new connections and datagrams go to the pod in this cluster, or to both alike.
fn assert_spread(stage: &Stage, expected: [u32; 2]) -> Result<()> {
    for (vip, pods) in families()? {
        let tally: Tally = pods.into_iter().zip(expected).filter(|(_, count)| *count > 0).collect();
        assert_eq!(client::tally(&client::http(&stage.client.namespace, vip, 6)?), tally);
        assert_eq!(client::tally(&client::udp(&stage.client.namespace, vip, 6)?), tally);
    }
    Ok(())
}

#[test]
fn a_cluster_that_swallows_syns_is_drained_within_the_window_tried_once_a_window_and_comes_back() -> Result<()>
{
    let mut stage = stage(|service| service, &[])?;
    let mut early = Vec::new();
    for (vip, _) in families()? {
        early.extend([
            Connection::open(&stage.client.namespace, vip)?,
            Connection::open(&stage.client.namespace, vip)?,
        ]);
    }
    assert_spread(&stage, [3, 3])?;

    open_hole(&stage.pods[0])?;
    let start = Instant::now();
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    for family in ["IPv4", "IPv6"] {
        stage
            .daemon
            .wait_for_warning(&format!("member1 over {family}: its new flows stay without an answer"))?;
    }
    assert!(start.elapsed() >= WINDOW, "{:?}", start.elapsed());
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    let said = stage.daemon.show(&["services"])?;
    for family in ["IPv4", "IPv6"] {
        assert!(
            said.contains(&format!("Warning: cluster member1 does not answer over {family}: ")),
            "{said}"
        );
    }
    let said = stage.daemon.show(&["explain", "default/serve"])?;
    assert!(said.contains("cluster unanswered: new flows to its cluster stay without an answer"), "{said}");
    assert!(!said.contains("differ"), "{said}");

    // What is under way when the maps change is counted to what was before.
    let before = traffic.answered();
    traffic.wait("answer", |traffic| Ok(traffic.answered() > before + 2))?;
    let (since, tried) = (Instant::now(), swallowed(&stage.pods[0])?);
    let failed = traffic.unanswered();
    traffic.wait("third probe", |_| Ok(swallowed(&stage.pods[0])? >= tried + 6))?;
    let windows = since.elapsed().as_secs_f64() / WINDOW.as_secs_f64();
    let probes = swallowed(&stage.pods[0])? - tried;
    println!(
        "{probes} probes of two families in {windows:.2} windows; {} calls answered",
        traffic.answered() - before
    );
    assert!(probes as f64 <= 2.0 * (windows + 1.0), "{probes} probes in {windows} windows");
    assert!(traffic.unanswered() - failed <= probes + 1, "others than probes went nowhere");
    assert!(traffic.answered() > before + 10 * probes);
    drop(traffic);

    // Flows that were there go on; datagrams go where answers are.
    early.iter_mut().try_for_each(|connection| connection.ask().map(drop))?;
    for (vip, [_, local]) in families()? {
        assert_eq!(client::tally(&client::udp(&stage.client.namespace, vip, 6)?), [(local, 6)].into());
    }

    close_hole(&stage.pods[0])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "used")?;
    stage.daemon.wait_for_log("solved: ConfigMap mcs-proxy/mcs-proxy: member1 over IPv6")?;
    traffic.end()?;
    assert!(!stage.daemon.show(&["services"])?.contains("Warning"));
    assert_spread(&stage, [3, 3])?;
    early.iter_mut().try_for_each(|connection| connection.ask().map(drop))
}

/// As importers leave it behind: its slices say that all is well.
#[test]
fn a_cluster_that_is_gone_is_drained_though_its_endpoints_stay_ready() -> Result<()> {
    let mut stage = stage(|service| service.annotated("clusters", "member1,local"), &[])?;
    let remote = PODS[0].parse::<IpAddr>()?;
    assert_eq!(client::http(&stage.client.namespace, v4()?, 4)?, [remote; 4]);
    // Its neighbours find nobody at its address, and say so to the client, which is no answer.
    stage.world.fabric().ip("link set node1 down")?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    wait_for_verdicts(&mut stage, "member2", "used")?;
    let before = traffic.answered();
    traffic.wait("answers", |traffic| Ok(traffic.answered() > before + 20))?;

    stage.world.fabric().ip("link set node1 up")?;
    wait_for_verdicts(&mut stage, "member1", "used")?;
    wait_for_verdicts(&mut stage, "member2", "other tier")?;
    traffic.end()?;
    assert_eq!(client::http(&stage.client.namespace, v4()?, 4)?, [remote; 4]);
    Ok(())
}

#[test]
fn a_drained_cluster_is_so_after_a_restart_until_it_answers_or_the_settings_say_otherwise() -> Result<()> {
    let mut stage = stage(|service| service, &[])?;
    open_hole(&stage.pods[0])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    traffic.end()?;

    let mut before = swallowed(&stage.pods[0])?;
    for crash in [false, true] {
        if crash {
            stage.daemon.crash()?;
        } else {
            stage.daemon.stop();
        }
        stage.daemon.launch()?;
        wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
        // One of a family is a probe, which is due at once, and another may have been left by the daemon before.
        for (vip, _) in families()? {
            let traffic = Traffic::start(&stage.client.namespace, &[vip]);
            traffic.wait("answers", |traffic| Ok(traffic.answered() >= 20))?;
            traffic.end()?;
        }
        let after = swallowed(&stage.pods[0])?;
        assert!(after - before <= 6, "{before} {after}");
        before = after;
    }
    set(&stage, "{member1: '{on-failure: keep}', member2: '{on-failure: drain}'}")?;
    wait_for_verdicts(&mut stage, "member1", "used")?;
    stage.daemon.wait_for_log("solved: ConfigMap mcs-proxy/mcs-proxy: member1 over IPv4")?;
    assert!(!stage.daemon.show(&["services"])?.contains("Warning"));
    // And are asked again, they find out anew.
    set(&stage, "{member1: '{on-failure: drain}', member2: '{on-failure: drain}'}")?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    traffic.end()
}

#[test]
fn with_maglev_and_with_affinity_a_client_of_a_drained_cluster_gets_an_endpoint_that_answers() -> Result<()> {
    for (algorithm, affinity) in [("maglev", false), ("round-robin", true), ("random", true)] {
        let mut stage = stage(|service| service.annotated("algorithm", algorithm), &[])?;
        if affinity {
            let service =
                crate::stage::service()?.annotated("enabled", "true").annotated("algorithm", algorithm);
            let yaml = service.yaml().replace("sessionAffinity: None", "sessionAffinity: ClientIP");
            stage.manifests.write("serve", &yaml)?;
            stage.daemon.wait_for_log("programmed")?;
            // Until the client is bound to the pod that will not answer, in both families.
            for (vip, [remote, _]) in families()? {
                let answers = client::http(&stage.client.namespace, vip, 1)?;
                let bound = if answers[0] == remote { 0 } else { 1 };
                open_hole(&stage.pods[bound])?;
                let traffic = Traffic::start(&stage.client.namespace, &[vip]);
                let cluster = ["member1", "member2"][bound];
                stage.daemon.wait_for_services("drained", |rows: &[ServiceRow]| {
                    let of: Vec<_> = rows.iter().filter(|row| row.vip == vip.ip()).cloned().collect();
                    verdicts(&of, cluster).iter().all(|verdict| *verdict == "cluster unanswered")
                })?;
                let before = traffic.answered();
                traffic.wait("answers", |traffic| Ok(traffic.answered() > before + 20))?;
                traffic.end()?;
                close_hole(&stage.pods[bound])?;
            }
            continue;
        }
        open_hole(&stage.pods[0])?;
        let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
        wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
        let (before, failed) = (traffic.answered(), swallowed(&stage.pods[0])?);
        traffic.wait("answers", |traffic| Ok(traffic.answered() > before + 50))?;
        traffic.end()?;
        assert!(swallowed(&stage.pods[0])? - failed <= 6);
    }
    Ok(())
}
