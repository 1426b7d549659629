//! From a verdict to what the kernel is told.

use crate::maps;
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_redirect,
    programs::TcContext,
};
use mcs_proxy_ebpf::abi::{Action, Verdict};

/// Counts the verdict and returns the program's return value.
///
/// "Next" is `TCX_NEXT`, which `TC_ACT_UNSPEC` equals: other programs on the hook still run. `TC_ACT_OK` would hide
/// them.
#[inline(always)]
pub(crate) fn conclude(ctx: &TcContext, verdict: Verdict) -> i32 {
    maps::count_verdict(verdict);
    match verdict.action() {
        Action::Next => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        // SAFETY: the context is the kernel's; the helper notes the interface and returns `TC_ACT_REDIRECT`.
        Action::Return => unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 },
    }
}
