//! What only user space knows of an interface, and the programs need.

/// Value of `interfaces`, by index of a pod's interface. An interface without an entry is as one with
/// [`Place::UNKNOWN`]: its flows do without what the entry is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's network namespace, by the id that the node's namespace has for it (`IFLA_LINK_NETNSID`): what
    /// `bpf_skc_lookup_tcp` takes at the node's end of the veth. -1 if there is none.
    pub netns: i32,
    /// The bridge that the interface is a port of (`IFLA_MASTER`), or 0.
    pub bridge: u32,
}

impl Place {
    pub const UNKNOWN: Self = Self { netns: -1, bridge: 0 };
}

/// Entries of `interfaces`: beyond it, interfaces do without.
pub const INTERFACES: u32 = 4096;

const _: () = assert!(size_of::<Place>() == 8);
