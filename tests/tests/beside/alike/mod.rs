//! kube-proxy and mcs-proxy serve the same endpoints, each under a VIP of its own, and random conversations take place
//! over both at once: real sockets must see the same of both, whichever endpoint they got.
//!
//! What ours may do otherwise, because it is better:
//!
//! | kube-proxy | mcs-proxy |
//! |---|---|
//! | a UDP flow goes on to an endpoint that is none any more, until kube-proxy has cleaned up conntrack | the next datagram goes to another endpoint, or is refused |

mod acts;
mod ends;
mod side;
mod stage;

use crate::in_both_modes;
use acts::Act;
use anyhow::{Result, ensure};
use mcs_proxy_tests::ProxyMode;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use side::Seen;
use stage::Stage;
use std::cell::RefCell;

/// How many conversations over each; `MCS_PROXY_CALLS=2000` is what a release is tried with.
fn conversations() -> u32 {
    std::env::var("MCS_PROXY_CALLS").map_or(40, |text| text.parse().expect("MCS_PROXY_CALLS is a number"))
}

in_both_modes! {
    alike: conversations_go_as_over_kube_proxy_nftables, conversations_go_as_over_kube_proxy_iptables;
}

fn alike(mode: ProxyMode) -> Result<()> {
    let stage = RefCell::new(Stage::new(mode)?);
    let met = RefCell::new(Met::default());
    let config = Config {
        cases: conversations(),
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&acts::conversation(), |(v6, acts)| {
        let compared = compare(&mut stage.borrow_mut(), &mut met.borrow_mut(), v6, &acts);
        compared.map_err(|difference| TestCaseError::fail(format!("{difference:#}")))
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (v6, acts))) => {
            let acts: String = acts.iter().map(|act| format!("  {act:?}\n")).collect();
            panic!("{reason}\nover {} in the last of:\n{acts}", if v6 { "IPv6" } else { "IPv4" });
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let met = met.into_inner();
    ensure!(met.connected > 0 && met.refused > 0 && met.answered > 0, "too little was met: {met:?}");
    let (ours, theirs) = stage.into_inner().flows()?;
    ensure!(ours > 0 && theirs == 0, "{ours} flows of ours, {theirs} of kube-proxy's Service");
    Ok(())
}

/// What a run came by, or it has shown nothing.
#[derive(Debug, Default)]
struct Met {
    connected: u32,
    refused: u32,
    answered: u32,
}

/// Over both, act by act.
fn compare(stage: &mut Stage, met: &mut Met, v6: bool, acts: &[Act]) -> Result<()> {
    stage.set_endpoints(&stage::ALL)?;
    let [mut theirs, mut ours] = stage.sides(v6);
    for (number, act) in acts.iter().enumerate() {
        if let Act::Endpoints(endpoints) = act {
            stage.set_endpoints(endpoints)?;
            continue;
        }
        let at_theirs = theirs.act(act, &stage.servers)?;
        let at_ours = ours.act(act, &stage.servers)?;
        let is_endpoint = |pod: usize| stage.is_endpoint(pod);
        ensure!(
            is_as_good(&at_ours, &at_theirs, is_endpoint),
            "act {}, {act:?}: over mcs-proxy {at_ours:?}, over kube-proxy {at_theirs:?}",
            number + 1
        );
        // One of them has a connection now and the other has none: nothing more to compare.
        if matches!((&at_ours, &at_theirs), (Seen::Failed(_), Seen::Connected { .. })) {
            return Ok(());
        }
        met.connected += u32::from(matches!(at_ours, Seen::Connected { .. }));
        met.answered += u32::from(matches!(at_ours, Seen::Answered { .. }));
        met.refused += u32::from(matches!(at_ours, Seen::Failed(std::io::ErrorKind::ConnectionRefused)));
    }
    Ok(())
}

/// Ours may be better. kube-proxy's datagrams may go to a pod that is no endpoint any more; and so does a connection from
/// a port whose last one the server has reset: conntrack forgets a closed connection at a SYN only if the client has
/// closed it (net/netfilter/nf_conntrack_proto_tcp.c, the case of a SYN), and where to was decided with the old one.
fn is_as_good(ours: &Seen, theirs: &Seen, is_endpoint: impl Fn(usize) -> bool) -> bool {
    match (ours, theirs) {
        (Seen::Answered { by, .. }, Seen::Answered { .. }) => is_endpoint(*by) && ours.like(theirs),
        (Seen::Connected { to, .. }, Seen::Connected { .. }) => is_endpoint(*to) && ours.like(theirs),
        (Seen::Failed(_), Seen::Answered { by: pod, .. } | Seen::Connected { to: pod, .. }) => {
            !is_endpoint(*pod)
        }
        _ => ours.like(theirs),
    }
}
