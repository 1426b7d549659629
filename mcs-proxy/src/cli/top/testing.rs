//! Stats for tests.

use crate::cli::stats::{Amount, ClusterStats, ServiceStats, Stats};

/// Services with their connections and bytes a second, the bytes one way; of each half goes to member1 and half to
/// member2.
pub(super) fn stats(services: &[(&str, f64, f64)]) -> Stats {
    let cluster = |name: &str, connections: f64, bytes: f64| ClusterStats {
        cluster: name.into(),
        backends: 1,
        connections: Amount::PerSecond(connections),
        answered: Amount::PerSecond(connections),
        bytes: Amount::PerSecond(bytes),
    };
    let services: Vec<ServiceStats> = services
        .iter()
        .zip(1..)
        .map(|(&(name, connections, bytes), number)| ServiceStats {
            namespace: "default".into(),
            name: name.into(),
            port_name: "http".into(),
            vip: [10, 13, 181, number].into(),
            port: 80,
            protocol: "TCP",
            algorithm: "round-robin",
            connections: Amount::PerSecond(connections),
            packets_in: Amount::PerSecond(connections * 5.0),
            packets_out: Amount::PerSecond(connections * 4.0),
            bytes_in: Amount::PerSecond(bytes),
            bytes_out: Amount::PerSecond(0.0),
            backends: Vec::new(),
            clusters: ["member1", "member2"]
                .map(|cluster_name| cluster(cluster_name, connections / 2.0, bytes / 2.0))
                .into(),
        })
        .collect();
    let sum =
        |amount: fn(&ServiceStats) -> Amount| services.iter().map(|one| amount(one).value()).sum::<f64>();
    let (connections, bytes) = (sum(|one| one.connections), sum(|one| one.bytes_in));
    let clusters = ["member1", "member2"].map(|name| cluster(name, connections / 2.0, bytes / 2.0)).into();
    Stats { seconds: Some(1.0), services, clusters }
}
