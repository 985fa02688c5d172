//! Identifiers of networks and endpoints.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// 256 random bits; 64 lower-case hexadecimal digits to everybody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id([u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an id: 64 hexadecimal digits are")]
pub struct InvalidId(String);

impl Id {
    /// Before all others in their order.
    pub(super) const FIRST: Self = Self([0; 32]);
    /// Behind all others.
    pub(super) const LAST: Self = Self([u8::MAX; 32]);

    /// The id with these bytes, which should be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The first 12 digits, as tables show them.
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(12);
        digits
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_digits() {
        let id = Id::new(core::array::from_fn(|i| i as u8));
        let text = id.to_string();
        assert!(text.starts_with("000102030405") && text.ends_with("1f"));
        assert_eq!(id.short(), "000102030405");
        assert_eq!(text.parse::<Id>().unwrap(), id);
        assert!("00".parse::<Id>().is_err() && "g".repeat(64).parse::<Id>().is_err());
        assert!("é".repeat(32).parse::<Id>().is_err());
    }
}
