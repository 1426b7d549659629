//! `cargo xtask demo`: Service `serve` over three clusters, on this machine's own kernel.

mod acts;
mod show;
mod stage;

use crate::run::{build, say};
use anyhow::{Result, bail};
use mcs_proxy_tests::tear_down_kept;
use serde_json::json;
use show::Show;
use stage::Stage;
use std::path::Path;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object as the last line; everything else goes to standard error
    #[arg(long)]
    json: bool,
    /// Leave everything standing and say how to look around
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep` has left standing
    #[arg(long, conflicts_with_all = ["json", "keep"])]
    tear_down: bool,
}

impl Options {
    /// Whether anything is to be shown at all, and so built before.
    pub(crate) fn needs_tools(self) -> bool {
        !self.tear_down
    }
}

pub(crate) fn run(workspace: &Path, options: Options) -> Result<()> {
    if options.tear_down {
        return tear_down();
    }
    build(workspace, &["mcs-proxy", "hello-pod"])?;

    let show = Show::new(options.json);
    let mut stage = Stage::build(&show, options.keep)?;
    let played = acts::play(&mut stage, &show);
    if options.json
        && let Ok(acts) = &played
    {
        println!("{}", json!({ "acts": acts.iter().map(acts::Act::json).collect::<Vec<_>>() }));
    }
    if options.keep {
        // The last act has opted out: there is more to see with the Service served.
        stage.set_service(|service| service.annotated("enabled", "true"))?;
        stage.keep(&show)?;
    }
    let failed: Vec<_> = played?.into_iter().flat_map(|act| act.broken).collect();
    if !failed.is_empty() {
        for failure in &failed {
            say(format!("FAILED {failure}"));
        }
        bail!("{} expectation(s) did not hold", failed.len());
    }
    show.line("\nEvery act held.");
    Ok(())
}

fn tear_down() -> Result<()> {
    let removed = tear_down_kept()?;
    if removed.is_empty() {
        say("Nothing was kept.");
    }
    for run in removed {
        say(format!("Removed {run}: its processes, network namespaces, pins and files."));
    }
    Ok(())
}
