//! An endpoint's port of its bridge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The VLAN that a port is in if nothing else is said, and that the bridge itself is in.
pub const DEFAULT_VLAN: u16 = 1;

/// How the bridge, and with it the datapath, treats an endpoint's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The VLAN of untagged frames; [`DEFAULT_VLAN`] if absent. Means something only where the bridge tells VLANs apart.
    pub vlan: Option<u16>,
    /// The VLANs of tagged frames.
    pub trunk: Vec<VlanRange>,
    /// Two such ports do not hear each other.
    pub isolated: bool,
    /// Frames may go back out of the port that they came in by.
    pub hairpin: bool,
    /// Frames must have the endpoint's own addresses as their source.
    pub mac_spoof_check: bool,
}

impl Default for Port {
    fn default() -> Self {
        Self { vlan: None, trunk: Vec::new(), isolated: false, hairpin: false, mac_spoof_check: true }
    }
}

/// VLANs from `first` to `last`, both included; `7` or `7-9` in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VlanRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A text that is no VLAN and no range of them.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a VLAN from 1 to 4094 nor a range of them")]
pub struct InvalidVlan(String);

/// Reads the number of a VLAN; 0 and 4095 are none (IEEE 802.1Q 9.6).
pub fn vlan(text: &str) -> Result<u16, InvalidVlan> {
    let number = text.parse().ok().filter(|number| (1..=4094).contains(number));
    number.ok_or_else(|| InvalidVlan(text.to_owned()))
}

impl FromStr for VlanRange {
    type Err = InvalidVlan;

    fn from_str(text: &str) -> Result<Self, InvalidVlan> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (vlan(first)?, vlan(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(InvalidVlan(text.to_owned())) }
    }
}

impl fmt::Display for VlanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_read_and_written() {
        for text in ["1", "4094", "7-9", "1-4094"] {
            assert_eq!(text.parse::<VlanRange>().unwrap().to_string(), text);
        }
        assert_eq!("7-7".parse::<VlanRange>().unwrap().to_string(), "7");
        for bad in ["", "0", "4095", "9-7", "a", "1-", "-1", "1-2-3", "70000"] {
            assert!(bad.parse::<VlanRange>().is_err(), "{bad}");
        }
    }
}
