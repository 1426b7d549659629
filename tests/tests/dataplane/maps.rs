use crate::place::{Place, SIZES, options};
use aya::maps::{Array, PerCpuArray};
use caps::{CapSet, Capability, CapsHashSet};
use mcs_proxy::{
    dataplane::{
        Dataplane, Operation,
        kernel::KernelDataplane,
        loader::{LoadError, Options, Refusal, load, preflight},
        pins::{PinDir, Pins, PinsError},
        sockets::{self, SocketHook},
        sys::{self, Access},
        table::{Plan, Table},
    },
    desired::{Desired, Frontend, FrontendKey},
    model::NamespacedName,
};
use mcs_proxy_ebpf::abi::{
    Algorithm, BackendCounters, Direction, Liveness, MapName, MapSizes, Protocol, ServiceCounters,
};
use mcs_proxy_tests::Cgroup;
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::{
        fd::AsFd,
        unix::fs::{PermissionsExt, symlink},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

fn key(n: u8) -> FrontendKey {
    FrontendKey { vip: [10, 13, 0, n].into(), port: 80, protocol: Protocol::Tcp }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 10, 0, n], 8080))
}

fn desired(frontends: &[(u8, &[u8])]) -> Desired {
    let frontend = |slots: &[u8]| Frontend {
        service: NamespacedName::new("default", "serve"),
        port_name: "".into(),
        algorithm: Algorithm::RoundRobin,
        affinity_seconds: 0,
        packets_only: false,
        probe: None,
        watched: Vec::new(),
        dropped: Vec::new(),
        owns_vip: true,
        slots: slots.iter().copied().map(address).collect(),
        serving: Vec::new(),
        used: slots.len(),
        fingerprint: 0,
    };
    frontends.iter().map(|(n, slots)| (key(*n), Arc::new(frontend(slots)))).collect()
}

/// Last bytes of the slots' addresses, by VIP's.
fn pinned(pins: &Pins) -> Vec<(FrontendKey, Vec<SocketAddr>)> {
    let dump = pins.frontends().unwrap();
    assert_eq!(dump.unreadable, []);
    dump.frontends
        .into_iter()
        .map(|frontend| {
            assert_eq!(frontend.header.frontend, frontend.index);
            for slot in &frontend.slots {
                assert_eq!(pins.backend_state(slot.backend).liveness(), Liveness::Live);
            }
            let address =
                |slot: &mcs_proxy_ebpf::abi::Slot| SocketAddr::new(slot.address.to_ip(), slot.port.get());
            (frontend.key, frontend.slots.iter().map(address).collect())
        })
        .collect()
}

fn wanted(desired: &Desired) -> Vec<(FrontendKey, Vec<SocketAddr>)> {
    desired.iter().map(|(key, frontend)| (*key, frontend.slots.to_vec())).collect()
}

#[test]
fn what_is_written_is_what_the_pins_show_and_a_restart_adopts() {
    let place = Place::new("written");
    assert!(!place.load().adopted);
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    let pins = Pins::open(&place.pins).unwrap();
    let mut table = Table::recover(&maps.dump().unwrap());
    for frontends in [
        &[(1, &[1, 2][..]), (2, &[])][..],
        &[(1, &[2, 3, 3]), (3, &[7])],
        &[(1, &[2, 3, 3]), (4, &[1, 2, 3, 4])],
        &[],
        &[(5, &[9])],
    ] {
        let desired = desired(frontends);
        let plan = table.sync(&desired);
        assert_eq!(plan.rejected, []);
        maps.run(&plan.transaction).unwrap();
        assert_eq!(pinned(&pins), wanted(&desired));
        // Another daemon: it adopts the maps, and finds nothing to do.
        assert!(place.load().adopted);
        maps = KernelDataplane::open(&place.pins).unwrap();
        table = Table::recover(&maps.dump().unwrap());
        assert_eq!(table.sync(&desired), Plan::default());
    }
    maps.run(&table.reclaim()).unwrap();
    let index = table.frontend_index(&key(5)).unwrap();
    assert_eq!(pins.service_counters(index).unwrap().flows, 0);
    assert!(pins.verdicts().unwrap().iter().all(|(_, count)| *count == 0));
}

#[test]
fn an_index_out_of_range_is_an_error_that_names_the_map() {
    let place = Place::new("range");
    drop(place.load());
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    for (operation, map) in [
        (Operation::Publish { frontend: SIZES.frontends, extent: 1 }, "frontends"),
        (Operation::SetHot { word: u32::MAX, bits: 1 }, "hot"),
        (Operation::ResetBackend { backend: SIZES.backend_ids }, "backend_counters"),
        (Operation::ResetService { service: SIZES.frontends }, "cursors"),
    ] {
        assert_eq!(maps.run(&[operation]).unwrap_err().map, map);
    }
}

#[test]
fn a_grace_period_is_short() {
    let place = Place::new("grace");
    drop(place.load());
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    let start = Instant::now();
    maps.run(&[Operation::GracePeriod]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn pins_of_another_size_or_kind_are_refused_with_the_way_out() {
    let place = Place::new("foreign");
    drop(place.load());
    let other = MapSizes { flows: 128, ..SIZES };
    let error = load(mcs_proxy::EBPF_OBJECT, &place.pins, &options(&other)).unwrap_err().to_string();
    let expected =
        "/flows does not fit: it has 256 entries and should have 128; start with --max-flows 256, or";
    assert!(error.contains(expected), "{error}");

    let hot = place.pins.map(MapName::Hot);
    fs::remove_file(&hot).unwrap();
    let services = sys::object_get(&place.pins.map(MapName::Services), Access::ReadWrite).unwrap();
    sys::object_pin(services.as_fd(), &hot).unwrap();
    let error = load(mcs_proxy::EBPF_OBJECT, &place.pins, &options(&SIZES)).unwrap_err();
    assert!(matches!(&error, LoadError::ForeignPin { path, .. } if *path == hot), "{error}");
    assert!(error.to_string().contains("its type is 1 and should be 2"), "{error}");
}

/// What is put in a pin's place, the pin, and how it is told of.
#[test]
fn pins_that_are_not_what_their_name_says_are_refused_by_name_and_left() {
    let place = Place::new("audit");
    drop(place.load());
    let map = || sys::object_get(&place.pins.map(MapName::Hot), Access::ReadWrite).unwrap();
    let program = || sys::object_get(&place.pins.clock(), Access::ReadWrite).unwrap();
    type Put<'a> = &'a dyn Fn(&Path);
    let (put_map, put_program): (Put<'_>, Put<'_>) =
        (&|path| sys::object_pin(map().as_fd(), path).unwrap(), &|path| {
            sys::object_pin(program().as_fd(), path).unwrap();
        });
    let (put_directory, put_symbolic_link): (Put<'_>, Put<'_>) =
        (&|path| fs::create_dir(path).unwrap(), &|path| symlink(place.pins.map(MapName::Hot), path).unwrap());
    for (path, put, said) in [
        (place.pins.map(MapName::Flows), put_program, "it is a program and should be a map"),
        (place.pins.map(MapName::Flows), put_directory, "it is a directory and should be a map"),
        (place.pins.map(MapName::Vips), put_symbolic_link, "it is a symbolic link and should be a map"),
        (place.pins.clock(), put_map, "it is a map and should be a program"),
        (place.pins.clock(), put_directory, "it is a directory and should be a program"),
        (place.pins.links(), put_map, "it is a map and should be a directory"),
        (place.pins.link(7, Direction::FromPod), put_map, "it is a map and should be a link"),
        (place.pins.sockets().join("connect4"), put_program, "it is a program and should be a link"),
    ] {
        // Aside, to be put back.
        let aside = place.pins.path().join("aside");
        let was_there = fs::rename(&path, &aside).is_ok();
        put(&path);
        let error = load(mcs_proxy::EBPF_OBJECT, &place.pins, &options(&SIZES)).unwrap_err();
        assert!(matches!(&error, LoadError::ForeignPin { path: named, .. } if *named == path), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        if was_there {
            fs::rename(&aside, &path).unwrap();
        }
        assert!(place.load().adopted);
    }
}

#[test]
fn the_pin_directory_is_roots_alone() {
    let place = Place::new("mode");
    drop(place.load());
    let mode = fs::metadata(place.pins.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn nothing_pinned_is_said_so() {
    let place = Place::new("nothing");
    let error = Pins::open(&place.pins).unwrap_err();
    assert!(matches!(error, PinsError::NothingPinned { .. }));
    let text = error.to_string();
    assert!(text.contains(place.pins.path().to_str().unwrap()) && text.contains("--pin-dir"), "{text}");
}

#[test]
fn a_place_that_is_not_bpffs_is_refused_before_anything_changes() {
    let dir = PinDir::new("/tmp/mcs-proxy-no-such-directory/pins");
    let error = preflight(&dir).unwrap_err().to_string();
    assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    assert!(!fs::exists("/tmp/mcs-proxy-no-such-directory").unwrap());
}

/// Capabilities are a thread's, and this test's thread ends with it.
#[test]
fn three_capabilities_suffice_and_each_is_needed() {
    let place = Place::new("capabilities");
    let three = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    let all = CapsHashSet::from(three);
    let (cgroup, before) = (Cgroup::new().unwrap(), caps::read(None, CapSet::Effective).unwrap());
    for missing in three {
        let mut others = all.clone();
        others.remove(&missing);
        caps::set(None, CapSet::Effective, &others).unwrap();
        let error = preflight(&place.pins).unwrap_err();
        let Refusal::Capabilities { missing: named } = &error else { panic!("{error}") };
        assert_eq!(*named, [missing.to_string()]);
    }
    caps::set(None, CapSet::Effective, &all).unwrap();
    let mut loaded = place.load();
    KernelDataplane::open(&place.pins).unwrap().dump().unwrap();
    drop(Pins::open(&place.pins).unwrap());
    // And the programs for sockets.
    let found = sockets::judge(Some(cgroup.path())).unwrap();
    sockets::attach(&mut loaded.programs, &place.pins, &found).unwrap();
    for hook in SocketHook::ALL {
        let link = sys::object_get(&place.pins.socket_link(hook), Access::ReadWrite).unwrap();
        let (_, number) = sys::cgroup_link_info(link.as_fd()).unwrap().unwrap();
        assert_eq!(number, hook.number(), "{hook:?}");
    }
    sockets::detach(&place.pins).unwrap();
    caps::set(None, CapSet::Effective, &before).unwrap();
}

/// The first owner of a backend's id finds its counters as the maps were made; the next ones are told to start anew.
#[test]
fn many_frontends_are_entered_at_once_and_counters_start_from_zero() {
    let place = Place::new("many");
    let sizes = MapSizes { frontends: 8192, elements: 65_536, backend_ids: 16_384, ..SIZES };
    drop(load(mcs_proxy::EBPF_OBJECT, &place.pins, &options(&sizes)).unwrap());
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    let mut table = Table::recover(&maps.dump().unwrap());
    let many: Desired = (0..5000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let (_, frontend) = desired(&[(1, &[1, 2])]).pop_first().unwrap();
            (FrontendKey { vip: [10, 14, high, low].into(), ..key(0) }, frontend)
        })
        .collect();
    maps.run(&table.sync(&many).transaction).unwrap();
    let pins = Pins::open(&place.pins).unwrap();
    assert_eq!(pinned(&pins), wanted(&many));
    assert_eq!(Table::recover(&maps.dump().unwrap()).sync(&many), Plan::default());
    // What is written there now is another's.
    let ids: BTreeSet<u32> = many.keys().flat_map(|key| table.backends(key)).map(|(_, id, _)| id).collect();
    let services: BTreeSet<u32> = many.keys().filter_map(|key| table.frontend_index(key)).collect();
    let access = Access::ReadWrite;
    let mut backends: PerCpuArray<_, BackendCounters> =
        place.pins.open_as(MapName::BackendCounters, access).unwrap();
    let mut counters: PerCpuArray<_, ServiceCounters> =
        place.pins.open_as(MapName::ServiceCounters, access).unwrap();
    let mut cursors: Array<_, u64> = place.pins.open_as(MapName::Cursors, access).unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    for &id in &ids {
        let used = vec![BackendCounters { flows: 7, ..BackendCounters::default() }; cpus];
        backends.set(id, used.try_into().unwrap(), 0).unwrap();
    }
    for &id in &services {
        let used = vec![ServiceCounters { flows: 7, ..ServiceCounters::default() }; cpus];
        counters.set(id, used.try_into().unwrap(), 0).unwrap();
        cursors.set(id, 7, 0).unwrap();
    }
    maps.run(&table.sync(&Desired::new()).transaction).unwrap();
    maps.run(&table.sync(&many).transaction).unwrap();
    let again: BTreeSet<u32> = many.keys().flat_map(|key| table.backends(key)).map(|(_, id, _)| id).collect();
    assert!(again.intersection(&ids).count() > 0, "ids rest, but there are not so many others");
    for id in again {
        assert_eq!(pins.backend_counters(id).unwrap().flows, 0, "backend {id}");
    }
    let again: BTreeSet<u32> = many.keys().filter_map(|key| table.frontend_index(key)).collect();
    assert!(again.intersection(&services).count() > 0, "ids rest, but there are not so many others");
    for id in again {
        assert_eq!(pins.service_counters(id).unwrap().flows, 0, "service {id}");
        assert_eq!(cursors.get(&id, 0).unwrap(), 0, "service {id}");
    }
}

#[test]
fn a_map_that_is_full_is_named_with_the_step_that_found_it_so() {
    let place = Place::new("full");
    drop(place.load());
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    let insert = |n: u8| {
        let key = mcs_proxy::dataplane::service_key(&key(n));
        Operation::InsertService { key, frontend: u32::from(n) }
    };
    let inserts: Vec<_> = (0..100).map(insert).collect();
    let error = maps.run(&inserts).unwrap_err();
    assert_eq!(error.map, "services");
    // Preallocated hashes have a few elements to spare.
    let entered = maps.dump().unwrap().services.len();
    assert!((16..100).contains(&entered), "{entered} entered");
    assert_eq!(error.action, format!("{:?}", inserts[entered]));
}

#[test]
fn the_programs_log_only_when_asked_to() {
    let place = Place::new("log");
    assert!(place.load().logger.is_none());
    let loaded =
        load(mcs_proxy::EBPF_OBJECT, &place.pins, &Options { bpf_log: true, ..options(&SIZES) }).unwrap();
    assert!(loaded.logger.is_some());
}
