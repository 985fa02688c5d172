//! Prefixes as people write them.

use std::{net::IpAddr, str::FromStr};

/// Reads an address, a slash and a length. A number with zeros before it, which `ipnet` would take, is none: some read such as
/// octal, and Go's programs refuse them.
pub fn prefix<T: FromStr>(text: &str) -> Option<T> {
    let (address, length) = text.split_once('/')?;
    address.parse::<IpAddr>().ok()?;
    let is_padded = length.len() > 1 && length.starts_with('0');
    text.parse().ok().filter(|_| !is_padded)
}

#[cfg(test)]
mod tests {
    use ipnet::{IpNet, Ipv4Net};

    use super::*;

    #[test]
    fn numbers_begin_with_what_they_are() {
        for text in ["10.1.0.0/24", "0.0.0.0/0", "fd00:0db8::/64", "::/0", "10.1.0.7/8"] {
            assert!(prefix::<IpNet>(text).is_some(), "{text}");
        }
        for text in [
            "010.1.0.0/24",
            "10.1.0.00/24",
            "10.1.0.0/08",
            "fd00::/064",
            "10.1.0.0",
            "10.1.0.0/",
            "/8",
            "fd00::%1/64",
        ] {
            assert_eq!(prefix::<IpNet>(text), None, "{text}");
        }
        assert_eq!(prefix::<Ipv4Net>("fd00::/64"), None);
    }
}
