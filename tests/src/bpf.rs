//! Programs of others on the hooks that mcs-proxy uses: small ones, written out instruction by instruction.

use crate::{Namespace, Pod, daemon::BPFFS, sys};
use anyhow::{Context, Result};
use std::{
    ffi::CString,
    fs,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

/// Length of the header before the IP header.
const ETHERNET: i32 = 14;
/// `TCX_NEXT`: the next program runs.
const NEXT: i32 = -1;
/// `TCX_PASS`, and `TC_ACT_OK`: accepted, and no other program of the hook runs.
const PASS: i32 = 0;

/// Which way packets go, as seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the pod: TCX ingress.
    Ingress,
    /// To the pod: TCX egress.
    Egress,
}

/// Where among the programs that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// A program that counts the packets with an address. As a TCX program it is detached when dropped.
#[derive(Debug)]
pub struct Observer {
    counter: OwnedFd,
    _link: Option<OwnedFd>,
}

impl Observer {
    /// Puts it on an interface of a namespace; all packets go on to the programs after it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(
        namespace: &Namespace,
        interface: &str,
        (way, place): (Way, Place),
        (end, address): (End, IpAddr),
    ) -> Result<Self> {
        attach(namespace, interface, (way, place), (end, address), NEXT)
    }

    /// As [`attach`](Self::attach), but the packets that it counts are hidden from the programs after it, which is
    /// what a program does that returns `TC_ACT_OK` where `TCX_NEXT` is meant.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hide(
        namespace: &Namespace,
        interface: &str,
        (way, place): (Way, Place),
        (end, address): (End, IpAddr),
    ) -> Result<Self> {
        attach(namespace, interface, (way, place), (end, address), PASS)
    }

    /// Puts it on an interface as a `cls_bpf` filter of a `clsact` qdisc that is there, with a priority of its own.
    ///
    /// # Errors
    /// The kernel's, or tc's.
    pub fn classify(
        namespace: &Namespace,
        interface: &str,
        (way, priority): (Way, u16),
        (end, address): (End, IpAddr),
    ) -> Result<Self> {
        let (counter, program) = load(end, address, NEXT)?;
        let path = format!("{BPFFS}/{}-filter", namespace.name());
        sys::pin(&program, &CString::new(path.clone())?).with_context(|| path.clone())?;
        let way = if way == Way::Ingress { "ingress" } else { "egress" };
        let program = format!("bpf direct-action object-pinned {path}");
        let added = namespace.tc(&format!("filter add dev {interface} {way} prio {priority} {program}"));
        fs::remove_file(&path).context(path)?;
        added?;
        Ok(Self { counter, _link: None })
    }

    /// How many packets it has counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn count(&self) -> Result<u64> {
        sys::first_element(&self.counter).context("an observer's counter")
    }
}

fn attach(
    namespace: &Namespace,
    interface: &str,
    (way, place): (Way, Place),
    (end, address): (End, IpAddr),
    verdict: i32,
) -> Result<Observer> {
    let (counter, program) = load(end, address, verdict)?;
    let interface = interface.to_owned();
    let link = namespace.run(move || {
        let index = sys::interface_index(&interface)?;
        sys::link_tcx(&program, index, way == Way::Ingress, place == Place::First)
    })?;
    Ok(Observer { counter, _link: Some(link) })
}

/// The program, and its counter.
fn load(end: End, address: IpAddr, verdict: i32) -> Result<(OwnedFd, OwnedFd)> {
    let counter = sys::create_counter().context("an observer's counter")?;
    let program = sys::load_classifier(&counting(&counter, end, address, verdict)).context("an observer")?;
    Ok((counter, program))
}

/// Counts, and returns the verdict.
fn counting(counter: &OwnedFd, end: End, address: IpAddr, verdict: i32) -> Vec<u64> {
    let (r0, r1, r2, r10) = (0, 1, 2, 10);
    let count = [
        instruction(0x62, r10, 0, -4, 0), // The key: 0.
        instruction(0xbf, r2, r10, 0, 0),
        instruction(0x07, r2, 0, 0, -4),
        instruction(0x18, r1, 1, 0, counter.as_raw_fd()), // The map, in two words.
        0,
        instruction(0x85, 0, 0, 0, 1), // bpf_map_lookup_elem
        instruction(0x15, r0, 0, 2, 0),
        instruction(0xb7, r1, 0, 0, 1),
        instruction(0xdb, r0, r1, 0, 0), // Atomically += 1.
        instruction(0xb7, r0, 0, 0, verdict),
        instruction(0x95, 0, 0, 0, 0),
    ];
    for_packets(end, address, &count)
}

/// A program that does nothing with any packet: they go on to the programs after it. Detached when dropped.
#[derive(Debug)]
pub struct Idle(#[expect(dead_code, reason = "holds the program there")] OwnedFd);

impl Idle {
    /// Puts it on an interface of a namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(namespace: &Namespace, interface: &str, way: Way) -> Result<Self> {
        let nothing = [instruction(0xb7, 0, 0, 0, NEXT), instruction(0x95, 0, 0, 0, 0)];
        let program = sys::load_classifier(&nothing).context("an idle program")?;
        let interface = interface.to_owned();
        let link = namespace.run(move || {
            sys::link_tcx(&program, sys::interface_index(&interface)?, way == Way::Ingress, true)
        })?;
        Ok(Self(link))
    }
}

/// Hands packets from an address that come in by an interface straight to a pod's end of its veth, as Cilium and Calico's
/// eBPF dataplane do: no program on the node's end sees them. Detached when dropped.
#[derive(Debug)]
pub struct Shortcut(#[expect(dead_code, reason = "holds the program there")] OwnedFd);

impl Shortcut {
    /// # Errors
    /// The kernel's.
    pub fn attach(namespace: &Namespace, interface: &str, source: IpAddr, to: &Pod) -> Result<Self> {
        let shown = to.namespace.ip("-o link show dev eth0")?;
        let (_, rest) = shown.split_once("link/ether ").with_context(|| shown.clone())?;
        let address: Vec<u8> = rest
            .split_whitespace()
            .next()
            .into_iter()
            .flat_map(|address| address.split(':'))
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?;
        let address: [u8; 6] = address.try_into().ok().context("no Ethernet address")?;
        let (interface, pod) = (interface.to_owned(), to.host_interface.clone());
        let link = namespace.run(move || {
            let program = redirecting(source, address, sys::interface_index(&pod)?);
            let program = sys::load_classifier(&program).context("a shortcut")?;
            anyhow::Ok(sys::link_tcx(&program, sys::interface_index(&interface)?, true, false)?)
        })?;
        Ok(Self(link))
    }
}

/// Gives the frame the pod's Ethernet address, and redirects it.
fn redirecting(source: IpAddr, [a, b, c, d, e, f]: [u8; 6], index: u32) -> Vec<u64> {
    let (r1, r2, r3, r4, r5, r6, r10) = (1, 2, 3, 4, 5, 6, 10);
    let redirect = [
        instruction(0x62, r10, 0, -8, i32::from_le_bytes([a, b, c, d])),
        instruction(0x6a, r10, 0, -4, i32::from(u16::from_le_bytes([e, f]))),
        instruction(0xbf, r1, r6, 0, 0),
        instruction(0xb7, r2, 0, 0, 0),
        instruction(0xbf, r3, r10, 0, 0),
        instruction(0x07, r3, 0, 0, -8),
        instruction(0xb7, r4, 0, 0, 6),
        instruction(0xb7, r5, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 9), // bpf_skb_store_bytes
        instruction(0xb7, r1, 0, 0, index.cast_signed()),
        instruction(0xb7, r2, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 155), // bpf_redirect_peer
        instruction(0x95, 0, 0, 0, 0),
    ];
    for_packets(End::Source, source, &redirect)
}

/// A program that does something with packets that have an address, and lets others go on.
fn for_packets(end: End, address: IpAddr, body: &[u64]) -> Vec<u64> {
    let (r0, r1, r6) = (0, 1, 6);
    // (opcode of a load of that size, offset in the packet, what is to be there)
    let (ether_type, first, bytes) = match address {
        IpAddr::V4(v4) => (0x0800, if end == End::Source { 12 } else { 16 }, v4.octets().to_vec()),
        IpAddr::V6(v6) => (0x86dd, if end == End::Source { 8 } else { 24 }, v6.octets().to_vec()),
    };
    let words = (0..).step_by(4).zip(bytes.chunks_exact(4)).map(|(offset, word)| {
        (0x20, ETHERNET + first + offset, i32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    });
    let compared: Vec<_> = [(0x28, 12, ether_type)].into_iter().chain(words).collect();

    let mut program = vec![instruction(0xbf, r6, r1, 0, 0)]; // Loads from the packet want the context in r6.
    for (index, (load, offset, wanted)) in compared.iter().enumerate() {
        let to_the_end = 2 * (compared.len() - index - 1) + body.len();
        program.push(instruction(*load, 0, 0, 0, *offset));
        program.push(instruction(0x56, r0, 0, to_the_end as i16, *wanted));
    }
    program.extend(body);
    program.extend([instruction(0xb7, r0, 0, 0, NEXT), instruction(0x95, 0, 0, 0, 0)]);
    program
}

/// `struct bpf_insn`, little-endian.
pub(crate) fn instruction(operation: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(operation)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}
