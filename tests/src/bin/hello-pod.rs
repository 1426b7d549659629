//! The program in a pod: answers over HTTP, and over UDP on the same port, who and where it is, and what it was sent.
//!
//! `hello-pod CLUSTER NODE POD PORT ADDRESS…` prints `ready` once it listens on every address.
//!
//! In a cluster's pods, whose image has nothing else, it is also who calls: `hello-pod call HOST:PORT [TIMES]` prints the
//! answers, and `hello-pod wait` does nothing until it is called.

use anyhow::{Context, Result, bail};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [word] if word == "wait" => loop {
            thread::park();
        },
        [word, host] if word == "call" => return call(host, 1),
        [word, host, times] if word == "call" => return call(host, times.parse().context("TIMES")?),
        _ => {}
    }
    let [cluster, node, pod, port, addresses @ ..] = arguments.as_slice() else {
        bail!("usage: hello-pod CLUSTER NODE POD PORT ADDRESS... | call HOST:PORT [TIMES] | wait");
    };
    let port: u16 = port.parse().with_context(|| format!("port {port}"))?;

    for address in addresses {
        let ip: IpAddr = address.parse().with_context(|| format!("address {address}"))?;
        let hello = format!("hello from cluster {cluster} (Node: {node} Pod: {pod} Address: {ip})\n");
        let address = SocketAddr::new(ip, port);
        let listener = TcpListener::bind(address).with_context(|| format!("TCP {address}"))?;
        let socket = UdpSocket::bind(address).with_context(|| format!("UDP {address}"))?;
        let answer = hello.clone();
        thread::spawn(move || serve_http(&listener, &answer));
        thread::spawn(move || serve_udp(&socket, &hello));
    }
    println!("ready");
    loop {
        thread::park();
    }
}

/// Calls a Service, with a new connection each time.
fn call(host: &str, times: u32) -> Result<()> {
    for _ in 0..times {
        let mut stream = TcpStream::connect(host).with_context(|| host.to_owned())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream
            .write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| host.to_owned())?;
        print!("{}", answer.split_once("\r\n\r\n").context("not an answer over HTTP")?.1);
    }
    Ok(())
}

fn serve_http(listener: &TcpListener, hello: &str) {
    for stream in listener.incoming().flatten() {
        let hello = hello.to_owned();
        // One client that says nothing must not keep the others waiting.
        thread::spawn(move || answer(stream, &hello));
    }
}

/// Answers the requests of one connection, until the client closes it or asks us to.
fn answer(mut stream: TcpStream, hello: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut close = false;
        let mut line = String::new();
        let mut first = true;
        let mut body_length = 0;
        // Request line and headers, up to an empty line.
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim_end().to_ascii_lowercase();
            close |= text == "connection: close" || first && text.ends_with("http/1.0");
            first = false;
            if let Some(value) = text.strip_prefix("content-length:") {
                body_length = value.trim().parse::<usize>()?;
            }
            if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; body_length];
        reader.read_exact(&mut body)?;
        let connection = if close { "close" } else { "keep-alive" };
        let length = hello.len() + body.len();
        stream.write_all(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{hello}"
            )
            .as_bytes(),
        )?;
        stream.write_all(&body)?;
        if close {
            return Ok(());
        }
    }
}

/// Answers every datagram with the line and the datagram.
fn serve_udp(socket: &UdpSocket, hello: &str) {
    let mut datagram = vec![0; 1 << 16];
    while let Ok((length, client)) = socket.recv_from(&mut datagram) {
        let mut reply = hello.as_bytes().to_vec();
        reply.extend_from_slice(&datagram[..length]);
        // The client may be gone; the others are not.
        drop(socket.send_to(&reply, client));
    }
}
