//! Answers one connection after the other, as its clients call it.

use super::{CHUNK, COUNT, ECHO};
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
            if let Err(error) = stream.and_then(|stream| answer(stream, &mut chunk)) {
                eprintln!("server: {error}");
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

fn count(mut stream: TcpStream, chunk: &mut [u8], mut length: usize) -> io::Result<()> {
    let mut sum = 0_u64;
    while length > 0 {
        sum += length as u64;
        length = stream.read(chunk)?;
    }
    stream.write_all(&sum.to_be_bytes())
}
