//! The host's resolvers.

use std::{fs, net::IpAddr};

/// Where the system keeps them.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's name servers, in their order; none if the file cannot be read.
pub fn nameservers() -> Vec<IpAddr> {
    parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The name servers of a resolv.conf(5).
fn parse(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_in_their_order() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\n nameserver 10.0.0.2 # two\nnameserver fd00::1\nnameserver x\n";
        assert_eq!(parse(text), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
