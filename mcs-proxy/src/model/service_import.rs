use super::{NamespacedName, ObjectKind, ObjectRef, OptIn, Problem, Service};
use std::net::IpAddr;

/// A ServiceImport of the Kubernetes MCS API (KEP-1645) of type ClusterSetIP, v1alpha1 or v1beta1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImport {
    pub key: NamespacedName,
    /// What it would be as a Service: `spec.ips` as its ClusterIPs, called by [`import_key`].
    pub service: Service,
    /// Names of the Services, in its namespace, that its implementation made of it so that kube-proxy serves it. One;
    /// with AWS Cloud Map, one for each cluster.
    pub derived: Vec<String>,
    /// What the decoder found wrong with it. The [`Model`](super::Model) keeps them apart from the object.
    pub problems: Vec<Problem>,
}

impl ServiceImport {
    /// Whether this Service is one that the import was made into, by name and by address. Karmada's older flow gives
    /// imports no addresses.
    pub(super) fn governs(&self, service: &Service) -> bool {
        let ips = &self.service.cluster_ips;
        let shares = |ip: &IpAddr| service.cluster_ips.contains(ip);
        self.key.namespace == service.key.namespace
            && self.derived.iter().any(|name| **name == *service.key.name)
            && (ips.is_empty() || ips.iter().any(shares))
    }

    pub(super) fn problem(&self, field: String, message: String, remedy: &str) -> Problem {
        let NamespacedName { namespace, name } = self.key.clone();
        let object = ObjectRef { kind: ObjectKind::ServiceImport, namespace, name };
        Problem { object, field, message, remedy: remedy.to_owned() }
    }
}

/// What an import's own frontends are called among those of Services: `NAMESPACE/serviceimport/NAME`. No Service can
/// have a slash in its name.
#[must_use]
pub fn import_key(import: &NamespacedName) -> NamespacedName {
    NamespacedName::new(&*import.namespace, format!("{IMPORT_PREFIX}{}", import.name))
}

/// Before the name of an import in [`import_key`].
pub const IMPORT_PREFIX: &str = "serviceimport/";

impl Service {
    /// The ServiceImport that this stands for, if it is no real Service.
    #[must_use]
    pub fn import_name(&self) -> Option<&str> {
        self.key.name.strip_prefix(IMPORT_PREFIX)
    }

    /// The object to tell of.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        let (kind, name) = self.import_name().map_or((ObjectKind::Service, self.key.name.clone()), |name| {
            (ObjectKind::ServiceImport, name.into())
        });
        ObjectRef { kind, namespace: self.key.namespace.clone(), name }
    }

    /// This Service as its import wants it: either enables it, `enabled: "false"` on either beats that, and of the other
    /// annotations the import's values win.
    pub(super) fn governed_by(&self, import: &Self) -> Self {
        let opt_in = match (self.opt_in, import.opt_in) {
            (OptIn::OtherProxy, _) => OptIn::OtherProxy,
            (OptIn::Refused, _) | (_, OptIn::Refused) => OptIn::Refused,
            (_, OptIn::Annotation) => OptIn::Annotation,
            (own, _) => own,
        };
        Self {
            opt_in,
            algorithm: import.algorithm.or(self.algorithm),
            clusters: import.clusters.clone().or_else(|| self.clusters.clone()),
            min_ready: import.min_ready.or(self.min_ready),
            socket_path: import.socket_path.or(self.socket_path),
            ..self.clone()
        }
    }
}
