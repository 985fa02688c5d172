//! Versions of the API: the `/v1.50` that a path may begin with, and the headers that tell what is spoken here.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{error::Refusal, parameter};

/// The newest version, spoken where a path names none.
pub(crate) const NEWEST: &str = "1.50";
/// The oldest version.
pub(crate) const OLDEST: &str = "1.24";

/// What all answers carry, beside `Api-Version`. `Server` is what Docker's clients look for.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (HeaderName::from_static("api-version"), HeaderValue::from_static(NEWEST)),
    (HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false")),
    (HeaderName::from_static("ostype"), HeaderValue::from_static("linux")),
    (header::SERVER, HeaderValue::from_static("Docker/28.2.2 (linux)")),
];

/// A version that was named in a path, as it was written.
#[derive(Clone)]
struct Named(String);

/// The version that a client speaks: the newest if it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(Vec<u64>);

impl Version {
    /// Whether it is older than `other`.
    pub(crate) fn is_before(&self, other: &str) -> bool {
        self.0 < numbers(other)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let named = parts.extensions.get().map_or(NEWEST, |Named(version)| version);
        Ok(Self(numbers(named)))
    }
}

/// Around the whole router: takes the version out of the path, and puts the headers on the answer.
pub(crate) async fn negotiate(mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    let (version, path) = match split(uri.path()) {
        Some((version, path)) => (Some(Named(version.to_owned())), path),
        None => (None, uri.path()),
    };
    let path = parameter::enclose(request.method(), path).unwrap_or_else(|| path.to_owned());
    if path != uri.path() {
        let path_and_query = match uri.query() {
            None => path,
            Some(query) => format!("{path}?{query}"),
        };
        // A suffix of a valid path that begins with a slash is a valid path.
        if let Ok(uri) = path_and_query.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    if let Some(version) = version {
        request.extensions_mut().insert(version);
    }
    let mut response = match *request.method() {
        // Docker answers it at any path.
        Method::OPTIONS => StatusCode::OK.into_response(),
        // `/_ping` alone has a HEAD of its own; axum would answer it wherever there is a GET.
        Method::HEAD if request.uri().path() != "/_ping" => Refusal::page_not_found().into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().extend(HEADERS);
    response
}

/// Around each route: refuses a version that is not spoken here.
pub(crate) async fn check(request: Request, next: Next) -> Response {
    match request.extensions().get::<Named>().map(|Named(version)| refuse(version)) {
        Some(Err(refusal)) => refusal.into_response(),
        _ => next.run(request).await,
    }
}

/// `/v1.50/networks` is `1.50` and `/networks`.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let at = rest.find('/')?;
    let version = &rest[..at];
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_version.then_some((version, &rest[at..]))
}

/// Whether `version` is spoken here; if not, in Docker's words.
fn refuse(version: &str) -> Result<(), Refusal> {
    let numbers = numbers(version);
    if numbers < self::numbers(OLDEST) {
        Err(Refusal::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {OLDEST}, \
             please upgrade your client to a newer version"
        )))
    } else if numbers > self::numbers(NEWEST) {
        Err(Refusal::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {NEWEST}"
        )))
    } else {
        Ok(())
    }
}

/// The numbers between the dots, without zeros at the end: `1.50` and `1.50.0` are one version.
fn numbers(version: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = version.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_digits_and_dots() {
        assert_eq!(split("/v1.50/networks/a"), Some(("1.50", "/networks/a")));
        assert_eq!(split("/v1/"), Some(("1", "/")));
        for path in
            ["/networks", "/v1.50", "/v/networks", "/vx/networks", "/v1a/networks", "v1.50/x", "/", ""]
        {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        for spoken in ["1.24", "1.50", "1.43", "1.50.0", "1.30.7"] {
            assert_eq!(refuse(spoken), Ok(()), "{spoken}");
        }
        assert_eq!(
            refuse("1.10").unwrap_err().message,
            "client version 1.10 is too old. Minimum supported API version is 1.24, \
             please upgrade your client to a newer version"
        );
        for (old, new) in [("1.5", "1.99"), ("1.9", "9.99"), ("0", "1.50.1"), ("1", "99999999999999999999.1")]
        {
            assert!(refuse(old).unwrap_err().message.contains("is too old"), "{old}");
            assert!(refuse(new).unwrap_err().message.contains("is too new"), "{new}");
        }
    }
}
