//! From a verdict to what the kernel is told.

use crate::maps;
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_redirect,
    programs::TcContext,
};
use mcs_proxy_ebpf::abi::{Action, Stage, Verdict};

/// Goes on with the program that the verdict asks for. Returns if it asks for none, or the program is not there.
#[inline(always)]
pub(crate) fn go_on(ctx: &TcContext, verdict: Verdict) {
    // Compared one by one: an `Option` across a join would be undefined where it is `None`.
    if verdict == Verdict::OpenMissing {
        maps::go_on(ctx, Stage::Open);
    }
    if verdict == Verdict::HairpinMissing {
        maps::go_on(ctx, Stage::Hairpin);
    }
    if maps::redirects() && verdict == Verdict::PeerMissing {
        maps::go_on(ctx, Stage::Peer);
    }
}

/// Goes on with the program for odd packets, if the verdict asks for it. Returns as [`go_on`] does.
#[inline(always)]
pub(crate) fn go_on_odd(ctx: &TcContext, verdict: Verdict, stage: Stage) {
    if verdict == Verdict::OddMissing {
        maps::go_on(ctx, stage);
    }
}

/// Counts the verdict and returns the program's return value.
///
/// "Next" is `TCX_NEXT`, which `TC_ACT_UNSPEC` equals: other programs on the hook still run. `TC_ACT_OK` would hide
/// them.
#[inline(always)]
pub(crate) fn conclude(ctx: &TcContext, verdict: Verdict) -> i32 {
    maps::count_verdict(verdict);
    match verdict.action() {
        Action::Next | Action::Redirect => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        // SAFETY: the context is the kernel's; the helper notes the interface and returns `TC_ACT_REDIRECT`.
        Action::Return => unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 },
    }
}
