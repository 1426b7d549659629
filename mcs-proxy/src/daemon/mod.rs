//! The daemon of a node: one task that owns the maps and the links, and the tasks that send it events.

mod logging;
pub mod writer;

use crate::{
    EBPF_OBJECT,
    config::{Places, Run},
    dataplane::{
        flows::{Collected, Collector, FlowsError},
        interfaces::{self, InterfaceEvent},
        kernel::KernelDataplane,
        links::{LinkError, Links},
        loader::{self, Loaded},
        pins::PinDir,
        table::LingerMark,
    },
    desired::Settings,
    observe::catalog::Catalog,
    source::{self, Event, kubernetes::Locations},
};
use anyhow::Context as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    future,
    path::{Path, PathBuf},
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
use writer::{Commit, Summary, Writer};

/// How often flows that have been silent for too long are looked for.
const COLLECTION: Duration = Duration::from_secs(30);

/// How long after a change the grace period for what it let go of is waited for.
const RECLAIM_DELAY: Duration = Duration::from_secs(1);

/// How long after a refusal of the kernel's everything is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Events that may wait while the maps are written.
const QUEUE: usize = 1024;

/// Runs until SIGTERM or SIGINT. Traffic goes on after that: maps and programs stay pinned.
///
/// # Errors
/// The daemon can't start, or a source ended.
pub fn main(places: &Places, run: &Run) -> anyhow::Result<()> {
    logging::start();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(Daemon::start(places, run)?.run())
}

struct Daemon {
    run: Run,
    pin_dir: PinDir,
    run_dir: PathBuf,
    /// Held for as long as the daemon lives: one writer a pin directory.
    _lock: File,
    writer: Writer<KernelDataplane>,
    links: Links,
    /// What the programs log, if that was asked for.
    logger: Option<logging::ProgramLog>,
    /// The catalog is behind the maps.
    catalog_due: Option<time::Instant>,
    catalog_rests_until: time::Instant,
    reclaim_due: Option<time::Instant>,
}

/// What a scan of the flow maps brought, and when it began.
type Scan = (LingerMark, Result<Collected, FlowsError>);

impl Daemon {
    fn start(places: &Places, run: &Run) -> anyhow::Result<Self> {
        let pin_dir = PinDir::new(&places.pin_dir);
        loader::preflight(&pin_dir)?;
        let run_dir = places.run_dir();
        let lock = lock(&run_dir)?;
        let Loaded { programs, logger, adopted } = loader::load(EBPF_OBJECT, &pin_dir, &run.load_options())?;
        let settings = Settings {
            cluster_name: run.cluster_name.clone(),
            default_algorithm: run.default_algorithm.into(),
            all_services: run.all_services,
        };
        let writer = Writer::new(KernelDataplane::open(&pin_dir)?, settings)?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            cluster = run.cluster_name,
            pins = %pin_dir.path().display(),
            adopted,
            "started"
        );
        Ok(Self {
            run: run.clone(),
            links: Links::new(programs, pin_dir.clone(), run.hook),
            pin_dir,
            run_dir,
            _lock: lock,
            writer,
            logger: logger.map(logging::ProgramLog::new),
            catalog_due: None,
            catalog_rests_until: time::Instant::now(),
            reclaim_due: None,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (to_writer, mut events) = mpsc::channel(QUEUE);
        let mut source = task::spawn(follow_source(self.run.clone(), to_writer));
        let (to_links, mut interfaces) = mpsc::channel(QUEUE);
        task::spawn(follow_interfaces(self.run.exclude_interface.clone(), to_links));
        let mut program_log = self.logger.take().map(|log| task::spawn(log.follow()));

        // Attach first: once the maps are filled, every pod that is there is served.
        let first = interfaces.recv().await.context("the interfaces cannot be listed")?;
        self.follow_interface(first);

        let mut collection = time::interval(COLLECTION);
        let mut scan: Option<JoinHandle<Scan>> = None;
        let mut retry_due: Option<time::Instant> = None;
        loop {
            select! {
                // The order is that of urgency: a new pod's first packets are already under way.
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(event) = interfaces.recv() => self.follow_interface(event),
                Some(event) = events.recv() => retry_due = self.take(event, &mut events),
                () = at(retry_due) => retry_due = self.commit(),
                () = at(self.catalog_due) => self.write_catalog(),
                () = at(self.reclaim_due) => {
                    self.reclaim_due = None;
                    self.writer.reclaim();
                }
                _ = collection.tick(), if scan.is_none() => scan = Some(self.scan()),
                Some(found) = finished(&mut scan) => {
                    scan = None;
                    self.collected(found);
                }
                ended = &mut source => return ended?.and_then(|()| anyhow::bail!("the source has ended")),
            }
        }
        if self.catalog_due.is_some() {
            self.write_catalog();
        }
        info!("ending; what is pinned goes on forwarding");
        if let Some(log) = program_log.take() {
            log.abort();
        }
        Ok(())
    }

    /// Takes the event in and whatever else waits, so that a burst is one change.
    fn take(&mut self, event: Event, events: &mut mpsc::Receiver<Event>) -> Option<time::Instant> {
        self.writer.take(event);
        for _ in 0..QUEUE {
            match events.try_recv() {
                Ok(event) => self.writer.take(event),
                Err(_) => break,
            }
        }
        self.commit()
    }

    /// Returns when to try again, if need be.
    fn commit(&mut self) -> Option<time::Instant> {
        let now = time::Instant::now();
        match self.writer.commit() {
            Commit::Idle => None,
            Commit::Programmed(summary) => {
                let due = *self.catalog_due.get_or_insert(self.catalog_rests_until);
                if due <= now {
                    self.write_catalog();
                }
                self.reclaim_due = Some(now + RECLAIM_DELAY);
                report(summary);
                None
            }
            Commit::Failed => Some(now + RETRY_DELAY),
        }
    }

    /// Names are written for at most a tenth of the time, however fast the maps change.
    fn write_catalog(&mut self) {
        self.catalog_due = None;
        let begun = time::Instant::now();
        let catalog = Catalog::new(&self.run.cluster_name, self.writer.desired());
        if let Err(failure) = catalog.write(&self.run_dir) {
            error!("{}: {failure}; `mcs-proxy services` lacks names", self.run_dir.display());
        }
        self.catalog_rests_until = time::Instant::now() + 9 * begun.elapsed();
    }

    fn follow_interface(&mut self, event: InterfaceEvent) {
        match event {
            InterfaceEvent::Snapshot(pods) => self.adopt_interfaces(&pods),
            InterfaceEvent::Appeared { index, name } => self.attach(index, &name),
            InterfaceEvent::Vanished { index } => self.detach(index),
        }
    }

    /// Those that are gone, or not a pod's any more, lose their programs.
    fn adopt_interfaces(&mut self, pods: &BTreeMap<u32, String>) {
        let stale: Vec<u32> =
            self.links.attached().keys().filter(|index| !pods.contains_key(index)).copied().collect();
        stale.into_iter().for_each(|index| self.detach(index));
        match self.links.sweep(&pods.keys().copied().collect()) {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => info!(indices = ?swept, "interfaces of an earlier run are gone: detached"),
            Err(failure) => warn!("{failure}"),
        }
        pods.iter().for_each(|(&index, name)| self.attach(index, name));
    }

    fn attach(&mut self, index: u32, name: &str) {
        match self.links.attach(index, name) {
            Ok(attachment) => info!(interface = name, index, ?attachment, "attached"),
            Err(LinkError::Gone { .. }) => debug!(interface = name, index, "gone before it was attached"),
            Err(failure) => error!(interface = name, "{failure}; its pod is not served by us"),
        }
    }

    fn detach(&mut self, index: u32) {
        match self.links.detach(index) {
            Ok(()) => info!(index, "detached: the interface is gone or not a pod's any more"),
            Err(failure) => warn!(index, "{failure}"),
        }
    }

    /// Starts a scan of the flow maps, which takes long, on a thread of its own.
    fn scan(&mut self) -> JoinHandle<Scan> {
        self.writer.reclaim();
        let mark = self.writer.table().linger_mark();
        let (pin_dir, interfaces) =
            (self.pin_dir.clone(), self.links.attached().keys().copied().collect::<BTreeSet<u32>>());
        let timeouts = self.run.timeouts.timeouts();
        task::spawn_blocking(move || {
            let collected = Collector::open(&pin_dir)
                .and_then(|mut collector| collector.collect(&timeouts, Some(&interfaces)));
            (mark, collected)
        })
    }

    fn collected(&mut self, (mark, found): Scan) {
        match found {
            Ok(collected) => {
                debug!(
                    collected.established,
                    collected.transient, collected.expired, collected.orphans, "looked for silent flows"
                );
                let transaction = self.writer.table().release_hot(&mark, &collected.referenced);
                self.writer.carry_out(&transaction);
            }
            Err(failure) => error!("{failure}; silent flows stay"),
        }
    }
}

fn report(Summary { first, changed, frontends, backends }: Summary) {
    if first {
        info!(frontends, backends, "synced");
    } else {
        info!(changed, frontends, backends, "programmed");
    }
}

async fn follow_source(run: Run, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let locations = Locations::from_environment(run.kubeconfig.clone());
    Ok(source::run(&run.source, &run.cluster_name, &locations, events).await?)
}

/// Follows the interfaces for ever: what ends one attempt (lost messages that cannot be asked for again) is told, and
/// the next begins with a snapshot.
async fn follow_interfaces(exclude: Vec<interfaces::Pattern>, events: mpsc::Sender<InterfaceEvent>) {
    while let Err(failure) = interfaces::watch(exclude.clone(), events.clone()).await {
        error!("{failure}; pods that appear now are served in a second");
        time::sleep(RETRY_DELAY).await;
    }
}

/// One daemon a pin directory: a second one would write the same maps.
fn lock(run_dir: &Path) -> anyhow::Result<File> {
    let path = run_dir.join("lock");
    fs::create_dir_all(run_dir)
        .with_context(|| format!("{}: cannot be made; name another place by --run-dir", run_dir.display()))?;
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "{}: another mcs-proxy runs on this node with the same directories; end it, or use another --pin-dir",
            path.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

async fn at(due: Option<time::Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => future::pending().await,
    }
}

async fn finished(scan: &mut Option<JoinHandle<Scan>>) -> Option<Scan> {
    match scan {
        Some(scan) => scan.await.ok(),
        None => future::pending().await,
    }
}
