//! What a request's path and query name.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};

use super::error::Refusal;

/// The one variable segment of a path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Name(pub(crate) String);

/// The parameters of a query, decoded, in their order.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The first value of `key`; empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Refusal::invalid(format!("invalid path: {}", rejection.body_text()))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(rejection) => Err(Refusal::invalid(format!("invalid query: {}", rejection.body_text()))),
        }
    }
}
