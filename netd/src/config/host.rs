//! Where the API listens, and where its clients find it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///PATH`
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, with TLS if there is any.
    Tcp {
        /// A name or an address, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `fd://` or `fd://N`: sockets that the service manager listens at already.
    Fd(Option<u32>),
}

/// What a URL means that leaves it out.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// The socket of `unix://`, and of nothing at all if there is no TLS.
    pub socket: &'a Path,
    /// Whether TCP is spoken with TLS, which has a port of its own.
    pub tls: bool,
}

impl Defaults<'_> {
    const fn port(&self) -> u16 {
        if self.tls { 2376 } else { 2375 }
    }
}

impl Host {
    /// Reads a URL. The error names the URL and what is wrong with it, in Docker's words.
    pub fn parse(url: &str, defaults: Defaults<'_>) -> Result<Self, String> {
        let url = url.trim();
        if url.is_empty() && !defaults.tls {
            return Ok(Self::Unix(defaults.socket.to_owned()));
        }
        let invalid = |reason: &str| format!("invalid bind address ({url}): {reason}");
        let (proto, address) = url.split_once("://").unwrap_or(("tcp", url));
        match proto {
            "unix" if address.is_empty() => Ok(Self::Unix(defaults.socket.to_owned())),
            "unix" if address.starts_with('/') => Ok(Self::Unix(PathBuf::from(address))),
            "unix" if address.contains("://") => Err(invalid(&format!("invalid unix address: {address}"))),
            "unix" => Err(invalid("the path of the socket must be absolute")),
            "tcp" => tcp(address, defaults).map_err(|reason| invalid(&reason)),
            "fd" if address.is_empty() || address == "*" => Ok(Self::Fd(None)),
            "fd" => address.parse().map(|number| Self::Fd(Some(number))).map_err(|_| {
                invalid(&format!("failed to parse systemd fd address: should be a number: {address}"))
            }),
            _ => Err(invalid(&format!("unsupported proto '{proto}'"))),
        }
    }
}

fn tcp(address: &str, defaults: Defaults<'_>) -> Result<Host, String> {
    if address.contains('/') {
        return Err("should not contain a path element".to_owned());
    }
    if let Some(odd) = address.chars().find(|c| "?#@ ".contains(*c) || c.is_control()) {
        return Err(format!("invalid character {odd:?} in host name"));
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    let port = match port {
        None | Some("") => defaults.port(),
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(format!("parse \"tcp://{address}\": invalid port \":{port}\" after host"));
        }
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("invalid port: {port}")),
            Ok(port) => port,
        },
    };
    let host = match (host.strip_prefix('['), host.strip_suffix(']')) {
        (None, None) if host.is_empty() => "localhost",
        (None, None) if !host.contains(':') => host,
        (Some(_), Some(_)) if host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok() => {
            &host[1..host.len() - 1]
        }
        _ => return Err("an IPv6 address must stand in brackets".to_owned()),
    };
    Ok(Host::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Fd(None) => f.write_str("fd://"),
            Self::Fd(Some(number)) => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, tls: bool) -> Result<String, String> {
        Host::parse(url, Defaults { socket: Path::new("/run/netd/netd.sock"), tls })
            .map(|host| host.to_string())
    }

    #[test]
    fn urls_are_read_and_written() {
        for (url, shown) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix://", "unix:///run/netd/netd.sock"),
            ("", "unix:///run/netd/netd.sock"),
            (" ", "unix:///run/netd/netd.sock"),
            ("tcp://127.0.0.1:2376", "tcp://127.0.0.1:2376"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
            ("tcp://", "tcp://localhost:2375"),
            ("tcp://:5555", "tcp://localhost:5555"),
            ("tcp://[::1]:5555", "tcp://[::1]:5555"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            (":2375", "tcp://localhost:2375"),
            ("fd://", "fd://"),
            ("fd://*", "fd://"),
            ("fd://4", "fd://4"),
        ] {
            assert_eq!(parse(url, false).unwrap(), shown, "{url}");
        }
        assert_eq!(parse("tcp://0.0.0.0", true).unwrap(), "tcp://0.0.0.0:2376");
        assert_eq!(parse("", true).unwrap(), "tcp://localhost:2376");
    }

    #[test]
    fn bad_urls_are_named_with_the_reason() {
        for (url, reason) in [
            ("tcp://:5555/", "should not contain a path element"),
            ("tcp://:p", "parse \"tcp://:p\": invalid port \":p\" after host"),
            ("tcp://a:0", "invalid port: 0"),
            ("tcp://a:70000", "invalid port: 70000"),
            ("tcp://::1", "an IPv6 address must stand in brackets"),
            ("tcp://[::1", "an IPv6 address must stand in brackets"),
            ("tcp://]:1", "an IPv6 address must stand in brackets"),
            ("tcp://a b:1", "invalid character ' ' in host name"),
            ("udp://a:1", "unsupported proto 'udp'"),
            ("fd://x", "failed to parse systemd fd address: should be a number: x"),
            ("unix://netd.sock", "the path of the socket must be absolute"),
        ] {
            assert_eq!(parse(url, false).unwrap_err(), format!("invalid bind address ({url}): {reason}"));
        }
    }
}
