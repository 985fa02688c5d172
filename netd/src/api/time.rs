//! Points in time as clients name them in `since` and `until`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::Refusal;

/// Reads `text`: seconds since 1970 with up to nine decimals, a date and time of RFC 3339, or a duration (`24h`,
/// `1h30m`) before `now`.
pub(crate) fn parse(field: &str, text: &str, now: SystemTime) -> Result<SystemTime, Refusal> {
    unix(text)
        .or_else(|| humantime::parse_rfc3339(text).ok())
        .or_else(|| now.checked_sub(humantime::parse_duration(text).ok()?))
        .ok_or_else(|| {
            Refusal::invalid(format!(
                "invalid {field} '{text}': neither seconds since 1970, nor a time as in RFC 3339, nor a duration"
            ))
        })
}

/// `SECONDS` or `SECONDS.FRACTION`.
fn unix(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |text| parse("until", text, now).map(|time| time.duration_since(UNIX_EPOCH).unwrap());
        assert_eq!(at("7"), Ok(Duration::from_secs(7)));
        assert_eq!(at("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(at("1.000000001"), Ok(Duration::new(1, 1)));
        assert_eq!(at("1970-01-01T00:01:00Z"), Ok(Duration::from_secs(60)));
        assert_eq!(at("1h30m"), Ok(Duration::from_secs(1_000_000 - 5400)));
        for bad in ["", "x", "-1", "1.", ".5", "1.0000000001", "99999999999999999999"] {
            assert!(at(bad).unwrap_err().message.starts_with(&format!("invalid until '{bad}'")));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}") {
            let _ = parse("since", &text, UNIX_EPOCH);
        }
    }
}
