/// A frontend does not fit. Others do; and if this one had been there before, it stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("map `services` is full: {in_use} of {capacity} frontends are in use; raise --max-frontends")]
    Frontends { capacity: u32, in_use: u32 },
    #[error(
        "map `backends` is short: {needed} elements in a row are needed (one for each slot and one for the header), \
         {in_use} of {capacity} are in use and the longest free run is {longest}; raise --max-slots"
    )]
    Slots { capacity: u32, in_use: u32, needed: u32, longest: u32 },
    #[error(
        "map `backend_state` is short: {needed} new backends are needed, {in_use} of {capacity} ids are in use; \
         raise --max-backends"
    )]
    Backends { capacity: u32, in_use: u32, needed: u32 },
}

/// How full the maps are. What waits for a grace period counts as in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub frontends: Fill,
    /// Elements of `backends`: slots, and one header for each frontend.
    pub elements: Fill,
    pub backends: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub in_use: u32,
    pub capacity: u32,
}
