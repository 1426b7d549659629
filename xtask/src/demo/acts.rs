//! The acts, and what must hold in each.

use super::{
    show::Show,
    stage::{LOCAL_POD, REMOTE_POD, Stage},
};
use anyhow::Result;
use mcs_proxy_tests::{ServiceRow, client::Tally};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};

const REQUESTS: u32 = 29;
const RANDOM_REQUESTS: u32 = 300;
/// Each pod's share of 300 at random is within 5 standard deviations of a half, but for one run in a million.
const RANDOM_SLACK: u32 = 43;

/// An act that was played.
#[derive(Debug)]
pub(crate) struct Act {
    name: &'static str,
    requests: u32,
    answers: Tally,
    /// What was expected and did not hold.
    pub(crate) broken: Vec<String>,
}

impl Act {
    pub(crate) fn json(&self) -> Value {
        let Self { name, requests, answers, broken: _ } = self;
        let answers: BTreeMap<_, _> =
            answers.iter().map(|(address, count)| (address.to_string(), count)).collect();
        json!({ "name": name, "requests": requests, "answers": answers })
    }

    fn expect(&mut self, holds: bool, expected: &str, seen: &str) {
        if !holds {
            self.broken.push(format!("{}: expected {expected}; saw {seen}", self.name));
        }
    }
}

pub(crate) fn play(stage: &mut Stage, show: &Show) -> Result<Vec<Act>> {
    Ok(vec![
        one_cluster(stage, show)?,
        round_robin(stage, show)?,
        random(stage, show)?,
        opted_out(stage, show)?,
    ])
}

fn one_cluster(stage: &mut Stage, show: &Show) -> Result<Act> {
    show.heading("Act 1: only member1 has a pod; a client in member2 calls http://serve/");
    stage
        .daemon()
        .wait_for_services("one endpoint in member2's maps", |services| endpoints(services) == 1)?;
    let (mut act, flows) = requests(stage, show, "one-cluster", REQUESTS, true)?;
    let expected = Tally::from([(REMOTE_POD.parse()?, REQUESTS)]);
    let seen = format!("{:?}", act.answers);
    act.expect(act.answers == expected, "29 of 29 answers from 10.10.0.6", &seen);
    ours(&mut act, flows);
    tables(stage, show, &["services"])?;
    Ok(act)
}

fn round_robin(stage: &mut Stage, show: &Show) -> Result<Act> {
    show.heading("Act 2: `serve` is scaled into member2; round robin takes turns");
    stage.scale_into_here()?;
    stage
        .daemon()
        .wait_for_services("two endpoints in member2's maps", |services| endpoints(services) == 2)?;
    let (mut act, flows) = requests(stage, show, "round-robin", REQUESTS, true)?;
    let mut shares: Vec<_> = act.answers.values().copied().collect();
    shares.sort_unstable();
    let seen = format!("{:?}", act.answers);
    act.expect(shares == [14, 15], "15 answers from one pod and 14 from the other", &seen);
    ours(&mut act, flows);
    tables(stage, show, &["services", "connections"])?;
    Ok(act)
}

fn random(stage: &mut Stage, show: &Show) -> Result<Act> {
    show.heading("Act 3: the annotation mcs-proxy.io/algorithm says random");
    stage.set_service(|service| service.annotated("enabled", "true").annotated("algorithm", "random"))?;
    stage.daemon().wait_for_services("algorithm random in member2's maps", |services| {
        services.iter().any(|service| service.algorithm == "random")
    })?;
    let (mut act, flows) = requests(stage, show, "random", RANDOM_REQUESTS, false)?;
    let half = RANDOM_REQUESTS / 2;
    let shares: Vec<_> = act.answers.values().copied().collect();
    let even = shares.len() == 2 && shares.iter().all(|share| share.abs_diff(half) <= RANDOM_SLACK);
    let seen = format!("{:?}", act.answers);
    act.expect(even, &format!("{half} answers from each pod, give or take {RANDOM_SLACK}"), &seen);
    ours(&mut act, flows);
    tables(stage, show, &["services"])?;
    Ok(act)
}

fn opted_out(stage: &mut Stage, show: &Show) -> Result<Act> {
    show.heading("Act 4: the annotation mcs-proxy.io/enabled is taken away; what is beneath answers");
    let connections = stage.daemon().connections()?;
    stage.set_service(|service| service)?;
    stage.daemon().wait_for_services("no Service in member2's maps", |services| services.is_empty())?;
    let (mut act, flows) = requests(stage, show, "opted-out", REQUESTS, false)?;
    let answers: u32 = act.answers.values().sum();
    act.expect(answers == REQUESTS, "29 answers", &answers.to_string());
    let Flows { ours, beneath } = flows;
    let after = stage.daemon().connections()?;
    act.expect(
        ours == 0 && after <= connections,
        "no flow of ours",
        &format!("{ours} and {after} connections"),
    );
    act.expect(beneath == u64::from(REQUESTS), "29 connections translated beneath", &beneath.to_string());
    show.line(format!("\n  mcs-proxy: {ours} new flows; the rules beneath: {beneath} connections"));
    tables(stage, show, &["services"])?;
    Ok(act)
}

/// How many flows an act made, by who translated them.
struct Flows {
    ours: u64,
    beneath: u64,
}

/// Every flow was ours.
fn ours(act: &mut Act, Flows { ours, beneath }: Flows) {
    let requests = u64::from(act.requests);
    act.expect(ours == requests, &format!("{requests} flows counted by mcs-proxy"), &ours.to_string());
    act.expect(beneath == 0, "no connection translated beneath", &beneath.to_string());
}

/// Calls the Service and shows the answers as they come.
fn requests(
    stage: &mut Stage,
    show: &Show,
    name: &'static str,
    total: u32,
    each: bool,
) -> Result<(Act, Flows)> {
    let before = Flows { ours: flows(&stage.daemon().services()?), beneath: stage.beneath.served()? };
    let known: Vec<IpAddr> = match name {
        "one-cluster" => vec![REMOTE_POD.parse()?],
        _ => vec![REMOTE_POD.parse()?, LOCAL_POD.parse()?],
    };
    let mut answers = Tally::new();
    for number in 1..=total {
        let (address, answer) = stage.request()?;
        *answers.entry(address).or_default() += 1;
        if each {
            show.line(format!("  {number:>2} {answer}"));
        }
        if !each || number == total {
            show.tally(&answers, &known, total);
        }
    }
    let after = Flows { ours: flows(&stage.daemon().services()?), beneath: stage.beneath.served()? };
    let made =
        Flows { ours: after.ours.saturating_sub(before.ours), beneath: after.beneath - before.beneath };
    Ok((Act { name, requests: total, answers, broken: Vec::new() }, made))
}

fn endpoints(services: &[ServiceRow]) -> usize {
    services.iter().flat_map(|service| &service.endpoints).filter(|endpoint| endpoint.in_maps).count()
}

fn flows(services: &[ServiceRow]) -> u64 {
    services.iter().map(|service| service.flows).sum()
}

fn tables(stage: &mut Stage, show: &Show, commands: &[&str]) -> Result<()> {
    for command in commands {
        let pins = stage.daemon().pin_dir().display().to_string();
        let output = stage.daemon().show(&[command])?;
        show.command(&format!("mcs-proxy {command} --pin-dir {pins}"), &output);
    }
    Ok(())
}
