//! The maps by name, and how large they are.

/// Every map of the contract; the name is that of its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapName {
    Hot,
    Services,
    Vips,
    Frontends,
    Backends,
    BackendState,
    Cursors,
    Flows,
    Replies,
    Transient,
    TransientReplies,
    Roster,
    Heartbeat,
    Affinity,
    Fragments,
    InterfaceFlows,
    Rejects,
    Interfaces,
    Stages,
    ServiceCounters,
    BackendCounters,
    Verdicts,
    Events,
    SocketBackends,
    SocketOrigins,
    SocketPeers,
}

impl MapName {
    pub const ALL: [Self; 26] = [
        Self::Hot,
        Self::Services,
        Self::Vips,
        Self::Frontends,
        Self::Backends,
        Self::BackendState,
        Self::Cursors,
        Self::Flows,
        Self::Replies,
        Self::Transient,
        Self::TransientReplies,
        Self::Roster,
        Self::Heartbeat,
        Self::Affinity,
        Self::Fragments,
        Self::InterfaceFlows,
        Self::Rejects,
        Self::Interfaces,
        Self::Stages,
        Self::ServiceCounters,
        Self::BackendCounters,
        Self::Verdicts,
        Self::Events,
        Self::SocketBackends,
        Self::SocketOrigins,
        Self::SocketPeers,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Services => "services",
            Self::Vips => "vips",
            Self::Frontends => "frontends",
            Self::Backends => "backends",
            Self::BackendState => "backend_state",
            Self::Cursors => "cursors",
            Self::Flows => "flows",
            Self::Replies => "replies",
            Self::Transient => "transient",
            Self::TransientReplies => "transient_replies",
            Self::Roster => "roster",
            Self::Heartbeat => "heartbeat",
            Self::Affinity => "affinity",
            Self::Fragments => "fragments",
            Self::InterfaceFlows => "interface_flows",
            Self::Rejects => "rejects",
            Self::Interfaces => "interfaces",
            Self::Stages => "stages",
            Self::ServiceCounters => "service_counters",
            Self::BackendCounters => "backend_counters",
            Self::Verdicts => "verdicts",
            Self::Events => "events",
            Self::SocketBackends => "socket_backends",
            Self::SocketOrigins => "socket_origins",
            Self::SocketPeers => "socket_peers",
        }
    }
}

/// Size of `interface_flows`, which counts the established flows of each interface at `index % SHARES`, and of
/// `rejects`, which counts how often an interface's pod was told that there is nobody: interfaces
/// whose indices are that far apart share a share.
pub const SHARES: u32 = 4096;

/// Value of `vips`, by address; the key says that a frontend of ours has it.
pub type VipFlags = u32;

/// Every port of the VIP is ours: whoever calls one that no frontend has is refused, as kube-proxy does with other ports
/// of ClusterIPs.
pub const VIP_WHOLE: VipFlags = 1;

/// How many rejects an interface gets in a tick (about a quarter of a second); the pod that asks for more is flooding.
/// Value of `rejects`: the tick in the upper half, how many there were in it in the lower.
pub const REJECTS_PER_TICK: u32 = 256;

/// Entries that the maps are made with; each is a flag of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// `services`, `vips`, `frontends`; service ids (`cursors`, `service_counters`) are as many.
    pub frontends: u32,
    /// `backends`: headers and slots together. Element 0 is never used.
    pub elements: u32,
    /// Backend ids: `backend_state`, `backend_counters`. Id 0 is never used.
    pub backend_ids: u32,
    /// `flows`, `replies`.
    pub flows: u32,
    /// `transient`, `transient_replies`.
    pub transient: u32,
    pub affinity: u32,
    pub fragments: u32,
    /// `socket_backends`, `socket_origins`.
    pub sockets: u32,
}

impl MapSizes {
    pub const DEFAULT: Self = Self {
        frontends: 65_536,
        elements: 524_288,
        backend_ids: 262_144,
        flows: 524_288,
        transient: 65_536,
        affinity: 65_536,
        fragments: 8_192,
        sockets: 65_536,
    };

    #[must_use]
    pub const fn of(&self, map: MapName) -> u32 {
        match map {
            MapName::Hot => super::HOT_WORDS,
            MapName::Services
            | MapName::Vips
            | MapName::Frontends
            | MapName::Cursors
            | MapName::ServiceCounters => self.frontends,
            MapName::Backends => self.elements,
            MapName::BackendState | MapName::BackendCounters => self.backend_ids,
            MapName::Flows | MapName::Replies => self.flows,
            MapName::Transient | MapName::TransientReplies => self.transient,
            // Room for a quarter of entries whose flows have ended and whose turn is yet to come.
            MapName::Roster => self.flows.saturating_add(self.flows / 4).saturating_add(64),
            MapName::Heartbeat => 1,
            MapName::Affinity => self.affinity,
            MapName::Fragments => self.fragments,
            MapName::InterfaceFlows | MapName::Rejects => SHARES,
            MapName::Interfaces => super::INTERFACES,
            MapName::Stages => super::STAGES,
            MapName::Verdicts => super::VERDICTS,
            // One is the switch.
            MapName::Events => 1 + super::EVENTS,
            MapName::SocketBackends | MapName::SocketOrigins => self.sockets,
            // It lives in the sockets themselves.
            MapName::SocketPeers => 0,
        }
    }
}
