//! Who else is on this node: kube-proxy, Cilium; and imports with this node's addresses.

use super::fs_read;
use crate::{
    dataplane::sys,
    observe::{catalog::Catalog, line::Line},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

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

pub(super) fn cilium() -> Line {
    cilium_of(Path::new("/sys/fs/bpf"), sys::interface_index("cilium_host").is_some())
}

/// Cilium pins what it translates Services with.
fn cilium_of(bpffs: &Path, has_interface: bool) -> Line {
    const PART: &str = "Cilium";
    let sockets = bpffs.join("cilium/socketlb/links/cgroup");
    let services = bpffs.join("tc/globals/cilium_lb4_services_v2");
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
        assert_eq!(cilium_of(&root, false).level, Level::Ok);
        assert!(cilium_of(&root, true).says.contains("past our hook"));
        for (pin, has_interface) in
            [("tc/globals/cilium_lb4_services_v2", true), ("cilium/socketlb/links/cgroup/connect4", false)]
        {
            fs::create_dir_all(root.join(pin)).unwrap();
            assert!(cilium_of(&root, has_interface).says.contains("before us"), "{pin}");
        }
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
