//! A second daemon on the node.

use crate::stage::Stage;
use anyhow::{Context, Result, ensure};

#[test]
fn a_second_daemon_is_refused_with_the_firsts_pod_version_and_start_time() -> Result<()> {
    let mut stage = Stage::new(&["--pod-name", "mcs-proxy-x7k2p"])?;
    let source = format!("directory={}", stage.manifests.folder().display());
    let second = ["run", "--cluster-name", "member2", "--source", &source];
    let process = format!("process {}", stage.daemon.id().context("it does not run")?);
    // More than once: a refused one leaves what the first has written.
    for _ in 0..2 {
        let said = stage.refused(&second)?;
        for words in ["pod mcs-proxy-x7k2p", &process, "version 0.", ", started 2"] {
            ensure!(said.contains(words), "no `{words}`: {said}");
        }
    }
    // The next one is told of itself, and not of the one that was killed.
    stage.daemon.crash()?;
    stage.daemon.launch()?;
    let next = format!("process {}", stage.daemon.id().context("it does not run")?);
    let said = stage.refused(&second)?;
    ensure!(said.contains(&next) && !said.contains(&process), "{said}");
    Ok(())
}
