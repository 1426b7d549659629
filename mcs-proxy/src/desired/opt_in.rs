use crate::model::{ObjectRef, OptIn, Problem, Service};

/// Whether a Service's ClusterIPs are served by us. `enabled: "false"` and another proxy's name beat all.
///
/// `default/kubernetes` needs its own annotation: the daemon must not depend on itself to reach the API server.
#[must_use]
pub fn is_ours(service: &Service, all_services: bool) -> bool {
    let is_api_server = *service.key.namespace == *"default" && *service.key.name == *"kubernetes";
    match service.opt_in {
        OptIn::Annotation => true,
        OptIn::ProxyName => !is_api_server,
        OptIn::Unsaid => all_services && !is_api_server,
        OptIn::Refused | OptIn::OtherProxy => false,
    }
}

/// What a Service asks for that this version does not do, or that nobody will do. `ours`: see [`is_ours`].
pub(super) fn unserved(service: &Service, ours: bool) -> Vec<Problem> {
    let named = matches!(service.opt_in, OptIn::Annotation | OptIn::ProxyName);
    let labelled_for_us =
        !service.kube_proxy_beneath && service.opt_in != OptIn::OtherProxy && service.import_name().is_none();
    let mut found = Vec::new();
    let mut add = |field: &str, message: &str, remedy: &str| {
        found.push(Problem {
            object: reference(service),
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    };
    const LABEL: &str = "metadata.labels[service.kubernetes.io/service-proxy-name]";
    if labelled_for_us && !ours {
        let why = if service.opt_in == OptIn::Refused {
            "takes it from kube-proxy, and the annotation mcs-proxy.io/enabled: \"false\" keeps us from it: nobody serves it"
        } else {
            "takes it from kube-proxy, but we must not serve the API server's own Service by the label: nobody serves it"
        };
        add(LABEL, why, "remove the label");
    }
    if !ours {
        return found;
    }
    if named && service.cluster_ips.is_empty() {
        add(
            "spec.clusterIP",
            "there is none that is ours to serve: the Service is headless (by `None` or by label), an ExternalName, or \
             without a valid address yet",
            "give it a ClusterIP or remove the annotation or label",
        );
    }
    if labelled_for_us && service.externally_exposed {
        add(
            LABEL,
            "takes it from kube-proxy, and we serve ClusterIPs alone: nobody serves its node ports, external and \
             load balancer addresses",
            "remove the label and use the annotation mcs-proxy.io/enabled: \"true\"",
        );
    }
    if !service.kube_proxy_beneath && service.socket_path == Some(false) {
        add(
            "metadata.annotations[mcs-proxy.io/socket-path]",
            "keeps us from sockets, and kube-proxy does not serve this Service: processes in the node's own network, \
             whose packets we do not see, reach nobody",
            "remove the annotation, unless only pods call the Service",
        );
    }
    found
}

/// While the mode keeps us from everything: what that does to a Service which kube-proxy leaves alone.
pub(super) fn switched_off(service: &Service) -> Option<Problem> {
    (!service.kube_proxy_beneath && !service.cluster_ips.is_empty()).then(|| Problem {
        object: reference(service),
        field: "metadata.labels[service.kubernetes.io/service-proxy-name]".into(),
        message: "takes it from kube-proxy, and the settings' `mode`, or `mcs-proxy mode`, lets us begin no new flows: nobody serves them".into(),
        remedy: "remove the label, so that kube-proxy serves it, or set `mode: active`".into(),
    })
}

pub(super) fn reference(service: &Service) -> ObjectRef {
    service.object_ref()
}
