//! What kubelets would tell the API server of nodes and pods, told by hand.

use crate::{Node, Pod, api::ApiServer};
use anyhow::Result;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

impl ApiServer {
    /// Enters a node with its addresses: kube-proxy waits for them.
    ///
    /// # Errors
    /// The server refuses it: there may be one of that name.
    pub fn enter_node(&self, node: &Node) -> Result<()> {
        let name = &node.name;
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        self.create("/api/v1/nodes", &object.to_string())?;
        let addresses = [node.address.to_string(), node.address_v6.to_string()]
            .map(|address| json!({ "type": "InternalIP", "address": address }));
        self.patch(&format!("/api/v1/nodes/{name}/status"), &json!({ "status": { "addresses": addresses } }))
    }

    /// Enters a pod with the label `app`, ready, in the namespace `default`.
    ///
    /// # Errors
    /// The server refuses it: there may be one of that name.
    pub fn enter_pod(&self, pod: &Pod, app: &str, ports: &[(&str, u16)]) -> Result<()> {
        let ports: Vec<_> =
            ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": pod.name, "labels": { "app": app } },
            "spec": { "nodeName": pod.node, "containers": [{ "name": app, "image": app, "ports": ports }] },
        });
        self.create(PODS, &object.to_string())?;
        self.set_ready(pod, true)
    }

    /// Says whether a pod is ready, and what its addresses are.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn set_ready(&self, pod: &Pod, ready: bool) -> Result<()> {
        let addresses: Vec<Value> = pod.addresses.iter().map(|address| json!({ "ip": address })).collect();
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
        let status = json!({
            "phase": "Running", "podIP": pod.addresses.first(), "podIPs": addresses, "conditions": [condition],
        });
        self.patch(&format!("{PODS}/{}/status", pod.name), &json!({ "status": status }))
    }

    /// Begins to end a pod; it stays, terminating, until [`remove_pod`](Self::remove_pod).
    ///
    /// # Errors
    /// There is no such pod.
    pub fn end_pod(&self, pod: &Pod) -> Result<()> {
        self.delete(&format!("{PODS}/{}?gracePeriodSeconds=600", pod.name))
    }

    /// Takes a pod away.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        self.delete(&format!("{PODS}/{}?gracePeriodSeconds=0", pod.name))
    }
}
