//! Memory beside the stack, for what only odd packets need; and the way past the verifier that leads through it.

use crate::{maps, shape::Shape};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use core::ptr;
use mcs_proxy_ebpf::abi::{Fragment, FragmentKey, Tuple};

/// This CPU's, see [`maps::aside`].
#[repr(C)]
pub(crate) struct Aside {
    /// The words of a header that was copied.
    header: [u32; 5],
    /// Of the packet that was read last: bytes from its transport header on.
    length: u32,
    /// And where that header is: a [`Shape`].
    shape: u64,
    /// What [`forget`] forgets.
    word: u64,
    /// What [`peer`](crate::peer) is to know: whether the packet was translated on its way from a client.
    pub(crate) translated: u64,
    /// Of the flow that is opened.
    pub(crate) key: Tuple,
    pub(crate) fragment_key: FragmentKey,
    pub(crate) fragment: Fragment,
}

/// The same value by way of memory, so that the verifier knows nothing about it any more. It walks what follows once
/// for each value that it can tell apart: the rest of a loop for each sum of lengths, the rest of the program for
/// each place where the transport header may be.
#[inline(always)]
pub(crate) fn forget(value: u64) -> u64 {
    let Some(aside) = maps::aside() else { return 0 };
    let word = &raw mut aside.word;
    // SAFETY: the word is this CPU's own.
    unsafe {
        ptr::write_volatile(word, value);
        ptr::read_volatile(word)
    }
}

/// Copies up to five words of the packet to where the stack does not pay for them; `None` where it has less. To be
/// read before the next copy.
#[inline(always)]
pub(crate) fn words(skb: *mut __sk_buff, offset: u32, bytes: u32) -> Option<&'static [u32; 5]> {
    let words = &mut maps::aside()?.header;
    // SAFETY: the context is the one the kernel gave us; the verifier refuses the program if the bytes do not fit.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), offset, words.as_mut_ptr().cast(), bytes) };
    (failed == 0).then_some(words)
}

/// Keeps what a [`Packet`](crate::packet::Packet) has no field for.
#[inline(always)]
pub(crate) fn keep(shape: Shape, length: u32) {
    if let Some(aside) = maps::aside() {
        aside.shape = shape.word();
        aside.length = length;
    }
}

/// Of the packet that was read last.
#[inline(always)]
pub(crate) fn shape() -> Shape {
    // SAFETY: as in `forget`.
    maps::aside()
        .map_or(Shape::NONE, |aside| Shape::from_word(unsafe { ptr::read_volatile(&raw const aside.shape) }))
}

/// Of the packet that was read last.
#[inline(always)]
pub(crate) fn length() -> u32 {
    // SAFETY: as in `forget`.
    maps::aside().map_or(0, |aside| unsafe { ptr::read_volatile(&raw const aside.length) })
}
