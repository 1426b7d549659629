//! From Kubernetes' objects to those of the [`model`](crate::model).
//!
//! A value that makes no sense costs no more than itself: it is left out or stands at its default, a
//! [`Problem`](crate::model::Problem) in the object's `problems` says so, and the rest of the object works. An object
//! that is not even of its type ([`Manifest::Unreadable`]) is the source's to keep as it last was.

mod manifest;
mod node;
mod report;
mod service;
mod service_import;
mod settings;
mod slice;

pub use manifest::{Manifest, manifests};
pub use node::node;
pub use service::service;
pub use service_import::{ServiceImportObject, service_import};
pub use settings::settings;
pub use slice::slice;

#[cfg(test)]
mod tests;
