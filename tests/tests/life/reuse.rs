//! Pods' addresses that pass from one Service to another, many times a second.

use crate::fleet::{Fleet, SERVICES, Way, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Namespace,
    client::{self, Connection},
    figure, is_long,
};
use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Calls all Services, and tells when it is between two calls.
#[derive(Debug, Default)]
struct Caller {
    /// Odd during a call.
    calls: AtomicU64,
}

impl Caller {
    fn call<T>(&self, act: impl FnOnce() -> T) -> T {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let done = act();
        self.calls.fetch_add(1, Ordering::SeqCst);
        done
    }

    /// Waits until no call is under way that had begun before.
    fn wait(&self) -> Result<()> {
        let before = self.calls.load(Ordering::SeqCst);
        let start = Instant::now();
        while before % 2 == 1 && self.calls.load(Ordering::SeqCst) == before {
            ensure!(start.elapsed() < Duration::from_secs(20), "a call does not end");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Of a caller, between two Services.
const PAUSE: Duration = Duration::from_millis(1);

/// What the callers have met.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    connections: u64,
    datagrams: u64,
}

/// A new connection and a datagram of a conversation that goes on, to each Service in turn, until told to stop. Whoever
/// answers must be a pod of the Service that was called.
fn keep_calling(namespace: &Namespace, caller: &Caller, stop: &AtomicBool) -> Result<Met> {
    let mut met = Met::default();
    let conversations: Vec<UdpSocket> =
        (0..SERVICES).map(|service| client::udp_socket(namespace, vip(service)?)).collect::<Result<_>>()?;
    while !stop.load(Ordering::Relaxed) {
        for (service, conversation) in conversations.iter().enumerate() {
            let called = vip(service)?;
            let own = format!("Pod: of-{service} ");
            let greeted = caller.call(|| client::greeting(namespace, called));
            let greeted = greeted.with_context(|| format!("a connection to Service {service}"))?;
            ensure!(greeted.contains(&own), "Service {service} was called, and {greeted:?} came back");
            met.connections += 1;
            let said = caller.call(|| client::udp_greeting(conversation, called, "who is there"));
            let said = said.with_context(|| format!("a datagram to Service {service}"))?;
            ensure!(said.contains(&own), "a datagram was for Service {service}, and {said:?} came back");
            met.datagrams += 1;
            // Or our own traffic would take the processors from those who change it.
            thread::sleep(PAUSE);
        }
    }
    Ok(met)
}

/// Connections that stay open, one to each Service.
fn stay(fleet: &Fleet) -> Result<Vec<Connection>> {
    (0..SERVICES).map(|service| Connection::open(&fleet.client.namespace, vip(service)?)).collect()
}

/// A connection whose pod has lost its address ends; one whose pod has kept it goes on.
fn check_open(fleet: &Fleet, open: &mut [Connection], at: &mut [usize], moved: &[usize]) -> Result<u64> {
    let mut ended = 0;
    for (service, (connection, at)) in open.iter_mut().zip(at).enumerate() {
        let answer = connection.ask();
        if moved.contains(at) {
            ensure!(answer.is_err(), "Service {service}: a pod that has lost its address answers");
            *connection = Connection::open(&fleet.client.namespace, vip(service)?)?;
            ended += 1;
        } else {
            answer.with_context(|| format!("Service {service}: an open connection whose pod is there"))?;
        }
        *at = fleet.number(connection.ask()?)?;
    }
    Ok(ended)
}

/// Between the last call that an endpoint could have got, and the first by its new Service, its address moves: as a pod that
/// ends when nothing comes any more, and another that is given its address. By packets, and past the host.
#[test]
fn no_call_reaches_another_services_pod_while_every_pods_address_is_given_to_others() -> Result<()> {
    let (addresses, time) =
        if is_long() { (240, Duration::from_secs(100)) } else { (16, Duration::from_secs(3)) };
    for way in [Way::ThroughTheHost, Way::PastTheHost] {
        let mut fleet = Fleet::new(addresses, way)?;
        let mut open = stay(&fleet)?;
        let mut at =
            open.iter_mut().map(|connection| fleet.number(connection.ask()?)).collect::<Result<Vec<_>>>()?;
        let callers: Vec<Caller> = (0..2).map(|_| Caller::default()).collect();
        let (stop, mut rounds, mut changes, mut ended) = (AtomicBool::new(false), 0, 0, 0);
        let namespace = fleet.client.namespace.clone();
        let (namespace, stop) = (&namespace, &stop);
        let start = Instant::now();
        let (met, turned) = thread::scope(|scope| -> Result<(Met, Result<()>)> {
            let threads: Vec<_> = callers
                .iter()
                .map(|caller| {
                    scope.spawn(move || {
                        // Whoever finds something wrong ends it all.
                        let met = keep_calling(namespace, caller, stop);
                        stop.store(true, Ordering::Relaxed);
                        met
                    })
                })
                .collect();
            let mut turn = || -> Result<()> {
                while !stop.load(Ordering::Relaxed) && (start.elapsed() < time || rounds < 4) {
                    let moved = fleet.most(rounds);
                    fleet.take_out(&moved)?;
                    callers.iter().try_for_each(Caller::wait)?;
                    fleet.pass_on(&moved)?;
                    changes += 2 * moved.len() as u64;
                    ended += check_open(&fleet, &mut open, &mut at, &moved)?;
                    rounds += 1;
                }
                Ok(())
            };
            let turned = turn();
            stop.store(true, Ordering::Relaxed);
            let mut all = Met::default();
            for thread in threads {
                let met = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                all.connections += met.connections;
                all.datagrams += met.datagrams;
            }
            Ok((all, turned))
        })?;
        turned?;
        let rate = changes as f64 / start.elapsed().as_secs_f64();
        figure(&format!(
            "addresses that pass to other Services' pods, {way}: {changes} endpoint changes, {rate:.0} a second, \
             {rounds} times three of four addresses: 0 of {} connections and 0 of {} datagrams reached another Service; \
             {ended} connections that stayed open ended with their pods",
            met.connections, met.datagrams
        ))?;
        ensure!(met.connections > 100 && ended > 0, "{met:?}, {ended}");
        ensure!(!is_long() || rate >= 200.0, "only {rate:.0} changes a second");
    }
    Ok(())
}
