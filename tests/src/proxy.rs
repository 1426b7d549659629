//! Between a daemon and its API server: lets everything through, or stands for a network that does not.

use crate::Namespace;
use anyhow::{Result, anyhow};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What becomes of connections from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// None is served.
    Refuse,
    /// Each ends after so many bytes of answers.
    CutAfter(usize),
}

/// It lasts as long as the process.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    target: SocketAddr,
    state: Mutex<(Mode, Vec<TcpStream>)>,
}

impl Proxy {
    /// Listens in a namespace, and leads to another address there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(namespace: &Namespace, listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = namespace.run(move || TcpListener::bind(listen))?;
        let state = Mutex::new((Mode::Pass, Vec::new()));
        let proxy = Self(Arc::new(Shared { namespace: namespace.clone(), target, state }));
        let own = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                // An end that comes early is what this is for.
                thread::spawn(move || own.carry(client));
            }
        });
        Ok(proxy)
    }

    /// Ends all connections; new ones are treated like this.
    pub fn set(&self, mode: Mode) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = mode;
        for stream in state.1.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn carry(&self, mut client: TcpStream) -> Result<()> {
        let target = self.0.target;
        let mut server = self.0.namespace.run(move || TcpStream::connect(target))?;
        let mode = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.1.extend([client.try_clone()?, server.try_clone()?]);
            state.0
        };
        let mut left = match mode {
            Mode::Pass => usize::MAX,
            Mode::Refuse => 0,
            Mode::CutAfter(bytes) => bytes,
        };
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        let questions = thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let mut buffer = [0; 4096];
        while left > 0 {
            let room = left.min(buffer.len());
            match server.read(&mut buffer[..room]) {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    client.write_all(&buffer[..read])?;
                    left -= read;
                }
            }
        }
        client.shutdown(Shutdown::Both)?;
        server.shutdown(Shutdown::Both)?;
        questions.join().map_err(|_| anyhow!("a thread of the proxy panicked"))??;
        Ok(())
    }
}
