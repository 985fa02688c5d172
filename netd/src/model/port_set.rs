//! Sets of ports, as the kernel writes them in `ip_local_reserved_ports`: `80,8000-8010`.

use std::{fmt, str::FromStr};

use super::Ports;

const WORDS: usize = 65_536 / 64;

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl PortSet {
    /// Adds ports.
    pub fn add(&mut self, ports: Ports) {
        for port in ports.first..=ports.last {
            self.0[usize::from(port) / 64] |= 1 << (port % 64);
        }
    }

    /// Whether the port is in it.
    pub fn has(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] & 1 << (port % 64) != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// What is in either.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, more)| *word |= more);
        self
    }

    /// What is not in the other.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, less)| *word &= !less);
        self
    }

    /// The ports in as few ranges as there can be.
    pub fn ranges(&self) -> Vec<Ports> {
        let mut ranges: Vec<Ports> = Vec::new();
        for port in (0..=u16::MAX).filter(|port| self.has(*port)) {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == port => range.last = port,
                _ => ranges.push(Ports { first: port, last: port }),
            }
        }
        ranges
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            set.add(Ports::parse(part).ok_or_else(|| format!("`{part}` is no port"))?);
        }
        Ok(set)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.ranges().iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().unwrap()
    }

    #[test]
    fn sets_are_written_as_the_kernel_writes_them() {
        for (text, written) in
            [("", ""), ("80", "80"), ("80,81,82", "80-82"), ("9,7-8\n", "7-9"), ("0-65535", "0-65535")]
        {
            assert_eq!(set(text).to_string(), written);
        }
        assert!("80,x".parse::<PortSet>().is_err() && "90-80".parse::<PortSet>().is_err());
    }

    #[test]
    fn what_is_added_can_be_taken_out() {
        let both = set("80,443").and(&set("8000-8010,443"));
        assert_eq!(both.to_string(), "80,443,8000-8010");
        assert_eq!(both.without(&set("8000-8010")), set("80,443"));
        assert!(set("1").without(&set("1")).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(ports: Vec<u16>) {
            let mut ports_set = PortSet::default();
            for &port in &ports {
                ports_set.add(Ports { first: port, last: port });
            }
            prop_assert_eq!(set(&ports_set.to_string()), ports_set.clone());
            prop_assert!(ports.iter().all(|port| ports_set.has(*port)));
        }
    }
}
