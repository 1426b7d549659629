//! A conversation over one of the two VIPs, and what its ends see of it.

use super::{
    acts::{Act, By, CONNECTIONS, DATAGRAM_SOCKETS, PORTS},
    ends::{Fate, PATIENCE, Server, accept, await_datagram, patient},
};
use anyhow::{Context, Result, bail};
use mcs_proxy_tests::Namespace;
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

pub(super) struct Side {
    namespace: Namespace,
    /// The client's address and the first of its ports.
    client: SocketAddr,
    vip: SocketAddr,
    connections: [Option<Connection>; CONNECTIONS],
    sockets: [Option<Asker>; DATAGRAM_SOCKETS],
}

struct Connection {
    /// The client's.
    port: u16,
    client: End,
    server: End,
}

struct End {
    stream: Option<TcpStream>,
    /// It has said all that it will.
    finished: bool,
}

struct Asker {
    socket: UdpSocket,
    from: SocketAddr,
}

/// What the ends have seen of an act.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The act does not apply.
    Nothing,
    /// The client's peer is the VIP, and the server's is the client.
    Connected {
        to: usize,
        peer_is_vip: bool,
    },
    /// The other end has read this.
    Heard {
        bytes: usize,
        as_said: bool,
    },
    /// The other end has read the end.
    End,
    /// The answer came from the VIP to the client that asked, as it was given.
    Answered {
        by: usize,
        server_sees_client: bool,
        as_said: bool,
    },
    Failed(ErrorKind),
}

impl Seen {
    /// Whether these are the same, whoever answered.
    pub(super) fn like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Answered { server_sees_client, as_said, .. },
                Self::Answered { server_sees_client: others, as_said: others_said, .. },
            ) => (server_sees_client, as_said) == (others, others_said),
            (Self::Connected { peer_is_vip, .. }, Self::Connected { peer_is_vip: others, .. }) => {
                peer_is_vip == others
            }
            _ => self == other,
        }
    }
}

impl Side {
    pub(super) const fn new(namespace: Namespace, client: SocketAddr, vip: SocketAddr) -> Self {
        let (connections, sockets) = ([const { None }; CONNECTIONS], [const { None }; DATAGRAM_SOCKETS]);
        Self { namespace, client, vip, connections, sockets }
    }

    pub(super) fn act(&mut self, act: &Act, servers: &[Server]) -> Result<Seen> {
        match *act {
            Act::Connect { connection, port } => self.connect(connection, port, servers),
            Act::Say { connection, by, length } => self.say(connection, by, length),
            Act::Finish { connection, by } => self.finish(connection, by),
            Act::Close { connection, by } => self.close(connection, by),
            Act::Reset { connection, by } => self.reset(connection, by),
            Act::Ask { socket, length } => self.ask(socket, length, servers),
            Act::Endpoints(_) => bail!("endpoints are not a side's own"),
        }
    }

    fn connect(&mut self, number: usize, port: u16, servers: &[Server]) -> Result<Seen> {
        // With an end of an older connection still open, what happens depends on whose end that is.
        if self.connections[number].is_some() || self.connections.iter().flatten().any(|old| old.port == port)
        {
            return Ok(Seen::Nothing);
        }
        let from = SocketAddr::new(self.client.ip(), self.client.port() + port);
        let vip = self.vip;
        let client = match self.namespace.run(move || io::Result::Ok(connect(from, vip)))? {
            Ok(client) => client,
            Err(error) => return Ok(Seen::Failed(error.kind())),
        };
        let peer_is_vip = client.peer_addr()? == vip;
        let (to, server) = accept(servers, from)?;
        self.connections[number] =
            Some(Connection { port, client: End::new(client), server: End::new(server) });
        Ok(Seen::Connected { to, peer_is_vip })
    }

    fn say(&mut self, number: usize, by: By, length: usize) -> Result<Seen> {
        let Some((speaker, listener)) = self.ends(number, by) else { return Ok(Seen::Nothing) };
        let (Some(from), Some(to), false) = (&mut speaker.stream, &mut listener.stream, speaker.finished)
        else {
            return Ok(Seen::Nothing);
        };
        let said = words(length);
        let mut heard = vec![0; length];
        Ok(match from.write_all(&said).and_then(|()| to.read_exact(&mut heard)) {
            Ok(()) => Seen::Heard { bytes: length, as_said: heard == said },
            Err(error) => Seen::Failed(error.kind()),
        })
    }

    fn finish(&mut self, number: usize, by: By) -> Result<Seen> {
        let Some((speaker, listener)) = self.ends(number, by) else { return Ok(Seen::Nothing) };
        let (Some(stream), false) = (&speaker.stream, speaker.finished) else { return Ok(Seen::Nothing) };
        stream.shutdown(Shutdown::Write)?;
        speaker.finished = true;
        let seen = listener.read_end();
        self.forget_if_over(number);
        Ok(seen)
    }

    fn close(&mut self, number: usize, by: By) -> Result<Seen> {
        let Some((speaker, listener)) = self.ends(number, by) else { return Ok(Seen::Nothing) };
        if speaker.stream.take().is_none() {
            return Ok(Seen::Nothing);
        }
        let news = !speaker.finished;
        speaker.finished = true;
        let seen = if news { listener.read_end() } else { Seen::Nothing };
        self.forget_if_over(number);
        Ok(seen)
    }

    fn reset(&mut self, number: usize, by: By) -> Result<Seen> {
        let Some((speaker, listener)) = self.ends(number, by) else { return Ok(Seen::Nothing) };
        let (Some(stream), Some(other), false) = (&speaker.stream, &mut listener.stream, speaker.finished)
        else {
            return Ok(Seen::Nothing);
        };
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        speaker.stream = None;
        let seen = match other.read(&mut [0]) {
            Ok(_) => Seen::End,
            Err(error) => Seen::Failed(error.kind()),
        };
        self.connections[number] = None;
        Ok(seen)
    }

    fn ask(&mut self, number: usize, length: usize, servers: &[Server]) -> Result<Seen> {
        if self.sockets[number].is_none() {
            let port = self.client.port() + PORTS + u16::try_from(number)?;
            let (from, vip) = (SocketAddr::new(self.client.ip(), port), self.vip);
            let socket = self.namespace.run(move || {
                let socket = UdpSocket::bind(from)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(vip)?;
                io::Result::Ok(socket)
            })?;
            self.sockets[number] = Some(Asker { socket, from });
        }
        let Some(Asker { socket, from }) = &self.sockets[number] else { bail!("no socket") };
        let said = words(length);
        socket.send(&said)?;
        let (by, at, bytes, seen_from) = match await_datagram(servers, socket)? {
            Fate::Arrived { pod, at, bytes, from } => (pod, at, bytes, from),
            Fate::Failed(kind) => return Ok(Seen::Failed(kind)),
        };
        at.send_to(&bytes, seen_from)?;
        let mut answer = vec![0; 4096];
        // The socket is connected: nothing arrives but from the VIP.
        let length = socket.recv(&mut answer).context("the answer to a datagram")?;
        let as_said = answer[..length] == said && bytes == said;
        Ok(Seen::Answered { by, server_sees_client: seen_from == *from, as_said })
    }

    /// The end that acts, and the other.
    fn ends(&mut self, number: usize, by: By) -> Option<(&mut End, &mut End)> {
        let Connection { client, server, .. } = self.connections[number].as_mut()?;
        Some(match by {
            By::Client => (client, server),
            By::Server => (server, client),
        })
    }

    /// When both have finished there is nothing more to see, and the connection's number is free.
    fn forget_if_over(&mut self, number: usize) {
        let is_over = |connection: &Connection| connection.client.finished && connection.server.finished;
        if self.connections[number].as_ref().is_some_and(is_over) {
            self.connections[number] = None;
        }
    }
}

impl End {
    const fn new(stream: TcpStream) -> Self {
        Self { stream: Some(stream), finished: false }
    }

    fn read_end(&mut self) -> Seen {
        let Some(stream) = &mut self.stream else { return Seen::Nothing };
        match stream.read(&mut [0]) {
            Ok(0) => Seen::End,
            Ok(bytes) => Seen::Heard { bytes, as_said: false },
            Err(error) => Seen::Failed(error.kind()),
        }
    }
}

/// From a port that may have been used before: until the last ACK of that connection is there, and that may be delayed,
/// the client's own stack refuses it.
fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        match socket.connect_timeout(&to.into(), PATIENCE) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            result => {
                result?;
                let stream = TcpStream::from(socket);
                patient(&stream)?;
                return Ok(stream);
            }
        }
    }
}

fn words(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7) as u8).collect()
}
