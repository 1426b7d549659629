//! A pod that calls itself through a Service.

use crate::stage::{PODS, PODS_V6, Stage, v4, v6};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Namespace, Pod,
    client::{self, Connection, Tally},
};
use std::net::IpAddr;

/// Counts what a pod sends into its node.
fn count_from(node: &Namespace, pod: &Pod) -> Result<()> {
    let interface = &pod.host_interface;
    node.nft(&format!(
        "add table inet watch; add counter inet watch seen; \
         add chain inet watch prerouting {{ type filter hook prerouting priority raw; }}; \
         add rule inet watch prerouting iifname {interface} meta l4proto {{ tcp, udp }} counter name seen"
    ))
    .map(drop)
}

fn counted(node: &Namespace) -> Result<u64> {
    let text = node.nft("list counter inet watch seen")?;
    let mut words = text.split_whitespace().skip_while(|&word| word != "packets").skip(1);
    words.next().and_then(|number| number.parse().ok()).with_context(|| text.clone())
}

#[test]
fn a_pod_reaches_itself_and_its_node_never_sees_it_whatever_the_reverse_path_filter() -> Result<()> {
    let mut stage = Stage::new()?;
    // Every turn falls on the pod itself.
    stage.manifests.remove_slice("member1-serve-bcfd6")?;
    stage.manifests.remove_slice("member1-serve-bcfd6-v6")?;
    stage.wait_for_endpoints(1)?;
    let (node, pod) = (stage.node.namespace.clone(), &stage.pods[1]);
    count_from(&node, pod)?;
    let body = vec![b'x'; 1 << 20];
    for filter in ["0", "1", "2"] {
        node.set_reverse_path_filter(filter, &[&pod.host_interface])?;
        pod.namespace.set_reverse_path_filter(filter, &["eth0"])?;
        for (service, itself) in [(v4()?, PODS[1]), (v6()?, PODS_V6[1])] {
            let itself: IpAddr = itself.parse()?;
            let context = || format!("{service}, rp_filter {filter}");
            let answers = client::http(&pod.namespace, service, 5).with_context(context)?;
            ensure!(answers == [itself; 5], "{}: {answers:?}", context());
            ensure!(client::udp(&pod.namespace, service, 3).with_context(context)? == [itself; 3]);
            let mut connection = Connection::open(&pod.namespace, service).with_context(context)?;
            ensure!(connection.echo(&body).with_context(context)? == itself);
            ensure!(connection.ask()? == itself);
        }
    }
    ensure!(counted(&node)? == 0, "none of it is the node's business: {}", counted(&node)?);
    // The counter counts: what is not the pod's own it sends there.
    client::http(&pod.namespace, format!("{}:8080", PODS[0]).parse()?, 1)?;
    ensure!(counted(&node)? > 0);
    Ok(())
}

#[test]
fn a_pod_among_several_endpoints_takes_its_turns_like_any() -> Result<()> {
    let stage = Stage::new()?;
    for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        let tally = client::tally(&client::http(&stage.pods[1].namespace, service, 10)?);
        let even: Tally = pods.iter().map(|pod| (pod.parse().unwrap(), 5)).collect();
        ensure!(tally == even, "{tally:?}");
    }
    Ok(())
}
