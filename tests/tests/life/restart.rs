//! What goes on after a restart besides flows: whose turn it is, and where a client went last.

use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Daemon, POD_PORT, Pod, World, client,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

const TAKES_TURNS: &str = "10.13.0.1";
const KEEPS_CLIENTS: &str = "10.13.0.2";

fn call(pod: &Pod, vip: &str, times: u32) -> Result<Vec<IpAddr>> {
    client::http(&pod.namespace, SocketAddr::new(vip.parse()?, 80), times)
}

/// The last time into maps that are larger, cursors and clients included.
#[test]
fn turns_and_affinity_go_on_after_restarts_and_when_maps_grow() -> Result<()> {
    let world = &mut World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let _first = world.add_serving_pod(&node, "serve-1", &["10.12.0.6"])?;
    let _second = world.add_serving_pod(&node, "serve-2", &["10.12.0.7"])?;
    let clients = [20, 21, 22]
        .into_iter()
        .map(|number| world.add_pod(&node, &format!("client-{number}"), &[&format!("10.12.0.{number}")]))
        .collect::<Result<Vec<_>>>()?;
    let manifests = Manifests::new(world.folder("manifests")?)?;
    for (name, vip, affinity) in [
        ("turns", TAKES_TURNS, "sessionAffinity: None"),
        ("keeps", KEEPS_CLIENTS, "sessionAffinity: ClientIP"),
    ] {
        let service = Service::new(name, "member2", &[vip], &[Port::new("http", "TCP", 80)])?;
        let yaml = service.annotated("enabled", "true").yaml().replace("sessionAffinity: None", affinity);
        manifests.write(&format!("service-{name}"), &yaml)?;
        let pods = [
            Endpoint::new("10.12.0.6", &node.name, "serve-1")?,
            Endpoint::new("10.12.0.7", &node.name, "serve-2")?,
        ];
        let slice = Slice::new(&format!("{name}-1"), name, "member2", "member2", &pods);
        manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))?;
    }
    let mut daemon = Daemon::start(&node, manifests.folder())?;

    let mut turns = call(&clients[0], TAKES_TURNS, 3)?;
    let homes = clients.iter().map(|pod| Ok(call(pod, KEEPS_CLIENTS, 1)?[0])).collect::<Result<Vec<_>>>()?;
    ensure!(homes.iter().collect::<BTreeSet<_>>().len() == 2, "a change would not show: {homes:?}");
    for growth in [None, None, Some("70000")] {
        daemon.crash()?;
        turns.extend(call(&clients[0], TAKES_TURNS, 1)?);
        match growth {
            None => daemon.launch()?,
            Some(size) => {
                daemon.launch_with(&["--max-frontends", size])?;
                daemon.wait_for_log("maps are larger than before")?;
            }
        }
        turns.extend(call(&clients[0], TAKES_TURNS, 2)?);
        for (pod, home) in clients.iter().zip(&homes).rev() {
            let met = call(pod, KEEPS_CLIENTS, 2)?;
            ensure!(met == [*home, *home], "{}: {home} before, {met:?} after the restart", pod.name);
        }
    }
    ensure!(turns.windows(2).all(|two| two[0] != two[1]), "{turns:?}");
    Ok(())
}
