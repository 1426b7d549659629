//! A node whose daemon is gone for good.

use crate::stage::{BACKEND, Stage, vip};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Beneath,
    client::{self, Connection},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Of both paths: a pod's packets, a host process' socket.
#[test]
fn new_flows_pass_once_no_daemon_has_run_for_the_orphan_timeout_and_open_ones_go_on() -> Result<()> {
    let mut stage = Stage::new(&["--orphan-timeout", "4s"])?;
    let beneath = Beneath::new(&stage.node.namespace, vip()?, &[BACKEND.parse()?])?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    open.ask()?;
    // It beats for as long as it runs, longer than it may be gone.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        client::http(&stage.client.namespace, vip()?, 1)?;
        thread::sleep(Duration::from_millis(200));
    }
    ensure!(beneath.served()? == 0, "a daemon runs, and what is beneath serves");
    client::http(&stage.node.namespace, vip()?, 1)?;

    stage.daemon.crash()?;
    let start = Instant::now();
    let mut ours = 0;
    while beneath.served()? == 0 {
        client::http(&stage.client.namespace, vip()?, 1)?;
        ours += 1;
        ensure!(start.elapsed() < Duration::from_secs(30), "new flows do not pass");
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(start.elapsed() > Duration::from_millis(2900) && ours > 1, "too early: {:?}", start.elapsed());
    open.ask()?;
    let served = beneath.served()?;
    client::http(&stage.client.namespace, vip()?, 3)?;
    ensure!(beneath.served()? == served + 3, "all new flows pass");
    // Beneath the host's own processes nobody is.
    ensure!(client::http(&stage.node.namespace, vip()?, 1).is_err(), "the socket path still serves");
    open.ask()?;

    stage.daemon.launch()?;
    let served = beneath.served()?;
    client::http(&stage.client.namespace, vip()?, 3)?;
    client::http(&stage.node.namespace, vip()?, 1)?;
    ensure!(beneath.served()? == served, "a daemon runs again, and what is beneath serves");
    open.ask().map(drop)
}
