use crate::place::{Place, index_of, run};
use mcs_proxy::dataplane::{
    links::{Attachment, Hook, LinkError, Links},
    sys::{self, Access, TcxHook, tcx_query},
};
use mcs_proxy_ebpf::abi::Direction;
use std::{collections::BTreeSet, os::fd::AsFd};

fn links(place: &Place, hook: Hook) -> Links {
    Links::new(place.load().programs, place.pins.clone(), hook)
}

fn link_id(place: &Place, ifindex: u32, direction: Direction) -> Option<(u32, u32)> {
    let link = sys::object_get(&place.pins.link(ifindex, direction), Access::ReadWrite).ok()?;
    let info = sys::tcx_link_info(link.as_fd()).unwrap().unwrap();
    assert_eq!(info.ifindex, ifindex);
    Some((info.id, info.program_id))
}

#[test]
fn a_link_outlives_its_daemon_and_the_next_one_takes_it_over() {
    let place = Place::new("outlives");
    run("ip link add veth0 type veth peer name peer0");
    let ifindex = index_of("veth0");
    let mut first = links(&place, Hook::Auto);
    assert_eq!(first.attach(ifindex, "veth0").unwrap(), Attachment::New);
    assert_eq!(first.hook(), Hook::Tcx);
    drop(first);
    let (link, program) = link_id(&place, ifindex, Direction::FromPod).unwrap();
    assert_eq!(tcx_query(ifindex, TcxHook::Ingress).unwrap(), [(program, link)]);

    let mut second = links(&place, Hook::Auto);
    assert_eq!(second.attach(ifindex, "veth0").unwrap(), Attachment::Replaced);
    let (same, other) = link_id(&place, ifindex, Direction::FromPod).unwrap();
    assert_eq!(same, link);
    assert_ne!(other, program);
    assert_eq!(tcx_query(ifindex, TcxHook::Ingress).unwrap(), [(other, link)]);
    assert_eq!(tcx_query(ifindex, TcxHook::Egress).unwrap().len(), 1);

    second.detach(ifindex).unwrap();
    assert_eq!(tcx_query(ifindex, TcxHook::Ingress).unwrap(), []);
    assert_eq!(tcx_query(ifindex, TcxHook::Egress).unwrap(), []);
}

#[test]
fn ours_is_first_from_the_pod_and_last_to_it() {
    let place = Place::new("order");
    run("ip link add veth0 type veth peer name peer0");
    let ifindex = index_of("veth0");
    let foreign = place.load().programs;
    let attach = |hook| sys::tcx_link_create(foreign.fd(Direction::FromPod).unwrap(), ifindex, hook).unwrap();
    // A link each that wanted to be first, and to be last.
    let _others = [attach(TcxHook::Ingress), attach(TcxHook::Egress)];
    links(&place, Hook::Tcx).attach(ifindex, "veth0").unwrap();
    let ingress = tcx_query(ifindex, TcxHook::Ingress).unwrap();
    assert_eq!(ingress.first().unwrap().1, link_id(&place, ifindex, Direction::FromPod).unwrap().0);
    let egress = tcx_query(ifindex, TcxHook::Egress).unwrap();
    assert_eq!(egress.last().unwrap().1, link_id(&place, ifindex, Direction::ToPod).unwrap().0);
    assert_eq!((ingress.len(), egress.len()), (2, 2));
}

/// calico#11012: the pin of an interface that is gone remains, and its link answers ENOLINK.
#[test]
fn an_interface_that_comes_again_under_its_old_index_is_attached_anew() {
    let place = Place::new("again");
    run("ip link add veth0 index 77 type veth peer name peer0");
    let mut ours = links(&place, Hook::Tcx);
    ours.attach(77, "veth0").unwrap();
    run("ip link del veth0");
    assert!(matches!(ours.attach(77, "veth0"), Err(LinkError::Gone { ifindex: 77 })));
    assert!(link_id(&place, 77, Direction::FromPod).is_none());
    run("ip link add veth0 index 77 type veth peer name peer0");
    ours.attach(77, "veth0").unwrap();
    run("ip link del veth0");
    run("ip link add veth0 index 77 type veth peer name peer0");
    assert_eq!(ours.attach(77, "veth0").unwrap(), Attachment::New);
    assert_eq!(tcx_query(77, TcxHook::Ingress).unwrap().len(), 1);
}

#[test]
fn pins_of_interfaces_that_are_not_ours_any_more_are_swept() {
    let place = Place::new("swept");
    run("ip link add veth0 type veth peer name peer0");
    run("ip link add veth1 type veth peer name peer1");
    let (stays, goes) = (index_of("veth0"), index_of("veth1"));
    let mut first = links(&place, Hook::Tcx);
    first.attach(stays, "veth0").unwrap();
    first.attach(goes, "veth1").unwrap();
    drop(first);
    let second = links(&place, Hook::Tcx);
    assert_eq!(second.sweep(&BTreeSet::from([stays])).unwrap(), BTreeSet::from([goes]));
    assert_eq!(tcx_query(goes, TcxHook::Ingress).unwrap(), []);
    assert_eq!(tcx_query(stays, TcxHook::Ingress).unwrap().len(), 1);
}

#[test]
fn clsact_stands_in() {
    let place = Place::new("clsact");
    run("ip link add veth0 type veth peer name peer0");
    let ifindex = index_of("veth0");
    let filters = |way: &str| run(&format!("tc filter show dev veth0 {way}"));
    let mut first = links(&place, Hook::Clsact);
    assert_eq!(first.attach(ifindex, "veth0").unwrap(), Attachment::New);
    drop(first);
    assert!(filters("ingress").contains("from_pod direct-action"), "{}", filters("ingress"));
    let mut second = links(&place, Hook::Clsact);
    assert_eq!(second.attach(ifindex, "veth0").unwrap(), Attachment::Replaced);
    assert_eq!(filters("egress").matches("to_pod direct-action").count(), 1, "{}", filters("egress"));
    second.detach(ifindex).unwrap();
    assert_eq!((filters("ingress"), filters("egress")), (String::new(), String::new()));
}

/// The kernel's notice of a new name comes later than the name.
#[test]
fn an_interface_is_attached_and_detached_under_whatever_name_it_has() {
    let place = Place::new("renamed");
    for (hook, filters) in [(Hook::Tcx, 0), (Hook::Clsact, 1)] {
        run("ip link add veth0 type veth peer name peer0");
        let ifindex = index_of("veth0");
        let count = |name: &str| {
            let ways = ["ingress", "egress"].map(|way| run(&format!("tc filter show dev {name} {way}")));
            let links =
                [TcxHook::Ingress, TcxHook::Egress].map(|hook| tcx_query(index_of(name), hook).unwrap());
            (ways.map(|shown| shown.matches("direct-action").count()), links.map(|links| links.len()))
        };
        let attached = ([filters; 2], [1 - filters; 2]);
        let mut ours = links(&place, hook);
        run("ip link set veth0 name before");
        run("ip link add veth0 type veth peer name peer1");
        assert_eq!(ours.attach(ifindex, "veth0").unwrap(), Attachment::New, "{hook}");
        assert_eq!((count("before"), count("veth0")), (attached, Default::default()), "{hook}");

        // Another takes its place, and one daemon the other's; the filters keep nobody's name.
        run("ip link set before name after");
        run("ip link add before type veth peer name peer2");
        assert_eq!(links(&place, hook).attach(ifindex, "before").unwrap(), Attachment::Replaced, "{hook}");
        assert_eq!((count("after"), count("before")), (attached, Default::default()), "{hook}");
        ours.detach(ifindex).unwrap();
        assert_eq!(count("after"), Default::default(), "{hook}");
        for name in ["veth0", "before", "after"] {
            run(&format!("ip link del {name}"));
        }
    }
}

#[test]
fn another_hook_takes_over_from_the_first() {
    let place = Place::new("hooks");
    run("ip link add veth0 type veth peer name peer0");
    let ifindex = index_of("veth0");
    let attached = || {
        let filters = ["ingress", "egress"].map(|way| run(&format!("tc filter show dev veth0 {way}")));
        let links = [TcxHook::Ingress, TcxHook::Egress].map(|hook| tcx_query(ifindex, hook).unwrap().len());
        (filters.map(|shown| shown.matches("direct-action").count()), links)
    };
    for (hook, expected) in
        [(Hook::Clsact, ([1, 1], [0, 0])), (Hook::Tcx, ([0, 0], [1, 1])), (Hook::Clsact, ([1, 1], [0, 0]))]
    {
        links(&place, hook).attach(ifindex, "veth0").unwrap();
        assert_eq!(attached(), expected, "{hook}");
    }
}

#[test]
fn an_interface_that_is_gone_is_an_error_of_its_own() {
    let place = Place::new("gone");
    for hook in [Hook::Tcx, Hook::Clsact] {
        let error = links(&place, hook).attach(4711, "no-such-if").unwrap_err();
        assert!(matches!(error, LinkError::Gone { ifindex: 4711 }), "{error}");
    }
}
