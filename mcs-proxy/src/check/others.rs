//! Who else is on this node: programs on the hooks, kube-proxy, Cilium; and imports with this node's addresses.

use super::fs_read;
use crate::{
    dataplane::{
        pins::PinDir,
        sockets::{Place, SocketHook, SocketsError},
        sys::{self, Access, TcxHook},
    },
    observe::{catalog::Catalog, line::Line},
};
use mcs_proxy_ebpf::abi::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Duration,
};

/// TCX programs that are not ours. Of classic filters (`cls_bpf`) the kernel tells elsewhere: `tc filter show`.
pub(super) fn on_interfaces(pin_dir: &PinDir) -> Line {
    const PART: &str = "other programs";
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (index, name) in interfaces() {
        for hook in [TcxHook::Ingress, TcxHook::Egress] {
            let Ok(programs) = sys::tcx_query(index, hook) else { continue };
            let ours = our_program(pin_dir, index, hook);
            let others =
                programs.iter().map(|(program, _)| *program).filter(|program| Some(*program) != ours);
            found.entry(name.clone()).or_default().extend(others);
        }
    }
    found.retain(|_, programs| !programs.is_empty());
    match found.first_key_value() {
        None => Line::ok(PART, "none but ours on TCX hooks"),
        Some((name, programs)) => Line::ok(
            PART,
            format!(
                "on {} interfaces, as on {name} (ids {}): ours lets each packet go on to them; `bpftool net` names them",
                found.len(),
                list(programs)
            ),
        ),
    }
}

pub(super) fn on_cgroup(pin_dir: &PinDir, place: &Result<Place, SocketsError>) -> Line {
    const PART: &str = "other socket programs";
    let Some(directory) = place.as_ref().ok().and_then(|place| File::open(&place.cgroup).ok()) else {
        return Line::ok(PART, "no cgroup2 to look at");
    };
    let mut others = BTreeSet::new();
    for hook in [SocketHook::Connect4, SocketHook::Connect6, SocketHook::SendMsg4, SocketHook::SendMsg6] {
        let Ok(programs) = sys::prog_query(directory.as_raw_fd().cast_unsigned(), hook.number()) else {
            continue;
        };
        let ours = usize::from(pin_dir.socket_link(hook).exists());
        if programs.len() > ours {
            others.insert(hook.as_str());
        }
    }
    if others.is_empty() {
        return Line::ok(PART, "none but ours on connect and sendmsg");
    }
    let hooks: Vec<_> = others.into_iter().collect();
    Line::warning(
        PART,
        format!(
            "another program is on {}: whichever translates first, the other sees a pod's address",
            hooks.join(", ")
        ),
        "`bpftool cgroup tree` names it; if it translates Services (Cilium's socket load balancing), say --socket-path \
         off or turn it off there",
    )
}

/// kube-proxy tells its mode beside its metrics (`--metrics-bind-address`, by default 127.0.0.1:10249).
pub(super) fn kube_proxy() -> Line {
    const PART: &str = "kube-proxy";
    if let Some(mode) = ask_mode(SocketAddr::from(([127, 0, 0, 1], 10249))) {
        return Line::ok(PART, format!("in {mode} mode: serves what we pass"));
    }
    if runs("kube-proxy") {
        return Line::ok(PART, "runs; its mode is not told at 127.0.0.1:10249");
    }
    Line::warning(
        PART,
        "none is seen here",
        "if nothing else serves ClusterIPs, what we pass and Services that are not opted in reach nobody; in a pod \
         without hostPID its process cannot be seen",
    )
}

fn ask_mode(address: SocketAddr) -> Option<String> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\nHost: kube-proxy\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.take(4096).read_to_string(&mut text).ok()?;
    mode_of(&text)
}

fn mode_of(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mode = body.trim();
    (head.contains(" 200") && !mode.is_empty() && mode.chars().all(char::is_alphanumeric))
        .then(|| mode.to_owned())
}

fn runs(name: &str) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| fs_read(&format!("{}/comm", entry.path().display())).as_deref() == Some(name))
}

/// Cilium pins what it translates Services with; `root`: of the file systems.
pub(super) fn cilium(root: &Path) -> Line {
    const PART: &str = "Cilium";
    let sockets = root.join("sys/fs/bpf/cilium/socketlb/links/cgroup");
    let services = root.join("sys/fs/bpf/tc/globals/cilium_lb4_services_v2");
    let has_interface = root.join("sys/class/net/cilium_host").exists();
    let translates = fs::read_dir(&sockets).is_ok_and(|mut links| links.next().is_some());
    if translates || (services.exists() && has_interface) {
        return Line::warning(
            PART,
            "Cilium is here, with maps or sockets of its kube-proxy replacement: it may translate before us",
            "with kubeProxyReplacement it serves ClusterIPs itself: exclude a Service there \
             (service.cilium.io/type, or the label service-proxy-name) before it is opted in here",
        );
    }
    if has_interface {
        return Line::warning(
            PART,
            "Cilium is here: it delivers to pods past our hook, so no answer is seen",
            "--socket-path all serves pods when they connect; --exclude-interface 'lxc*' leaves their packets alone",
        );
    }
    Line::ok(PART, "not here")
}

/// Endpoints of other clusters that have an address of this node, or of a pod of this cluster.
pub(super) fn local_imports(catalog: &Catalog) -> Line {
    const PART: &str = "imports";
    let endpoints = || catalog.frontends.iter().flat_map(|frontend| &frontend.endpoints);
    let imported: BTreeSet<IpAddr> = endpoints()
        .filter(|endpoint| endpoint.cluster != catalog.cluster && endpoint.is_used())
        .map(|endpoint| endpoint.address)
        .collect();
    let own: BTreeSet<IpAddr> = endpoints()
        .filter(|endpoint| endpoint.cluster == catalog.cluster)
        .map(|endpoint| endpoint.address)
        .collect();
    let anything_is_local = fs_read("/proc/sys/net/ipv4/ip_nonlocal_bind").as_deref() == Some("1");
    let is_local = |address: &IpAddr| {
        own.contains(address) || (!anything_is_local && UdpSocket::bind((*address, 0)).is_ok())
    };
    let local: Vec<IpAddr> = imported.iter().copied().filter(is_local).collect();
    match local.first() {
        None if imported.is_empty() => Line::ok(PART, "no endpoint of another cluster takes flows here"),
        None => Line::ok(PART, format!("none of {} imported addresses is also local", imported.len())),
        Some(first) => Line::failed(
            PART,
            format!("{} of {} imported addresses are also local, as {first}", local.len(), imported.len()),
            "pod networks of clusters that are joined must not overlap; `cidrs` in the settings keep such imports out",
        ),
    }
}

fn our_program(pin_dir: &PinDir, index: u32, hook: TcxHook) -> Option<u32> {
    let direction = match hook {
        TcxHook::Ingress => Direction::FromPod,
        TcxHook::Egress => Direction::ToPod,
    };
    let link = sys::object_get(&pin_dir.link(index, direction), Access::ReadWrite).ok()?;
    Some(sys::tcx_link_info(link.as_fd()).ok()??.program_id)
}

/// Index and name of every interface of this network namespace, wherever /sys is from (proc_pid_net(5)).
fn interfaces() -> Vec<(u32, String)> {
    let text = fs_read("/proc/self/net/dev").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter_map(|name| Some((sys::interface_index(&name)?, name))).collect()
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        catalog::{CatalogEndpoint, CatalogFrontend},
        line::Level,
    };

    #[test]
    fn kube_proxys_mode_is_read_from_its_answer() {
        assert_eq!(mode_of("HTTP/1.0 200 OK\r\nX: y\r\n\r\nnftables").as_deref(), Some("nftables"));
        for answer in ["HTTP/1.0 404 Not Found\r\n\r\niptables", "", "HTTP/1.0 200 OK\r\n\r\n<html>"] {
            assert_eq!(mode_of(answer), None, "{answer}");
        }
    }

    #[test]
    fn cilium_is_told_by_what_it_leaves_on_a_node() {
        let root = std::env::temp_dir().join(format!("mcs-proxy-cilium-{}", std::process::id()));
        assert_eq!(cilium(&root).level, Level::Ok);
        fs::create_dir_all(root.join("sys/class/net/cilium_host")).unwrap();
        assert!(cilium(&root).says.contains("past our hook"));
        fs::create_dir_all(root.join("sys/fs/bpf/cilium/socketlb/links/cgroup/connect4")).unwrap();
        assert!(cilium(&root).says.contains("before us"));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn an_import_with_a_local_address_is_told() {
        let endpoint = |address: &str, cluster: &str| CatalogEndpoint {
            address: address.parse().unwrap(),
            port: 80,
            cluster: cluster.into(),
            slice: "serve".into(),
            verdict: "used".into(),
            slots: 1,
            tier: None,
        };
        let catalog = |endpoints| Catalog {
            cluster: "member2".into(),
            frontends: vec![CatalogFrontend {
                vip: "10.13.0.1".parse().unwrap(),
                port: 80,
                protocol: "TCP".into(),
                namespace: "default".into(),
                name: "serve".into(),
                port_name: String::new(),
                algorithm: "random".into(),
                packets_only: false,
                endpoints,
                active_tier: None,
            }],
        };
        let (own, far) = (endpoint("198.51.100.1", "member2"), endpoint("198.51.100.2", "member1"));
        assert_eq!(local_imports(&catalog(vec![own.clone(), far.clone()])).level, Level::Ok);
        for local in ["198.51.100.1", "127.0.0.1"] {
            let line = local_imports(&catalog(vec![own.clone(), far.clone(), endpoint(local, "member1")]));
            assert!(line.level == Level::Failed && line.says.contains(local), "{line:?}");
        }
    }
}
