//! What a transaction writes by system calls, many entries a call: of a Service with ten endpoints all but a few words are
//! stores into mapped memory, and those few calls were what a large change took the kernel's time for.
//!
//! Waiting are steps that nothing depends on until the next one that is not among them. Counters and cursors are reset and
//! VIPs entered before the frontends that lead there; whoever adds a kind of step says in [`Batch::take`] whether it may
//! overtake these.

use super::{Failure, KernelDataplane};
use crate::dataplane::{
    DataplaneError, Operation,
    sys::{self, BatchError},
};
use mcs_proxy_ebpf::abi::{Address, MapName, ServiceKey, VipFlags};
use std::{io, os::fd::AsFd};

#[derive(Debug, Default)]
pub(super) struct Batch {
    services: Vec<u32>,
    backends: Vec<u32>,
    vips: (Vec<Address>, Vec<VipFlags>),
    inserts: (Vec<ServiceKey>, Vec<u32>),
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits with the others.
    Taken,
    /// Nothing that waits concerns it.
    Now,
    /// What waits goes first.
    AfterBatch,
}

impl Batch {
    pub(super) fn take(&mut self, operation: &Operation) -> Turn {
        match operation {
            Operation::ResetService { service } => self.services.push(*service),
            Operation::ResetBackend { backend } => self.backends.push(*backend),
            // That a frontend has an address says nothing that a program would act on before it finds the frontend.
            Operation::SetVip { vip, flags: Some(0) } => {
                self.vips.0.push(*vip);
                self.vips.1.push(0);
            }
            Operation::InsertService { key, frontend } => {
                self.inserts.0.push(*key);
                self.inserts.1.push(*frontend);
            }
            // From then on flows may come to the backends and be counted.
            Operation::Publish { .. } if !self.backends.is_empty() => return Turn::AfterBatch,
            // Of a frontend that waits, these come before it; of others they are none of its business.
            Operation::WriteExtent { .. }
            | Operation::Publish { .. }
            | Operation::SetBackendState { .. }
            | Operation::SetHot { .. } => return Turn::Now,
            Operation::RemoveService { .. }
            | Operation::SetVip { .. }
            | Operation::GracePeriod
            | Operation::GracePeriodOver => return Turn::AfterBatch,
        }
        Turn::Taken
    }

    fn is_empty(&self) -> bool {
        let Self { services, backends, vips, inserts } = self;
        services.is_empty() && backends.is_empty() && vips.0.is_empty() && inserts.0.is_empty()
    }
}

/// A failure, and the step that it is about, which is one of those that waited.
pub(super) struct Failed {
    operation: Operation,
    failure: Failure,
}

impl Failed {
    pub(super) fn told(self) -> DataplaneError {
        self.failure.told(&self.operation)
    }
}

impl KernelDataplane {
    /// Carries out what waits.
    pub(super) fn flush(&self, batch: &mut Batch) -> Result<(), Failed> {
        if batch.is_empty() {
            return Ok(());
        }
        let Batch { services, backends, vips, inserts } = std::mem::take(batch);
        for (map, fd) in
            [(MapName::Cursors, &self.cursors), (MapName::ServiceCounters, &self.service_counters)]
        {
            sys::zero_elements(fd.as_fd(), &services).map_err(|error| {
                failed(map, error, |at| Operation::ResetService { service: services[at] })
            })?;
        }
        sys::zero_elements(self.backend_counters.as_fd(), &backends).map_err(|error| {
            failed(MapName::BackendCounters, error, |at| Operation::ResetBackend { backend: backends[at] })
        })?;
        sys::update_batch(self.vips_fd.as_fd(), &vips.0, &vips.1).map_err(|error| {
            failed(MapName::Vips, error, |at| Operation::SetVip { vip: vips.0[at], flags: Some(vips.1[at]) })
        })?;
        sys::update_batch(self.services_fd.as_fd(), &inserts.0, &inserts.1).map_err(|error| {
            let insert = |at: usize| Operation::InsertService { key: inserts.0[at], frontend: inserts.1[at] };
            failed(MapName::Services, error, insert)
        })
    }
}

fn failed(
    map: MapName,
    BatchError { at, error }: BatchError,
    operation: impl Fn(usize) -> Operation,
) -> Failed {
    Failed { operation: operation(at), failure: Failure { map, source: io::Error::from(error) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcs_proxy_ebpf::abi::{BackendState, Liveness, Port, VIP_WHOLE};

    /// An error would be about one of the elements.
    #[test]
    fn nothing_to_write_is_written_without_asking_the_kernel() {
        let no_map = std::fs::File::open("/dev/null").unwrap();
        sys::update_batch(no_map.as_fd(), &[0_u32; 0], &[0_u32; 0]).unwrap();
        sys::zero_elements(no_map.as_fd(), &[]).unwrap();
    }

    #[test]
    fn what_depends_on_a_step_that_waits_comes_after_it() {
        let vip = Address::from(std::net::IpAddr::from([10, 13, 0, 1]));
        let key = ServiceKey::new(vip, Port::new(80), 6);
        let state = BackendState::new(1, Liveness::Live);
        let mut batch = Batch::default();
        let publish = Operation::Publish { frontend: 1, extent: 1 };
        for (operation, turn) in [
            (Operation::ResetService { service: 1 }, Turn::Taken),
            (Operation::SetVip { vip, flags: Some(0) }, Turn::Taken),
            (Operation::SetBackendState { backend: 1, state }, Turn::Now),
            (Operation::SetHot { word: 1, bits: 1 }, Turn::Now),
            (Operation::WriteExtent { first: 1, elements: Vec::new() }, Turn::Now),
            (publish.clone(), Turn::Now),
            (Operation::InsertService { key, frontend: 1 }, Turn::Taken),
            (Operation::ResetBackend { backend: 1 }, Turn::Taken),
            // A backend that still has its predecessor's counters must not be led to.
            (publish, Turn::AfterBatch),
            (Operation::SetVip { vip, flags: Some(VIP_WHOLE) }, Turn::AfterBatch),
            (Operation::SetVip { vip, flags: None }, Turn::AfterBatch),
            (Operation::RemoveService { key }, Turn::AfterBatch),
            (Operation::GracePeriod, Turn::AfterBatch),
            (Operation::GracePeriodOver, Turn::AfterBatch),
        ] {
            assert_eq!(batch.take(&operation), turn, "{operation:?}");
        }
        assert!(!batch.is_empty());
    }
}
