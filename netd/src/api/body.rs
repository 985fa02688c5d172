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
use serde_json::Value;

use super::error::{JSON, Refusal};

/// The most bytes that a request's body may have: 1 MiB.
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
        let body = read(body).await?;
        check_content_type(content_type, body.is_empty())?;
        parse(&body).map(Self)
    }
}

/// The whole body, if it comes in time and is not too large.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, LIMIT);
    match tokio::time::timeout(PATIENCE, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("request body is larger than {LIMIT} bytes"),
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

/// `body` as Go would decode it: nothing at all is an empty object, `null` for a field is a field left out.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let mut value = if body.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = serde::Deserialize::deserialize(&mut deserializer)
            .map_err(|error: serde_json::Error| Refusal::invalid(format!("invalid JSON: {error}")))?;
        deserializer.end().map_err(|_| Refusal::invalid("unexpected content after JSON"))?;
        value
    };
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    if !value.is_object() {
        return Err(Refusal::invalid("invalid JSON: not an object"));
    }
    drop_nulls(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        Refusal::invalid(match path.as_str() {
            "." => format!("invalid JSON: {reason}"),
            _ => format!("invalid JSON: {path}: {reason}"),
        })
    })
}

/// Removes the fields of objects, at any depth, that are null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Form {
        name: String,
        labels: std::collections::BTreeMap<String, String>,
        inner: Vec<Form>,
    }

    fn refused(body: &[u8]) -> String {
        let refusal = parse::<Form>(body).unwrap_err();
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        refusal.message
    }

    #[test]
    fn unknown_keys_and_nulls_are_as_if_absent() {
        let form: Form =
            parse(br#"{"Name":"a","Labels":null,"Inner":[{"Name":null}],"More":{"x":[1]}} "#).unwrap();
        assert_eq!(form, Form { name: "a".into(), inner: vec![Form::default()], ..Form::default() });
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(parse::<Form>(b"").unwrap(), Form::default());
        assert_eq!(parse::<Form>(b"null").unwrap(), Form::default());
    }

    #[test]
    fn malformed_bodies_are_told_apart() {
        assert!(refused(b"{invalid json").starts_with("invalid JSON: "));
        assert!(refused(b"{\"Name\":").starts_with("invalid JSON: "));
        assert!(refused(b"  ").starts_with("invalid JSON: "));
        assert!(refused(b"{\"Name\":\"\xff\"}").starts_with("invalid JSON: "));
        assert_eq!(refused(b"{} trailing content"), "unexpected content after JSON");
        assert_eq!(refused(b"{}{}"), "unexpected content after JSON");
        assert!(refused(&b"[".repeat(100_000)).starts_with("invalid JSON: "));
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        assert_eq!(
            refused(br#"{"Inner":[{"Labels":{"a":1}}]}"#),
            "invalid JSON: Inner[0].Labels.a: invalid type: integer `1`, expected a string"
        );
        assert_eq!(refused(b"[]"), "invalid JSON: not an object");
        assert_eq!(refused(b"7"), "invalid JSON: not an object");
    }

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
