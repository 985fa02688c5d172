//! What a plugin says when it fails: an object on standard output, with a code of the specification's.

use std::fmt;

use hyper::StatusCode;
use serde::Serialize;

use super::version::SpecVersion;
use crate::cli::client;

/// Codes 1 to 99 are the specification's, 100 and above a plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decoding = 6,
    InvalidConfig = 7,
    InvalidNamespace = 8,
    TryAgainLater = 11,
    NotAvailable = 50,
    /// The daemon understood and refused.
    Refused = 100,
    /// The attachment is not as it was made.
    Changed = 101,
    /// The host failed; the number that the reference plugins have for all that has no other.
    Internal = 999,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) code: u32,
    pub(super) message: String,
    pub(super) details: String,
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u32, message: message.into(), details: String::new() }
    }

    pub(super) fn with(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The object, in one line.
    pub(super) fn json(&self, version: SpecVersion) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Object<'a> {
            cni_version: &'static str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let (code, msg, details) = (self.code, self.message.as_str(), self.details.as_str());
        let object = Object { cni_version: version.text(), code, msg, details };
        serde_json::to_string(&object).expect("texts and a number")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused { status, message } => {
                let code = match status {
                    StatusCode::NOT_FOUND => Code::UnknownContainer,
                    StatusCode::BAD_REQUEST => Code::InvalidConfig,
                    StatusCode::NOT_IMPLEMENTED => Code::UnsupportedField,
                    StatusCode::SERVICE_UNAVAILABLE => Code::TryAgainLater,
                    StatusCode::CONFLICT | StatusCode::FORBIDDEN => Code::Refused,
                    _ => Code::Internal,
                };
                Self::new(code, message)
            }
            // A daemon that went away in the middle of an answer comes back, as one that is not there.
            client::Error::Connect { .. } | client::Error::Denied { .. } | client::Error::Protocol { .. } => {
                Self::new(Code::TryAgainLater, "netd's daemon does not answer").with(error.to_string())
            }
        }
    }
}
