//! `service.kubernetes.io/service-proxy-name`: with it a Service is one proxy's alone.

use crate::{
    in_both_modes,
    stage::{Stage, endpoints, vips, wait_for_endpoints},
    witness::Witness,
};
use anyhow::{Context, Result};
use mcs_proxy_tests::{
    ProxyMode, ServiceRow,
    client::{self, Connection},
};
use serde_json::{Value, json};

in_both_modes! {
    taken_and_given_back: the_label_takes_a_service_from_nftables_and_gives_it_back,
        the_label_takes_a_service_from_iptables_and_gives_it_back;
}

pub(crate) fn label(stage: &Stage, value: &Value) -> Result<()> {
    stage.change(&json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": value } } }))
}

fn open(stage: &Stage) -> Result<Vec<Connection>> {
    let all = vips().into_iter().flat_map(|vip| [vip; 3]);
    all.map(|vip| Connection::open(&stage.client.namespace, vip)).collect()
}

fn ask(connections: &mut [Connection]) -> Result<Vec<std::net::IpAddr>> {
    connections.iter_mut().map(Connection::ask).collect()
}

fn taken_and_given_back(mode: ProxyMode) -> Result<()> {
    let mut stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let mut theirs = open(&stage)?;
    let their_pods = ask(&mut theirs)?;

    label(&stage, &json!("mcs-proxy"))?;
    wait_for_endpoints(&mut daemon, 2)?;
    stage.proxy.wait_for_endpoints("serve:http", &[])?;
    let before = witness.passed()?;
    let mut ours = open(&stage)?;
    let our_pods = ask(&mut ours)?;
    for vip in vips() {
        client::udp(&stage.client.namespace, vip, 4)?;
    }
    assert_eq!(witness.passed()?, before);
    assert_eq!(ask(&mut theirs)?, their_pods);

    // Another proxy's, of which there is none here: neither we nor kube-proxy serve it.
    label(&stage, &json!("another"))?;
    daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    assert!(stage.proxy.endpoints("serve:http")?.is_empty());
    assert_eq!(ask(&mut ours)?, our_pods);

    label(&stage, &Value::Null)?;
    stage.proxy.wait_for_endpoints("serve:http", &endpoints(true)?)?;
    stage.proxy.wait_for_endpoints("serve:echo", &endpoints(true)?)?;
    let before = witness.passed()?;
    ask(&mut open(&stage)?)?;
    assert_eq!(witness.passed()?.syns, before.syns + 6);
    assert_eq!(ask(&mut ours).context("ours")?, our_pods);
    assert_eq!(ask(&mut theirs).context("theirs")?, their_pods);
    Ok(())
}
