use super::{close_hole, open_hole, stage, traffic::Traffic};
use crate::stage::{PODS, PODS_V6, slice, v4, v6};
use anyhow::Result;
use mcs_proxy_tests::{ServiceRow, karmada::Endpoint};
use std::net::IpAddr;

const SECOND: [&str; 2] = ["10.10.0.7", "fd10:10::7"];

#[test]
fn an_endpoint_that_does_not_answer_is_ejected_if_asked_for_and_comes_back() -> Result<()> {
    for ejects in [true, false] {
        let flag: &[&str] = if ejects { &["--eject-unanswered"] } else { &[] };
        let mut stage = stage(|service| service, flag)?;
        let second = stage.world.add_serving_pod(&stage.remote, "serve-3", &SECOND)?;
        for (first, second) in [PODS[0], PODS_V6[0]].into_iter().zip(SECOND) {
            let mut both = slice(0, first)?;
            both.endpoints.push(Endpoint::new(second, "member1-node-1", "serve-3")?);
            stage.manifests.slice(&both)?;
        }
        stage.wait_for_endpoints(3)?;
        open_hole(&second)?;
        let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
        let addresses = SECOND.map(|address| address.parse::<IpAddr>().unwrap());
        // Of TCP: another port is another endpoint, and datagrams say nothing.
        let verdicts = |rows: &[ServiceRow]| -> Vec<String> {
            let tcp = rows.iter().filter(|row| row.protocol == "TCP").flat_map(|row| &row.endpoints);
            tcp.filter(|it| addresses.contains(&it.address)).map(|it| it.verdict.clone()).collect()
        };
        if ejects {
            stage.daemon.wait_for_services("ejected", |rows| verdicts(rows) == ["unanswered"; 2])?;
            stage.daemon.wait_for_warning("new flows to 10.10.0.7:8080 in member1 stay without an answer")?;
            let before = traffic.answered();
            traffic.wait("answers", |traffic| Ok(traffic.answered() > before + 50))?;
            let rows = stage.daemon.services()?;
            assert_eq!(super::verdicts(&rows, "member2"), ["used"; 4]);
            close_hole(&second)?;
            stage.daemon.wait_for_services("back", |rows| verdicts(rows) == ["used"; 2])?;
        } else {
            let before = traffic.unanswered();
            // As many as would have been enough, several times.
            traffic.wait("unanswered", |traffic| Ok(traffic.unanswered() >= before + 20))?;
            assert_eq!(verdicts(&stage.daemon.services()?), ["used"; 2]);
        }
        traffic.end()?;
    }
    Ok(())
}
