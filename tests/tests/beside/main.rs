//! mcs-proxy beside the real kube-proxy, with a real API server and real packets, in each of kube-proxy's modes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod alike;
mod bridge;
mod caller;
mod eligible;
mod hitless;
mod host;
mod host_turns;
mod label;
mod load;
mod ports;
mod services;
mod stage;
mod witness;

/// One test for each of kube-proxy's modes, named after what holds.
macro_rules! in_both_modes {
    ($($function:ident: $nftables:ident, $iptables:ident;)*) => {$(
        #[test]
        fn $nftables() -> anyhow::Result<()> {
            $function(mcs_proxy_tests::ProxyMode::Nftables)
        }

        #[test]
        fn $iptables() -> anyhow::Result<()> {
            $function(mcs_proxy_tests::ProxyMode::Iptables)
        }
    )*};
}
pub(crate) use in_both_modes;
