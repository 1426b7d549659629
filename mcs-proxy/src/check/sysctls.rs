//! Kernel parameters of this network namespace.

use crate::observe::line::Line;

/// Reads a file, trimmed; `None` if it is not there.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn lines(read: Read<'_>) -> Vec<Line> {
    let ipv6 = read("/proc/sys/net/ipv6/conf/all/forwarding");
    let mut lines = vec![ip_forward(read)];
    lines.extend(ipv6.as_deref().map(ipv6_forwarding));
    lines.extend([rp_filter(read), bridge_netfilter(read)]);
    lines
}

fn ip_forward(read: Read<'_>) -> Line {
    match read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("0") => Line::failed(
            "ip_forward",
            "0: no packet of a pod leaves this node",
            "sysctl -w net.ipv4.ip_forward=1 (most CNI plugins do so)",
        ),
        Some(value) => Line::ok("ip_forward", value),
        None => Line::warning("ip_forward", "cannot be read", "mount /proc"),
    }
}

fn ipv6_forwarding(value: &str) -> Line {
    if value == "0" {
        return Line::warning(
            "IPv6 forwarding",
            "0: no IPv6 packet of a pod leaves this node",
            "if pods have IPv6 addresses: sysctl -w net.ipv6.conf.all.forwarding=1",
        );
    }
    Line::ok("IPv6 forwarding", value)
}

/// The larger of `all` and an interface's own value holds for it (ip-sysctl).
fn rp_filter(read: Read<'_>) -> Line {
    match read("/proc/sys/net/ipv4/conf/all/rp_filter").as_deref() {
        Some("1") => Line::warning(
            "rp_filter",
            "1 (strict): answers that come by another interface than the route to their sender are dropped",
            "if pods of other clusters are reached by several interfaces: sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        Some(value) => Line::ok("rp_filter", value),
        None => Line::warning("rp_filter", "cannot be read", "mount /proc"),
    }
}

fn bridge_netfilter(read: Read<'_>) -> Line {
    let value = read("/proc/sys/net/bridge/bridge-nf-call-iptables");
    match value.as_deref() {
        Some("0") | None => Line::ok(
            "bridge-nf-call-iptables",
            "off: packets between pods of one bridge pass no netfilter; ours need none, kube-proxy's do",
        ),
        Some(value) => Line::ok("bridge-nf-call-iptables", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    #[test]
    fn parameters_that_stand_in_the_way_are_told_with_what_to_set() {
        for (path, value, part, level) in [
            ("/proc/sys/net/ipv4/ip_forward", "0", "ip_forward", Level::Failed),
            ("/proc/sys/net/ipv4/conf/all/rp_filter", "1", "rp_filter", Level::Warning),
            ("/proc/sys/net/ipv6/conf/all/forwarding", "0", "IPv6 forwarding", Level::Warning),
            ("/proc/sys/net/bridge/bridge-nf-call-iptables", "0", "", Level::Ok),
            ("", "", "", Level::Ok),
        ] {
            let good = |asked: &str| if asked.contains("rp_filter") { "2" } else { "1" };
            let read = |asked: &str| Some(if asked == path { value } else { good(asked) }.to_owned());
            let found = lines(&read);
            let bad: Vec<_> = found.iter().filter(|line| line.level != Level::Ok).collect();
            match bad[..] {
                [] => assert_eq!(part, "", "{path}"),
                [line] => {
                    assert_eq!((line.part.as_str(), line.level), (part, level), "{line:?}");
                    assert!(line.way_out.as_ref().unwrap().contains("sysctl -w"), "{line:?}");
                }
                _ => panic!("{bad:?}"),
            }
        }
    }
}
