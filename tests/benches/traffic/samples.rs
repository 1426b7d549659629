//! What was seen, as it is kept.

use crate::{
    arm::Arm,
    machine::Machine,
    plan::{Plan, Size},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// Everything of one run: `samples.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) rounds: u32,
    pub(crate) stages: Vec<StageSamples>,
}

/// Everything of one size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StageSamples {
    pub(crate) services: u32,
    /// Of each Service.
    pub(crate) endpoints: u32,
    pub(crate) samples: Vec<Sample>,
}

/// One slice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: u32,
    pub(crate) arm: Arm,
    pub(crate) measure: Measure,
    pub(crate) target: Target,
    #[serde(flatten)]
    pub(crate) slice: Slice,
}

/// What the client counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Transactions, or bytes that arrived.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    /// Processor time of client and server, with what the kernel did on their account.
    pub(crate) cpu_seconds: f64,
    /// Of `connect`; with `crr` alone.
    pub(crate) connect_p50_us: Option<f64>,
    pub(crate) connect_p99_us: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    /// Connect, request, response, close.
    Crr,
    /// Request and response over one connection.
    Rr,
    Throughput,
}

/// Which Service is called: by the place of its rule in kube-proxy's iptables chain, which is gone through in order;
/// elsewhere by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    First,
    Middle,
    Last,
    /// None: another address of the server's, by which no Service has it.
    Bystander,
}

impl Run {
    pub(crate) const fn new(machine: Machine, plan: &Plan) -> Self {
        Self { machine, quick: plan.quick, rounds: plan.rounds, stages: Vec::new() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

impl StageSamples {
    pub(crate) const fn new(size: &Size) -> Self {
        Self { services: size.services, endpoints: size.endpoints, samples: Vec::new() }
    }

    /// A figure of every round, in order.
    pub(crate) fn figures(&self, arm: Arm, measure: Measure, target: Target, figure: Figure) -> Vec<f64> {
        let is_asked =
            |sample: &&Sample| (sample.arm, sample.measure, sample.target) == (arm, measure, target);
        self.samples.iter().filter(is_asked).filter_map(|sample| figure.of(&sample.slice)).collect()
    }
}

/// What is read off a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Transactions, or bytes, a second.
    Rate,
    ConnectP50,
    ConnectP99,
    /// Seconds a transaction.
    Cpu,
}

impl Figure {
    pub(crate) const ALL: [Self; 4] = [Self::Rate, Self::ConnectP50, Self::ConnectP99, Self::Cpu];

    fn of(self, slice: &Slice) -> Option<f64> {
        match self {
            Self::Rate => Some(slice.count as f64 / slice.seconds),
            Self::ConnectP50 => slice.connect_p50_us,
            Self::ConnectP99 => slice.connect_p99_us,
            Self::Cpu => (slice.count > 0).then(|| slice.cpu_seconds / slice.count as f64),
        }
    }
}
