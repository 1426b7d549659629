//! CoreDNS, as kubeadm installs it, less what one node can do without.

use super::Cluster;
use anyhow::Result;

/// Of its Service.
pub(super) const ADDRESS: &str = "10.13.0.10";

pub(super) fn install(cluster: &Cluster, opted_in: bool) -> Result<()> {
    let (host, port) = Cluster::API_SERVER;
    cluster.apply(&manifests(opted_in, &host.to_string(), port))?;
    cluster.wait_for_rollout("kube-system", "deployment/coredns")
}

fn manifests(opted_in: bool, host: &str, port: u16) -> String {
    format!(
        r#"apiVersion: v1
kind: ServiceAccount
metadata: {{name: coredns, namespace: kube-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: system:coredns}}
rules:
- {{apiGroups: [""], resources: [services, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: system:coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}}
subjects: [{{kind: ServiceAccount, name: coredns, namespace: kube-system}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: coredns, namespace: kube-system}}
data:
  Corefile: |
    .:53 {{
        errors
        ready
        kubernetes cluster.local {{
            ttl 0
        }}
    }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: coredns, namespace: kube-system}}
spec:
  selector: {{matchLabels: {{k8s-app: kube-dns}}}}
  template:
    metadata: {{labels: {{k8s-app: kube-dns}}}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
      - name: coredns
        image: localhost/coredns:1
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        env:
        # Past the Service of the API server, which may have nobody to serve it.
        - {{name: KUBERNETES_SERVICE_HOST, value: "{host}"}}
        - {{name: KUBERNETES_SERVICE_PORT, value: "{port}"}}
        readinessProbe: {{httpGet: {{path: /ready, port: 8181}}, periodSeconds: 1}}
        volumeMounts: [{{name: config, mountPath: /etc/coredns}}]
      volumes:
      - {{name: config, configMap: {{name: coredns}}}}
---
apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
  annotations: {{mcs-proxy.io/enabled: "{opted_in}"}}
spec:
  clusterIP: {ADDRESS}
  selector: {{k8s-app: kube-dns}}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
"#
    )
}
