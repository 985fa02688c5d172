//! JSON as Go's decoder takes it: fields are named in upper or lower case, and `null` is what a thing is if nothing is said
//! of it.

use std::collections::BTreeMap;

use serde::de::{
    DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor,
    value::{MapDeserializer, SeqDeserializer},
};
use serde_json::{Error, Map, Value};

use super::error::Refusal;

/// Reads a body. Nothing at all is as good as an empty object.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let value = if body.is_empty() {
        Value::Null
    } else if body.trim_ascii().is_empty() {
        return Err(Refusal::invalid("invalid JSON: got EOF while reading request body"));
    } else {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = serde::Deserialize::deserialize(&mut deserializer)
            .map_err(|error: Error| Refusal::invalid(format!("invalid JSON: {error}")))?;
        deserializer.end().map_err(|_| Refusal::invalid("unexpected content after JSON"))?;
        value
    };
    if !(value.is_object() || value.is_null()) {
        return Err(Refusal::invalid("invalid JSON: not an object"));
    }
    serde_path_to_error::deserialize(Lax(value)).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        Refusal::invalid(match path.as_str() {
            "." => format!("invalid JSON: {reason}"),
            _ => format!("invalid JSON: {path}: {reason}"),
        })
    })
}

/// A value that is read as Go would.
struct Lax(Value);

impl Lax {
    /// The value, or `zero` for null.
    fn or(self, zero: impl Into<Value>) -> Value {
        if self.0.is_null() { zero.into() } else { self.0 }
    }
}

impl IntoDeserializer<'_, Error> for Lax {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Lax {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Lax))),
            Value::Object(fields) => visitor
                .visit_map(MapDeserializer::new(fields.into_iter().map(|(name, value)| (name, Lax(value))))),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.or(Map::new()) {
            Value::Object(found) => Self(named(found, fields)).deserialize_any(visitor),
            // serde would take its elements for the fields in turn.
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &"an object")),
            other => Self(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or(false).deserialize_any(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or(0).deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or("").deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Self(self.or(Vec::<Value>::new())).deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Self(self.or(Map::new())).deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

/// What was found of the fields of a structure, by the names they have here; one that is written as here comes before others,
/// and one that is null is as good as absent.
fn named(found: Map<String, Value>, fields: &[&str]) -> Value {
    let mut known = BTreeMap::new();
    for (name, value) in found.into_iter().filter(|(_, value)| !value.is_null()) {
        let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&name)) else { continue };
        if name == *field {
            known.insert((*field).to_owned(), value);
        } else {
            known.entry((*field).to_owned()).or_insert(value);
        }
    }
    Value::Object(known.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Form {
        name: String,
        on: bool,
        number: i64,
        labels: BTreeMap<String, String>,
        list: Vec<String>,
        maybe: Option<bool>,
        inner: Vec<Form>,
    }

    fn refused(body: &[u8]) -> String {
        let refusal = read::<Form>(body).unwrap_err();
        assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
        refusal.message
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        let form: Form = read(br#"{"Name":"a","More":{"x":[1]}} "#).unwrap();
        assert_eq!(form, Form { name: "a".into(), ..Form::default() });
    }

    #[test]
    fn null_is_what_a_thing_is_if_nothing_is_said_of_it() {
        let body =
            br#"{"Name":null,"On":null,"Number":null,"Labels":null,"List":null,"Maybe":null,"Inner":null}"#;
        assert_eq!(read::<Form>(body).unwrap(), Form::default());
        let form: Form = read(br#"{"Labels":{"a":null},"List":[null,"b"],"Inner":[null]}"#).unwrap();
        assert_eq!(form.labels, BTreeMap::from([("a".into(), String::new())]));
        assert_eq!((form.list, form.inner), (vec![String::new(), "b".into()], vec![Form::default()]));
    }

    #[test]
    fn the_case_of_a_field_does_not_matter_and_that_of_a_label_does() {
        let form: Form =
            read(br#"{"nAME":"a","labels":{"K":"v","k":"w"},"INNER":[{"maybe":true}]}"#).unwrap();
        assert_eq!((&*form.name, form.labels.len(), form.inner[0].maybe), ("a", 2, Some(true)));
        let form: Form = read(br#"{"name":"other","Name":"own","NAME":"another"}"#).unwrap();
        assert_eq!(form.name, "own");
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(read::<Form>(b"").unwrap(), Form::default());
        assert_eq!(read::<Form>(b"null").unwrap(), Form::default());
    }

    #[test]
    fn malformed_bodies_are_told_apart() {
        assert!(refused(b"{invalid json").starts_with("invalid JSON: "));
        assert!(refused(b"{\"Name\":").starts_with("invalid JSON: "));
        assert!(refused(b"{\"Name\":\"\xff\"}").starts_with("invalid JSON: "));
        assert_eq!(refused(b"  "), "invalid JSON: got EOF while reading request body");
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
        assert_eq!(
            refused(br#"{"name":1}"#),
            "invalid JSON: Name: invalid type: integer `1`, expected a string"
        );
        assert_eq!(
            refused(br#"{"Inner":[["a",true]]}"#),
            "invalid JSON: Inner[0]: invalid type: sequence, expected an object"
        );
        assert_eq!(refused(b"[]"), "invalid JSON: not an object");
        assert_eq!(refused(b"7"), "invalid JSON: not an object");
    }
}
