//! Points in time as clients name them in `since` and `until`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads `text` as Docker does: a duration (`24h`, `1h30m`) before `now`; a date, or a date and time, with the zone or else in
/// UTC; or seconds since 1970 with up to nine decimals.
pub(crate) fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    if text != "0"
        && let Some((duration, ahead)) = duration(text)
    {
        return if ahead { now.checked_add(duration) } else { now.checked_sub(duration) };
    }
    date(text).or_else(|| unix(text))
}

/// A duration as Go writes it, and whether it is negative.
fn duration(text: &str) -> Option<(Duration, bool)> {
    let (mut rest, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    if rest == "0" {
        return Some((Duration::ZERO, negative));
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| number + at);
        let nanoseconds = match &rest[number..unit] {
            "ns" => 1e0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let count: f64 = rest[..number].parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(count * nanoseconds / 1e9).ok()?)?;
        rest = &rest[unit..];
    }
    Some((sum, negative))
}

/// `2006-01-02`, and as much of `T15:04:05.999` as there is, and `Z` or `+07:00`.
fn date(text: &str) -> Option<SystemTime> {
    let day = text.get(..10)?;
    let rest = &text[10..];
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let clock = match clock.strip_prefix('T') {
        None if clock.is_empty() => "00:00:00".to_owned(),
        None => return None,
        // A whole clock, of which the end is missing.
        Some(clock) if clock.len() < 8 && [2, 5].contains(&clock.len()) => {
            clock.to_owned() + &":00:00"[clock.len() - 2..]
        }
        Some(clock) => clock.to_owned(),
    };
    let utc = humantime::parse_rfc3339(&format!("{day}T{clock}Z")).ok()?;
    let Some(sign) = zone.chars().next().filter(|sign| matches!(sign, '+' | '-')) else {
        return matches!(zone, "" | "Z" | "z").then_some(utc);
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u64>().ok())?;
    let offset = Duration::from_secs(number(hours)? * 3600 + number(minutes)? * 60);
    if sign == '+' { utc.checked_sub(offset) } else { utc.checked_add(offset) }
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
    fn every_form_is_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |text| parse(text, now).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_millis());
        for (text, seconds) in [
            ("7", 7.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("1h30m", 994_600.0),
            ("1.5h", 994_600.0),
            ("24h", 913_600.0),
            ("-10s", 1_000_010.0),
            ("100ms", 999_999.9),
            ("1970-01-02", 86_400.0),
            ("1970-01-02T01", 90_000.0),
            ("1970-01-02T01:01", 90_060.0),
            ("1970-01-02T01:01:01", 90_061.0),
            ("1970-01-02T01:01:01.5", 90_061.5),
            ("1970-01-02T01:01:01Z", 90_061.0),
            ("1970-01-02T01:01:01+01:00", 86_461.0),
            ("1970-01-02T01:01:01.25-00:30", 91_861.25),
            ("1970-01-02Z", 86_400.0),
        ] {
            assert_eq!(at(text), Some((seconds * 1000.0) as u128), "{text}");
        }
        for bad in [
            "",
            "x",
            "-",
            "+",
            "-1",
            "1.",
            ".5",
            "1.0000000001",
            "99999999999999999999",
            "1d",
            "h",
            "1h30",
            "1970-13-01",
            "1970-01-02T",
            "1970-01-02T1",
            "1970-01-02 01:01:01",
            "1970-01-02T01:01:01+1",
            "1970-01-02é",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}", near in "[0-9TZ:.+hms-]{0,24}") {
            let _ = parse(&text, UNIX_EPOCH);
            let _ = parse(&near, UNIX_EPOCH);
        }
    }
}
