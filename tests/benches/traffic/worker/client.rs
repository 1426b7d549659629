//! Calls in a closed loop: the next request goes out when the last one is answered.

use super::{CHUNK, COUNT, Command, ECHO};
use crate::samples::{Measure, Slice};
use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

/// Whoever takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(command: &Command, cgroup: &Path) -> Result<Slice> {
    let Command { measure, to, millis, ports: (first, last) } = *command;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}"))?;
    let mut connects = Vec::new();
    let (cpu, start) = (cpu_time(cgroup)?, Instant::now());
    let deadline = start + Duration::from_millis(millis);
    let count = match measure {
        Measure::Crr => connect_request_response(to, deadline, &mut connects)?,
        Measure::Rr => request_response(to, deadline)?,
        Measure::Throughput => stream(to, deadline)?,
    };
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = (cpu_time(cgroup)? - cpu).as_secs_f64();
    connects.sort_unstable();
    let connect = |percent| percentile(&connects, percent).map(|time| time.as_secs_f64() * 1e6);
    Ok(Slice { count, seconds, cpu_seconds, connect_p50_us: connect(50), connect_p99_us: connect(99) })
}

fn connect_request_response(to: SocketAddr, deadline: Instant, connects: &mut Vec<Duration>) -> Result<u64> {
    let mut count = 0;
    loop {
        let before = Instant::now();
        if before >= deadline {
            return Ok(count);
        }
        let mut stream = connect(to)?;
        connects.push(before.elapsed());
        exchange(&mut stream)?;
        count += 1;
    }
}

fn request_response(to: SocketAddr, deadline: Instant) -> Result<u64> {
    let mut stream = connect(to)?;
    let mut count = 0;
    while Instant::now() < deadline {
        exchange(&mut stream)?;
        count += 1;
    }
    Ok(count)
}

/// The bytes that have arrived.
fn stream(to: SocketAddr, deadline: Instant) -> Result<u64> {
    let mut stream = connect(to)?;
    let chunk = vec![COUNT; CHUNK];
    while Instant::now() < deadline {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut sum = [0; 8];
    stream.read_exact(&mut sum)?;
    Ok(u64::from_be_bytes(sum))
}

/// One byte there, one byte back.
fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[ECHO])?;
    Ok(stream.read_exact(&mut [0])?)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // It limits connect, too.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&to.into()).with_context(|| format!("connect {to}"))?;
    Ok(socket.into())
}

/// What the processes of a cgroup have used so far.
fn cpu_time(cgroup: &Path) -> Result<Duration> {
    let path = cgroup.join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(Duration::from_micros(micros.context("no usage_usec")?.parse()?))
}

fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get(sorted.len() * percent / 100).copied()
}
