use clap::Args;
use std::time::Duration;

/// What is done about clusters and endpoints that do not answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct HealthFlags {
    /// For how long the new flows of a cluster must have had no answer before it is drained, where the settings say
    /// `on-failure: drain` for it; it is then given one flow each time this long, and takes part again once one is answered
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = window)]
    pub failure_window: humantime::Duration,
    /// Do the same with single endpoints that do not answer while others of their cluster do
    #[arg(long)]
    pub eject_unanswered: bool,
}

/// A SYN is sent again after one second and three (RFC 6298); a window must see more than one loss.
fn window(text: &str) -> Result<humantime::Duration, String> {
    let window: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    if range.contains(&window) {
        Ok(window)
    } else {
        Err("less than a second, or more than an hour".to_owned())
    }
}
