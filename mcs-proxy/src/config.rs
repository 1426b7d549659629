//! The command line: every flag, its default and its help.

mod health;
mod look;
mod observing;

pub use health::HealthFlags;
pub use look::{Connections, Ends, FlowFilter, Monitor, ProtocolName, STATES, Services, Stats, Told, Top};
pub use observing::{BindAddress, Check, Observing};

use crate::{
    dataplane::{
        flows::Timeouts,
        hairpin::{self, Hairpin},
        interfaces::Pattern,
        links::Hook,
        loader::Options,
    },
    desired::Flags,
    explain::{Client, Query, Target},
    model::{Limits, NamespacedName, NodeMode, check_cluster_name},
    source::{Scope, SourceSpec},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;
use mcs_proxy_ebpf::abi::{Algorithm, MapSizes, SocketScope};
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

/// How every command ends.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, as standard error says; 2 the command line is wrong; 3 nothing is pinned here: no daemon \
has run on this node since the last boot, or with another --pin-dir; 4 permission denied; 5 `check` or `status` found \
something that failed; 6 no daemon answered `mode`: what it ordered holds once one is started";

/// eBPF dataplane for Kubernetes Services that span clusters
#[derive(Debug, Parser)]
#[command(name = "mcs-proxy", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub places: Places,
    #[command(subcommand)]
    pub command: Command,
}

/// Where a node's state is. Several nodes on one kernel (network namespaces) need a pin directory each.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// Directory on bpffs for the pinned maps and links
    #[arg(long, global = true, env = "MCS_PROXY_PIN_DIR", default_value = "/sys/fs/bpf/mcs-proxy")]
    pub pin_dir: PathBuf,
    /// Directory for the names that belong to what the maps hold [default: /run/ and the last part of --pin-dir]
    #[arg(long, global = true, env = "MCS_PROXY_RUN_DIR")]
    pub run_dir: Option<PathBuf>,
}

impl Places {
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| {
            let name = self.pin_dir.file_name().unwrap_or_else(|| "mcs-proxy".as_ref());
            Path::new("/run").join(name)
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon of this node
    Run(Box<Run>),
    /// Frontends and their endpoints, as `ipvsadm -Ln` lists them, with cluster and verdict
    Services(Services),
    /// Backends that the maps hold, one a line
    Backends(List),
    /// Flows that the maps hold, one a line, as `ipvsadm -Lnc` lists them
    Connections(Connections),
    /// Connections, packets and bytes by Service, backend and cluster, as `ipvsadm --stats` and `--rate` read
    Stats(Stats),
    /// Services by what they do in a second, on the whole screen
    Top(Top),
    /// What happens to flows, as it happens: new, first reply, closed, rejected, dropped, passed with its reason
    Monitor(Monitor),
    /// Print a script for a shell that completes command lines: `source <(mcs-proxy completion bash)`
    Completion {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Why a Service's traffic goes where it goes: its endpoints with slice, cluster and verdict, and what the maps hold
    Explain(Box<Explain>),
    /// How the daemon of this node is: each part ok, with a warning or failed, with the way out; exit code 5 if one failed
    Status {
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Whether this node can run a daemon, and what stands in its way; needs none; exit code 5 if something failed
    Check(Box<Check>),
    /// Switch this node to active, drain or bypass, without the API server; alone: which mode holds; exit code 6 if no daemon
    /// answers, and the order waits for one to be started
    Mode {
        #[arg(value_enum)]
        mode: Option<NodeMode>,
    },
    /// Take off this node what daemons have left: pins, links, filters, files; without daemon, API server or programs
    Cleanup(Cleanup),
    /// Have every daemon of the cluster drain, take everything off its node and report; before `helm uninstall` or `kubectl
    /// delete -k`
    Uninstall(Uninstall),
}

#[derive(Clone, Debug, Args)]
pub struct Uninstall {
    /// How long connections may take to end
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub drain: humantime::Duration,
    /// How long daemons may take to report beyond that
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub patience: humantime::Duration,
    /// The daemons' ConfigMap: NAMESPACE/NAME; their pods are in the same namespace
    #[arg(long, value_name = "CONFIGMAP", value_parser = namespaced_name, default_value = "mcs-proxy/mcs-proxy")]
    pub settings: NamespacedName,
    /// Labels of the daemons' pods; of the pods that have them, those of a DaemonSet count
    #[arg(long, value_name = "LABELS", default_value = "app.kubernetes.io/name=mcs-proxy")]
    pub selector: String,
    /// Even if Services carry the label that takes them from kube-proxy, so that nobody serves them then
    #[arg(long)]
    pub force: bool,
    /// Take the order back: daemons that have left end, and serve again once they are started anew
    #[arg(long, conflicts_with_all = ["drain", "patience", "force"])]
    pub undo: bool,
    /// [default: $KUBECONFIG, ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Cleanup {
    /// List what would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also under a daemon that runs, which then ends
    #[arg(long)]
    pub force: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Name of this cluster, as the others know it
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub cluster_name: String,
    /// Name of this node, as its cluster knows it [default: the host's name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Name of the pod that the daemon runs in: a second daemon on the node is told who was first
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// ConfigMap with the switches for clusters: NAMESPACE/NAME
    #[arg(long, value_name = "CONFIGMAP", value_parser = namespaced_name)]
    pub settings: Option<NamespacedName>,
    /// Ranges that addresses of ServiceImports may be in, separated by commas [default: none but their derived
    /// Services' ClusterIPs]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub serviceimport_cidrs: Vec<IpNet>,
    /// Where Services and EndpointSlices come from: `kubernetes` or `directory=PATH`
    #[arg(long, default_value = "kubernetes", value_name = "SOURCE")]
    pub source: SourceSpec,
    /// For `--source kubernetes` [default: $KUBECONFIG, ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// How often the API server is asked whether it has ServiceImports, and in which version
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub discovery_interval: humantime::Duration,
    /// The longest wait before a problem is told of by a Kubernetes Event; each node waits for another part of it
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub event_jitter: humantime::Duration,
    /// How a Service without `mcs-proxy.io/algorithm` spreads its flows
    #[arg(long, value_enum, default_value = "round-robin")]
    pub default_algorithm: AlgorithmName,
    /// Serve every Service that has a ClusterIP, unless it says otherwise
    #[arg(long)]
    pub all_services: bool,
    /// For how long a tier of `mcs-proxy.io/clusters` must have had enough endpoints again before new flows return to it
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub tier_hold: humantime::Duration,
    /// For how long endpoints are kept whose EndpointSlice is deleted while their Service lives and nothing else backs it
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub deleted_slice_grace: humantime::Duration,
    /// Interfaces to leave alone; `*` stands for any characters; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude_interface: Vec<Pattern>,
    /// By which address a pod that calls itself through a Service seems to be called; free on every pod's network
    #[arg(long, value_name = "ADDRESS", default_value_t = Hairpin::DEFAULT.v4, value_parser = hairpin::parse_v4)]
    pub hairpin_address_v4: Ipv4Addr,
    /// The same over IPv6
    #[arg(long, value_name = "ADDRESS", default_value_t = Hairpin::DEFAULT.v6, value_parser = hairpin::parse_v6)]
    pub hairpin_address_v6: Ipv6Addr,
    /// Hand packets of new flows between two pods of this node over without the host's IP stack: faster, and past the
    /// host's routes, connection tracking and netfilter, network policy that lives there included
    #[arg(long)]
    pub redirect: bool,
    /// Hook to attach to; `auto` takes tcx where the kernel has it (6.6)
    #[arg(long, default_value = "auto", value_name = "auto|tcx|clsact")]
    pub hook: Hook,
    /// Which sockets are translated when they connect, instead of their packets: those of host-network processes,
    /// of all processes in --cgroup (not beside sidecars that ask for SO_ORIGINAL_DST), or none
    #[arg(long, value_enum, default_value = "host", value_name = "host|all|off")]
    pub socket_path: SocketPath,
    /// cgroup2 whose processes the socket path serves [default: where cgroup2 is mounted]
    #[arg(long, value_name = "PATH", env = "MCS_PROXY_CGROUP")]
    pub cgroup: Option<PathBuf>,
    #[command(flatten)]
    pub sizes: Sizes,
    #[command(flatten)]
    pub health: HealthFlags,
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub timeouts: TimeoutFlags,
    #[command(flatten)]
    pub observing: Observing,

    /// How often flows are looked through: for those that have been silent for too long, and for interfaces that no
    /// answers show on.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = scan_interval)]
    pub flow_scan_interval: humantime::Duration,
    /// For how long no daemon may run before new flows pass by mcs-proxy, as the maps may be of long ago; 0s: for ever
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub orphan_timeout: humantime::Duration,
    /// Take over from a newer mcs-proxy whose pins have another layout; else it is refused, and what runs goes on
    #[arg(long)]
    pub take_over_newer: bool,
    /// Let the eBPF programs log new flows, at debug level: costs speed, for development
    #[arg(long)]
    pub bpf_log: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// A Service (NAMESPACE/NAME), a ServiceImport (NAMESPACE/serviceimport/NAME), or a VIP with its port
    #[arg(value_name = "SERVICE|VIP:PORT", required_unless_present = "manifests")]
    pub target: Option<Target>,
    /// Of VIP:PORT: TCP, UDP or SCTP
    #[arg(long, default_value = "TCP", value_parser = ["TCP", "UDP", "SCTP"], ignore_case = true)]
    pub protocol: String,
    /// Explain the flows of this client, too: IP or IP:PORT; with -f alone, those to every Service
    #[arg(long, value_name = "IP[:PORT]")]
    pub client: Option<Client>,
    /// Explain what a daemon would make of the manifests in this directory; takes no rights, no kernel and no daemon
    #[arg(short = 'f', long = "filename", value_name = "DIRECTORY")]
    pub manifests: Option<PathBuf>,
    /// With -f: name of the cluster that the manifests are in
    #[arg(long, value_name = "NAME", value_parser = cluster_name, default_value = "local", requires = "manifests")]
    pub cluster_name: String,
    /// With -f: name of the node whose daemon it is
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "manifests")]
    pub node_name: String,
    /// With -f: as of `run`
    #[arg(long, requires = "manifests")]
    pub all_services: bool,
    /// With -f: as of `run`
    #[arg(long, value_enum, default_value = "round-robin", requires = "manifests")]
    pub default_algorithm: AlgorithmName,
    /// With -f: as of `run`
    #[arg(long, value_name = "CONFIGMAP", value_parser = namespaced_name, requires = "manifests")]
    pub settings: Option<NamespacedName>,
    /// With -f: as of `run`
    #[arg(long, value_name = "CIDR", value_delimiter = ',', requires = "manifests")]
    pub serviceimport_cidrs: Vec<IpNet>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

impl Explain {
    /// What is asked; `None`: everything.
    #[must_use]
    pub fn query(&self) -> Option<Query> {
        let mut target = self.target.clone()?;
        if let Target::Frontend { protocol, .. } = &mut target {
            *protocol = self.protocol.to_ascii_uppercase();
        }
        Some(Query { target, client: self.client })
    }

    /// Of the daemon that is imagined.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            cluster_name: self.cluster_name.clone(),
            node_name: self.node_name.clone(),
            default_algorithm: self.default_algorithm.into(),
            all_services: self.all_services,
            tier_hold: Duration::ZERO,
            eject_unanswered: false,
        }
    }

    /// Which of the manifests concern it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            cluster_name: self.cluster_name.clone(),
            node_name: self.node_name.clone(),
            settings: self.settings.clone(),
            discovery_interval: Duration::ZERO,
        }
    }
}

/// Capacities. They can be raised by a restart, which loses nothing; to lower one, remove the pin directory before.
#[derive(Clone, Debug, Args)]
pub struct Sizes {
    /// Frontends: one for each VIP, port and protocol
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.frontends, value_parser = size(1 << 22))]
    pub max_frontends: u32,
    /// Slots: one for each endpoint of each frontend, and one more for each frontend; a frontend with maglev and two
    /// endpoints or more has 4093, with more than 40 endpoints 65521
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.elements, value_parser = size(1 << 26))]
    pub max_slots: u32,
    /// Backends: one for each endpoint of each frontend
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.backend_ids, value_parser = size(1 << 24))]
    pub max_backends: u32,
    /// Established flows
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.flows, value_parser = size(1 << 26))]
    pub max_flows: u32,
    /// Established flows of one interface [default: a quarter of --max-flows]
    #[arg(long, value_name = "N", value_parser = size(1 << 26))]
    pub max_flows_per_interface: Option<u32>,
    /// Flows that are not yet or no longer established: beyond it the oldest are evicted
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.transient, value_parser = size(1 << 24))]
    pub max_transient_flows: u32,
    /// Peers of unconnected UDP sockets on the socket path: beyond it the oldest are evicted
    #[arg(long, value_name = "N", default_value_t = MapSizes::DEFAULT.sockets, value_parser = size(1 << 24))]
    pub max_sockets: u32,
}

impl Run {
    #[must_use]
    pub fn node_name(&self) -> String {
        let host_name = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        self.node_name.clone().unwrap_or_else(|| host_name().trim().to_lowercase())
    }

    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            cluster_name: self.cluster_name.clone(),
            node_name: self.node_name(),
            settings: self.settings.clone(),
            discovery_interval: self.discovery_interval.into(),
        }
    }

    #[must_use]
    pub fn load_options(&self) -> Options {
        let sizes = self.sizes.map_sizes();
        let flows_per_interface = self.sizes.max_flows_per_interface.unwrap_or(sizes.flows / 4);
        Options {
            sizes,
            flows_per_interface,
            hairpin: self.hairpin(),
            redirect: self.redirect,
            socket_path: self.socket_path.scope(),
            timeouts: self.timeouts.timeouts(),
            orphan_timeout: self.orphan_timeout.into(),
            bpf_log: self.bpf_log,
        }
    }

    #[must_use]
    pub const fn hairpin(&self) -> Hairpin {
        Hairpin { v4: self.hairpin_address_v4, v6: self.hairpin_address_v6 }
    }
}

/// The most endpoints that other clusters may bring. Past a limit nothing is added, and what is there stays.
#[derive(Clone, Copy, Debug, Args)]
pub struct LimitFlags {
    /// Endpoints that one cluster brings to one Service
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.per_service)]
    pub max_service_endpoints: usize,
    /// Endpoints that one cluster brings in all, unless the settings say `max-endpoints` for it
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.per_cluster)]
    pub max_cluster_endpoints: usize,
    /// Endpoints that all other clusters bring together
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.per_node)]
    pub max_imported_endpoints: usize,
}

impl LimitFlags {
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            per_service: self.max_service_endpoints,
            per_cluster: self.max_cluster_endpoints,
            per_node: self.max_imported_endpoints,
        }
    }
}

/// Half a million flows take some hundred milliseconds to look through.
fn scan_interval(text: &str) -> Result<humantime::Duration, String> {
    let interval: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    if range.contains(&interval) {
        Ok(interval)
    } else {
        Err("less than a second, or more than an hour".to_owned())
    }
}

/// How long flows may be silent, as netfilter's `nf_conntrack_*_timeout_*`: `90s`, `2m`, `5days`.
#[derive(Clone, Debug, Args)]
pub struct TimeoutFlags {
    /// TCP: SYN without an answer
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub tcp_timeout_syn_sent: humantime::Duration,
    /// TCP: answered, but not confirmed by the client
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub tcp_timeout_syn_received: humantime::Duration,
    /// TCP: established
    #[arg(long, value_name = "TIME", default_value = "5days")]
    pub tcp_timeout_established: humantime::Duration,
    /// TCP: one side has closed
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub tcp_timeout_half_closed: humantime::Duration,
    /// TCP: both sides have closed, or one has reset
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub tcp_timeout_closed: humantime::Duration,
    /// UDP: without traffic both ways
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub udp_timeout: humantime::Duration,
    /// UDP: with traffic both ways
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub udp_timeout_stream: humantime::Duration,
    /// SCTP: INIT without an answer
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub sctp_timeout_cookie_wait: humantime::Duration,
    /// SCTP: answered, but not confirmed by the client
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub sctp_timeout_cookie_echoed: humantime::Duration,
    /// SCTP: established
    #[arg(long, value_name = "TIME", default_value = "210s")]
    pub sctp_timeout_established: humantime::Duration,
    /// SCTP: aborted or shut down
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub sctp_timeout_closed: humantime::Duration,
}

impl TimeoutFlags {
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            tcp_syn_sent: self.tcp_timeout_syn_sent.into(),
            tcp_syn_received: self.tcp_timeout_syn_received.into(),
            tcp_established: self.tcp_timeout_established.into(),
            tcp_half_closed: self.tcp_timeout_half_closed.into(),
            tcp_closed: self.tcp_timeout_closed.into(),
            udp: self.udp_timeout.into(),
            udp_stream: self.udp_timeout_stream.into(),
            sctp_cookie_wait: self.sctp_timeout_cookie_wait.into(),
            sctp_cookie_echoed: self.sctp_timeout_cookie_echoed.into(),
            sctp_established: self.sctp_timeout_established.into(),
            sctp_closed: self.sctp_timeout_closed.into(),
        }
    }
}

impl Sizes {
    #[must_use]
    pub const fn map_sizes(&self) -> MapSizes {
        let &Self {
            max_frontends, max_slots, max_backends, max_flows, max_transient_flows, max_sockets, ..
        } = self;
        MapSizes {
            frontends: max_frontends,
            elements: max_slots,
            backend_ids: max_backends,
            flows: max_flows,
            transient: max_transient_flows,
            sockets: max_sockets,
            ..MapSizes::DEFAULT
        }
    }
}

/// For the commands that list something.
#[derive(Clone, Debug, Args)]
pub struct List {
    /// Only this Service: NAMESPACE/NAME
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    pub service: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmName {
    RoundRobin,
    Random,
    Maglev,
}

/// Which sockets the socket path serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketPath {
    Host,
    All,
    Off,
}

impl SocketPath {
    #[must_use]
    pub const fn scope(self) -> Option<SocketScope> {
        match self {
            Self::Host => Some(SocketScope::Host),
            Self::All => Some(SocketScope::All),
            Self::Off => None,
        }
    }
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::RoundRobin => Self::RoundRobin,
            AlgorithmName::Random => Self::Random,
            AlgorithmName::Maglev => Self::Maglev,
        }
    }
}

fn size(largest: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=largest)
}

/// `default/serve`, or of a ServiceImport `default/serviceimport/serve`.
fn service_name(text: &str) -> Result<String, String> {
    let (namespace, name) = text.split_once('/').unwrap_or_default();
    let name = name.strip_prefix("serviceimport/").unwrap_or(name);
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        Err("a Service is named NAMESPACE/NAME, such as default/serve".into())
    } else {
        Ok(text.to_owned())
    }
}

fn namespaced_name(text: &str) -> Result<NamespacedName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(NamespacedName::new(namespace, name))
        }
        Some(_) | None => Err("a ConfigMap is named NAMESPACE/NAME, such as mcs-proxy/settings".into()),
    }
}

fn cluster_name(text: &str) -> Result<String, String> {
    check_cluster_name(text).map_or_else(|why| Err(why.to_owned()), |()| Ok(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn several_nodes_on_one_kernel_have_a_run_directory_each() {
        let places = |pin_dir: &str| Places { pin_dir: pin_dir.into(), run_dir: None };
        assert_eq!(places("/sys/fs/bpf/mcs-proxy").run_dir(), Path::new("/run/mcs-proxy"));
        assert_eq!(places("/sys/fs/bpf/mcs-proxy-member2/").run_dir(), Path::new("/run/mcs-proxy-member2"));
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_good() {
        for (arguments, said) in [
            (&["run", "--cluster-name", "Member_1"][..], "63 lower-case letters"),
            (&["run", "--cluster-name", ""], "63 lower-case letters"),
            (&["run"], "--cluster-name"),
            (&["run", "--cluster-name", "m", "--source", "etcd"], "`kubernetes` or `directory=PATH`"),
            (&["run", "--cluster-name", "m", "--default-algorithm", "rr"], "round-robin"),
            (&["run", "--cluster-name", "m", "--max-flows", "0"], "2..="),
            (&["run", "--cluster-name", "m", "--hairpin-address-v4", "127.0.0.1"], "loopback"),
            (&["run", "--cluster-name", "m", "--hairpin-address-v6", "fe80::1"], "link-local"),
            (&["run", "--cluster-name", "m", "--settings", "x"], "mcs-proxy/settings"),
            (&["services", "serve"], "default/serve"),
            (&["services", "-o", "xml"], "table, json, yaml"),
        ] {
            let error = Cli::try_parse_from(["mcs-proxy"].iter().chain(arguments)).unwrap_err().to_string();
            assert!(error.contains(said), "{arguments:?}: {error}");
        }
    }
}
