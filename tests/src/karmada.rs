//! Services and EndpointSlices with the fields, labels and annotations that Karmada's MultiClusterService gives them,
//! as YAML, in a folder that a daemon watches.

use anyhow::{Context, Result};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A Service as it stands in one cluster.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    /// The cluster it stands in.
    pub cluster: String,
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<Port>,
    /// `metadata.creationTimestamp`.
    pub created: String,
    /// Those of `mcs-proxy.io/`, without that prefix.
    pub annotations: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    /// The Service's, or in a slice the pod's.
    pub port: u16,
}

/// An EndpointSlice as it stands in one cluster.
#[derive(Clone, Debug)]
pub struct Slice {
    pub name: String,
    pub service: String,
    /// The cluster it stands in.
    pub cluster: String,
    /// The cluster whose pods it names.
    pub provider: String,
    pub ports: Vec<Port>,
    /// None: a placeholder, whose ports and endpoints are null.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: IpAddr,
    pub ready: bool,
    /// It was ready, and serves what it has until it ends.
    pub terminating: bool,
    pub node: String,
    pub pod: String,
}

impl Service {
    pub fn new(name: &str, cluster: &str, cluster_ips: &[&str], ports: &[Port]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            cluster_ips: addresses(cluster_ips)?,
            ports: ports.to_vec(),
            created: "2026-11-23T10:57:50Z".to_owned(),
            annotations: Vec::new(),
        })
    }

    /// The same Service with an annotation of ours.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn yaml(&self) -> String {
        let Self { name, cluster, cluster_ips, ports, created, annotations } = self;
        let first = cluster_ips.first().map(ToString::to_string).unwrap_or_default();
        let ours = lines(annotations, |(name, value)| format!("    mcs-proxy.io/{name}: \"{value}\"\n"));
        let ips = lines(cluster_ips, |ip| format!("  - {ip}\n"));
        let families = lines(cluster_ips, |ip| format!("  - {}\n", family(*ip)));
        let policy = if cluster_ips.len() > 1 { "PreferDualStack" } else { "SingleStack" };
        let ports = lines(ports, |Port { name, protocol, port }| {
            let name = if name.is_empty() { String::new() } else { format!("name: {name}\n    ") };
            format!("  - {name}port: {port}\n    protocol: {protocol}\n    targetPort: 8080\n")
        });
        format!(
            r#"apiVersion: v1
kind: Service
metadata:
  annotations:
{ours}    multiclusterservice.karmada.io/name: {name}
    multiclusterservice.karmada.io/namespace: default
    resourcebinding.karmada.io/name: {name}-service
    resourcebinding.karmada.io/namespace: default
    work.karmada.io/conflict-resolution: overwrite
    work.karmada.io/name: {name}-685ffc9486
    work.karmada.io/namespace: karmada-es-{cluster}
  creationTimestamp: "{created}"
  labels:
    karmada.io/managed: "true"
    resourcetemplate.karmada.io/claimed-by: MultiClusterService
  name: {name}
  namespace: default
  uid: 709d42f3-37ad-482c-b4cb-d6d5a7c1576a
spec:
  clusterIP: "{first}"
  clusterIPs:
{ips}  internalTrafficPolicy: Cluster
  ipFamilies:
{families}  ipFamilyPolicy: {policy}
  ports:
{ports}  selector:
    app: {name}
  sessionAffinity: None
  type: ClusterIP
status:
  loadBalancer: {{}}
"#
        )
    }
}

impl Slice {
    /// A slice of pods; `provider` equal to `cluster`: a local one. Without pods: the placeholder.
    pub fn new(name: &str, service: &str, cluster: &str, provider: &str, pods: &[Endpoint]) -> Self {
        let ports = if pods.is_empty() { Vec::new() } else { vec![Port::new("", "TCP", crate::POD_PORT)] };
        Self {
            name: name.to_owned(),
            service: service.to_owned(),
            cluster: cluster.to_owned(),
            provider: provider.to_owned(),
            ports,
            endpoints: pods.to_vec(),
        }
    }

    #[must_use]
    pub fn with_ports(mut self, ports: &[Port]) -> Self {
        self.ports = ports.to_vec();
        self
    }

    pub fn yaml(&self) -> String {
        let Self { name, service, cluster, provider, ports, endpoints } = self;
        let family = family(endpoints.first().map_or(IpAddr::from([0; 4]), |endpoint| endpoint.address));
        let endpoints = lines(endpoints, |Endpoint { address, ready, terminating, node, pod }| {
            let (serving, ready) = (ready, *ready && !terminating);
            format!(
                r#"- addresses:
  - "{address}"
  conditions:
    ready: {ready}
    serving: {serving}
    terminating: {terminating}
  nodeName: {node}
  targetRef:
    kind: Pod
    name: {pod}
    namespace: default
"#
            )
        });
        let ports = lines(ports, |Port { name, protocol, port }| {
            format!("- name: \"{name}\"\n  port: {port}\n  protocol: {protocol}\n")
        });
        let or_null = |list: String| if list.is_empty() { " null\n".to_owned() } else { format!("\n{list}") };
        let (endpoints, ports) = (or_null(endpoints), or_null(ports));
        let metadata = if provider == cluster {
            format!(
                r#"  annotations:
    endpoints.kubernetes.io/last-change-trigger-time: "2026-11-23T10:57:50Z"
  labels:
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    karmada.io/managed: "true"
    kubernetes.io/service-name: {service}
    resourcetemplate.karmada.io/claimed-by: MultiClusterService
  ownerReferences:
  - apiVersion: v1
    blockOwnerDeletion: true
    controller: true
    kind: Service
    name: {service}
    uid: 709d42f3-37ad-482c-b4cb-d6d5a7c1576a
"#
            )
        } else {
            format!(
                r#"  annotations:
    endpointslice.karmada.io/provision-cluster: {provider}
    work.karmada.io/name: {name}-768d4759dd
    work.karmada.io/namespace: karmada-es-{cluster}
  labels:
    endpointslice.kubernetes.io/managed-by: endpointslice-dispatch-controller.karmada.io
    karmada.io/managed: "true"
    kubernetes.io/service-name: {service}
"#
            )
        };
        format!(
            r#"addressType: {family}
apiVersion: discovery.k8s.io/v1
endpoints:{endpoints}kind: EndpointSlice
metadata:
{metadata}  name: {name}
  namespace: default
ports:{ports}"#
        )
    }
}

impl Port {
    pub fn new(name: &str, protocol: &str, port: u16) -> Self {
        Self { name: name.to_owned(), protocol: protocol.to_owned(), port }
    }
}

impl Endpoint {
    /// # Errors
    /// The address is none.
    pub fn new(address: &str, node: &str, pod: &str) -> Result<Self> {
        let address = address.parse().with_context(|| format!("address {address}"))?;
        let (node, pod) = (node.to_owned(), pod.to_owned());
        Ok(Self { address, ready: true, terminating: false, node, pod })
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn addresses(addresses: &[&str]) -> Result<Vec<IpAddr>> {
    addresses.iter().map(|address| address.parse().with_context(|| format!("address {address}"))).collect()
}

fn lines<T>(items: &[T], line: impl Fn(&T) -> String) -> String {
    items.iter().map(line).collect()
}

/// A folder of manifests, one a file.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file at once, whole: another is never seen in between.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let outside = self.folder.with_extension("new");
        fs::write(&outside, text).with_context(|| outside.display().to_string())?;
        let path = self.path(name);
        fs::rename(&outside, &path).with_context(|| path.display().to_string())
    }

    /// # Errors
    /// The file system's.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// # Errors
    /// The file system's.
    pub fn service(&self, service: &Service) -> Result<()> {
        self.write(&format!("service-{}", service.name), &service.yaml())
    }

    /// # Errors
    /// The file system's.
    pub fn slice(&self, slice: &Slice) -> Result<()> {
        self.write(&format!("endpointslice-{}", slice.name), &slice.yaml())
    }

    /// # Errors
    /// The file system's.
    pub fn remove_slice(&self, name: &str) -> Result<()> {
        self.remove(&format!("endpointslice-{name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }
}
