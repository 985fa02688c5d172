//! What is logged, and how.

use super::settings::{Invalid, Settings};

/// What the daemon's log is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least that is logged.
    pub level: log::LevelFilter,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object with time, level and message.
    Json,
}

impl Log {
    pub(super) fn read(settings: &Settings) -> Result<Self, Invalid> {
        let debug = settings.boolean("debug")?.unwrap_or(false);
        let level = match settings.text("log-level")?.map(str::to_lowercase).as_deref() {
            Some("trace") => log::LevelFilter::Trace,
            Some("debug") => log::LevelFilter::Debug,
            None | Some("info") => log::LevelFilter::Info,
            Some("warn") => log::LevelFilter::Warn,
            Some("error" | "fatal" | "panic") => log::LevelFilter::Error,
            Some(level) => return Err(Invalid::new("log-level", format!("invalid logging level: {level}"))),
        };
        let format = match settings.text("log-format")? {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(format) => return Err(Invalid::new("log-format", format!("invalid log format: {format}"))),
        };
        Ok(Self { level: if debug { level.max(log::LevelFilter::Debug) } else { level }, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Log, String> {
        Log::read(&Settings::parse(json.as_bytes()).unwrap()).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn levels_and_formats_are_dockers() {
        assert_eq!(read("{}"), Ok(Log { level: log::LevelFilter::Info, format: LogFormat::Text }));
        assert_eq!(read(r#"{"log-level": "WARN"}"#).unwrap().level, log::LevelFilter::Warn);
        assert_eq!(read(r#"{"log-level": "error", "debug": true}"#).unwrap().level, log::LevelFilter::Debug);
        assert_eq!(read(r#"{"log-format": "json"}"#).unwrap().format, LogFormat::Json);
        assert_eq!(read(r#"{"log-level": "loud"}"#).unwrap_err(), "invalid logging level: loud");
        assert_eq!(read(r#"{"log-format": "xml"}"#).unwrap_err(), "invalid log format: xml");
    }
}
