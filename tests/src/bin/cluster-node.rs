//! A node of a cluster on one machine: what stands in for its firmware and its systemd.

fn main() -> anyhow::Result<()> {
    mcs_proxy_tests::cluster::first_process(&std::env::args().skip(1).collect::<Vec<_>>())
}
