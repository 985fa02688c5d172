//! Ports that are to be published, as Docker writes them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::Error;

/// A protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// IANA's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => netd_common::tuple::protocol::TCP,
            Self::Udp => netd_common::tuple::protocol::UDP,
            Self::Sctp => netd_common::tuple::protocol::SCTP,
        }
    }

    /// The protocol with IANA's number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The name behind a port's slash.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Ports, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Never 0.
    pub first: u16,
    /// Not less than the first.
    pub last: u16,
}

impl Ports {
    /// How many there are.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether all of `other` are among them.
    pub const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// As Docker reads them: `80` or `80-90`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u16>().ok() } else { None }
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        (first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last == self.first { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

/// What is to be published: `[hostIP:][hostPort[-range]]:ctrPort[-range][/tcp|udp|sctp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The host's address; `None` for the network's default, which is all addresses unless it says otherwise.
    pub address: Option<IpAddr>,
    /// The host's ports; `None` for any. More than the container's are a choice for the one port of the container.
    pub host: Option<Ports>,
    /// The container's ports.
    pub container: Ports,
    /// Their protocol.
    pub protocol: Protocol,
}

impl PortSpec {
    /// What the ports of host and container allow together.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn new(
        address: Option<IpAddr>,
        host: Option<Ports>,
        container: Ports,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        if let Some(host) = host
            && host.count() != container.count()
            && container.count() != 1
        {
            return Err(Error::invalid(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            )));
        }
        // An IPv4 address may be written as a socket of IPv6 shows it.
        let address = address.map(|address| address.to_canonical());
        address.map_or(Ok(()), publishable).map_err(Error::invalid)?;
        Ok(Self { address, host, container, protocol })
    }
}

/// Whether ports can be published at an address, if it is one of the host's.
///
/// # Errors
/// Why not.
pub fn publishable(address: IpAddr) -> Result<(), String> {
    let why = match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            "a link-local address is that of one interface, which cannot be said here"
        }
        IpAddr::V4(Ipv4Addr::BROADCAST) => "it is nobody's own",
        address if address.is_multicast() => "it is nobody's own",
        _ => return Ok(()),
    };
    Err(format!("cannot publish ports at {address}: {why}"))
}

impl FromStr for PortSpec {
    type Err = Error;

    /// As `nat.ParsePortSpec` of Docker's go-connections reads it, with its texts.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (before, container) = text.rsplit_once(':').unwrap_or(("", text));
        let (address, host) = before.rsplit_once(':').unwrap_or(("", before));
        let (container, protocol) = container.split_once('/').unwrap_or((container, ""));

        let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = bracketed.unwrap_or(address);
        let address = match bare {
            "" => None,
            _ => Some(
                bare.parse::<IpAddr>().map_err(|_| Error::invalid(format!("invalid IP address: {bare}")))?,
            ),
        };
        if container.is_empty() {
            return Err(Error::invalid(format!("no port specified: {text}<empty>")));
        }
        let invalid = || Error::invalid(format!("invalid containerPort: {container}"));
        let ports = Ports::parse(container).filter(|ports| ports.first != 0).ok_or_else(invalid)?;
        let host = match host {
            "" => None,
            _ => {
                let invalid = || Error::invalid(format!("invalid hostPort: {host}"));
                let ports = Ports::parse(host).ok_or_else(invalid)?;
                if ports.first == 0 && ports.last != 0 {
                    return Err(invalid());
                }
                // Port 0 is any.
                Some(ports).filter(|ports| ports.first != 0)
            }
        };
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "" => Protocol::Tcp,
            name => *Protocol::ALL
                .iter()
                .find(|protocol| protocol.name() == name)
                .ok_or_else(|| Error::invalid(format!("invalid proto: {protocol}")))?,
        };
        Self::new(address, host, ports, protocol)
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.host) {
            (Some(IpAddr::V6(address)), _) => write!(f, "[{address}]:")?,
            (Some(IpAddr::V4(address)), _) => write!(f, "{address}:")?,
            (None, _) => {}
        }
        match (self.address, self.host) {
            (_, Some(host)) => write!(f, "{host}:")?,
            (Some(_), None) => write!(f, ":")?,
            (None, None) => {}
        }
        write!(f, "{}/{}", self.container, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> Result<String, String> {
        text.parse::<PortSpec>().map(|spec| spec.to_string()).map_err(|error| error.message)
    }

    #[test]
    fn docker_forms_are_read() {
        for (text, read) in [
            ("80", "80/tcp"),
            ("80/udp", "80/udp"),
            ("80/UDP", "80/udp"),
            ("80/", "80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("0:80", "80/tcp"),
            (":80", "80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80/sctp", "127.0.0.1::80/sctp"),
            ("[::1]:80:80", "[::1]:80:80/tcp"),
            ("[::1]::80", "[::1]::80/tcp"),
            ("::1:80:80", "[::1]:80:80/tcp"),
            ("0.0.0.0:80:80", "0.0.0.0:80:80/tcp"),
            ("8000-8010:80-90", "8000-8010:80-90/tcp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("10000-12000", "10000-12000/tcp"),
            ("1-65535:1-65535/udp", "1-65535:1-65535/udp"),
        ] {
            assert_eq!(spec(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_dockers_words() {
        for (text, message) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("x:80:80", "invalid IP address: x"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[::1:80:80", "invalid IP address: [::1"),
            ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
            ("http", "invalid containerPort: http"),
            ("0", "invalid containerPort: 0"),
            ("65536", "invalid containerPort: 65536"),
            ("-1", "invalid containerPort: -1"),
            ("+80", "invalid containerPort: +80"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80-90-100", "invalid containerPort: 80-90-100"),
            ("x:80", "invalid hostPort: x"),
            ("99999:80", "invalid hostPort: 99999"),
            ("0-5:80", "invalid hostPort: 0-5"),
            ("8000-8005:80-90", "invalid ranges specified for container and host Ports: 80-90 and 8000-8005"),
            ("8000:80-90", "invalid ranges specified for container and host Ports: 80-90 and 8000"),
            ("80/icmp", "invalid proto: icmp"),
            ("224.0.0.1:80:80", "cannot publish ports at 224.0.0.1: it is nobody's own"),
            ("[ff02::1]:80:80", "cannot publish ports at ff02::1: it is nobody's own"),
            ("255.255.255.255::80", "cannot publish ports at 255.255.255.255: it is nobody's own"),
            (
                "[fe80::1]:80:80",
                "cannot publish ports at fe80::1: a link-local address is that of one interface, which cannot be said here",
            ),
        ] {
            assert_eq!(spec(text), Err(message.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_spec_that_is_printed_reads_the_same(
            address in prop::option::of(any::<IpAddr>()),
            host in prop::option::of((1u16.., 0u16..100)),
            container in 1u16..,
            protocol in 0usize..3,
        ) {
            let address = address.filter(|address| publishable(address.to_canonical()).is_ok());
            let host = host.map(|(first, more)| Ports { first, last: first.saturating_add(more) });
            let container = Ports { first: container, last: container };
            let spec = PortSpec::new(address, host, container, Protocol::ALL[protocol]).unwrap();
            prop_assert_eq!(spec.to_string().parse::<PortSpec>().unwrap(), spec);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|[0-9:\\[\\]./a-f-]{0,40}") {
            if let Ok(spec) = text.parse::<PortSpec>() {
                prop_assert!(spec.container.first != 0 && spec.container.first <= spec.container.last);
                prop_assert!(spec.host.is_none_or(|host| host.first != 0));
            }
        }
    }
}
