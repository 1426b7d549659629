//! Programs of others on the pods' interfaces see every packet, each as it is at its place.

use crate::stage::{PODS, PODS_V6, Stage, VIP, VIP_V6, v4, v6};
use anyhow::Result;
use mcs_proxy_tests::{
    Daemon, Pod,
    bpf::{End, Observer, Place, Shortcut, Way},
    client,
    karmada::Service,
};
use std::{
    any::Any,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// Datagrams of each family.
const NUMBER: u64 = 12;

/// Where an observer goes.
#[derive(Clone, Copy)]
enum At {
    Tcx(Way, Place),
    /// After all TCX programs.
    Classifier(Way),
}

/// Observers of one place: of packets with a VIP, and of packets with a backend's address, both families.
struct Sight {
    vips: Vec<Observer>,
    backends: Vec<Observer>,
}

impl Sight {
    fn attach(stage: &Stage, at: At) -> Result<Self> {
        let (node, interface) = (&stage.node.namespace, &stage.client.host_interface);
        let (At::Tcx(way, _) | At::Classifier(way)) = at;
        let end = if way == Way::Ingress { End::Destination } else { End::Source };
        let mut priority = 100;
        let mut attach = |addresses: &[&str]| {
            let mut one = |address: &&str| {
                let address: IpAddr = address.parse()?;
                priority += 1;
                match at {
                    At::Tcx(way, place) => Observer::attach(node, interface, (way, place), (end, address)),
                    At::Classifier(way) => {
                        Observer::classify(node, interface, (way, priority), (end, address))
                    }
                }
            };
            addresses.iter().map(&mut one).collect::<Result<Vec<_>>>()
        };
        Ok(Self { vips: attach(&[VIP, VIP_V6])?, backends: attach(&[PODS, PODS_V6].concat())? })
    }

    /// Packets with a VIP, packets with a backend's address.
    fn counts(&self) -> Result<(u64, u64)> {
        let sum = |observers: &[Observer]| observers.iter().map(Observer::count).sum::<Result<u64>>();
        Ok((sum(&self.vips)?, sum(&self.backends)?))
    }
}

fn exchange(stage: &Stage) -> Result<()> {
    for service in [v4()?, v6()?] {
        client::udp(&stage.client.namespace, service, NUMBER.try_into()?)?;
    }
    Ok(())
}

#[test]
fn programs_of_others_see_each_packet_as_it_is_at_their_place() -> Result<()> {
    let opted_in = |service: Service| service.annotated("enabled", "true");
    let mut stage = Stage::with(opted_in, &["--exclude-interface", "vethclient"])?;
    stage.node.namespace.tc(&format!("qdisc add dev {} clsact", stage.client.host_interface))?;
    let from_pod_classified = Sight::attach(&stage, At::Classifier(Way::Ingress))?;
    let to_pod_classified = Sight::attach(&stage, At::Classifier(Way::Egress))?;
    // They were there first, and wanted to be first and last.
    let from_pod = Sight::attach(&stage, At::Tcx(Way::Ingress, Place::First))?;
    let to_pod = Sight::attach(&stage, At::Tcx(Way::Egress, Place::Last))?;
    stage.daemon.stop();
    stage.daemon = Daemon::start(&stage.node, stage.manifests.folder())?;

    exchange(&stage)?;
    // Ours is first on the way from the pod, and last on the way to it: they see clients speak to backends.
    assert_eq!(from_pod.counts()?, (0, 2 * NUMBER));
    assert_eq!(to_pod.counts()?, (0, 2 * NUMBER));
    // Filters come after all TCX programs.
    assert_eq!(from_pod_classified.counts()?, (0, 2 * NUMBER));
    assert_eq!(to_pod_classified.counts()?, (2 * NUMBER, 0));

    // Later ones may go before ours, and after: it does not fight for its place.
    let before = Sight::attach(&stage, At::Tcx(Way::Ingress, Place::First))?;
    let after = Sight::attach(&stage, At::Tcx(Way::Egress, Place::Last))?;
    exchange(&stage)?;
    assert_eq!(before.counts()?, (2 * NUMBER, 0));
    assert_eq!(after.counts()?, (2 * NUMBER, 0));
    assert_eq!(from_pod.counts()?, (0, 4 * NUMBER));
    assert_eq!(to_pod.counts()?, (0, 4 * NUMBER));

    // What is not ours: every program sees the same.
    for pod in [PODS[0], PODS_V6[0]] {
        client::udp(&stage.client.namespace, (pod.parse::<IpAddr>()?, 8080).into(), 4)?;
    }
    for (sight, vips, backends) in [(&before, 2, 0), (&after, 2, 0), (&from_pod, 0, 4), (&to_pod, 0, 4)] {
        assert_eq!(sight.counts()?, (vips * NUMBER, backends * NUMBER + 8));
    }

    // The next daemon's programs take the places of this one's.
    stage.daemon.crash()?;
    stage.daemon.launch()?;
    exchange(&stage)?;
    assert_eq!(before.counts()?, (4 * NUMBER, 8));
    assert_eq!(after.counts()?, (4 * NUMBER, 8));
    assert_eq!(from_pod.counts()?, (0, 6 * NUMBER + 8));
    Ok(())
}

/// Connections from a pod at once, all of which fail.
fn fail_to_connect(pod: &Pod, service: SocketAddr) -> Result<()> {
    let connect = move || TcpStream::connect_timeout(&service, Duration::from_millis(2500)).is_err();
    let attempts: Vec<_> = (0..4).map(|_| pod.namespace.clone()).collect();
    let attempts = attempts
        .into_iter()
        .map(|namespace| thread::spawn(move || namespace.run(move || anyhow::Ok(connect()))));
    for attempt in attempts.collect::<Vec<_>>() {
        assert!(attempt.join().unwrap()?, "a connection came about");
    }
    Ok(())
}

/// Answers that do not come by our hook are reported, with the interface, in the log and by `services`, until they do.
fn is_found_out(
    service: SocketAddr,
    neighbour: impl FnOnce(&Stage) -> Result<Vec<Box<dyn Any>>>,
) -> Result<()> {
    let opted_in = |service: Service| service.annotated("enabled", "true");
    let mut stage = Stage::with(opted_in, &["--flow-scan-interval", "1s"])?;
    let other = stage.world.add_pod(&stage.node, "other", &["10.12.0.70", "fd10:12::70"])?;
    client::http(&other.namespace, service, 4)?;
    let bypass = neighbour(&stage)?;
    fail_to_connect(&stage.client, service)?;
    stage.daemon.wait_for_warning("interface vethclient")?;
    let shown = stage.daemon.show(&["services"])?;
    assert!(shown.contains("Warning: interface vethclient"), "{shown}");
    assert!(!stage.daemon.log().contains("interface vethother"), "{}", stage.daemon.log());

    drop(bypass);
    client::http(&stage.client.namespace, service, 2)?;
    stage.daemon.wait_for_log("no longer without answers")?;
    assert!(!stage.daemon.show(&["services"])?.contains("Warning"));
    Ok(())
}

#[test]
fn a_neighbour_that_ends_the_chain_before_us_is_found_out() -> Result<()> {
    for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        is_found_out(service, |stage| {
            let (node, interface) = (&stage.node.namespace, &stage.client.host_interface);
            let hide = |pod: &str| -> Result<Box<dyn Any>> {
                let what = (End::Source, pod.parse()?);
                Ok(Box::new(Observer::hide(node, interface, (Way::Egress, Place::First), what)?))
            };
            pods.into_iter().map(hide).collect()
        })?;
    }
    Ok(())
}

#[test]
fn a_neighbour_that_redirects_to_the_pods_end_is_found_out() -> Result<()> {
    is_found_out(v4()?, |stage| {
        let shortcut = |(interface, pod): (&str, &str)| -> Result<Box<dyn Any>> {
            Ok(Box::new(Shortcut::attach(&stage.node.namespace, interface, pod.parse()?, &stage.client)?))
        };
        [("eth0", PODS[0]), ("vethserve-2", PODS[1])].into_iter().map(shortcut).collect()
    })
}
