//! What a request's path and query name.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{Method, request::Parts},
};
use percent_encoding::percent_decode_str;

use super::error::Refusal;

/// The one variable segment of a path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Name(pub(crate) String);

/// The parameters of a query, decoded, in their order.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

/// What `path` has to be so that the network it names is one segment of it, whatever the name is made of: Docker lets a
/// name have slashes, and be `create`. `None` if it names none.
pub(crate) fn enclose(method: &Method, path: &str) -> Option<String> {
    let rest = path.strip_prefix("/networks/").filter(|rest| !rest.is_empty())?;
    let (name, action) = match *method {
        Method::GET | Method::DELETE => (rest, ""),
        _ => rest.rfind('/').map(|at| rest.split_at(at)).filter(|(_, action)| is_action(action))?,
    };
    let name: String = percent_decode_str(name).map(|byte| format!("%{byte:02X}")).collect();
    Some(format!("/networks/{name}{action}"))
}

fn is_action(segment: &str) -> bool {
    matches!(segment, "/connect" | "/disconnect")
}

impl Parameters {
    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of `key`; empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.all(key).next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_any_name_is_one_segment() {
        let enclosed = |method: &str, path: &str| enclose(&method.parse().unwrap(), path);
        assert_eq!(enclosed("GET", "/networks/a/b").as_deref(), Some("/networks/%61%2F%62"));
        assert_eq!(enclosed("DELETE", "/networks/%23").as_deref(), Some("/networks/%23"));
        assert_eq!(
            enclosed("GET", "/networks/a/connect").as_deref(),
            Some("/networks/%61%2F%63%6F%6E%6E%65%63%74")
        );
        assert_eq!(enclosed("POST", "/networks/a/b/connect").as_deref(), Some("/networks/%61%2F%62/connect"));
        for (method, path) in
            [("GET", "/networks"), ("GET", "/networks/"), ("POST", "/networks/create"), ("GET", "/_ping")]
        {
            assert_eq!(enclosed(method, path), None, "{method} {path}");
        }
    }
}
