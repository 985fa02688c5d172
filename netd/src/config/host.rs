//! Where the API listens, and where its clients find it.

use std::{fmt, path::PathBuf, str::FromStr};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///PATH`
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, in the clear.
    Tcp {
        /// A name or an address, an IPv6 address without its brackets.
        host: String,
        /// The port; 2375 if the URL has none.
        port: u16,
    },
}

impl Host {
    /// Reads a URL. The error names the URL and what is wrong with it, in Docker's words.
    pub fn parse(url: &str) -> Result<Self, String> {
        let invalid = |reason: &str| format!("invalid bind address ({url}): {reason}");
        let (proto, address) = url.split_once("://").unwrap_or(("tcp", url));
        match proto {
            "unix" if address.starts_with('/') => Ok(Self::Unix(PathBuf::from(address))),
            "unix" => Err(invalid("the path of the socket must be absolute")),
            "tcp" => {
                if address.contains('/') {
                    return Err(invalid("should not contain a path element"));
                }
                let (host, port) = match address.rsplit_once(':') {
                    Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
                    _ => (address, None),
                };
                let port = match port {
                    Some(port) => {
                        port.parse().map_err(|_| invalid(&format!("invalid port \"{port}\" after host")))?
                    }
                    None => 2375,
                };
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let host = if host.is_empty() { "localhost" } else { host };
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            "fd" => Err(invalid("socket activation (fd://) is not supported; use unix:// or tcp://")),
            _ => Err(invalid(&format!("unsupported proto '{proto}'"))),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        Self::parse(url)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (url, shown) in [
            ("unix:///run/netd/netd.sock", "unix:///run/netd/netd.sock"),
            ("tcp://127.0.0.1:2376", "tcp://127.0.0.1:2376"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
            ("tcp://:5555", "tcp://localhost:5555"),
            ("tcp://[::1]:5555", "tcp://[::1]:5555"),
            ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ] {
            assert_eq!(Host::parse(url).unwrap().to_string(), shown, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_named_with_the_reason() {
        for (url, reason) in [
            ("tcp://:5555/", "should not contain a path element"),
            ("tcp://a:x", "invalid port \"x\" after host"),
            ("udp://a:1", "unsupported proto 'udp'"),
            ("fd://", "socket activation (fd://) is not supported; use unix:// or tcp://"),
            ("unix://netd.sock", "the path of the socket must be absolute"),
        ] {
            assert_eq!(Host::parse(url).unwrap_err(), format!("invalid bind address ({url}): {reason}"));
        }
    }
}
