//! JSON bodies, as strict and as lax as Docker's daemon is with them.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{JSON, Refusal},
    json,
};

/// The most bytes that the body of a client's request may have: 1 MiB.
pub(crate) const LIMIT: usize = 1 << 20;
/// How long a client may take to send a body.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A body in JSON: extracted from a request, or the answer to one, which ends with a line feed as Go's encoder writes it.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(mut body) => {
                body.push(b'\n');
                ([JSON], body).into_response()
            }
            Err(error) => {
                log::error!("an answer cannot be written as JSON: {error}");
                let body = "{\"message\":\"the answer cannot be written as JSON\"}\n";
                (StatusCode::INTERNAL_SERVER_ERROR, [JSON], body).into_response()
            }
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let content_type = match head.headers.get(header::CONTENT_TYPE) {
            Some(value) => Some(value.to_str().map_err(|_| {
                Refusal::invalid("malformed Content-Type header: it has characters other than visible ASCII")
            })?),
            None => None,
        };
        let body = read(body, LIMIT).await?;
        check_content_type(content_type, body.is_empty())?;
        json::read(&body).map(Self)
    }
}

/// The whole body, if it comes in time and has no more than `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, limit);
    match tokio::time::timeout(PATIENCE, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("request body is larger than {limit} bytes"),
        }),
        Ok(Err(error)) => Err(Refusal::invalid(format!("request body cannot be read: {error}"))),
        Err(_) => Err(Refusal {
            status: StatusCode::REQUEST_TIMEOUT,
            message: format!("request body did not arrive within {} s", PATIENCE.as_secs()),
        }),
    }
}

/// Refuses a body of another type. No header is fine where there is no body.
fn check_content_type(header: Option<&str>, empty: bool) -> Result<(), Refusal> {
    let Some(header) = header else {
        return if empty {
            Ok(())
        } else {
            Err(Refusal::invalid("malformed Content-Type header (): mime: no media type"))
        };
    };
    let media = header.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::invalid(format!(
            "unsupported Content-Type header ({header}): must be 'application/json'"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_must_be_json_where_there_is_a_body() {
        let refused = |header, empty| check_content_type(header, empty).unwrap_err().message;
        check_content_type(None, true).unwrap();
        check_content_type(Some("application/json"), true).unwrap();
        check_content_type(Some("Application/JSON; charset=utf-8"), false).unwrap();
        assert_eq!(
            refused(Some("text/plain"), true),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert_eq!(
            refused(Some("application/jsonx"), false),
            "unsupported Content-Type header (application/jsonx): must be 'application/json'"
        );
        assert_eq!(refused(None, false), "malformed Content-Type header (): mime: no media type");
    }
}
