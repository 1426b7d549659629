use crate::stage::{PODS, Said, Stage, slice, until};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    POD_PORT,
    bpf::{End, Observer, Place, Way},
    karmada::Port,
};

/// As a pod has them.
const CONFINED: [&str; 4] =
    ["setpriv", "--bounding-set=-all,+bpf,+net_admin,+perfmon", "--inh-caps=-all", "--ambient-caps=-all"];

#[test]
fn three_capabilities_suffice_to_see_what_a_node_has() -> Result<()> {
    let stage = Stage::new(&[])?;
    // It is told of in a file, which is written after the maps.
    until("the import is told of", || {
        Ok(stage.run(&CONFINED, &["check"])?.expect("imports", "ok", "none of 1 imported").is_ok())
    })?;
    let said = stage.run(&CONFINED, &["check"])?;
    ensure!(said.code == 0, "{:#}", said.json);
    for (part, words) in [
        ("kernel", "Linux"),
        ("capabilities", "CAP_PERFMON"),
        ("packet hook", "TCX"),
        ("cgroup hooks", "getpeername"),
        ("bpf_set_retval", "ECONNREFUSED"),
        ("bpffs", "/sys/fs/bpf/"),
        ("ip_forward", "1"),
        ("pins", "takes them over"),
        ("memory", "the pinned maps take"),
        ("other programs", "none but ours"),
    ] {
        said.expect(part, "ok", words)?;
    }
    said.line("CONFIG_INET_DIAG_DESTROY")?;
    said.line("clock source")?;
    said.expect("kube-proxy", "warning", "none is seen here").or_else(|_| said.line("kube-proxy").map(drop))
}

#[test]
fn what_stands_in_the_way_is_failed_with_the_command_that_mends_it() -> Result<()> {
    let stage = Stage::new(&[])?;
    stage.node.namespace.sysctl("net/ipv4/ip_forward", "0")?;
    let said = stage.run(&[], &["check", "--max-flows", "1024"])?;
    ensure!(said.code == 5, "{:#}", said.json);
    said.expect("ip_forward", "failed", "sysctl -w net.ipv4.ip_forward=1")?;
    said.expect("pins", "failed", "--max-flows 524288")?;
    let said = stage.run(&[], &["check", "--pin-dir", "/run/no-bpffs"])?;
    said.expect("bpffs", "failed", "mount -t bpf bpf /sys/fs/bpf")?;
    let said = stage.run(&["setpriv", "--bounding-set=-all", "--inh-caps=-all"], &["check"])?;
    said.expect("capabilities", "failed", "CAP_NET_ADMIN")?;
    said.expect("packet hook", "warning", "CAP_NET_ADMIN").context("without rights it is not seen")?;
    // What it may not look at it does not call good.
    said.expect("other programs", "warning", "CAP_NET_ADMIN")?;
    said.expect("other socket programs", "warning", "CAP_NET_ADMIN")
}

#[test]
fn programs_of_others_are_named_and_those_between_us_and_the_pod_warned_of() -> Result<()> {
    let stage = Stage::new(&[])?;
    let (node, interface) = (&stage.node.namespace, &stage.client.host_interface);
    let watched = (End::Source, stage.client.addresses[0]);
    let said =
        |level: &str, words: &str| stage.run(&CONFINED, &["check"])?.expect("other programs", level, words);

    let behind = Observer::attach(node, interface, (Way::Ingress, Place::Last), watched)?;
    said("ok", &format!("on 1 interfaces, as on {interface} (TCX program "))?;
    let before = Observer::attach(node, interface, (Way::Ingress, Place::First), watched)?;
    said("warning", "runs before ours on packets from the pod")?;
    drop(before);
    let after = Observer::attach(node, interface, (Way::Egress, Place::Last), watched)?;
    said("warning", "runs after ours on packets to the pod")?;
    drop((behind, after));

    node.tc(&format!("qdisc add dev {interface} clsact"))?;
    let _inbound = Observer::classify(node, interface, (Way::Ingress, 1), watched)?;
    said("ok", &format!("{interface} (cls_bpf filter "))?;
    let _outbound = Observer::classify(node, interface, (Way::Egress, 1), watched)?;
    said("warning", &format!("on {interface} cls_bpf filter "))?;
    node.tc(&format!("qdisc del dev {interface} clsact"))?;
    // A link's last descriptor is gone some time before its program.
    until("nobody else is there", || Ok(said("ok", "none but ours").is_ok()))
}

/// `check` where the node's file systems are as the commands leave them, in a mount namespace of its own.
fn checked_after(stage: &Stage, commands: &str, arguments: &[&str]) -> Result<Said> {
    let script = format!("mount --make-rprivate / && {commands} && exec \"$0\" \"$@\"");
    stage.run(&["unshare", "--mount", "sh", "-c", &script], arguments)
}

#[test]
fn file_systems_that_are_not_there_are_told_with_the_way_out() -> Result<()> {
    let stage = Stage::new(&[])?;
    let said = checked_after(&stage, "umount --lazy /sys/fs/bpf", &["check"])?;
    ensure!(said.code == 5, "{:#}", said.json);
    said.expect("bpffs", "failed", "mount -t bpf bpf /sys/fs/bpf")?;
    // Whichever it is, where cgroup2 is mounted.
    let said = checked_after(&stage, "umount --all --lazy --types cgroup2", &["check"])?;
    said.expect("cgroup2", "warning", "host-network processes are left to kube-proxy")?;
    let said = stage.run(&[], &["check", "--cgroup", "/run"])?;
    said.expect("cgroup2", "warning", "/run")
}

#[test]
fn what_this_machine_and_others_on_it_do_to_packets_is_warned_of() -> Result<()> {
    let stage = Stage::new(&[])?;
    let node = &stage.node.namespace;
    node.sysctl("net/ipv4/conf/all/rp_filter", "1")?;
    node.sysctl("net/ipv6/conf/all/forwarding", "0")?;
    let said = stage.run(&CONFINED, &["check"])?;
    said.expect("rp_filter", "warning", "sysctl -w net.ipv4.conf.all.rp_filter=2")?;
    said.expect("IPv6 forwarding", "warning", "sysctl -w net.ipv6.conf.all.forwarding=1")?;

    said.expect("Cilium", "ok", "not here")?;
    node.ip("link add cilium_host type veth peer name cilium_net")?;
    let said = stage.run(&CONFINED, &["check"])?;
    said.expect("Cilium", "warning", "past our hook")?;
    // A BPF file system of the command's own, in which Cilium's names are.
    let pins = "mount -t bpf bpf /sys/fs/bpf && mkdir -p /sys/fs/bpf/tc/globals/cilium_lb4_services_v2";
    let said = checked_after(&stage, pins, &["check"])?;
    said.expect("Cilium", "warning", "service.cilium.io/type")
}

#[test]
fn a_daemon_with_larger_maps_than_by_default_is_no_failure_unless_others_are_asked_about() -> Result<()> {
    let stage = Stage::new(&["--max-flows", "600000"])?;
    stage.run(&CONFINED, &["check"])?.expect("pins", "ok", "the daemon that runs here has them in use")?;
    stage.run(&CONFINED, &["check", "--max-flows", "600000"])?.expect("pins", "ok", "takes them over")?;
    stage.run(&CONFINED, &["check", "--max-flows", "1024"])?.expect("pins", "failed", "--max-flows 600000")
}

#[test]
fn imports_with_a_pods_address_here_and_maps_larger_than_the_memory_are_failed() -> Result<()> {
    let stage = Stage::new(&[])?;
    // Another port of it: the same one would be a duplicate of the pod's own.
    let import = slice("member1-serve-bcfd6", "serve", "member1", PODS[1])?;
    stage.manifests.slice(&import.with_ports(&[Port::new("", "TCP", POD_PORT + 1)]))?;
    until("the import is in the maps", || {
        Ok(stage.run(&CONFINED, &["check"])?.expect("imports", "failed", PODS[1]).is_ok())
    })?;
    let none = format!("{}-none", stage.daemon.pin_dir().display());
    let little = "mount -t tmpfs tmpfs /mnt && echo 'MemAvailable: 102400 kB' > /mnt/meminfo && \
                  mount --bind /mnt/meminfo /proc/meminfo";
    let said = checked_after(&stage, little, &["check", "--pin-dir", &none])?;
    said.expect("memory", "failed", "lower --max-flows")
}
