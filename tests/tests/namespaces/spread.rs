//! How new flows are spread over the endpoints.

use crate::stage::{PODS, PODS_V6, Stage, service, v4, v6};
use anyhow::Result;
use mcs_proxy_tests::client::{self, Connection, Tally};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// What chance exceeds once in 100,000 runs, with one degree of freedom.
const CHI_SQUARE: f64 = 19.5;

/// 15 and 14, whichever is first.
fn assert_split(answers: &[IpAddr], pods: [&str; 2]) {
    let tally = client::tally(answers);
    let shares = pods.map(|pod| tally.get(&pod.parse().unwrap()).copied().unwrap_or(0));
    assert!(shares == [15, 14] || shares == [14, 15], "{tally:?}");
}

#[test]
fn twenty_nine_connections_split_15_to_14_ten_times_over() -> Result<()> {
    let stage = Stage::new()?;
    for _ in 0..10 {
        assert_split(&client::http(&stage.client.namespace, v4()?, 29)?, PODS);
    }
    assert_eq!(stage.flows()?, 290);
    Ok(())
}

/// Kernels before 6.6 have no TCX.
#[test]
fn clsact_in_place_of_tcx_splits_alike() -> Result<()> {
    let stage = Stage::with(|service| service.annotated("enabled", "true"), &["--hook", "clsact"])?;
    assert_split(&client::http(&stage.client.namespace, v4()?, 29)?, PODS);
    assert_split(&client::udp(&stage.client.namespace, v6()?, 29)?, PODS_V6);
    assert_eq!(stage.flows()?, 58);
    Ok(())
}

/// What neither the annotation nor the label says, a flag does.
#[test]
fn flags_opt_in_and_choose_the_algorithm() -> Result<()> {
    let arguments = ["--all-services", "--default-algorithm", "random"];
    let stage = Stage::with(|service| service, &arguments)?;
    let services = stage.daemon.services()?;
    assert!(services.iter().all(|row| row.name == "serve" && row.algorithm == "random"), "{services:?}");
    assert_eq!(client::http(&stage.client.namespace, v4()?, 3)?.len(), 3);
    assert_eq!(stage.flows()?, 3);
    Ok(())
}

#[test]
fn ipv6_connections_and_datagrams_split_15_to_14() -> Result<()> {
    let stage = Stage::new()?;
    assert_split(&client::http(&stage.client.namespace, v6()?, 29)?, PODS_V6);
    assert_split(&client::udp(&stage.client.namespace, v6()?, 29)?, PODS_V6);
    assert_eq!(stage.flows()?, 58);
    Ok(())
}

#[test]
fn datagrams_of_new_sockets_split_15_to_14_and_those_of_one_socket_stay_together() -> Result<()> {
    let stage = Stage::new()?;
    assert_split(&client::udp(&stage.client.namespace, v4()?, 29)?, PODS);
    let socket = client::udp_socket(&stage.client.namespace, v4()?)?;
    let first = client::udp_ask(&socket, v4()?, "first")?;
    for number in 0..20 {
        assert_eq!(client::udp_ask(&socket, v4()?, &format!("datagram {number}"))?, first);
    }
    assert_eq!(stage.flows()?, 30);
    Ok(())
}

#[test]
fn random_is_even_within_what_chance_allows() -> Result<()> {
    let stage =
        Stage::with_service(|service| service.annotated("enabled", "true").annotated("algorithm", "random"))?;
    let answers = client::http(&stage.client.namespace, v4()?, 400)?;
    let tally = client::tally(&answers);
    assert_eq!(tally.len(), 2, "{tally:?}");
    let expected = 200.0;
    let chi_square: f64 = tally.values().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    assert!(chi_square < CHI_SQUARE, "χ² = {chi_square}: {tally:?}");
    // Taking turns is even too, but it is not random.
    let changes = answers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((120..280).contains(&changes), "{changes} changes of pod in 399 steps");
    Ok(())
}

#[test]
fn affinity_is_switched_on_and_off_while_flows_go_on() -> Result<()> {
    let stage = Stage::new()?;
    let switch = |affinity: &str| {
        let yaml = service()?.annotated("enabled", "true").yaml();
        let yaml = yaml.replace("sessionAffinity: None", &format!("sessionAffinity: {affinity}"));
        stage.manifests.write("service-serve", &yaml)
    };
    let different = |requests| -> Result<usize> {
        Ok(client::tally(&client::http(&stage.client.namespace, v4()?, requests)?).len())
    };
    let wait_for = |number| -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while different(4)? != number {
            anyhow::ensure!(Instant::now() < end, "never {number} pods for four connections");
        }
        Ok(())
    };
    let mut old =
        (0..2).map(|_| Connection::open(&stage.client.namespace, v4()?)).collect::<Result<Vec<_>>>()?;
    let pods = old.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>()?;
    assert_ne!(pods[0], pods[1]);
    switch("ClientIP")?;
    wait_for(1)?;
    assert_eq!(different(20)?, 1);
    switch("None")?;
    wait_for(2)?;
    for (connection, pod) in old.iter_mut().zip(pods) {
        assert_eq!(connection.ask()?, pod);
    }
    Ok(())
}

#[test]
fn maglev_reaches_every_pod() -> Result<()> {
    let stage =
        Stage::with_service(|service| service.annotated("enabled", "true").annotated("algorithm", "maglev"))?;
    let tally = client::tally(&client::http(&stage.client.namespace, v4()?, 200)?);
    // One in 10^11 runs has fewer than 55 of 200 on one side.
    assert!(tally.len() == 2 && tally.values().all(|&count| count > 55), "{tally:?}");
    Ok(())
}

/// The veths segment and checksum for the programs: packets are larger than the MTU and have partial checksums.
#[test]
fn megabytes_arrive_whole_both_ways_and_families() -> Result<()> {
    assert_megabytes_arrive(&Stage::new()?)
}

/// One segment a packet, with a checksum of its own.
#[test]
fn megabytes_arrive_whole_without_offloads() -> Result<()> {
    let stage = Stage::new()?;
    for pod in stage.pods.iter().chain([&stage.client]) {
        pod.namespace.turn_off_offloads("eth0")?;
    }
    for pod in [&stage.client, &stage.pods[1]] {
        stage.node.namespace.turn_off_offloads(&pod.host_interface)?;
    }
    assert_split(&client::udp(&stage.client.namespace, v4()?, 29)?, PODS);
    assert_split(&client::udp(&stage.client.namespace, v6()?, 29)?, PODS_V6);
    assert_megabytes_arrive(&stage)
}

fn assert_megabytes_arrive(stage: &Stage) -> Result<()> {
    let body: Vec<u8> =
        (0..4_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        let mut seen = Tally::new();
        for _ in 0..2 {
            *seen.entry(Connection::open(&stage.client.namespace, service)?.echo(&body)?).or_default() += 1;
        }
        // Once each: once on this node, once over the fabric.
        assert_eq!(seen, pods.iter().map(|pod| (pod.parse().unwrap(), 1)).collect());
    }
    Ok(())
}
