//! What the daemon says on stderr.

use std::{
    fmt::Arguments,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

use log::{Level, LevelFilter};

use crate::{
    config::{Log, LogFormat},
    model::{Timestamp, printable},
};

/// Whether lines are objects of JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Logs from now on, as `log` has it: `2025-06-01T10:00:00.123456789Z INFO create network n1`.
pub(super) fn start(log: Log) {
    env_logger::Builder::new()
        // The netlink crates warn of every attribute that is younger than they are, and print what they hear of next hop objects.
        .filter_level(LevelFilter::Error)
        .filter_module("netlink_proto::codecs", LevelFilter::Off)
        .filter_module("netd", LevelFilter::Trace)
        .format(|line, record| {
            let text = if JSON.load(Ordering::Relaxed) { json } else { plain };
            writeln!(line, "{}", text(&Timestamp::now(), record.level(), record.args()))
        })
        .init();
    change(log);
}

/// Logs as `log` has it from now on.
pub(super) fn change(log: Log) {
    JSON.store(log.format == LogFormat::Json, Ordering::Relaxed);
    ::log::set_max_level(log.level);
}

fn plain(time: &Timestamp, level: Level, message: &Arguments<'_>) -> String {
    format!("{time} {level:5} {}", printable(&message.to_string()))
}

/// As Docker's daemon writes it.
fn json(time: &Timestamp, level: Level, message: &Arguments<'_>) -> String {
    let level = match level {
        Level::Warn => "warning".to_owned(),
        level => level.as_str().to_lowercase(),
    };
    serde_json::json!({"level": level, "msg": message.to_string(), "time": time.to_string()}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people_or_for_programs() {
        let time = Timestamp::now();
        assert_eq!(plain(&time, Level::Info, &format_args!("a \"b\"")), format!("{time} INFO  a \"b\""));
        assert_eq!(plain(&time, Level::Warn, &format_args!("a\nb")), format!("{time} WARN  a\\nb"));
        assert_eq!(
            json(&time, Level::Warn, &format_args!("a \"b\"")),
            format!(r#"{{"level":"warning","msg":"a \"b\"","time":"{time}"}}"#)
        );
    }
}
