use crate::model::{ObjectKind, Problem};
use std::fmt;

/// `reason` of an Event: what sort of problem it tells of. It follows from which field of which kind is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An annotation of ours that cannot be read or does not exist.
    InvalidAnnotation,
    /// A value of the settings' ConfigMap.
    InvalidSettings,
    /// A cluster that is to be drained when it does not answer, and does not.
    ClusterUnanswered,
    /// Endpoints of a slice that do not answer.
    UnansweredEndpoints,
    /// Endpoints of a slice that get no traffic.
    RejectedEndpoints,
    /// A slice whose cluster brings more endpoints than it may.
    TooManyEndpoints,
    /// A slice and `--cluster-name` disagree about what a cluster is called.
    ClusterNameConflict,
    /// An address of a ServiceImport that may not be a frontend.
    RefusedAddress,
    /// A ClusterIP and port that another Service has.
    AddressConflict,
    /// A part of a Service or ServiceImport that we do not serve, and perhaps nobody does.
    NotServed,
    /// Any other value that makes no sense.
    InvalidField,
}

impl Reason {
    #[must_use]
    pub fn of(problem: &Problem) -> Self {
        let field = problem.field.as_str();
        match problem.object.kind {
            ObjectKind::Service | ObjectKind::ServiceImport => {
                if field.starts_with("metadata.annotations[") {
                    Self::InvalidAnnotation
                } else if field == "spec.clusterIPs" {
                    Self::AddressConflict
                } else if field.starts_with("spec.ips[") {
                    Self::RefusedAddress
                } else {
                    Self::NotServed
                }
            }
            ObjectKind::EndpointSlice => {
                if field == "endpoints" {
                    Self::TooManyEndpoints
                } else if field.starts_with("endpoints[") || field == "(others)" {
                    Self::RejectedEndpoints
                } else if field == "(answers)" {
                    Self::UnansweredEndpoints
                } else if field == "metadata" {
                    Self::ClusterNameConflict
                } else {
                    Self::InvalidField
                }
            }
            ObjectKind::ConfigMap if field.contains(" over IPv") => Self::ClusterUnanswered,
            ObjectKind::ConfigMap => Self::InvalidSettings,
            ObjectKind::Node | ObjectKind::File => Self::InvalidField,
        }
    }
}

impl fmt::Display for Reason {
    /// In PascalCase, as Events have it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}
