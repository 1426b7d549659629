//! Kubernetes Events (events.k8s.io/v1): every [`Problem`](crate::model::Problem) as a Warning on its object, where
//! `kubectl describe` shows it.
//!
//! All nodes of a cluster see the same problems, and only `create` is granted. So an Event's name follows from what it
//! tells of ([`Topic::event_name`]): whichever node comes first writes it, and the API server tells the others that it
//! exists. The name also holds the hour, by which an Event is renewed as long as its problem lasts; the API server
//! forgets Events after an hour (`--event-ttl`).
//!
//! The control loop only notes on a [`Board`] what has arisen and what is solved. Who writes ([`crate::source`]) looks
//! there, at its own pace: whatever the API server does, the control loop waits for nothing.

mod board;
mod reason;
mod schedule;
mod topic;

pub use board::{Board, Report};
pub use reason::Reason;
pub use schedule::Schedule;
pub use topic::{PERIOD, Topic};
