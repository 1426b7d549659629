//! The daemon of a node: one task that owns the maps and the links, and the tasks that send it events.

mod drift;
mod ending;
mod grace;
mod health;
mod heart;
mod hops;
mod http;
pub mod leaving;
pub mod lock;
mod logging;
mod names;
mod neighbours;
mod pods;
mod predecessors;
mod pressure;
mod scrape;
pub mod socket;
mod sockets;
mod stranded;
mod vitals;
mod watching;
pub mod writer;

use crate::{
    EBPF_OBJECT,
    config::{Places, Run, SocketPath},
    dataplane::{
        flows::{Collected, Collector, FlowsError},
        growth::Growth,
        interfaces::{self, InterfaceEvent, PlaceMap},
        kernel::{KernelDataplane, grace_period},
        layouts::Draining,
        links::Links,
        loader::{self, Loaded},
        pins::PinDir,
        sys,
        table::LingerMark,
    },
    desired::Flags,
    model::{Mode, Model},
    observe::{
        events::Board,
        mode,
        vitals::{SharedVitals, SocketFacts, Vitals},
        with_causes,
    },
    source::{self, Event, EventSender, Reach, SourceSpec, Told, kubernetes::Locations},
};
use anyhow::Context as _;
use leaving::Leaving;
use lock::{Holder, Locks};
use pressure::{News, Pressure, Refusals};
use socket::{Request, Response};
use std::{
    collections::{BTreeMap, BTreeSet},
    future, iter,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{self, JoinHandle},
    time,
};
use tracing::{debug, error, info, warn};
use writer::{Commit, GraceBegun, Summary, Writer};

/// After a scan of the flows it rests for this many times as long as it took, at least, so that it takes less than a
/// hundredth of a core.
pub const COLLECTION_REST: u32 = 128;

/// How long after a change the grace period for what it let go of is waited for.
const RECLAIM_DELAY: Duration = Duration::from_secs(1);

/// How long after a list the memory that it took is handed back: more lists may follow.
const TRIM_DELAY: Duration = Duration::from_secs(1);

/// How long after a refusal of the kernel's everything is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What threads that read or scan have to end in.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Events that may wait while the maps are written.
const QUEUE: usize = 1024;

/// Runs until SIGTERM or SIGINT. Traffic goes on after that: maps and programs stay pinned.
///
/// # Errors
/// The daemon can't start, or a source ended.
pub fn main(places: &Places, run: &Run) -> anyhow::Result<()> {
    if let (SourceSpec::Directory(_), Some(_)) = (&run.source, &run.kubeconfig) {
        anyhow::bail!(
            "--kubeconfig is for --source kubernetes, and the source is {}: leave one out",
            run.source
        );
    }
    sys::keep_heap_small();
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        // Asked before anything is pinned or attached: a slip in a flag is to leave nothing behind.
        let locations = Locations::from_environment(run.kubeconfig.clone());
        source::check(&run.source, &locations).await?;
        // On a worker, as the sources are: then what one of them sends is taken up where it was sent, and no thread needs
        // waking for it.
        let daemon = Daemon::start(places, run)?;
        task::spawn(daemon.run()).await?
    });
    // A file system that hangs may hold up a reader for good; the end does not wait for it.
    runtime.shutdown_timeout(LAST_CHANCE);
    ended
}

struct Daemon {
    run: Run,
    pin_dir: PinDir,
    run_dir: PathBuf,
    /// The problems that the source tells the cluster of.
    board: Board,
    /// Held for as long as the daemon lives: one writer of the pins, and one of the names.
    _locks: Locks,
    writer: Writer<KernelDataplane>,
    links: Links,
    neighbours: neighbours::Neighbours,
    stranded: stranded::Stranded,
    health: health::Looks,
    ending: ending::Ending,
    places: PlaceMap,
    /// Of other layouts, whose flows come to their end.
    predecessors: Vec<Draining>,
    /// Maps that grow, until our programs are everywhere.
    growth: Option<Growth>,
    heart: heart::Heart,
    /// What the programs log, if that was asked for.
    logger: Option<logging::ProgramLog>,
    names: names::Names,
    /// The kernel refused something: everything is tried again.
    retry_due: Option<time::Instant>,
    reclaim_due: Option<time::Instant>,
    /// A list has been taken in, and what it took is free.
    trim_due: Option<time::Instant>,
    /// A grace period that is waited for.
    grace: Option<JoinHandle<GraceBegun>>,
    /// All interfaces that lead to pods.
    pods: BTreeMap<u32, String>,
    /// No program is to be attached.
    bypassed: bool,
    /// Interfaces that refused the programs, and when they are asked again.
    unattached: BTreeMap<u32, String>,
    attach_due: Option<time::Instant>,
    /// The node is to be left.
    leaving: Option<Leaving>,
    /// The connections that are open are being looked for.
    leaving_look: Option<JoinHandle<leaving::Found>>,
    /// When flows are looked for next, and how long at least a scan rests now.
    collection_due: time::Instant,
    collection_rests_until: time::Instant,
    pressure: Pressure,
    /// How often room was lacking until the last look.
    refusals: Refusals,
    /// What others see of us, when it was noted last, and what became of the socket path.
    vitals: SharedVitals,
    noted: Option<std::time::Instant>,
    sockets: SocketFacts,
    sockets_again: Option<sockets::Again>,
    /// When the events were decoded that the maps do not follow yet.
    under_way: Vec<std::time::Instant>,
}

/// A scan of the flow maps.
struct Scan {
    /// Taken when it began.
    mark: LingerMark,
    took: Duration,
    found: Result<(Collected, Refusals), FlowsError>,
    /// Those that have flows left.
    predecessors: Vec<Draining>,
}

impl Daemon {
    fn start(places: &Places, run: &Run) -> anyhow::Result<Self> {
        let pin_dir = PinDir::new(&places.pin_dir);
        loader::preflight(&pin_dir)?;
        let run_dir = places.run_dir();
        let mut locks = lock::hold(&pin_dir, &run_dir)?;
        let predecessors = predecessors::find(&pin_dir, run, locks.before())?;
        if let (SocketPath::Off, Some(cgroup)) = (run.socket_path, &run.cgroup) {
            anyhow::bail!(
                "--cgroup {} is for the socket path, which is off: leave one out",
                cgroup.display()
            );
        }
        let Loaded { mut programs, logger, adopted, growth } =
            loader::load(EBPF_OBJECT, &pin_dir, &run.load_options())?;
        let holder = Holder::of_this_process(run.pod_name.clone());
        task::spawn(hops::follow(programs.hops()?));
        let goes_on = adopted || !predecessors.is_empty();
        predecessors::forget_what_is_of_other_maps(&run_dir, locks.before(), &holder, goes_on);
        locks.sign(&holder, &run_dir);
        // Before any program of ours is on an interface.
        let heart = heart::Heart::start(&pin_dir)?;
        let flags = Flags {
            cluster_name: run.cluster_name.clone(),
            node_name: run.node_name(),
            default_algorithm: run.default_algorithm.into(),
            all_services: run.all_services,
            tier_hold: run.tier_hold.into(),
            eject_unanswered: run.health.eject_unanswered,
        };
        // What was refused before is no news.
        let refusals = Refusals::read(&pin_dir)?;
        let model = Model::awaiting(source::KINDS)
            .with_import_ranges(run.serviceimport_cidrs.clone())
            .limited(run.limits.limits());
        let reserved = run.hairpin().addresses();
        let board = Board::new(run.event_jitter.into());
        let mut writer = Writer::new(KernelDataplane::open(&pin_dir)?, model, flags, &reserved)?
            .doubting_deletions_for(run.deleted_slice_grace.into());
        if matches!(run.source, SourceSpec::Kubernetes) {
            writer = writer.noting_on(board.clone());
        }
        match mode::read(&run_dir) {
            Ok(mode) => writer.order(mode),
            Err(error) => warn!(
                "{}: {error}: what `mcs-proxy mode` was told last is lost; as the settings say until it is told again",
                run_dir.join(mode::FILE).display()
            ),
        }
        let health = health::Looks::new(&run.health, &run_dir);
        let _new = writer.follow(health.findings());
        let bypassed = writer.modes().mode() == Mode::Bypass;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            cluster = run.cluster_name,
            pins = %pin_dir.path().display(),
            adopted,
            "started"
        );
        let (sockets, sockets_again) =
            if bypassed { (SocketFacts::Off, None) } else { sockets::serve(&mut programs, &pin_dir, run) };
        let vitals = Arc::new(Vitals::new(Reach::default()));
        let mut daemon = Self {
            run: run.clone(),
            neighbours: neighbours::Neighbours::default(),
            stranded: stranded::Stranded::start(pin_dir.clone()),
            health,
            ending: ending::Ending::start(pin_dir.clone()),
            links: Links::new(programs, pin_dir.clone(), run.hook),
            places: PlaceMap::open(&pin_dir)?,
            heart,
            predecessors,
            growth,
            pin_dir,
            names: names::Names::new(&run_dir, vitals.clone()),
            run_dir,
            board,
            _locks: locks,
            writer,
            logger: logger.map(logging::ProgramLog::new),
            retry_due: None,
            // What an earlier daemon had let go of, so that the first Services need not wait for it.
            reclaim_due: Some(time::Instant::now()),
            trim_due: None,
            grace: None,
            pods: BTreeMap::new(),
            bypassed,
            unattached: BTreeMap::new(),
            attach_due: None,
            leaving: None,
            leaving_look: None,
            collection_due: time::Instant::now(),
            collection_rests_until: time::Instant::now(),
            pressure: Pressure::default(),
            refusals,
            vitals,
            noted: None,
            sockets,
            sockets_again,
            under_way: Vec::new(),
        };
        if bypassed {
            warn!("mode bypass: no program is put on");
            daemon.take_all_off();
        }
        Ok(daemon)
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (to_writer, mut events) = source::channel(QUEUE, self.vitals.reach());
        let mut source = task::spawn(follow_source(self.run.clone(), self.board.clone(), to_writer));
        let (to_links, mut interfaces) = mpsc::channel(QUEUE);
        task::spawn(follow_interfaces(self.run.exclude_interface.clone(), to_links));
        let mut asked = socket::serve_or_warn(&self.run_dir, self.onlooker());
        let observing = self.run.observing;
        let most = observing.metrics_max_rows;
        let scraper = Arc::new(scrape::Scraper::new(self.vitals.clone(), self.pin_dir.clone(), most));
        task::spawn(drift::watch(self.vitals.clone(), self.pin_dir.clone(), *self.run.flow_scan_interval));
        task::spawn(http::serve(observing.metrics_bind_address, self.vitals.clone(), scraper));
        let mut pulse = time::interval(vitals::PULSE);
        let mut program_log = self.logger.take().map(|log| task::spawn(log.follow()));

        let mut scan: Option<JoinHandle<Scan>> = None;
        // Attach first: once the maps are filled, every pod that is there is served. Nor is any flow an orphan as long
        // as the interfaces are not known.
        let mut attached = false;
        let left = loop {
            self.note_turn();
            if self.writer.needs_retry() {
                self.retry_due.get_or_insert_with(|| time::Instant::now() + RETRY_DELAY);
            }
            let (names_due, names_retry) = (self.names.are_due(&self.writer), self.names.retry_at());
            select! {
                // The order is that of urgency: a new pod's first packets are already under way.
                biased;
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                Some(event) = interfaces.recv() => {
                    self.follow_interface(event)?;
                    attached = true;
                }
                Some(told) = events.recv(), if attached => self.take(told, &mut events)?,
                () = at(self.retry_due) => self.commit()?,
                () = at(self.writer.due().map(Into::into)) => self.commit()?,
                () = at(self.attach_due) => self.attach_again()?,
                () = at(self.sockets_again.map(sockets::Again::at)) => self.serve_sockets_again(),
                Some(written) = finished(self.names.writing()) => {
                    self.names.written(written, &mut self.writer);
                    self.note_names();
                }
                () = at(names_retry) => self.names.retry(&mut self.writer),
                () = at(self.reclaim_due), if self.grace.is_none() => self.begin_grace(),
                () = at(self.trim_due) => {
                    self.trim_due = None;
                    task::spawn_blocking(|| {
                        sys::trim_heap();
                        sys::trim_code();
                    });
                }
                Some(begun) = finished(&mut self.grace) => {
                    self.grace = None;
                    if !self.writer.reclaim(begun) {
                        self.begin_grace();
                    }
                }
                Some((request, answer)) = asked.recv() => {
                    // Whoever has gone meanwhile wants none.
                    let _ = answer.send(self.answer(request)?);
                }
                () = time::sleep_until(self.collection_due), if attached && scan.is_none() => {
                    // Also for what connected while its backend went.
                    self.stranded.look();
                    self.ending.look();
                    scan = Some(self.scan());
                }
                Some(found) = finished(&mut scan) => {
                    scan = None;
                    self.collected(found)?;
                }
                () = at(self.health.due(&self.writer.watch())), if self.writer.has_begun() => {
                    self.health.begin(self.pin_dir.clone(), self.writer.watch());
                }
                found = self.health.finished() => {
                    if found.is_some_and(|found| self.writer.follow(found)) {
                        self.commit()?;
                    }
                }
                () = at(self.leaving.as_ref().map(Leaving::due)), if self.leaving_look.is_none() => self.look_at_open(),
                Some(found) = finished(&mut self.leaving_look) => {
                    self.leaving_look = None;
                    if let Some(outlived) = self.may_leave(found) {
                        break Some(outlived);
                    }
                }
                _ = pulse.tick() => self.beat()?,
                // After everybody else: whoever is told names waits for who is told where to send packets.
                () = task::yield_now(), if names_due => {
                    self.names.proceed(&mut self.writer);
                    self.note_names();
                }
                ended = &mut source => return ended?.and_then(|()| anyhow::bail!("the source has ended")),
            }
        };
        if let Some(outlived) = left {
            // What is still on its way to the file would make it anew.
            if let Some(writing) = self.names.writing().take() {
                drop(writing.await);
            }
            return self.leave(outlived, source, events, [terminate, interrupt]).await;
        }
        self.finish_names().await;
        info!("ending; what is pinned goes on forwarding");
        if let Some(log) = program_log.take() {
            log.abort();
        }
        Ok(())
    }

    /// Takes the event in and whatever else waits, so that a burst is one change.
    fn take(&mut self, told: Told, events: &mut mpsc::Receiver<Told>) -> anyhow::Result<()> {
        // Between this line and the source's is the wait for this task, and only that.
        debug!("taken");
        let busy = sys::thread_time();
        let now = time::Instant::now();
        for told in iter::once(told).chain(iter::from_fn(|| events.try_recv().ok()).take(QUEUE)) {
            self.note_event(&told);
            if matches!(told.event, Event::Replaced(..)) {
                self.trim_due = Some(now + TRIM_DELAY);
            }
            self.writer.take(told.event, now.into_std());
        }
        self.commit()?;
        // What of the time since then was ours; the rest, others had the core.
        debug!(microseconds = (sys::thread_time() - busy).as_micros(), "worked");
        Ok(())
    }

    /// # Errors
    /// As [`Self::ensure_pinned`].
    fn commit(&mut self) -> anyhow::Result<()> {
        let now = time::Instant::now();
        self.retry_due = None;
        let committed = self.writer.commit(now.into_std());
        // Before the names, which tell that it is done.
        self.follow_mode()?;
        self.follow_uninstall();
        match committed {
            Commit::Idle => self.note_idle(),
            Commit::Failed => self.note_failure(),
            Commit::Programmed(summary) => {
                self.note_commit(summary, now.into_std());
                report(summary);
                self.close_predecessors();
                if summary.backends_went {
                    self.stranded.look();
                }
                self.ending.follow(self.writer.dropped());
                self.note_names();
                self.reclaim_due = Some(now + RECLAIM_DELAY);
            }
        }
        Ok(())
    }

    /// Waits, on a thread of its own, until no program runs that may hold on to what was let go of.
    fn begin_grace(&mut self) {
        self.reclaim_due = None;
        self.grace = self.writer.wants_grace().map(|begun| {
            task::spawn_blocking(move || {
                grace_period();
                begun
            })
        });
    }

    /// # Errors
    /// As [`Self::ensure_pinned`].
    fn answer(&mut self, request: Request) -> anyhow::Result<Response> {
        Ok(match request {
            Request::Explain(query) => match self.writer.explain(&query) {
                Ok(explanation) => Response::Explained(Box::new(explanation)),
                Err(error) => Response::Error(error),
            },
            // Answered beside us.
            Request::Status => Response::Error("not of the writer".into()),
            Request::Drained => Response::Drained(self.writer.drained()),
            Request::Mode(None) => Response::Mode(self.writer.modes()),
            // Noted first: what a restart would forget has not been ordered.
            Request::Mode(Some(order)) => match mode::write(&self.run_dir, order) {
                Ok(()) => {
                    self.writer.order(order);
                    self.commit()?;
                    info!("mode: {}", self.writer.modes());
                    Response::Mode(self.writer.modes())
                }
                Err(error) => Response::Error(format!("{}: {error}", self.run_dir.display())),
            },
        })
    }

    /// # Errors
    /// As [`Self::ensure_pinned`].
    fn beat(&mut self) -> anyhow::Result<()> {
        let beaten = self.heart.beat();
        if beaten.is_err() {
            self.ensure_pinned()?;
        }
        self.heart.tell(beaten);
        Ok(())
    }

    /// # Errors
    /// The pins are gone, and the programs with them: what is still in our hands, no packet will ever see.
    fn ensure_pinned(&self) -> anyhow::Result<()> {
        let path = self.pin_dir.path();
        anyhow::ensure!(
            path.exists(),
            "{}: it was removed, and what was pinned there; ending, so that a new start makes it anew",
            path.display()
        );
        Ok(())
    }

    /// Starts a scan of the flow maps, which takes long, on a thread of its own.
    fn scan(&mut self) -> JoinHandle<Scan> {
        let mark = self.writer.table().linger_mark();
        let (pin_dir, interfaces) =
            (self.pin_dir.clone(), self.links.attached().keys().copied().collect::<BTreeSet<u32>>());
        let timeouts = self.run.timeouts.timeouts();
        let predecessors = std::mem::take(&mut self.predecessors);
        task::spawn_blocking(move || {
            let start = time::Instant::now();
            let found = Collector::open(&pin_dir)
                .and_then(|mut collector| collector.collect(&timeouts, Some(&interfaces)))
                .and_then(|collected| Ok((collected, Refusals::read(&pin_dir)?)));
            let predecessors = predecessors::retire(predecessors, timeouts.tcp_established);
            Scan { mark, took: start.elapsed(), found, predecessors }
        })
    }

    /// # Errors
    /// As [`Self::ensure_pinned`].
    fn collected(&mut self, Scan { mark, took, found, predecessors }: Scan) -> anyhow::Result<()> {
        self.predecessors = predecessors;
        self.close_predecessors();
        let now = time::Instant::now();
        self.collection_rests_until = now + COLLECTION_REST * took;
        self.collection_due = self.collection_rests_until.max(now + *self.run.flow_scan_interval);
        match found {
            Ok((collected, refusals)) => {
                debug!(
                    collected.established,
                    collected.transient, collected.expired, collected.orphans, "looked for silent flows"
                );
                self.neighbours.update(&collected.answers.silences(), self.links.attached(), &self.run_dir);
                let transaction = self.writer.table().release_hot(&mark, &collected.referenced);
                self.writer.carry_out(&transaction);
                self.note_flows(&collected, &self.run.load_options());
                self.tell_pressure(&collected, refusals);
            }
            Err(failure) => {
                self.ensure_pinned()?;
                error!("{}; silent flows stay", with_causes(&failure));
            }
        }
        Ok(())
    }
}

impl Daemon {
    /// Tells which maps are full, or nearly.
    fn tell_pressure(&mut self, collected: &Collected, refusals: Refusals) {
        let limits = self.run.load_options();
        let refused = refusals.since(std::mem::replace(&mut self.refusals, refusals));
        let mut readings = pressure::flow_readings(collected, refused, &limits);
        readings.extend(pressure::table_readings(&self.writer.table().usage()));
        for news in self.pressure.update(readings, std::time::Instant::now()) {
            match news {
                News::Full(_) => error!("{news}"),
                News::NearlyFull(_) => warn!("{news}"),
                News::Over(_) => info!("{news}"),
            }
        }
    }
}

fn report(Summary { first, changed, backends_went: _, frontends, backends }: Summary) {
    if first {
        info!(frontends, backends, "synced");
    } else {
        info!(changed, frontends, backends, "programmed");
    }
}

async fn follow_source(run: Run, board: Board, events: EventSender) -> anyhow::Result<()> {
    let locations = Locations::from_environment(run.kubeconfig.clone());
    Ok(source::run(&run.source, &run.scope(), &locations, &board, events).await?)
}

/// Follows the interfaces for ever: what ends one attempt (lost messages that cannot be asked for again) is told, and
/// the next begins with a snapshot.
async fn follow_interfaces(exclude: Vec<interfaces::Pattern>, events: mpsc::Sender<InterfaceEvent>) {
    while let Err(failure) = interfaces::watch(exclude.clone(), events.clone()).await {
        error!("{failure}; pods that appear now are served in a second");
        time::sleep(RETRY_DELAY).await;
    }
}

async fn at(due: Option<time::Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => future::pending().await,
    }
}

async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(task) => task.await.ok(),
        None => future::pending().await,
    }
}
