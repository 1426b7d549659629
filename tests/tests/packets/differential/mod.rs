//! Two programs, one truth: random conversations run through the programs in the kernel and through their model, and
//! after each packet verdict, bytes, flow tables and counters of the two are compared.
//!
//! A failure is shrunk to the shortest conversation that still fails, and printed step by step.

mod conversation;
mod frame;
mod lockstep;
mod sctp;
mod snapshot;
mod stage;
mod state;

use conversation::Conversation;
use lockstep::Lockstep;
use mcs_proxy_ebpf::abi::Verdict;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use std::cell::RefCell;

/// How many conversations; `MCS_PROXY_CONVERSATIONS=100000` is what a release is tried with.
fn conversations() -> u32 {
    std::env::var("MCS_PROXY_CONVERSATIONS")
        .map_or(2_000, |text| text.parse().expect("MCS_PROXY_CONVERSATIONS is a number"))
}

/// What a run must have come by, or it has shown nothing about it.
const MET: [Verdict; 18] = [
    Verdict::NotOurs,
    Verdict::NoService,
    Verdict::UnknownConnection,
    Verdict::NoBackend,
    Verdict::NewFlow,
    Verdict::Forwarded,
    Verdict::NoFlow,
    Verdict::OtherInterface,
    Verdict::Replied,
    Verdict::NotPromoted,
    Verdict::Rejected,
    Verdict::EchoReplied,
    Verdict::IcmpTranslated,
    Verdict::HostRedirect,
    Verdict::HairpinForwarded,
    Verdict::HairpinReplied,
    Verdict::DirectTaken,
    Verdict::Ended,
];

#[test]
fn the_programs_do_what_their_model_does() {
    let lockstep = RefCell::new(Lockstep::new());
    // The same conversations on every run: more of them begin with the same ones.
    let config = Config {
        cases: conversations(),
        rng_seed: RngSeed::Fixed(12),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&conversation::any(), |conversation| {
        lockstep.borrow_mut().run(&conversation).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, Conversation { v6, steps })) => {
            let family = if v6 { "IPv6" } else { "IPv4" };
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{reason}\nover {family}, in the last of these steps or before:\n{steps}");
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let lockstep = lockstep.into_inner();
    let missed: Vec<_> = MET.into_iter().filter(|&verdict| lockstep.met(verdict) == 0).collect();
    assert!(missed.is_empty(), "no conversation came by {missed:?}");
    assert!(lockstep.probes > 0, "no flow was a probe");
}
