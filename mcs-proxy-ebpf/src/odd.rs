//! Packets with more than a plain header, and SCTP: programs of their own, which run after `from_pod` and `to_pod`
//! have found that the address concerns us, so that the path of all others has nothing to do with them.

use crate::{
    fragment,
    packet::{self, Network},
    rewrite::End,
    roster,
    shape::{self, Shape},
    tcx::{translate, translate_back},
    verdict::{conclude, go_on},
};
use aya_ebpf::{macros::classifier, programs::TcContext};
use mcs_proxy_ebpf::abi::Verdict;

/// Goes on with an odd packet from a pod.
#[classifier]
fn odd(ctx: TcContext) -> i32 {
    let verdict = sort(&ctx).unwrap_or_else(|verdict| verdict);
    go_on(&ctx, verdict);
    conclude(&ctx, verdict)
}

/// Goes on with an odd packet to a pod.
#[classifier]
fn odd_back(ctx: TcContext) -> i32 {
    conclude(&ctx, sort_back(&ctx).unwrap_or_else(|verdict| verdict))
}

#[inline(always)]
fn sort(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    let shape = shape::find(ctx, &network)?;
    if shape.is_later() {
        return fragment::follow(ctx, &network, shape, End::Destination);
    }
    let verdict = forward(ctx, network, shape);
    roster::turn_if_due();
    Ok(verdict)
}

/// A function of its own for its stack: the walk through the headers needs room too.
#[inline(never)]
fn forward(ctx: &TcContext, network: Network, shape: Shape) -> Verdict {
    match packet::anywhere(ctx, network, shape) {
        Ok(packet) => translate::<true>(ctx, &packet).unwrap_or_else(|verdict| verdict),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn sort_back(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    let shape = shape::find(ctx, &network)?;
    if shape.is_later() {
        return fragment::follow(ctx, &network, shape, End::Source);
    }
    Ok(backward(ctx, network, shape))
}

/// As [`forward`].
#[inline(never)]
fn backward(ctx: &TcContext, network: Network, shape: Shape) -> Verdict {
    match packet::anywhere(ctx, network, shape) {
        Ok(packet) => translate_back::<true>(ctx, &packet).unwrap_or_else(|verdict| verdict),
        Err(verdict) => verdict,
    }
}
