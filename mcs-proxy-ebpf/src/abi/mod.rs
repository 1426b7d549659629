//! The map contract: every key and value that the programs and user space share.
//!
//! Rules that hold for all of them:
//! - Little-endian targets only. Addresses and ports are kept in network byte order, as they stand in packets;
//!   everything else is in host order.
//! - Padding is explicit and zero, because the kernel hashes keys bytewise. Sizes are asserted at compile time.
//! - A change to any layout or meaning raises [`ABI_VERSION`], which names the directory of the pins, so that
//!   programs and maps of different contracts never meet.

mod address;
mod counters;
mod event;
mod extent;
mod flow;
mod fragment;
mod hot;
mod interface;
mod maps;
mod socket;
mod stage;
mod verdict;

pub use address::{Address, Port, Protocol};
pub use counters::{BackendCounters, ServiceCounters};
pub use event::{EVENTS, Event, EventKind, Switch, is_leased, lease};
pub use extent::{Algorithm, BackendState, Element, FrontendWord, Header, Liveness, ServiceKey, Slot};
pub use flow::{Affinity, AffinityKey, Flow, FlowState, Reply, RosterEntry, Silences, TICK_SHIFT, Tuple};
pub use fragment::{Fragment, FragmentKey};
pub use hot::{Direction, HOT_WORDS, HOT_WORDS_PER_DIRECTION, hot_bit};
pub use interface::{INTERFACES, Place};
pub use maps::{MapName, MapSizes, REJECTS_PER_TICK, SHARES, VIP_WHOLE, VipFlags};
pub use socket::{SocketBackend, SocketKey, SocketOrigin, SocketScope};
pub use stage::{STAGES, Stage};
pub use verdict::{Action, VERDICTS, Verdict};

/// Names the pin directory (`<pin-dir>/v5`). Raised with every change of layout or meaning.
pub const ABI_VERSION: u32 = 5;

/// SAFETY: every type here is `repr(C)`, has no padding the compiler chose (the size asserts show it) and is
/// valid for any bit pattern, which is what `aya::Pod` asks for.
#[cfg(not(target_arch = "bpf"))]
mod userspace {
    macro_rules! pod {
        ($($name:ident),+ $(,)?) => {
            // SAFETY: as said above the module.
            $(unsafe impl aya::Pod for super::$name {})+
        };
    }
    pod!(
        Address,
        Affinity,
        AffinityKey,
        BackendCounters,
        BackendState,
        Element,
        Event,
        Flow,
        Fragment,
        FragmentKey,
        Place,
        Reply,
        ServiceCounters,
        ServiceKey,
        Silences,
        SocketBackend,
        SocketKey,
        SocketOrigin,
        Tuple,
    );
}

#[cfg(target_endian = "big")]
compile_error!("the map contract is written for little-endian targets");
