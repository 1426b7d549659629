//! What calls Services from pods: a new connection, or a new socket, for each request.

use crate::Namespace;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Nothing here is farther than a few bridges away.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many answers came from each address.
pub type Tally = BTreeMap<IpAddr, u32>;

/// Calls a Service over HTTP, again and again, and returns who answered, in order.
///
/// # Errors
/// A request is not answered.
pub fn http(namespace: &Namespace, service: SocketAddr, requests: u32) -> Result<Vec<IpAddr>> {
    namespace.run(move || (0..requests).map(|_| http_once(service)).collect::<Result<_>>())
}

/// Calls a Service once, from this address and port; the pod closes first, so they are free again afterwards.
///
/// # Errors
/// The request is not answered.
pub fn http_from(namespace: &Namespace, client: SocketAddr, service: SocketAddr) -> Result<IpAddr> {
    namespace.run(move || {
        let start = Instant::now();
        loop {
            let socket = Socket::new(Domain::for_address(service), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&client.into()).with_context(|| format!("bind {client}"))?;
            match socket.connect_timeout(&service.into(), PATIENCE) {
                // The pod has yet to acknowledge that the connection before this one is over.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                connected => {
                    connected.with_context(|| format!("connect {client} to {service}"))?;
                    return http_over(socket.into(), service);
                }
            }
        }
    })
}

fn http_once(service: SocketAddr) -> Result<IpAddr> {
    let stream = TcpStream::connect_timeout(&service, PATIENCE);
    http_over(stream.with_context(|| format!("connect {service}"))?, service)
}

fn http_over(mut stream: TcpStream, service: SocketAddr) -> Result<IpAddr> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: serve\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("answer of {service}"))?;
    who(&answer)
}

/// A connection that stays open over several requests.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    service: SocketAddr,
}

impl Connection {
    /// # Errors
    /// Nobody accepts it.
    pub fn open(namespace: &Namespace, service: SocketAddr) -> Result<Self> {
        Self::over(namespace.run(move || TcpStream::connect_timeout(&service, PATIENCE))?, service)
    }

    /// Over a stream that is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn over(stream: TcpStream, service: SocketAddr) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), service })
    }

    /// Sends a request and returns who answered.
    ///
    /// # Errors
    /// It is not answered.
    pub fn ask(&mut self) -> Result<IpAddr> {
        self.echo(&[])
    }

    /// Sends a request with a body, has it sent back, and returns who did so.
    ///
    /// # Errors
    /// It is not answered, or comes back changed.
    pub fn echo(&mut self, body: &[u8]) -> Result<IpAddr> {
        let service = self.service;
        let length = body.len();
        let head = format!("POST / HTTP/1.1\r\nHost: serve\r\nContent-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(head.as_bytes()).with_context(|| format!("send to {service}"))?;
        self.stream.get_mut().write_all(body).with_context(|| format!("send to {service}"))?;

        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if self.stream.read_line(&mut line).with_context(|| format!("answer of {service}"))? == 0 {
                bail!("{service} closed the connection");
            }
        }
        let mut hello = String::new();
        self.stream.read_line(&mut hello).with_context(|| format!("answer of {service}"))?;
        let mut back = vec![0; body.len()];
        self.stream.read_exact(&mut back).with_context(|| format!("body from {service}"))?;
        if back != body {
            bail!("{service} sent another body back");
        }
        who(&hello)
    }
}

/// Calls a Service over UDP from a new socket each time, and returns who answered, in order.
///
/// # Errors
/// A datagram is not answered, or comes back changed.
pub fn udp(namespace: &Namespace, service: SocketAddr, requests: u32) -> Result<Vec<IpAddr>> {
    namespace.run(move || (0..requests).map(|number| udp_once(service, number)).collect::<Result<_>>())
}

fn udp_once(service: SocketAddr, number: u32) -> Result<IpAddr> {
    let socket = udp_socket_here(service)?;
    udp_ask(&socket, service, &format!("datagram {number}"))
}

/// A socket in a namespace, connected: it takes answers from the Service's address only.
///
/// # Errors
/// The kernel's.
pub fn udp_socket(namespace: &Namespace, service: SocketAddr) -> Result<UdpSocket> {
    namespace.run(move || udp_socket_here(service))
}

fn udp_socket_here(service: SocketAddr) -> Result<UdpSocket> {
    let any =
        if service.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(service).with_context(|| format!("connect {service}"))?;
    Ok(socket)
}

/// Sends a datagram and returns who answered.
///
/// # Errors
/// It is not answered, or comes back changed.
pub fn udp_ask(socket: &UdpSocket, service: SocketAddr, datagram: &str) -> Result<IpAddr> {
    socket.send(datagram.as_bytes()).with_context(|| format!("send to {service}"))?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer).with_context(|| format!("answer of {service}"))?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    if !answer.ends_with(datagram) {
        bail!("{service} was sent {datagram:?} and answered {answer:?}");
    }
    who(&answer)
}

/// The address that an answer names.
///
/// # Errors
/// It names none.
pub fn who(answer: &str) -> Result<IpAddr> {
    let (_, rest) =
        answer.split_once("Address: ").with_context(|| format!("not a pod's answer: {answer:?}"))?;
    let (address, _) = rest.split_once(')').with_context(|| format!("not a pod's answer: {answer:?}"))?;
    Ok(address.parse()?)
}

/// Counts answers.
pub fn tally(answers: &[IpAddr]) -> Tally {
    answers.iter().fold(Tally::new(), |mut tally, &answer| {
        *tally.entry(answer).or_default() += 1;
        tally
    })
}
