//! A place of a test's own: a network namespace and a directory on bpffs, gone when the test ends, however it ends.

use mcs_proxy::dataplane::{
    flows::Timeouts,
    hairpin::Hairpin,
    loader::{Loaded, Options, load},
    pins::PinDir,
    sys,
};
use mcs_proxy_ebpf::abi::MapSizes;
use mcs_proxy_tests::netns;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Once,
    thread,
    time::Duration,
};

pub(crate) const SIZES: MapSizes = MapSizes {
    frontends: 16,
    elements: 64,
    backend_ids: 32,
    flows: 256,
    transient: 256,
    affinity: 16,
    fragments: 16,
    sockets: 16,
};

pub(crate) const fn options(sizes: &MapSizes) -> Options {
    Options {
        sizes: *sizes,
        flows_per_interface: sizes.flows,
        hairpin: Hairpin::DEFAULT,
        redirect: false,
        timeouts: Timeouts::DEFAULT,
        orphan_timeout: Duration::ZERO,
        socket_path: None,
        bpf_log: false,
    }
}

pub(crate) struct Place {
    pub(crate) pins: PinDir,
    root: PathBuf,
}

impl Place {
    /// The calling thread moves into a new network namespace.
    pub(crate) fn new(name: &str) -> Self {
        mount_bpffs();
        netns::enter_new().expect("a network namespace needs root");
        let root = Path::new("/sys/fs/bpf").join(format!("mcs-proxy-test-{}-{name}", std::process::id()));
        Self { pins: PinDir::new(&root), root }
    }

    pub(crate) fn load(&self) -> Loaded {
        self.load_with(&SIZES)
    }

    pub(crate) fn load_with(&self, sizes: &MapSizes) -> Loaded {
        load(mcs_proxy::EBPF_OBJECT, &self.pins, &options(sizes)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Unpins whatever is there, and so detaches it.
        if let Err(error) = fs::remove_dir_all(&self.root)
            && self.root.exists()
        {
            eprintln!("{}: {error}", self.root.display());
        }
    }
}

fn mount_bpffs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let path = Path::new("/sys/fs/bpf");
        if !sys::is_bpffs(path).unwrap() {
            run("mount -t bpf bpf /sys/fs/bpf");
        }
    });
}

/// A network namespace that stands for a pod's: that of a process which sleeps.
pub(crate) struct Pod(Child);

impl Pod {
    pub(crate) fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "300"]).spawn().unwrap();
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        while link("self") == link(&child.id().to_string())
            || link("thread-self") == link(&child.id().to_string())
        {
            thread::sleep(Duration::from_millis(2));
        }
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for result in [self.0.kill(), self.0.wait().map(drop)] {
            if let Err(error) = result {
                eprintln!("pod: {error}");
            }
        }
    }
}

/// Runs a command, words separated by spaces.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn index_of(interface: &str) -> u32 {
    // Not /sys/class/net: that shows the namespace it was mounted in.
    let line = run(&format!("ip -o link show dev {interface}"));
    line.split(':').next().unwrap().parse().unwrap()
}
