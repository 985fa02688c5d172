//! Errors as Docker answers them: a status and `{"message":"..."}`.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::engine;

/// A request that is not done: a status, and the reason in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What a client's code looks at.
    pub(crate) status: StatusCode,
    /// What a person reads; never empty, for the CLI takes an empty one for a server that speaks another API.
    pub(crate) message: String,
}

impl Refusal {
    /// 400: the request cannot mean anything.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// 404, for a path or a method that the API does not have.
    pub(crate) fn page_not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, message: "page not found".into() }
    }

    /// 500: the fault is on this side.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        use engine::ErrorKind as Kind;
        let status = match error.kind {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.message }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            message: String,
        }
        (self.status, super::body::Json(Body { message: self.message })).into_response()
    }
}

/// The type of all bodies but `/_ping`'s and `/metrics`'. A client that sees any other prints the raw body.
pub(crate) const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");
