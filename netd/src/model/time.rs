//! Points in time as the API shows them.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

/// A wall-clock time; `2025-06-01T10:00:00.123456789Z` in text, with as many decimals as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(SystemTime);

impl Timestamp {
    /// The present.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// For arithmetic.
    pub const fn system_time(self) -> SystemTime {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_rfc3339_nanos(self.0).to_string();
        write!(f, "{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = humantime::TimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_rfc3339(&text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_has_no_zeros_at_its_end() {
        for (nanoseconds, text) in [
            (123_456_789, "2025-06-01T10:00:00.123456789Z"),
            (120_000_000, "2025-06-01T10:00:00.12Z"),
            (0, "2025-06-01T10:00:00Z"),
        ] {
            let time: Timestamp = (SystemTime::UNIX_EPOCH + Duration::new(1_748_772_000, nanoseconds)).into();
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::try_from(text.to_owned()).unwrap(), time);
        }
    }
}
