//! Single fields of a packet, at offsets that the verifier need not know: slower than pointers, and for what is rare.
//!
//! Nothing here moves `skb->csum`: callers change a checksum together with what it covers, so the whole sum stays.

use aya_ebpf::programs::TcContext;
use mcs_proxy_ebpf::{
    abi::{Address, Verdict},
    checksum,
};

pub(crate) const ETHERNET: usize = 14;
pub(crate) const IPV4: usize = 20;
pub(crate) const IPV6: usize = 40;

/// A field as it lies in memory, or that there is none.
#[inline(always)]
pub(crate) fn load<T>(ctx: &TcContext, offset: usize) -> Result<T, Verdict> {
    ctx.load(offset).map_err(|_| Verdict::Malformed)
}

#[inline(always)]
pub(crate) fn store<T>(ctx: &TcContext, offset: usize, value: &T) -> Result<(), Verdict> {
    ctx.store(offset, value, 0).map_err(|_| Verdict::RewriteFailed)
}

#[inline(always)]
pub(crate) fn load_address(ctx: &TcContext, v4: bool, offset: usize) -> Result<Address, Verdict> {
    if v4 {
        Ok(Address::from_v4_raw(load(ctx, offset)?))
    } else {
        Ok(Address::from_v6_raw([load(ctx, offset)?, load(ctx, offset + 8)?]))
    }
}

#[inline(always)]
pub(crate) fn store_address(ctx: &TcContext, offset: usize, address: &Address) -> Result<(), Verdict> {
    if address.is_v4() { store(ctx, offset, &address.v4_raw()) } else { store(ctx, offset, &address.words()) }
}

/// Where the source is in an IP header; the destination is next to it.
#[inline(always)]
pub(crate) const fn source_offset(v4: bool) -> usize {
    if v4 { 12 } else { 8 }
}

#[inline(always)]
pub(crate) const fn destination_offset(v4: bool) -> usize {
    if v4 { 16 } else { 24 }
}

/// Changes the checksum of an IPv4 header.
#[inline(always)]
pub(crate) fn update_ip_checksum(ctx: &TcContext, header: usize, difference: u32) -> Result<(), Verdict> {
    let old: u16 = load(ctx, header + 10)?;
    store(ctx, header + 10, &checksum::update(old, difference))
}

/// Changes a checksum that covers what has changed by `difference`.
#[inline(always)]
pub(crate) fn update_checksum(ctx: &TcContext, offset: usize, difference: u32) -> Result<(), Verdict> {
    ctx.l4_csum_replace(offset, 0, u64::from(difference), 0).map_err(|_| Verdict::RewriteFailed)
}

/// The Ethernet header for the way back.
#[inline(always)]
pub(crate) fn turn_around(ctx: &TcContext) -> Result<(), Verdict> {
    let to: [u16; 3] = load(ctx, 0)?;
    let from: [u16; 3] = load(ctx, 6)?;
    store(ctx, 0, &from)?;
    store(ctx, 6, &to)
}
