//! Sockets in pods, held by the test: it is both ends of every connection, so nothing happens behind its back.

use anyhow::{Context, Result, bail};
use mcs_proxy_tests::{POD_PORT, Pod};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Nothing here is farther than a few bridges away.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A pod that listens, in both families, over TCP and UDP.
pub(super) struct Server {
    listeners: Vec<TcpListener>,
    sockets: Vec<UdpSocket>,
}

impl Server {
    pub(super) fn start(pod: &Pod) -> Result<Self> {
        let addresses: Vec<_> = pod.addresses.iter().map(|ip| SocketAddr::new(*ip, POD_PORT)).collect();
        pod.namespace.run(move || {
            let mut server = Self { listeners: Vec::new(), sockets: Vec::new() };
            for address in addresses {
                let (listener, socket) = (TcpListener::bind(address)?, UdpSocket::bind(address)?);
                listener.set_nonblocking(true)?;
                socket.set_nonblocking(true)?;
                server.listeners.push(listener);
                server.sockets.push(socket);
            }
            io::Result::Ok(server)
        })
    }
}

/// Awaits a connection from the client's port at whichever server: that server, and its end of the connection.
pub(super) fn accept(servers: &[Server], client: SocketAddr) -> Result<(usize, TcpStream)> {
    let sources = || {
        servers.iter().enumerate().flat_map(|(pod, server)| server.listeners.iter().map(move |l| (pod, l)))
    };
    wait(&format!("connection from {client} at a server"), || {
        for (pod, listener) in sources() {
            if let Some((stream, from)) = ready(listener.accept())? {
                if from != client {
                    bail!("a connection from {from} came to server {pod}, not one from {client}");
                }
                stream.set_nonblocking(false)?;
                patient(&stream)?;
                return Ok(Some((pod, stream)));
            }
        }
        Ok(None)
    })
}

pub(super) fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// What becomes of a datagram.
pub(super) enum Fate<'a> {
    Arrived { pod: usize, at: &'a UdpSocket, bytes: Vec<u8>, from: SocketAddr },
    Failed(ErrorKind),
}

/// Awaits a datagram at whichever server, or the client's error.
pub(super) fn await_datagram<'a>(servers: &'a [Server], client: &UdpSocket) -> Result<Fate<'a>> {
    let mut buffer = vec![0; 4096];
    wait("datagram at a server", || {
        if let Some(error) = client.take_error()? {
            return Ok(Some(Fate::Failed(error.kind())));
        }
        for (pod, server) in servers.iter().enumerate() {
            for at in &server.sockets {
                if let Some((length, from)) = ready(at.recv_from(&mut buffer))? {
                    return Ok(Some(Fate::Arrived { pod, at, bytes: buffer[..length].to_vec(), from }));
                }
            }
        }
        Ok(None)
    })
}

fn ready<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("at a server"),
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            bail!("no {what} in {PATIENCE:?}");
        }
        thread::sleep(Duration::from_micros(200));
    }
}
