//! As much of HTTP as a look at the daemon takes.

use std::io::{self, Read, Write};

/// `GET path`: status and body.
pub fn get(mut stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: netd\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}
