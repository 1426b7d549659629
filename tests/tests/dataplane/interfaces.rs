use crate::place::{Pod, index_of, run};
use mcs_proxy::dataplane::interfaces::{InterfaceEvent, watch};
use mcs_proxy_tests::netns;
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// The next event that is not about the place of an interface, soon.
async fn next(events: &mut mpsc::Receiver<InterfaceEvent>) -> InterfaceEvent {
    loop {
        let event = any(events).await;
        if !matches!(event, InterfaceEvent::Placed { .. }) {
            return event;
        }
    }
}

async fn any(events: &mut mpsc::Receiver<InterfaceEvent>) -> InterfaceEvent {
    timeout(Duration::from_secs(2), events.recv()).await.expect("an event").expect("the watch goes on")
}

async fn silence(events: &mut mpsc::Receiver<InterfaceEvent>) {
    let event = timeout(Duration::from_millis(200), events.recv()).await;
    assert!(event.is_err(), "{event:?}");
}

fn appeared(name: &str) -> InterfaceEvent {
    InterfaceEvent::Appeared { index: index_of(name), name: name.to_owned() }
}

/// The namespace is the thread's, so everything stays on it.
#[tokio::test(flavor = "current_thread")]
async fn pods_come_and_go() {
    netns::enter_new().expect("a network namespace needs root");
    let pod = Pod::new();
    let pid = pod.pid();
    // What a CNI does: the pair is made with one end in the pod already.
    run(&format!("ip link add first type veth peer name eth0 netns {pid}"));
    run(&format!("ip link add skipped type veth peer name eth9 netns {pid}"));
    run("ip link add bridge0 type bridge");
    let (sender, mut events) = mpsc::channel(16);
    let watch = tokio::spawn(watch(vec!["skip*".parse().unwrap()], sender));
    let first = BTreeMap::from([(index_of("first"), "first".to_owned())]);
    assert_eq!(next(&mut events).await, InterfaceEvent::Snapshot(first));

    run(&format!("ip link add second type veth peer name eth1 netns {pid}"));
    assert_eq!(next(&mut events).await, appeared("second"));
    // Or the pair is made here and one end moves, which no message tells of the other.
    run("ip link add third type veth peer name eth2");
    silence(&mut events).await;
    run(&format!("ip link set eth2 netns {pid}"));
    assert_eq!(next(&mut events).await, appeared("third"));
    run("ip link add eth3 type veth peer name fourth");
    run(&format!("ip link set eth3 netns {pid}"));
    assert_eq!(next(&mut events).await, appeared("fourth"));

    // Bridges tell of their ports with messages that look like a link's.
    let bridge = index_of("bridge0");
    let placed_at = |event: InterfaceEvent| {
        let InterfaceEvent::Placed { index, place } = event else { panic!("{event:?}") };
        (index, place.netns >= 0, place.bridge)
    };
    run("ip link set second up master bridge0");
    assert_eq!(placed_at(any(&mut events).await), (index_of("second"), true, bridge));
    run("ip link set second nomaster");
    assert_eq!(placed_at(any(&mut events).await), (index_of("second"), true, 0));
    run("ip address add 10.10.0.1/32 dev second");
    silence(&mut events).await;

    let second = InterfaceEvent::Vanished { index: index_of("second") };
    run("ip address add 192.168.1.1/24 dev second");
    assert_eq!(next(&mut events).await, second);
    run("ip address del 192.168.1.1/24 dev second");
    assert_eq!(next(&mut events).await, appeared("second"));

    run(&format!("nsenter --net=/proc/{pid}/ns/net ip link set eth1 up"));
    run("ip route add default via 10.10.0.2 dev second onlink");
    assert_eq!(next(&mut events).await, second);
    run("ip route del default");
    assert_eq!(next(&mut events).await, appeared("second"));
    run("ip -6 route add default via fe80::2 dev second");
    assert_eq!(next(&mut events).await, second);
    // Its routes go without a message of their own.
    run("ip link set second down");
    assert_eq!(next(&mut events).await, appeared("second"));

    run("ip link del second");
    assert_eq!(next(&mut events).await, second);
    let ends = ["first", "third", "fourth"].map(index_of);
    drop(pod);
    let mut vanished = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    vanished.sort_by_key(|event| format!("{event:?}"));
    let mut expected = ends.map(|index| InterfaceEvent::Vanished { index });
    expected.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(vanished, expected);
    drop(events);
    timeout(Duration::from_secs(2), watch).await.unwrap().unwrap().unwrap();
}

/// More messages than a socket's buffer holds, while nobody reads: that an interface went and another came by its index
/// is then told by nobody, so everything is told again.
#[tokio::test(flavor = "current_thread")]
async fn after_lost_messages_all_interfaces_are_told_again() {
    netns::enter_new().expect("a network namespace needs root");
    let pod = Pod::new();
    let (sender, mut events) = mpsc::channel(1024);
    run(&format!("ip link add reused index 77 type veth peer name eth77 netns {}", pod.pid()));
    let watch = tokio::spawn(watch(Vec::new(), sender));
    let reused = (77, "reused".to_owned());
    assert_eq!(next(&mut events).await, InterfaceEvent::Snapshot(BTreeMap::from([reused.clone()])));
    // This blocks the only thread there is, so the watch does not read.
    run("ip link add bridge0 type bridge");
    let commands: String = (0..3000)
        .map(|i| format!("address add 10.{}.{}.1/24 dev bridge0\n", 100 + i / 250, i % 250))
        .chain([
            "link del reused\n".to_owned(),
            format!("link add reused index 77 type veth peer name eth77 netns {}\n", pod.pid()),
        ])
        .chain((0..20).map(|i| format!("link add veth{i} type veth peer name eth{i} netns {}\n", pod.pid())))
        .collect();
    let batch = std::env::temp_dir().join(format!("mcs-proxy-test-{}", std::process::id()));
    std::fs::write(&batch, commands).unwrap();
    run(&format!("ip -batch {}", batch.display()));
    std::fs::remove_file(&batch).unwrap();
    let all: BTreeMap<u32, String> =
        (0..20).map(|i| format!("veth{i}")).map(|name| (index_of(&name), name)).chain([reused]).collect();
    // What had been read before messages were lost comes before.
    while next(&mut events).await != InterfaceEvent::Snapshot(all.clone()) {}
    drop(events);
    timeout(Duration::from_secs(2), watch).await.unwrap().unwrap().unwrap();
}
