//! The daemon's labels, which are shown and mean nothing.

use super::settings::{Invalid, Settings};

/// The key.
const KEY: &str = "labels";

/// Reads labels `key=value`; one that is there twice counts once.
pub(super) fn read(settings: &Settings) -> Result<Vec<String>, Invalid> {
    let mut labels: Vec<&str> = Vec::new();
    for label in settings.texts(KEY)? {
        let Some((name, value)) = label.split_once('=') else {
            return Err(Invalid::new(KEY, format!("bad attribute format: {label}")));
        };
        let same = |other: &&&str| other.split_once('=').is_some_and(|(other, _)| other == name);
        match labels.iter().find(same) {
            None => labels.push(label),
            Some(known) if *known == label => {}
            Some(known) => {
                return Err(Invalid::new(KEY, format!("conflict labels for {name}={value} and {known}")));
            }
        }
    }
    Ok(labels.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_one_value_each() {
        let labels =
            |json: &str| read(&Settings::parse(json.as_bytes()).unwrap()).map_err(|invalid| invalid.reason);
        assert_eq!(labels(r#"{"labels": ["a=b", "c=", "a=b"]}"#).unwrap(), ["a=b", "c="]);
        assert_eq!(
            labels(r#"{"labels": ["foo=bar", "foo=baz"]}"#).unwrap_err(),
            "conflict labels for foo=baz and foo=bar"
        );
        assert_eq!(labels(r#"{"labels": ["foo"]}"#).unwrap_err(), "bad attribute format: foo");
    }
}
