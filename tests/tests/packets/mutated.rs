//! Packets as no sound stack sends them: well-formed ones of every kind, bent by a seeded generator, among flows that
//! are open. None is translated wrongly, none that passes changes, and the kernel has nothing to complain about.

mod mutation;
mod strict;

use crate::{
    Net, POD, TCP, UDP,
    icmp::{Message, errors, ip, router},
    nets,
    odd::{fragments, insert},
    programs::Programs,
    round_robin,
    sctp::{SCTP, sctp},
    wire::Segment,
};
use mutation::Generator;
use std::{
    env,
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

const MUTATIONS: &str = "MCS_PROXY_MUTATIONS";
const MUTATIONS_BY_DEFAULT: usize = 50_000;

/// A packet, and the program that it meets.
type Sample = (&'static str, Vec<u8>);

#[test]
fn mutated_packets_are_translated_right_or_not_at_all() {
    let count = env::var(MUTATIONS).map_or(MUTATIONS_BY_DEFAULT, |text| text.parse().unwrap());
    let mut kernel_log = KernelLog::from_now_on();
    let mut translated = 0;
    for (net, seed) in nets().into_iter().zip(1..) {
        let mut programs = with_open_flows(&net);
        let samples = samples(&net);
        let mut verdicts = programs.verdicts();
        let mut generator = Generator::new(seed);
        for number in 0..count / 2 {
            let (program, bytes) = generator.mutated(&samples);
            let outcome = programs.run_counted(program, &bytes, POD, &mut verdicts);
            let judged = strict::judge(program, &bytes, outcome.verdict, &outcome.bytes);
            translated += usize::from(judged.unwrap_or_else(|wrong| {
                panic!(
                    "seed {seed}, packet {number}, {program}, {:?}: {wrong}\n {bytes:02x?}\n {:02x?}",
                    outcome.verdict, outcome.bytes
                )
            }));
        }
    }
    // A generator that bends them all beyond use would prove nothing.
    assert!(translated > count / 20, "{translated} of {count} were translated");
    assert_eq!(kernel_log.complaints(), "");
}

fn with_open_flows(net: &Net) -> Programs {
    let mut programs = Programs::load();
    for (protocol, id) in [(TCP, 1), (UDP, 2), (SCTP, 3)] {
        programs.add(&round_robin(net, protocol, &[(net.backends[0], id)]));
    }
    for (program, bytes) in samples(net) {
        programs.run(program, &bytes, POD);
    }
    programs
}

/// Every kind of packet, in the order of conversations.
fn samples(net: &Net) -> Vec<Sample> {
    let (client, vip, backend) = (net.client, net.vip, net.backends[0]);
    let syn = Segment::tcp(client, vip, "S", 1);
    let datagram = Segment::udp(client, vip);
    let long = Segment { payload: vec![7; 40], ..datagram.clone() };
    let mut plain = vec![
        ("from_pod", syn.bytes()),
        ("to_pod", syn.answer(backend, "SA").bytes()),
        ("from_pod", Segment::tcp(client, vip, "A", 2).bytes()),
        ("from_pod", datagram.bytes()),
        ("to_pod", datagram.answer(backend, "").bytes()),
        ("from_pod", sctp(client, vip, 1, 0)),
        ("to_pod", sctp(backend, client, 2, 9)),
        ("from_pod", sctp(client, vip, 10, 5)),
        ("from_pod", Segment::tcp(client, backend, "S", 3).bytes()),
        ("from_pod", Segment::udp(client, net.stranger).bytes()),
    ];
    let options: &[(u8, &[u8])] = if vip.is_ipv4() {
        &[(0, &[1, 1, 1, 0]), (0, &[0x94, 4, 0, 0])]
    } else {
        &[(0, &[0, 0, 1, 4, 0, 0, 0, 0]), (60, &[0, 0, 1, 4, 0, 0, 0, 0])]
    };
    let odd: Vec<Sample> = plain
        .iter()
        .flat_map(|(program, bytes)| {
            options.iter().map(|(number, option)| (*program, insert(bytes, *number, option)))
        })
        .collect();
    plain.extend(odd);
    plain.extend(fragments(&long.bytes()).map(|bytes| ("from_pod", bytes)));
    plain.extend(
        fragments(&Segment { payload: vec![7; 40], ..long.answer(backend, "") }.bytes())
            .map(|bytes| ("to_pod", bytes)),
    );
    let about = [Segment::tcp(client, backend, "A", 2).bytes(), Segment::udp(client, backend).bytes()];
    for (kind, rest) in errors(net) {
        for bytes in &about {
            let error = Message { from: router(net), to: client.ip(), kind, rest, body: ip(bytes) };
            plain.push(("to_pod", error.bytes()));
        }
    }
    plain
}

/// What the kernel says from a moment on.
struct KernelLog(File);

impl KernelLog {
    fn from_now_on() -> Self {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .expect("the kernel's log is read from /dev/kmsg: run `cargo xtask test` as root");
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    /// Its warnings and worse; one record a read.
    fn complaints(&mut self) -> String {
        let (mut all, mut record) = (String::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    if ["WARNING:", "BUG:", "Oops", "hw csum failure"].iter().any(|word| text.contains(word))
                    {
                        all.push_str(&text);
                    }
                }
                // Records were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }
}
