//! When calls of ports that no frontend has are refused. The fake maps see to it that no SYN for what is beneath us is.

use super::*;

const VIP: [u8; 4] = [10, 13, 0, 1];

fn port(port: u16) -> FrontendKey {
    FrontendKey { vip: VIP.into(), port, protocol: Protocol::Tcp }
}

impl Pair {
    /// Ports of one VIP, and whether the Service has it for itself.
    fn sync_ports(&mut self, ports: &[(u16, bool)]) -> Plan {
        let frontends = ports
            .iter()
            .map(|&(number, owns_vip)| (port(number), Frontend { owns_vip, ..frontend(&[1], &[]) }));
        let plan = self.table.sync(&frontends.map(|(key, frontend)| (key, Arc::new(frontend))).collect());
        self.maps.run(&plan.transaction).unwrap();
        plan
    }

    fn is_whole(&self) -> bool {
        self.maps.is_whole(&Address::from(IpAddr::from(VIP)))
    }
}

#[test]
fn a_vip_is_whole_once_a_grace_period_has_followed_its_last_port() {
    let mut pair = Pair::new();
    pair.sync_ports(&[(80, true), (81, true)]);
    assert!(!pair.is_whole());
    pair.reclaim();
    assert!(pair.is_whole());
    assert_eq!(pair.table.reclaim(), []);
    // Whoever calls another port meanwhile is refused, as before.
    pair.sync_ports(&[(80, true), (81, true), (82, true)]);
    assert!(pair.is_whole());
}

#[test]
fn a_vip_is_not_whole_from_before_a_port_goes_until_the_next_grace_period() {
    let mut pair = Pair::new();
    pair.sync_ports(&[(80, true), (81, true)]);
    pair.reclaim();
    pair.sync_ports(&[(80, true)]);
    assert!(!pair.is_whole());
    pair.reclaim();
    assert!(pair.is_whole());
    pair.sync_ports(&[]);
    pair.reclaim();
    assert!(pair.maps.vips().is_empty());
}

#[test]
fn a_vip_that_another_service_has_too_is_not_whole() {
    let mut pair = Pair::new();
    pair.sync_ports(&[(80, true), (81, true)]);
    pair.reclaim();
    pair.sync_ports(&[(80, true), (81, false)]);
    assert!(!pair.is_whole());
    pair.reclaim();
    assert!(!pair.is_whole());
    pair.sync_ports(&[(80, true), (81, true)]);
    pair.reclaim();
    assert!(pair.is_whole());
}

#[test]
fn a_port_that_there_is_no_room_for_keeps_its_vip_from_being_whole() {
    let mut pair = Pair::new();
    let ports: Vec<(u16, bool)> =
        (0..=u16::try_from(SIZES.frontends).unwrap()).map(|n| (80 + n, true)).collect();
    assert_eq!(pair.sync_ports(&ports).rejected.len(), 1);
    pair.reclaim();
    assert!(!pair.is_whole());
    assert_eq!(pair.sync_ports(&ports[..4]).rejected, []);
    pair.reclaim();
    assert!(pair.is_whole());
    pair.sync_ports(&ports);
    pair.reclaim();
    assert!(!pair.is_whole());
}

#[test]
fn a_restart_finds_whole_vips_as_they_were() {
    let mut pair = Pair::new();
    pair.sync_ports(&[(80, true)]);
    pair.reclaim();
    pair.table = pair.recover();
    assert_eq!(pair.sync_ports(&[(80, true)]), Plan::default());
    pair.reclaim();
    assert!(pair.is_whole());
    pair.table = pair.recover();
    pair.sync_ports(&[(80, false)]);
    assert!(!pair.is_whole());
}
