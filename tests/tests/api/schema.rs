//! As much of JSON Schema as the description of the API uses. A keyword that it does not know is a fault of the description.

use serde_json::Value;

/// What is wrong with `value`, by `schema` of `document`; nothing if all is well.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(document, schema, value, "", &mut faults);
    faults
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let schema = schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}"));
    for (keyword, argument) in schema {
        match keyword.as_str() {
            "description" => {}
            "$ref" => check(document, resolve(document, argument), value, at, faults),
            "type" => {
                let types = argument.as_array().map_or(std::slice::from_ref(argument), Vec::as_slice);
                if !types.iter().any(|name| is_of_type(value, name)) {
                    faults.push(format!("{at}: {value} is not of type {argument}"));
                }
            }
            "enum" => {
                if !argument.as_array().is_some_and(|values| values.contains(value)) {
                    faults.push(format!("{at}: {value} is none of {argument}"));
                }
            }
            "format" => {
                assert_eq!(argument, "date-time", "an unknown format");
                if !value.as_str().is_some_and(is_date_time) {
                    faults.push(format!("{at}: {value} is no date and time"));
                }
            }
            "anyOf" => {
                let choices = argument.as_array().expect("a list of schemas").iter();
                if !choices.into_iter().any(|choice| self::faults(document, choice, value).is_empty()) {
                    faults.push(format!("{at}: {value} is none of {argument}"));
                }
            }
            "maxItems" => {
                let length = value.as_array().map_or(0, Vec::len) as u64;
                if length > argument.as_u64().expect("a number") {
                    faults.push(format!("{at}: more than {argument} in {value}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, argument, item, &format!("{at}/{index}"), faults);
                }
            }
            "required" => {
                for name in argument.as_array().expect("a list of names").iter().filter_map(Value::as_str) {
                    if value.as_object().is_some_and(|fields| !fields.contains_key(name)) {
                        faults.push(format!("{at}: there is no {name}"));
                    }
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = argument.get(name) {
                        check(document, schema, field, &format!("{at}/{name}"), faults);
                    }
                }
            }
            "additionalProperties" => {
                let known =
                    |name: &String| schema.get("properties").is_some_and(|known| known.get(name).is_some());
                for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name))
                {
                    match argument {
                        Value::Bool(false) => faults.push(format!("{at}: {name} is not described")),
                        schema => check(document, schema, field, &format!("{at}/{name}"), faults),
                    }
                }
            }
            other => panic!("the description uses {other}, which this does not know"),
        }
    }
}

/// What a reference within the document refers to.
pub(crate) fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer =
        reference.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference within the document");
    document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("the name of a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the description names the type {other}"),
    }
}

/// `2025-06-01T10:00:00.123456789Z`, with or without decimals.
fn is_date_time(text: &str) -> bool {
    let shape: String =
        text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
    let Some(fraction) = shape.strip_prefix("0000-00-00T00:00:00").and_then(|rest| rest.strip_suffix('Z'))
    else {
        return false;
    };
    fraction.is_empty()
        || fraction
            .strip_prefix('.')
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c == '0'))
}

#[test]
fn what_is_not_as_described_is_found() {
    use serde_json::json;
    let document = json!({"a": {
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"]}, "when": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, "kind": {"enum": ["x"]},
            "map": {"type": "object", "additionalProperties": {"type": "string"}}, "inner": {"$ref": "#/a"},
            "either": {"anyOf": [{"type": "null"}, {"type": "integer"}]}
        },
        "required": ["name"],
        "additionalProperties": false
    }});
    let faults = |value| faults(&document, &json!({"$ref": "#/a"}), &value).len();
    assert_eq!(
        faults(
            json!({"name": null, "when": "2025-06-01T10:00:00Z", "list": [1], "kind": "x", "map": {"a": "b"}})
        ),
        0
    );
    assert_eq!(
        faults(
            json!({"name": "a", "when": "2025-06-01T10:00:00.5Z", "inner": {"name": "b"}, "either": null})
        ),
        0
    );
    for bad in [
        json!({}),
        json!([]),
        json!({"name": 1}),
        json!({"name": "a", "more": 1}),
        json!({"name": "a", "when": "yesterday"}),
        json!({"name": "a", "when": "2025-06-01T10:00:00.Z"}),
        json!({"name": "a", "list": ["b"]}),
        json!({"name": "a", "list": [1, 2, 3]}),
        json!({"name": "a", "kind": "y"}),
        json!({"name": "a", "map": {"b": 1}}),
        json!({"name": "a", "inner": {}}),
        json!({"name": "a", "either": "b"}),
    ] {
        assert_eq!(faults(bad.clone()), 1, "{bad}");
    }
}
