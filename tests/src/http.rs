//! Asks over HTTP, from within a namespace.

use crate::Namespace;
use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub content_type: String,
    pub body: String,
}

/// Asks for a path by GET.
///
/// # Errors
/// Nobody answers, or not over HTTP.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<Answer> {
    request(namespace, address, "GET", path)
}

/// As [`get`], by another method.
///
/// # Errors
/// As [`get`].
pub fn request(namespace: &Namespace, address: SocketAddr, method: &str, path: &str) -> Result<Answer> {
    let question = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let text = namespace.run(move || -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no end of headers: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let header = |line: &str| Some(line.to_lowercase().strip_prefix("content-type: ")?.to_owned());
    Ok(Answer {
        status: status.with_context(|| format!("no status: {head}"))?,
        content_type: head.lines().find_map(header).unwrap_or_default(),
        body: body.to_owned(),
    })
}

/// As a query of a URL takes it.
pub fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}
