//! Bandwidth of an endpoint.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How fast an endpoint may send and be sent to, as the endpoint sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Into it.
    pub ingress: Option<Rate>,
    /// Out of it.
    pub egress: Option<Rate>,
}

/// A rate, and what may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// A second.
    pub per_second: Bits,
    /// At once.
    pub burst: Bits,
}

/// So many bits; `1500`, `64kbit`, `2.5mbit` or `1gbit` in text, where k, m, g and t are powers of a thousand as on any link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bits(pub u64);

/// A text that says no number of bits.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no number of bits such as 500kbit, 100mbit or 2.5gbit")]
pub struct InvalidBits(String);

const UNITS: [(&str, u64); 5] =
    [("t", 1_000_000_000_000), ("g", 1_000_000_000), ("m", 1_000_000), ("k", 1_000), ("", 1)];

impl FromStr for Bits {
    type Err = InvalidBits;

    fn from_str(text: &str) -> Result<Self, InvalidBits> {
        let invalid = || InvalidBits(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let number = lower.strip_suffix("bit").unwrap_or(&lower);
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((number.strip_suffix(name)?, *unit)))
            .ok_or_else(invalid)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        if !digits(whole) || !digits(part) {
            return Err(invalid());
        }
        let whole =
            whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit)).ok_or_else(invalid)?;
        // What is left of a bit is dropped.
        let (mut tenth, mut bits) = (unit, whole);
        for digit in part.bytes() {
            tenth /= 10;
            bits = bits.checked_add(u64::from(digit - b'0') * tenth).ok_or_else(invalid)?;
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .unwrap_or(&UNITS[4]);
        write!(f, "{}{name}bit", self.0 / unit)
    }
}

impl Rate {
    /// The least and the greatest rate.
    pub const RANGE: (Bits, Bits) = (Bits(1_000), Bits(1_000_000_000_000));
    /// The greatest burst, CNI's own: 4 GiB.
    pub const LARGEST_BURST: Bits = Bits(8 * u32::MAX as u64);

    /// A rate, with a burst that makes good what a busy host is late: as much as goes in a fiftieth of a second, or half a
    /// super-frame.
    pub const fn new(per_second: Bits) -> Self {
        let (least, fiftieth) = (8 * 32_768, per_second.0 / 50);
        Self { per_second, burst: Bits(if fiftieth > least { fiftieth } else { least }) }
    }

    /// The rate in bytes.
    pub fn bytes_per_second(self) -> u64 {
        (self.per_second.0 / 8).max(1)
    }

    /// How long the burst takes at the rate, in nanoseconds.
    pub fn burst_time(self) -> u64 {
        let time = u128::from(self.burst.0) * 1_000_000_000 / u128::from(self.per_second.0.max(1));
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_and_written() {
        for (text, bits, shown) in [
            ("1500", 1500, "1500bit"),
            ("64kbit", 64_000, "64kbit"),
            ("100M", 100_000_000, "100mbit"),
            ("2.5gbit", 2_500_000_000, "2500mbit"),
            ("1.0005k", 1000, "1kbit"),
            ("1tbit", 1_000_000_000_000, "1tbit"),
            ("0", 0, "0bit"),
        ] {
            let read: Bits = text.parse().unwrap();
            assert_eq!((read, read.to_string().as_str()), (Bits(bits), shown));
        }
        for bad in
            ["", "bit", "k", "-1", "1.", ".5m", "1e6", "1 mbit", "1mb", "1mbps", "99999999999t", "1.5.5k"]
        {
            assert!(bad.parse::<Bits>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_bytes_and_a_burst_time() {
        let rate = Rate { per_second: Bits(8_000_000), burst: Bits(80_000) };
        assert_eq!((rate.bytes_per_second(), rate.burst_time()), (1_000_000, 10_000_000));
        assert_eq!(Rate::new(Bits(1_000_000_000)).burst, Bits(20_000_000));
        assert_eq!(Rate::new(Bits(1_000)).burst, Bits(262_144));
    }
}
