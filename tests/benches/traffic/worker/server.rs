//! Answers one connection after the other, as its clients call it.

use super::{CHUNK, COUNT, ECHO, HTTP};
use anyhow::Result;
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

pub(super) fn start(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        for stream in listener.incoming() {
            match stream.and_then(|stream| answer(stream, &mut chunk)) {
                Ok(()) => {}
                // So wrk hangs up when its time is over.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => eprintln!("server: {error}"),
            }
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, chunk: &mut [u8]) -> io::Result<()> {
    let length = stream.read(chunk)?;
    match chunk[..length].first() {
        Some(&ECHO) => echo(stream, chunk, length),
        Some(&COUNT) => count(stream, chunk, length),
        Some(&HTTP) => http(stream, chunk, length),
        Some(other) => Err(io::Error::other(format!("a connection that begins with {other:#04x}"))),
        None => Ok(()),
    }
}

fn echo(mut stream: TcpStream, chunk: &mut [u8], mut length: usize) -> io::Result<()> {
    while length > 0 {
        stream.write_all(&chunk[..length])?;
        length = stream.read(chunk)?;
    }
    Ok(())
}

/// Requests without a body, each of which comes at once.
fn http(mut stream: TcpStream, chunk: &mut [u8], mut length: usize) -> io::Result<()> {
    const CLOSE: &[u8] = b"Connection: close";
    while length > 0 {
        let is_last = chunk[..length].windows(CLOSE.len()).any(|part| part == CLOSE);
        let end = if is_last { "Connection: close\r\n" } else { "" };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{end}\r\n.").as_bytes())?;
        if is_last {
            return Ok(());
        }
        length = stream.read(chunk)?;
    }
    Ok(())
}

fn count(mut stream: TcpStream, chunk: &mut [u8], mut length: usize) -> io::Result<()> {
    let mut sum = 0_u64;
    while length > 0 {
        sum += length as u64;
        length = stream.read(chunk)?;
    }
    stream.write_all(&sum.to_be_bytes())
}
