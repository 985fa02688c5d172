//! ICMP echo.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Namespace;

/// An echo request.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// Identifier.
    pub id: u16,
    /// Bytes after the ICMP header.
    pub size: usize,
    /// How long to wait for the reply.
    pub patience: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { id: 7, size: 56, patience: Duration::from_secs(3) }
    }
}

/// Sends one echo request; true if its reply came back whole.
pub fn ping(from: &Namespace, to: IpAddr, ping: Ping) -> bool {
    from.enter(|| echo(to, ping)).unwrap_or_else(|e| panic!("ping {to} from {}: {e}", from.name()))
}

fn echo(to: IpAddr, Ping { id, size, patience }: Ping) -> io::Result<bool> {
    let (domain, protocol, request, reply, skipped) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    let mut message = vec![request, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&1_u16.to_be_bytes());
    message.extend((0..size).map(|i| i as u8));
    if to.is_ipv4() {
        // The kernel writes the checksum of ICMPv6 alone.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    socket.send_to(&message, &SocketAddr::new(to, 0).into())?;

    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 65536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => {
                let answer = &buffer[skipped..length];
                if answer[0] == reply && answer[4..] == message[4..] {
                    return Ok(true);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

/// The checksum of the Internet protocols, RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
