//! Why a request was refused, in Docker's words.

/// The class of a refusal; each is one HTTP status of Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What the request names does not exist (404).
    NotFound,
    /// The request contradicts itself or cannot be understood (400).
    Invalid,
    /// Something of that name exists already, or an action of that kind is under way (409).
    Conflict,
    /// The request is understood, and not allowed in the present state (403).
    Forbidden,
    /// The daemon cannot serve now (503).
    Unavailable,
    /// Not a thing that netd does (501).
    NotImplemented,
    /// The request was good and the host failed (500).
    Internal,
}

/// A refused request. The message is for the user, and names the field and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The class.
    pub kind: ErrorKind,
    /// The text, Docker's own where Docker has one.
    pub message: String,
}

impl Error {
    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotFound, message: message.into() }
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.into() }
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Conflict, message: message.into() }
    }

    /// [`ErrorKind::Forbidden`].
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Forbidden, message: message.into() }
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, message: message.into() }
    }

    /// [`ErrorKind::NotImplemented`].
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotImplemented, message: message.into() }
    }
}
