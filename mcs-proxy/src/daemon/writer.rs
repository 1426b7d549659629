//! The one writer of the maps: takes events in, and makes the maps hold what they ask for.

use super::{
    grace::Grace,
    watching::{self, Watching},
};
use crate::{
    dataplane::{
        Dataplane, DataplaneError, Operation,
        ended::Dropped,
        table::{CapacityError, Demand, Plan, Rejected, Shortage, Table},
    },
    desired::{Changes, Family, Flags, FrontendKey, Resolver},
    explain::{Explanation, Known, Query, answer},
    health::{Findings, Watch},
    model::{
        Ledger, Limits, Model, NamespacedName, NodeMode, ObjectKind, Problem, ProblemTracker, Uninstall,
    },
    observe::{
        catalog::{Batch, Journal},
        drained::Drained,
        events::Board,
        mode::Modes,
        with_causes,
    },
    source::Event,
};
use mcs_proxy_ebpf::abi::{Address, Liveness};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tracing::{error, info, warn};

/// Everything between an event and the maps.
#[derive(Debug)]
pub struct Writer<D> {
    dataplane: D,
    table: Table,
    /// A step was refused, and what the maps hold since could not be read: the table is of what was planned.
    unread: bool,
    reserved: Vec<Address>,
    model: Model,
    grace: Grace,
    resolver: Resolver,
    tracker: ProblemTracker,
    /// Where problems are noted for those who tell the cluster of them.
    board: Option<Board>,
    /// Services that changed since the last commit.
    affected: BTreeSet<NamespacedName>,
    phase: Phase,
    /// The maps have held what the sources told.
    has_programmed: bool,
    /// What did not fit at the last attempt, so that each is logged once.
    rejected: BTreeMap<FrontendKey, CapacityError>,
    /// Maps that are too small for all that is wanted, as they were told last.
    shortages: Vec<Shortage>,
    /// Transactions so far.
    transactions: u64,
    /// As in [`Summary`], since the last one.
    backends_went: bool,
    /// What is still to be written of what people are told.
    journal: Journal,
    watching: Watching,
    /// What does not answer.
    findings: Findings,
    unanswered: Ledger<()>,
}

/// What people are told of the writer.
#[derive(Clone, Debug)]
pub struct WriterFacts {
    /// Kinds of which no complete list has come yet.
    pub awaited: Vec<ObjectKind>,
    pub modes: Modes,
    pub problems: usize,
    /// The first few of them.
    pub first_problems: Vec<Problem>,
    /// What importers call this cluster, if that is not `--cluster-name`.
    pub misnamed: Option<String>,
    /// Frontends that do not fit, a sentence each.
    pub rejected: Vec<String>,
}

/// When a grace period began: what was let go of before it is free once it is over, if nothing was done since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraceBegun {
    transactions: u64,
}

/// How the maps stand to what the sources told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not every source has told all it has: what the maps hold from before stays untouched.
    Waiting,
    /// The maps may hold anything: the next commit compares all of it.
    Resync,
    /// The maps hold the desired state but for what `affected` says.
    Synced,
}

/// So many problems are told of by `status`; the log and Events tell of all.
const SHOWN: usize = 5;

/// How many frontends are entered at a time, when all are.
const PART: usize = 256;

/// Why not all frontends were entered.
enum Stopped {
    /// One does not fit, as things are.
    Short,
    /// The kernel refused a step.
    Failed,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Nothing to do, or not every source has synced yet.
    Idle,
    /// The maps changed, or what people are told about them did.
    Programmed(Summary),
    /// The kernel refused a step. What is in the maps is consistent, and a later commit starts over.
    Failed,
}

/// What the maps hold after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The first commit: every source has synced.
    pub first: bool,
    /// Frontends entered, changed or taken out.
    pub changed: usize,
    /// Backends are gone that flows or sockets may still use.
    pub backends_went: bool,
    pub frontends: usize,
    /// Slots of all of them.
    pub backends: usize,
}

impl<D: Dataplane> Writer<D> {
    /// Adopts what the maps hold; `model` is still empty. Packets from pods to the `reserved` addresses are looked at, whatever is in there.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn new(
        dataplane: D,
        model: Model,
        flags: Flags,
        reserved: &[Address],
    ) -> Result<Self, DataplaneError> {
        let mut table = Table::recover(&dataplane.dump()?);
        table.reserve(reserved);
        Ok(Self {
            dataplane,
            table,
            unread: false,
            reserved: reserved.to_vec(),
            model,
            grace: Grace::new(Duration::ZERO),
            resolver: Resolver::new(flags),
            tracker: ProblemTracker::default(),
            board: None,
            affected: BTreeSet::new(),
            phase: Phase::Waiting,
            has_programmed: false,
            rejected: BTreeMap::new(),
            shortages: Vec::new(),
            transactions: 0,
            backends_went: false,
            journal: Journal::default(),
            watching: Watching::default(),
            findings: Findings::default(),
            unanswered: Ledger::default(),
        })
    }

    /// The same, for so long not believing that the last EndpointSlice of a Service is gone.
    #[must_use]
    pub fn doubting_deletions_for(self, time: Duration) -> Self {
        Self { grace: Grace::new(time), ..self }
    }

    /// The same, noting its problems on `board` as well as in the log.
    #[must_use]
    pub fn noting_on(self, board: Board) -> Self {
        Self { board: Some(board), ..self }
    }

    /// The same, with these limits for what other clusters may bring. Before the first event.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.model = std::mem::take(&mut self.model).limited(limits);
        self
    }

    /// Takes an event in. The maps change with the next [`Self::commit`], so that a burst of events is one change.
    pub fn take(&mut self, event: Event, now: Instant) {
        if let Some(event) = self.grace.withhold(event, &self.model, now) {
            self.affected.extend(self.model.apply(event));
        }
    }

    /// Orders a mode on this node. The maps follow with the next [`Self::commit`].
    pub fn order(&mut self, mode: NodeMode) {
        self.affected.extend(self.model.order(mode));
    }

    /// What holds on this node: of what was ordered here, and of what the settings say, as far as they are known.
    #[must_use]
    pub const fn modes(&self) -> Modes {
        let (settings, node) = (self.model.settings().mode, self.model.node_mode());
        match (self.model.settings().uninstall.is_some(), node) {
            // What was ordered here gives way to it.
            (true, NodeMode::Auto | NodeMode::Active) => {
                Modes { settings: self.model.mode(), node: NodeMode::Auto }
            }
            (true, NodeMode::Drain | NodeMode::Bypass) | (false, _) => Modes { settings, node },
        }
    }

    /// What the mode keeps from new flows on this node.
    #[must_use]
    pub fn drained(&self) -> Drained {
        Drained::of(&self.model, self.modes(), self.resolver.flags().all_services)
    }

    /// Whether the maps hold what is wanted.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.phase == Phase::Synced
    }

    /// The order to leave this node, once the maps let no new flow begin.
    #[must_use]
    pub fn uninstall(&self) -> Option<&Uninstall> {
        self.model.settings().uninstall.as_ref().filter(|_| self.is_in_step())
    }

    /// The Service that has a VIP, if any is known.
    #[must_use]
    pub fn service_of(&self, vip: IpAddr) -> Option<&NamespacedName> {
        self.model.services().find(|service| service.cluster_ips.contains(&vip)).map(|service| &service.key)
    }

    /// Takes in what does not answer. The maps follow with the next [`Self::commit`]. `false`: nothing has changed.
    pub fn follow(&mut self, findings: Findings) -> bool {
        if findings == self.findings {
            return false;
        }
        let outages = Arc::new(findings.outages.clone());
        let before = self.resolver.exchange_outages(Arc::clone(&outages));
        let desired = self.resolver.desired();
        self.affected.extend(watching::affected(&before, &outages, &self.model, desired));
        self.findings = findings;
        true
    }

    /// Clusters, each by one family, that keep their new flows though they do not answer, as nothing else could take them.
    pub fn kept(&self) -> impl Iterator<Item = &(Arc<str>, Family)> {
        self.findings.kept.iter()
    }

    /// Whether the maps have been made to hold what the sources told. Before that, what is not known of settings and Services
    /// is not what is not there.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Waiting
    }

    /// Whose answers are to be counted.
    #[must_use]
    pub fn watch(&self) -> Arc<Watch> {
        self.watching.watch()
    }

    /// Whose connections are to end; another one, where it has changed.
    #[must_use]
    pub fn dropped(&self) -> Arc<Dropped> {
        self.watching.dropped()
    }

    /// Makes the maps hold what the events so far ask for.
    pub fn commit(&mut self, now: Instant) -> Commit {
        for event in self.grace.release(&self.model, now) {
            self.affected.extend(self.model.apply(event));
        }
        if !self.model.is_synced() {
            self.report_problems();
            return Commit::Idle;
        }
        self.watching.follow_settings(&self.model);
        self.unanswered.put((), watching::problems(&self.findings, &self.model));
        let affected = std::mem::take(&mut self.affected);
        let first = self.phase == Phase::Waiting;
        let changes = if first {
            let all = self.model.services().map(|service| service.key.clone()).collect();
            self.resolver.update(&self.model, &all, now)
        } else {
            self.resolver.update(&self.model, &affected, now)
        };
        if first {
            self.journal.start_over();
        }
        self.journal.note(&changes);
        self.report_problems();
        let phase = self.phase;
        let all = phase != Phase::Synced;
        let plan = match phase {
            Phase::Synced if changes.is_empty() => return Commit::Idle,
            Phase::Waiting | Phase::Resync if !self.read_maps() => {
                self.phase = Phase::Resync;
                None
            }
            // Any change may have made room for what did not fit before.
            Phase::Synced if self.rejected.is_empty() => {
                Some(self.table.plan(&changes.upserts, &changes.removals))
            }
            Phase::Waiting | Phase::Resync | Phase::Synced => match self.enter_all() {
                Ok(()) => Some(self.table.keep_only(self.resolver.desired())),
                Err(Stopped::Short) => Some(self.table.sync(self.resolver.desired())),
                Err(Stopped::Failed) => None,
            },
        };
        let committed = plan.map_or(Commit::Failed, |plan| self.run(plan, &changes));
        if all {
            self.watching.follow_all(self.resolver.desired(), &self.table);
        } else {
            self.watching.follow(&changes, &self.table);
        }
        committed
    }

    /// Enters all frontends, some at a time: a transaction of all of them takes more memory than what is then remembered of
    /// them, and leaves it in pieces.
    fn enter_all(&mut self) -> Result<(), Stopped> {
        let keys: Vec<FrontendKey> = self.resolver.desired().keys().copied().collect();
        for part in keys.chunks(PART) {
            let desired = self.resolver.desired();
            let upserts = part.iter().filter_map(|key| Some((*key, desired.get(key)?.clone()))).collect();
            let plan = self.table.plan(&upserts, &BTreeSet::new());
            let is_short = !plan.rejected.is_empty();
            if !self.execute(&plan) {
                return Err(Stopped::Failed);
            }
            if is_short {
                return Err(Stopped::Short);
            }
        }
        Ok(())
    }

    /// `false`: the kernel refused a step.
    fn execute(&mut self, plan: &Plan) -> bool {
        self.transactions += 1;
        self.backends_went |= plan.transaction.iter().any(lets_a_backend_go);
        if let Err(failure) = self.dataplane.run(&plan.transaction) {
            error!("{}; the maps stay as they are and all of it is tried again", with_causes(&failure));
            self.start_over();
            return false;
        }
        for address in &plan.refused {
            error!(
                "{address} was to enter the maps, which take no such address: left out; please report this"
            );
        }
        true
    }

    fn run(&mut self, plan: Plan, changes: &Changes) -> Commit {
        if !self.execute(&plan) {
            return Commit::Failed;
        }
        self.phase = Phase::Synced;
        let first = !std::mem::replace(&mut self.has_programmed, true);
        self.report_rejected(plan.rejected);
        Commit::Programmed(Summary {
            first,
            changed: changes.upserts.len() + changes.removals.len(),
            backends_went: std::mem::take(&mut self.backends_went),
            frontends: self.resolver.desired().len(),
            backends: self.resolver.used(),
        })
    }

    /// Why a Service's traffic goes where it goes, but for what the maps hold.
    ///
    /// # Errors
    /// Nothing of that name is known.
    pub fn explain(&self, query: &Query) -> Result<Explanation, String> {
        if !self.model.is_synced() {
            return Err("the daemon has not yet heard all that its source has to tell; ask again".into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        answer(Known { model: &self.model, resolver: &self.resolver, told_by: "daemon", now }, query)
    }

    /// Whether a grace period is to be waited for, elsewhere than here, as changes must not wait for it.
    #[must_use]
    pub fn wants_grace(&self) -> Option<GraceBegun> {
        let wanted = !self.unread && self.table.wants_reclaim();
        wanted.then_some(GraceBegun { transactions: self.transactions })
    }

    /// Frees what was let go of before the grace period, which is over. `false`: there were changes since it began, and it
    /// is to be waited for anew.
    pub fn reclaim(&mut self, begun: GraceBegun) -> bool {
        let is_good = begun.transactions == self.transactions;
        if is_good {
            let transaction = self.table.reclaim_after_grace();
            self.carry_out(&transaction);
        }
        is_good
    }

    #[must_use]
    pub fn facts(&self) -> WriterFacts {
        let rejected = |(key, error): (&FrontendKey, &CapacityError)| {
            let service = self.resolver.desired().get(key).map(|frontend| frontend.service.to_string());
            format!("Service {}: {key}: {error}", service.unwrap_or_default())
        };
        WriterFacts {
            awaited: self.model.awaited().collect(),
            modes: self.modes(),
            problems: self.tracker.count(),
            first_problems: self.tracker.iter().take(SHOWN).cloned().collect(),
            misnamed: self.model.misnamed().map(str::to_owned),
            rejected: self.rejected.iter().map(rejected).collect(),
        }
    }

    /// Whether every source has told all it has.
    #[must_use]
    pub fn has_heard_all(&self) -> bool {
        self.model.is_synced()
    }

    /// Whether the maps were left behind by a failure.
    #[must_use]
    pub fn needs_retry(&self) -> bool {
        self.phase == Phase::Resync
    }

    /// When to call [`Self::commit`] even if nothing was taken in.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.resolver.due().into_iter().chain(self.grace.due()).min()
    }

    /// Whether what people are told of what the maps hold is behind.
    #[must_use]
    pub fn owes_names(&self) -> bool {
        self.journal.is_behind()
    }

    /// Goes on with what people are told, by so many Services; returns what is to be written once it is enough.
    pub fn names(&mut self, services: usize) -> Option<Batch> {
        self.journal.proceed(&self.model, &self.resolver, services)
    }

    /// All of it is to be written anew.
    pub fn tell_names_anew(&mut self) {
        self.journal.start_over();
    }

    pub const fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Carries out a transaction that [`Self::table`] has planned; none while nobody knows what the maps hold.
    pub fn carry_out(&mut self, transaction: &[Operation]) {
        if self.unread {
            return;
        }
        self.transactions += 1;
        if let Err(failure) = self.dataplane.run(transaction) {
            error!("{}; all of it is tried again", with_causes(&failure));
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        self.phase = if self.phase == Phase::Waiting && !self.model.is_synced() {
            Phase::Waiting
        } else {
            Phase::Resync
        };
        self.unread = true;
        self.read_maps();
    }

    /// Learns what the maps hold, if that is not known. `false`: it still is not.
    fn read_maps(&mut self) -> bool {
        if self.unread {
            match self.dataplane.dump() {
                Ok(dump) => {
                    self.table = Table::recover(&dump);
                    self.table.reserve(&self.reserved);
                    self.unread = false;
                }
                Err(failure) => {
                    error!(
                        "{}; cannot tell what the maps hold, which is tried again; they stay as they are",
                        with_causes(&failure)
                    );
                }
            }
        }
        !self.unread
    }

    fn report_problems(&mut self) {
        let changes = self.model.take_problem_changes().into_iter();
        let changes = changes.chain(self.resolver.take_problem_changes());
        let news = self.tracker.update(changes.chain([self.unanswered.take_changes()]));
        if let Some(board) = &self.board {
            board.note(&news);
        }
        for problem in news.arisen {
            warn!("{problem}");
        }
        for problem in news.solved {
            info!("solved: {}: {}: {}", problem.object, problem.field, problem.message);
        }
    }

    /// `rejected`: all that does not fit now. (A plan of part of the frontends is only made while all fit.)
    fn report_rejected(&mut self, rejected: Vec<Rejected>) {
        let known = std::mem::take(&mut self.rejected);
        for one in rejected {
            if known.get(&one.key) != Some(&one.error) {
                let frontend = self.resolver.desired().get(&one.key);
                let service = frontend.map(|frontend| frontend.service.to_string()).unwrap_or_default();
                error!("Service {service}: {}: {}", one.key, one.error);
            }
            self.rejected.insert(one.key, one.error);
        }
        let shortages = if self.rejected.is_empty() {
            Vec::new()
        } else {
            Demand::of(self.resolver.desired()).shortages(&self.table.usage())
        };
        for shortage in shortages.iter().filter(|shortage| !self.shortages.contains(shortage)) {
            error!("{shortage}");
        }
        self.shortages = shortages;
    }
}

fn lets_a_backend_go(operation: &Operation) -> bool {
    matches!(operation, Operation::SetBackendState { state, .. } if state.liveness() == Liveness::Gone)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
