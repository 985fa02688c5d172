//! The `filters` parameter: which networks or events a client asks for.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde::Deserialize;

use super::error::Refusal;

/// What was asked for: values by key. A key without values asks for nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

/// The two encodings there are: of today's clients, and of those before API 1.22.
#[derive(Deserialize)]
#[serde(untagged)]
enum Encoding {
    Sets(BTreeMap<String, BTreeMap<String, bool>>),
    Lists(BTreeMap<String, Vec<String>>),
}

impl Filters {
    /// Reads the parameter, percent-decoded. An empty one filters nothing.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let encoding = serde_json::from_str(text).map_err(|_| Refusal::invalid("invalid filter"))?;
        Ok(Self(match encoding {
            Encoding::Sets(sets) => sets
                .into_iter()
                .map(|(key, set)| {
                    (key, set.into_iter().filter_map(|(value, on)| on.then_some(value)).collect())
                })
                .collect(),
            Encoding::Lists(lists) => {
                lists.into_iter().map(|(key, values)| (key, values.into_iter().collect())).collect()
            }
        }))
    }

    /// Refuses keys that the route does not know.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Refusal::invalid(format!("invalid filter '{key}'"))),
        }
    }

    /// The values of `key`; `None` if nothing is asked of it.
    pub(crate) fn values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.0.get(key).filter(|values| !values.is_empty())
    }

    /// Whether one of the values of `key` is `text`.
    pub(crate) fn exact(&self, key: &str, text: &str) -> bool {
        self.values(key).is_none_or(|values| values.contains(text))
    }

    /// Whether one of the values of `key` is `text`, or a regular expression that matches a part of it.
    pub(crate) fn pattern(&self, key: &str, text: &str) -> bool {
        self.values(key).is_none_or(|values| {
            values.contains(text)
                || values.iter().any(|value| Regex::new(value).is_ok_and(|regex| regex.is_match(text)))
        })
    }

    /// Whether one of `texts` begins with one of the values of `key`.
    pub(crate) fn prefix(&self, key: &str, texts: &[&str]) -> bool {
        self.values(key)
            .is_none_or(|values| values.iter().any(|value| texts.iter().any(|text| text.starts_with(value))))
    }

    /// Whether `labels` has each `name` or `name=value` of `key`.
    pub(crate) fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).is_none_or(|values| values.iter().all(|wanted| has_label(labels, wanted)))
    }

    /// Whether `labels` lacks one `name` or `name=value` of `key`: several of them keep only who has them all, as Docker does.
    pub(crate) fn without_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).is_none_or(|values| !values.iter().all(|wanted| has_label(labels, wanted)))
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        None => labels.contains_key(wanted),
        Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};
    use serde_json::json;

    use super::*;

    fn filters(text: &str) -> Filters {
        Filters::parse(text).unwrap()
    }

    #[test]
    fn labels_are_asked_for_by_name_or_value() {
        let labels = BTreeMap::from([("in".to_owned(), "out".to_owned())]);
        for (text, has, has_not) in [
            (r#"{"l":{"in":true}}"#, true, false),
            (r#"{"l":{"in=out":true}}"#, true, false),
            (r#"{"l":{"in=":true}}"#, false, true),
            (r#"{"l":{"out":true,"in":true}}"#, false, true),
            (r#"{"l":{}}"#, true, true),
        ] {
            assert_eq!(filters(text).labels("l", &labels), has, "{text}");
            assert_eq!(filters(text).without_labels("l", &labels), has_not, "{text}");
        }
    }

    #[test]
    fn patterns_are_regular_expressions_or_the_text_itself() {
        assert!(filters(r#"{"name":["de"]}"#).pattern("name", "dev"));
        assert!(filters(r#"{"name":["^dev$"]}"#).pattern("name", "dev"));
        assert!(!filters(r#"{"name":["^de$"]}"#).pattern("name", "dev"));
        assert!(filters(r#"{"name":["^x", "v$"]}"#).pattern("name", "dev"));
        assert!(filters(r#"{"name":["a("]}"#).pattern("name", "a("));
        assert!(!filters(r#"{"name":["a("]}"#).pattern("name", "a"));
    }

    #[test]
    fn unknown_keys_and_other_json_are_refused() {
        assert_eq!(
            filters(r#"{"foo":["bar"]}"#).only(&["name"]).unwrap_err(),
            Refusal::invalid("invalid filter 'foo'")
        );
        for text in ["[]", "7", "{", r#"{"a":1}"#, r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, "{} x"] {
            assert_eq!(Filters::parse(text), Err(Refusal::invalid("invalid filter")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_encodings_say_the_same(
            asked in collection::btree_map("[a-z!]{1,6}", collection::btree_set(".{0,8}", 0..4), 0..4)
        ) {
            let sets: BTreeMap<_, BTreeMap<_, _>> =
                asked.iter().map(|(key, values)| (key, values.iter().map(|value| (value, true)).collect())).collect();
            prop_assert_eq!(filters(&json!(sets).to_string()), Filters(asked.clone()));
            prop_assert_eq!(filters(&json!(asked).to_string()), Filters(asked));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,64}", value in ".{0,16}", name in ".{0,16}") {
            let _ = Filters::parse(&text);
            let asked = filters(&json!({ "name": [value] }).to_string());
            prop_assert!(asked.pattern("name", &value));
            let _ = asked.pattern("name", &name);
        }
    }
}
