//! The socket path: what a process calls is translated once, when it calls, and no packet needs work after that.
//!
//! TCP and connected UDP are translated by `connect`; what the program called is kept with the socket, for
//! `getpeername` and `recvmsg`. Unconnected UDP is translated by each `sendmsg`, and each answer by `recvmsg`. No hook
//! sees the datagrams of a connected socket: when its backend is gone, the daemon closes it. It can do so in the node's
//! own namespace alone, so the connected UDP sockets of pods are left to the packet path. A VIP called through a v4-mapped address (`::ffff:10.13.0.1`) is the IPv4 VIP: both are the same sixteen bytes here.

use crate::{
    events,
    lookup::{Caller, Choice, Scratch, pick},
    maps, orphan,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use core::ptr;
use mcs_proxy_ebpf::abi::{
    Address, Affinity, AffinityKey, Direction, EventKind, Port, Protocol, ServiceKey, SocketBackend,
    SocketKey, SocketOrigin, Verdict,
};

/// What these programs return: the call goes on, or fails.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;
/// errno(3); the same number on every architecture that Linux runs eBPF on.
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    conclude(&ctx, Family::V4, connect(&ctx, Family::V4))
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    conclude(&ctx, Family::V6, connect(&ctx, Family::V6))
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    conclude(&ctx, Family::V4, send(&ctx, Family::V4))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    conclude(&ctx, Family::V6, send(&ctx, Family::V6))
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    name_origin(&ctx, Family::V4)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    name_origin(&ctx, Family::V6)
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    name_peer(&ctx, Family::V4)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    name_peer(&ctx, Family::V6)
}

/// Which of the context's fields holds the address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Only an owned frontend without a backend lets a call fail.
#[inline(always)]
fn conclude(ctx: &SockAddrContext, family: Family, outcome: Result<(), Verdict>) -> i32 {
    let Err(Verdict::NoBackend) = outcome else { return PROCEED };
    maps::count_socket(Verdict::ConnectRefused, 0, 0);
    if events::is_wanted(EventKind::Rejected) {
        let (vip, port) = destination(ctx, family);
        let called = ServiceKey::new(vip, port, protocol(ctx));
        events::called(EventKind::Rejected, Verdict::ConnectRefused, &called, None, cookie(ctx));
    }
    if maps::has_set_retval() {
        // SAFETY: the helper takes a number, and sets what the system call returns. Without it, it is EPERM.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    FAIL
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, family: Family) -> Result<(), Verdict> {
    let (vip, port) = destination(ctx, family);
    let protocol = protocol(ctx);
    let is_udp = protocol == Protocol::Udp.number();
    let mut scratch = empty_scratch(vip, port, protocol);
    let chosen = if is_udp && !maps::is_host_namespace(netns(ctx)) {
        Err(Verdict::NotOurs)
    } else {
        choose(ctx, &mut scratch)
    };
    if let Err(verdict) = chosen {
        forget_peer(ctx);
        if is_udp {
            forget_origin(ctx, vip, port);
        }
        return Err(verdict);
    }
    let choice = &scratch.choice;
    let mut origin = origin(&scratch.service_key, choice);
    if is_udp {
        // By this the daemon knows the socket when the backend is gone.
        maps::insert_socket_origin(&SocketKey::new(cookie(ctx), choice.address, choice.port), &origin);
    }
    let kept = maps::new_socket_peer(ctx, &mut origin);
    if !kept.is_null() {
        // SAFETY: the socket's own memory. It held another origin if the socket was connected before.
        unsafe { *kept = origin };
    }
    set_destination(ctx, family, &choice.address, choice.port);
    maps::count_socket(Verdict::Connected, choice.service, choice.backend_id);
    tell_connected(ctx, &scratch);
    Ok(())
}

#[inline(always)]
fn send(ctx: &SockAddrContext, family: Family) -> Result<(), Verdict> {
    let (vip, port) = destination(ctx, family);
    if !maps::is_hot(Direction::FromPod, &vip) {
        forget_origin(ctx, vip, port);
        return Err(Verdict::NotOurs);
    }
    if !is_served(ctx) {
        return Err(Verdict::NotOurs);
    }
    let key = SocketKey::new(cookie(ctx), vip, port);
    let mut scratch = empty_scratch(vip, port, Protocol::Udp.number());
    let is_known = recall(&key, &mut scratch.choice);
    if !is_known {
        choose(ctx, &mut scratch)?;
    }
    let choice = &scratch.choice;
    let answer = SocketKey::new(key.cookie, choice.address, choice.port);
    // An entry for another VIP with the same backend is overwritten: whoever was called last has answered.
    maps::insert_socket_origin(&answer, &origin(&scratch.service_key, choice));
    set_destination(ctx, family, &choice.address, choice.port);
    if !is_known {
        let backend = SocketBackend {
            backend: choice.address,
            backend_id: choice.backend_id,
            generation: choice.generation,
            port: choice.port,
            pad: [0; 3],
        };
        maps::insert_socket_backend(&key, &backend);
        maps::count_socket(Verdict::Connected, choice.service, choice.backend_id);
        tell_connected(ctx, &scratch);
    }
    Ok(())
}

#[inline(always)]
fn tell_connected(ctx: &SockAddrContext, scratch: &Scratch) {
    if events::is_wanted(EventKind::New) {
        let (called, choice) = (&scratch.service_key, &scratch.choice);
        events::called(EventKind::New, Verdict::Connected, called, Some(choice), cookie(ctx));
    }
}

/// Where this socket's last datagram to the VIP went, if that backend still keeps its flows.
#[inline(always)]
fn recall(key: &SocketKey, choice: &mut Choice) -> bool {
    let Some(pointer) = maps::socket_backend(key) else { return false };
    // SAFETY: an entry of the map. The kernel may hand its memory to another while we read: then its backend is one
    // that some VIP of ours had a moment ago, and the next datagram goes right.
    let entry = unsafe { &*pointer };
    choice.address = entry.backend;
    choice.port = entry.port;
    choice.backend_id = entry.backend_id;
    choice.generation = entry.generation;
    maps::backend_state(choice.backend_id).keeps(choice.generation)
}

/// Chooses a backend for what the process calls.
#[inline(always)]
fn choose(ctx: &SockAddrContext, scratch: &mut Scratch) -> Result<(), Verdict> {
    if !maps::is_hot(Direction::FromPod, &scratch.service_key.vip) || !is_served(ctx) {
        return Err(Verdict::NotOurs);
    }
    orphan::refuse()?;
    let Some(frontend) = maps::frontend_index(&scratch.service_key) else {
        let is_nobodys = maps::is_whole(&scratch.service_key.vip);
        return Err(if is_nobodys { Verdict::NoBackend } else { Verdict::NoService });
    };
    // A socket has no address yet. All processes of a namespace are one client, as they are by address.
    let client = Address::from_v6_raw([0, netns(ctx)]);
    let cookie = cookie(ctx);
    let caller = Caller { address: &client, port: Port::from_raw(cookie as u16), is_socket: true };
    pick(scratch, frontend, &caller)
}

/// An answer to an unconnected socket comes from what the program called; one to a connected socket as well.
#[inline(always)]
fn name_origin(ctx: &SockAddrContext, family: Family) -> i32 {
    let (backend, port) = destination(ctx, family);
    // Not by `is_hot`: a backend loses its bit with its flows, of which the socket path has none.
    if !is_served(ctx) {
        return PROCEED;
    }
    if let Some(pointer) = maps::socket_origin(&SocketKey::new(cookie(ctx), backend, port)) {
        // SAFETY: as in `recall`; an entry of another socket or peer is told by the backend it repeats.
        let origin = unsafe { &*pointer };
        let (vip, vip_port) = (origin.vip, origin.vip_port);
        if origin.backend == backend && origin.backend_port == port {
            set_destination(ctx, family, &vip, vip_port);
            return PROCEED;
        }
    }
    name_peer(ctx, family)
}

#[inline(always)]
fn name_peer(ctx: &SockAddrContext, family: Family) -> i32 {
    let (backend, port) = destination(ctx, family);
    let peer = maps::socket_peer(ctx);
    if !peer.is_null() {
        // SAFETY: the socket's own memory, as long as it lives.
        let origin = unsafe { &*peer };
        let (vip, vip_port) = (origin.vip, origin.vip_port);
        if origin.backend == backend && origin.backend_port == port {
            set_destination(ctx, family, &vip, vip_port);
        }
    }
    PROCEED
}

/// A socket may be connected again, to something that is not ours.
#[inline(always)]
fn forget_peer(ctx: &SockAddrContext) {
    let peer = maps::socket_peer(ctx);
    if !peer.is_null() {
        // SAFETY: the socket's own memory. No socket has the unspecified address as its peer.
        unsafe { (*peer).backend = Address::UNSPECIFIED };
    }
}

/// A socket may call a backend by itself that it has called by a VIP before: whoever was called last has answered.
#[inline(always)]
fn forget_origin(ctx: &SockAddrContext, peer: Address, port: Port) {
    // What a socket sends that is connected by a VIP may pass here as well: of version 6, with an IPv4 address, it does.
    let connected = maps::socket_peer(ctx);
    // SAFETY: the socket's own memory.
    if !connected.is_null() && unsafe { (*connected).backend == peer } {
        return;
    }
    if is_served(ctx) {
        maps::remove_socket_origin(&SocketKey::new(cookie(ctx), peer, port));
    }
}

#[inline(always)]
fn origin(called: &ServiceKey, choice: &Choice) -> SocketOrigin {
    SocketOrigin {
        vip: called.vip,
        backend: choice.address,
        vip_port: called.port,
        backend_port: choice.port,
        backend_id: choice.backend_id,
        generation: choice.generation,
        pad: 0,
    }
}

/// On the stack, not per CPU as for packets: a process may be interrupted by another, and by packets.
#[inline(always)]
fn empty_scratch(vip: Address, port: Port, protocol: u8) -> Scratch {
    Scratch {
        service_key: ServiceKey::new(vip, port, protocol),
        choice: Choice {
            address: Address::UNSPECIFIED,
            port: Port::from_raw(0),
            backend_id: 0,
            generation: 0,
            service: 0,
        },
        affinity_key: AffinityKey::new(0, Address::UNSPECIFIED),
        affinity: Affinity {
            backend: Address::UNSPECIFIED,
            seal: 0,
            backend_id: 0,
            generation: 0,
            last_used: 0,
            backend_port: Port::from_raw(0),
            pad: 0,
        },
    }
}

#[inline(always)]
fn is_served(ctx: &SockAddrContext) -> bool {
    maps::serves_namespace(netns(ctx))
}

#[inline(always)]
fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: as above.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as above; the verifier translates it to a load of the socket's field.
    unsafe { ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) as u8 }
}

/// What is called; in `recvmsg` and `getpeername` who answers.
#[inline(always)]
fn destination(ctx: &SockAddrContext, family: Family) -> (Address, Port) {
    // SAFETY: as above. Volatile, because the verifier allows loads of exactly these widths only.
    unsafe {
        let port = Port::from_raw(ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) as u16);
        match family {
            Family::V4 => {
                (Address::from_v4_raw(ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip4)), port)
            }
            Family::V6 => {
                let words = &raw const (*ctx.sock_addr).user_ip6;
                let word = |index: usize| u64::from(ptr::read_volatile(words.cast::<u32>().add(index)));
                (Address::from_v6_raw([word(0) | word(1) << 32, word(2) | word(3) << 32]), port)
            }
        }
    }
}

#[inline(always)]
fn set_destination(ctx: &SockAddrContext, family: Family, address: &Address, port: Port) {
    // SAFETY: as above.
    unsafe {
        match family {
            Family::V4 => ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, address.v4_raw()),
            Family::V6 => {
                let words = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
                let [first, second] = address.words();
                ptr::write_volatile(words, first as u32);
                ptr::write_volatile(words.add(1), (first >> 32) as u32);
                ptr::write_volatile(words.add(2), second as u32);
                ptr::write_volatile(words.add(3), (second >> 32) as u32);
            }
        }
        ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.raw()));
    }
}
