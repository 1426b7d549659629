//! What calls Services from pods: a new connection, or a new socket, for each request.

use crate::Namespace;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Nothing here is farther than a few bridges away.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_DATAGRAM: usize = 1 << 16;

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

fn http_over(stream: TcpStream, service: SocketAddr) -> Result<IpAddr> {
    who(&greeting_over(stream, service)?)
}

fn greeting_over(mut stream: TcpStream, service: SocketAddr) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: serve\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("answer of {service}"))?;
    Ok(answer)
}

/// Calls a Service once over HTTP, and returns what it says: whoever answers names its pod.
///
/// # Errors
/// The request is not answered.
pub fn greeting(namespace: &Namespace, service: SocketAddr) -> Result<String> {
    namespace.run(move || {
        let stream = TcpStream::connect_timeout(&service, PATIENCE);
        greeting_over(stream.with_context(|| format!("connect {service}"))?, service)
    })
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

    /// So many, each of which has been answered: whoever answers waits for half a minute.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`ask`](Self::ask).
    pub fn open_many(namespace: &Namespace, service: SocketAddr, number: usize) -> Result<Vec<Self>> {
        namespace.run(move || {
            let open = |_| {
                let mut connection = Self::over(TcpStream::connect_timeout(&service, PATIENCE)?, service)?;
                connection.ask()?;
                anyhow::Ok(connection)
            };
            (0..number).map(open).collect::<Result<_>>()
        })
    }

    /// Over a stream that is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn over(stream: TcpStream, service: SocketAddr) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // A request is written in pieces, each of which would wait for the one before to be acknowledged, for 40 ms.
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), service })
    }

    /// Where it comes from.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
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
        self.send(body)?;
        let (who, back) = self.receive(body.len())?;
        if back != body {
            bail!("{} sent another body back", self.service);
        }
        Ok(who)
    }

    /// Sends a request with a body of so many bytes and closes this side; nothing of the answer is read.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn ask_last(&mut self, length: usize) -> Result<()> {
        self.send(&vec![b'x'; length])?;
        Ok(self.stream.get_ref().shutdown(Shutdown::Write)?)
    }

    /// Reads the answer to [`ask_last`](Self::ask_last), and returns who sent it.
    ///
    /// # Errors
    /// It does not come as a whole.
    pub fn hear(&mut self, length: usize) -> Result<IpAddr> {
        Ok(self.receive(length)?.0)
    }

    fn send(&mut self, body: &[u8]) -> Result<()> {
        let (service, length) = (self.service, body.len());
        let head = format!("POST / HTTP/1.1\r\nHost: serve\r\nContent-Length: {length}\r\n\r\n");
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes()).with_context(|| format!("send to {service}"))?;
        stream.write_all(body).with_context(|| format!("send to {service}"))
    }

    fn receive(&mut self, length: usize) -> Result<(IpAddr, Vec<u8>)> {
        let service = self.service;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if self.stream.read_line(&mut line).with_context(|| format!("answer of {service}"))? == 0 {
                bail!("{service} closed the connection");
            }
        }
        let mut hello = String::new();
        self.stream.read_line(&mut hello).with_context(|| format!("answer of {service}"))?;
        let mut back = vec![0; length];
        self.stream.read_exact(&mut back).with_context(|| format!("body from {service}"))?;
        Ok((who(&hello)?, back))
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
    who_sent_back(service, datagram, udp_greeting(socket, service, datagram)?.as_bytes())
}

/// Sends a datagram and returns what comes back: whoever answers names its pod.
///
/// # Errors
/// It is not answered.
pub fn udp_greeting(socket: &UdpSocket, service: SocketAddr, datagram: &str) -> Result<String> {
    socket.send(datagram.as_bytes()).with_context(|| format!("send to {service}"))?;
    let mut answer = vec![0; LARGEST_DATAGRAM];
    let length = socket.recv(&mut answer).with_context(|| format!("answer of {service}"))?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// A socket in a namespace with this address and port, not connected.
///
/// # Errors
/// The kernel's.
pub fn udp_socket_at(namespace: &Namespace, client: SocketAddr) -> Result<UdpSocket> {
    namespace.run(move || {
        let start = Instant::now();
        loop {
            match UdpSocket::bind(client) {
                // A process that is about to begin has a copy of the socket that was here before.
                Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                bound => {
                    let socket = bound.with_context(|| format!("bind {client}"))?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    return anyhow::Ok(socket);
                }
            }
        }
    })
}

/// A socket in a namespace with this address and port, connected.
///
/// # Errors
/// The kernel's.
pub fn udp_socket_from(namespace: &Namespace, client: SocketAddr, service: SocketAddr) -> Result<UdpSocket> {
    let socket = udp_socket_at(namespace, client)?;
    socket.connect(service).with_context(|| format!("connect {service}"))?;
    Ok(socket)
}

/// As [`udp_ask`], over a socket that is not connected: the next datagram that comes must come from the Service.
///
/// # Errors
/// As [`udp_ask`], or somebody else answers.
pub fn udp_ask_at(socket: &UdpSocket, service: SocketAddr, datagram: &str) -> Result<IpAddr> {
    socket.send_to(datagram.as_bytes(), service).with_context(|| format!("send to {service}"))?;
    let mut answer = vec![0; LARGEST_DATAGRAM];
    let (length, from) = socket.recv_from(&mut answer).with_context(|| format!("answer of {service}"))?;
    if from != service {
        bail!("{service} was sent {datagram:?} and {from} answered");
    }
    who_sent_back(service, datagram, &answer[..length])
}

fn who_sent_back(service: SocketAddr, datagram: &str, answer: &[u8]) -> Result<IpAddr> {
    let answer = String::from_utf8_lossy(answer);
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
