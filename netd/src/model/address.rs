//! Ethernet addresses as people and JSON write them; and which addresses are of one link alone.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// Whether an address is link-local, of either family (RFC 3927, RFC 4291 section 2.5.6).
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Six bytes, first on the wire first; `02:42:ac:11:00:02` in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress([u8; 6]);

/// A text that is not six hexadecimal bytes with colons or hyphens between them.
#[derive(Debug, thiserror::Error)]
#[error("invalid MAC address {0}")]
pub struct InvalidMacAddress(String);

impl MacAddress {
    /// The address with these bytes.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The bytes.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered unicast address out of six random bytes.
    pub const fn local(mut random: [u8; 6]) -> Self {
        random[0] = random[0] & !1 | 2;
        Self(random)
    }

    /// The link-local address that the kernel gives an interface with this one (RFC 4291 appendix A).
    pub const fn link_local(self) -> Ipv6Net {
        let [a, b, c, d, e, f] = self.0;
        let address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::from_be_bytes(address)), 64)
    }

    /// Whether one interface can bear it: neither a group's nor all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl From<MacAddress> for netd_common::addr::Mac {
    fn from(mac: MacAddress) -> Self {
        Self::new(mac.0)
    }
}

impl From<netd_common::addr::Mac> for MacAddress {
    fn from(mac: netd_common::addr::Mac) -> Self {
        Self(mac.octets())
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMacAddress> {
        let invalid = || InvalidMacAddress(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMacAddress;

    fn try_from(text: String) -> Result<Self, InvalidMacAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_written() {
        let mac: MacAddress = "02-42-AC:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "02:42:ac:11:00:0g"] {
            assert_eq!(
                bad.parse::<MacAddress>().unwrap_err().to_string(),
                format!("invalid MAC address {bad}")
            );
        }
    }

    #[test]
    fn a_link_local_address_follows_from_it() {
        let mac: MacAddress = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::42:acff:fe11:2/64");
    }

    #[test]
    fn local_addresses_are_unicast() {
        assert_eq!(MacAddress::local([0xff; 6]).octets()[0], 0xfe);
        assert!(MacAddress::local([0xff; 6]).is_unicast() && MacAddress::local([0; 6]).is_unicast());
        assert!(!MacAddress::new([0; 6]).is_unicast() && !MacAddress::new([1, 0, 0, 0, 0, 1]).is_unicast());
    }
}
