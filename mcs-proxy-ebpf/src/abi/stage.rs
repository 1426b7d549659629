//! Programs that another one goes on with, by tail call.

/// What most packets do not need has programs of its own, each with a stack and a budget of instructions for itself.
/// The number is the index in `stages`, the name that of the program.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// After `from_pod`, or itself: a packet of no flow.
    Open = 0,
    /// After `from_pod` or `open`: a packet from a pod to itself.
    Hairpin = 1,
    /// After `from_pod`: options, extension headers, fragments, SCTP.
    Odd = 2,
    /// After `to_pod`: the same.
    OddBack = 3,
    /// After `from_pod`, `open` or `odd`: a packet that goes straight into another pod.
    Peer = 4,
}

/// Entries of `stages`.
pub const STAGES: u32 = 5;

impl Stage {
    pub const ALL: [Self; STAGES as usize] =
        [Self::Open, Self::Hairpin, Self::Odd, Self::OddBack, Self::Peer];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Hairpin => "hairpin",
            Self::Odd => "odd",
            Self::OddBack => "odd_back",
            Self::Peer => "peer",
        }
    }
}
