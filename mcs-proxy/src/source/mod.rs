//! Where objects come from. Every source gives the same events.

use crate::model::{EndpointSlice, NamespacedName, ObjectKind, Problem, Service};

/// What a source tells the daemon's writer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object as it is now, new or changed.
    Applied(Object),
    /// The object is gone.
    Deleted(ObjectKind, NamespacedName),
    /// A complete list of one kind: whatever is not in it is gone. The first one of a kind says that it is synced.
    Replaced(ObjectKind, Vec<Object>),
    /// An object or a file could not be read, wholly or in part. What was last good stays.
    Problem(Problem),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
}
