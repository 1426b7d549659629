//! The host's ICMP redirects about packets that we have translated. It sends them where it forwards a packet out of
//! the interface that it came in by, as on a bridge; the pod, which knows the VIP only, has no use for them.

use crate::{
    maps::{self, Tier},
    packet::{Network, header, load},
};
use aya_ebpf::programs::TcContext;
use mcs_proxy_ebpf::abi::{Address, Port, Tuple};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 792, RFC 4861 section 4.5.
const ICMP_REDIRECT: u8 = 5;
const ICMPV6_REDIRECT: u8 = 137;

const V4_ICMP: usize = 14 + 20;
/// Behind type, code, checksum and gateway.
const V4_EMBEDDED: usize = V4_ICMP + 8;
const V6_ICMP: usize = 14 + 40;
/// Behind type, code, checksum, reserved word, target and destination.
const V6_OPTIONS: usize = V6_ICMP + 40;
const TARGET_ADDRESS: u8 = 2;
const REDIRECTED_HEADER: u8 = 4;

/// Whether it is a redirect about a packet of a flow of this interface's.
#[inline(always)]
pub(crate) fn is_about_a_flow(ctx: &TcContext, network: &Network, interface: u32) -> bool {
    let embedded = if network.v4 { embedded_v4(ctx, network) } else { embedded_v6(ctx, network) };
    let Some(key) = embedded else { return false };
    let is_ours = |tier| match maps::reply(tier, &key) {
        // SAFETY: the entry is memory of the map until this program ends.
        Some(reply) => unsafe { (*reply).interface == interface },
        None => false,
    };
    is_ours(Tier::Established) || is_ours(Tier::Transient)
}

#[inline(always)]
fn embedded_v4(ctx: &TcContext, network: &Network) -> Option<Tuple> {
    if network.protocol != ICMP {
        return None;
    }
    let icmp = header(ctx, V4_ICMP, 8 + 20 + 4)?;
    // An inner header with options is none of a packet that we have translated.
    if load::<u8>(icmp, 0) != ICMP_REDIRECT || load::<u8>(icmp, V4_EMBEDDED - V4_ICMP) != 0x45 {
        return None;
    }
    let (source, destination) = (load(icmp, 8 + 12), load(icmp, 8 + 16));
    let addresses = (Address::from_v4_raw(source), Address::from_v4_raw(destination));
    Some(tuple(addresses, load(icmp, 8 + 9), load(icmp, 8 + 20)))
}

#[inline(always)]
fn embedded_v6(ctx: &TcContext, network: &Network) -> Option<Tuple> {
    if network.protocol != ICMPV6 {
        return None;
    }
    let icmp = header(ctx, V6_ICMP, 42)?;
    if load::<u8>(icmp, 0) != ICMPV6_REDIRECT {
        return None;
    }
    // Linux puts the target's MAC address first, in one unit of eight bytes, if it knows it.
    let first: u8 = load(icmp, V6_OPTIONS - V6_ICMP);
    let units: u8 = load(icmp, V6_OPTIONS - V6_ICMP + 1);
    let ip = match (first, units) {
        (REDIRECTED_HEADER, _) => header(ctx, V6_OPTIONS + 8, 44)?,
        (TARGET_ADDRESS, 1) => {
            let option = header(ctx, V6_OPTIONS + 8, 8 + 44)?;
            if load::<u8>(option, 0) != REDIRECTED_HEADER {
                return None;
            }
            header(ctx, V6_OPTIONS + 16, 44)?
        }
        _ => return None,
    };
    let source = Address::from_v6_raw([load(ip, 8), load(ip, 16)]);
    let destination = Address::from_v6_raw([load(ip, 24), load(ip, 32)]);
    Some(tuple((source, destination), load(ip, 6), load(ip, 40)))
}

#[inline(always)]
fn tuple((source, destination): (Address, Address), protocol: u8, ports: u32) -> Tuple {
    let (client_port, port) = (Port::from_raw(ports as u16), Port::from_raw((ports >> 16) as u16));
    Tuple::new(source, client_port, destination, port, protocol)
}
