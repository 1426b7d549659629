//! `mcs-proxy.io/socket-path: "false"`

use crate::stage::{Stage, service, v4, v6};
use anyhow::{Result, ensure};
use mcs_proxy_tests::client;
use std::{net::TcpStream, time::Duration};

#[test]
fn a_service_that_is_kept_off_the_socket_path_is_served_to_pods_alone() -> Result<()> {
    let mut stage = Stage::with_service(|service| {
        service.annotated("enabled", "true").annotated("socket-path", "false")
    })?;
    for vip in [v4()?, v6()?] {
        assert_eq!(client::http(&stage.client.namespace, vip, 2)?.len(), 2);
        // Nothing is beneath us here, so that who passes our hooks reaches nobody.
        let reached = stage.node.namespace.run(move || -> Result<_> {
            Ok(TcpStream::connect_timeout(&vip, Duration::from_millis(200)).is_ok())
        })?;
        ensure!(!reached, "{vip}");
    }
    assert_eq!(stage.flows()?, 4);
    let explained = stage.daemon.show(&["explain", "default/serve"])?;
    ensure!(explained.matches("sockets left to the packet path").count() == 4, "{explained}");
    ensure!(explained.matches("Agreed").count() == 4, "{explained}");

    // A word that is none changes nothing; without the annotation sockets are served at once.
    stage.manifests.service(&service()?.annotated("enabled", "true").annotated("socket-path", "off"))?;
    stage.daemon.wait_for_warning("`off` is neither \"true\" nor \"false\"")?;
    ensure!(stage.daemon.show(&["explain", "default/serve"])?.contains("sockets left to the packet path"));
    stage.manifests.service(&service()?.annotated("enabled", "true"))?;
    stage.daemon.wait_for_log("programmed")?;
    for vip in [v4()?, v6()?] {
        assert_eq!(client::http(&stage.node.namespace, vip, 2)?.len(), 2);
    }
    Ok(())
}
