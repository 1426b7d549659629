use crate::stage::Stage;
use anyhow::{Context, Result, ensure};

/// As a pod has them.
const CONFINED: [&str; 4] =
    ["setpriv", "--bounding-set=-all,+bpf,+net_admin,+perfmon", "--inh-caps=-all", "--ambient-caps=-all"];

#[test]
fn three_capabilities_suffice_to_see_what_a_node_has() -> Result<()> {
    let stage = Stage::new(&[])?;
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
        ("imports", "none of 1 imported"),
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
    said.expect("packet hook", "warning", "CAP_NET_ADMIN").context("without rights it is not seen")
}
