//! The harness itself, with nftables where the daemon will be.

use anyhow::Result;
use mcs_proxy_tests::{Beneath, World, client};

/// Pods reach one another over the fabric, in both families and over both protocols, by their own addresses and
/// through what is beneath.
#[test]
fn pods_of_two_clusters_reach_one_another() -> Result<()> {
    let mut world = World::new()?;
    let member1 = world.add_node("member1", "member1-node-1", &["10.10.0.0/16", "fd10:10::/64"])?;
    let member2 = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
    let serve = world.add_serving_pod(&member1, "serve-1", &["10.10.0.6", "fd10:10::6"])?;
    let local = world.add_serving_pod(&member2, "serve-2", &["10.12.0.6", "fd10:12::6"])?;
    let caller = world.add_pod(&member2, "client", &["10.12.0.9", "fd10:12::9"])?;

    for address in serve.addresses.iter().chain(&local.addresses) {
        let target = (*address, 8080).into();
        assert_eq!(client::http(&caller.namespace, target, 2)?, [*address; 2]);
        assert_eq!(client::udp(&caller.namespace, target, 2)?, [*address; 2]);
    }
    for (vip, index) in [("10.13.181.116:80", 0), ("[fd10:13::116]:80", 1)] {
        let vip = vip.parse()?;
        let beneath = Beneath::new(&member2.namespace, vip, &[serve.addresses[index]])?;
        assert_eq!(client::http(&caller.namespace, vip, 3)?, [serve.addresses[index]; 3]);
        assert_eq!(beneath.served()?, 3);
        beneath.set_endpoints(&[local.addresses[index]])?;
        assert_eq!(client::udp(&caller.namespace, vip, 1)?, [local.addresses[index]; 1]);
    }
    Ok(())
}
