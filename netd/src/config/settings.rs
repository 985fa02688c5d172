//! What is set, by key: in the file, by flags, or by both together.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    docker::{self, Shape},
    go,
};

/// The keys that netd reads.
pub(super) const OWN: &[&str] = &[
    "bip",
    "bip6",
    "bridge",
    "debug",
    "default-address-pools",
    "default-gateway",
    "default-gateway-v6",
    "default-network-opts",
    "dns",
    "dns-opts",
    "dns-search",
    "fixed-cidr",
    "fixed-cidr-v6",
    "group",
    "hosts",
    "icc",
    "ip",
    "ip-forward",
    "ip-forward-no-drop",
    "ip-masq",
    "ipv6",
    "labels",
    "live-restore",
    "log-format",
    "log-level",
    "metrics-addr",
    "mtu",
    "plugin-socket",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
];

/// Values by key, each as JSON has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(pub(super) Map<String, Value>);

/// A value that cannot be what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// Where.
    pub(super) key: String,
    /// What is wrong with it; names the key unless Docker's words do not.
    pub(super) reason: String,
}

impl Invalid {
    pub(super) fn new(key: &str, reason: impl Into<String>) -> Self {
        Self { key: key.to_owned(), reason: reason.into() }
    }

    /// A value that is well-formed JSON, and still nothing that the key can have.
    pub(super) fn value(key: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(key, format!("invalid value for `{key}`: {reason}"))
    }

    /// A value of another type than the key's, in the words of Go's decoder.
    fn kind(key: &str, value: &Value, wanted: &str) -> Self {
        let kind = go::kind(value);
        Self::new(
            key,
            format!("json: cannot unmarshal {kind} into Go struct field Config.{key} of type {wanted}"),
        )
    }
}

impl Settings {
    /// Reads the file's content: an object in JSON, or nothing at all.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = decode(bytes)?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(&text).map_err(|error| format!("invalid JSON: {error}"))?;
        match value {
            Value::Object(map) => Ok(Self(map)),
            // As Go has it: nothing is set by it.
            Value::Null => Ok(Self::default()),
            value => Err(format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                go::kind(&value)
            )),
        }
    }

    /// Refuses keys that neither Docker nor netd has.
    pub(super) fn check_known(&self) -> Result<(), String> {
        let known = |key: &str| OWN.contains(&key) || foreign(key).is_some();
        let unknown: Vec<_> = self.0.keys().map(String::as_str).filter(|key| !known(key)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(format!("the following directives don't match any configuration option: {}", unknown.join(", ")))
    }

    /// What the file says and what the flags say, unless a key is in both.
    pub(super) fn merge(file: Self, flags: Self) -> Result<Self, String> {
        let conflict = |(key, flag): (&String, &Value)| {
            let file = file.0.get(key)?;
            Some(format!("{key}: (from flag: {}, from file: {})", go::show(flag), go::show(file)))
        };
        let conflicts: Vec<_> = flags.0.iter().filter_map(conflict).collect();
        if !conflicts.is_empty() {
            return Err(format!(
                "the following directives are specified both as a flag and in the configuration file: {}",
                conflicts.join(", ")
            ));
        }
        let mut merged = file;
        merged.0.extend(flags.0);
        Ok(merged)
    }

    /// Checks the types of the keys that say nothing to netd, and tells what the user should know of each.
    pub(super) fn foreign(&self) -> Result<Vec<String>, Invalid> {
        let mut warnings = Vec::new();
        for key in self.0.keys() {
            let Some((_, foreign, shape)) = foreign(key) else { continue };
            match shape {
                Shape::Bool => drop(self.boolean(key)?),
                Shape::Int => drop(self.integer(key)?),
                Shape::Text => drop(self.text(key)?),
                Shape::Texts => drop(self.texts(key)?),
                Shape::Any => {}
            }
            warnings.push(foreign.warning(key));
        }
        Ok(warnings)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Invalid> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(value) => Err(Invalid::kind(key, value, "bool")),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| Invalid::kind(key, value, "int"))
    }

    /// A text; an empty one counts as absent.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Invalid> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(value) => Err(Invalid::kind(key, value, "string")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&str>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let values = value.as_array().ok_or_else(|| Invalid::kind(key, value, "[]string"))?;
        values.iter().map(|value| value.as_str().ok_or_else(|| Invalid::kind(key, value, "string"))).collect()
    }

    /// Objects in a list.
    pub(super) fn objects(&self, key: &str, of: &str) -> Result<Vec<&Map<String, Value>>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let values = value.as_array().ok_or_else(|| Invalid::kind(key, value, &format!("[]{of}")))?;
        values.iter().map(|value| value.as_object().ok_or_else(|| Invalid::kind(key, value, of))).collect()
    }

    /// Options by driver.
    pub(super) fn options(&self, key: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(BTreeMap::new()) };
        let drivers =
            value.as_object().ok_or_else(|| Invalid::kind(key, value, "map[string]map[string]string"))?;
        let read = |(driver, value): (&String, &Value)| {
            let options = value.as_object().ok_or_else(|| Invalid::kind(key, value, "map[string]string"))?;
            let option = |(name, value): (&String, &Value)| {
                let text = value.as_str().ok_or_else(|| Invalid::kind(key, value, "string"))?;
                Ok((name.clone(), text.to_owned()))
            };
            Ok((driver.clone(), options.iter().map(option).collect::<Result<_, _>>()?))
        };
        drivers.iter().map(read).collect()
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }
}

fn foreign(key: &str) -> Option<&'static (&'static str, docker::Foreign, Shape)> {
    docker::KEYS.iter().find(|(name, ..)| *name == key)
}

/// UTF-8 or UTF-16, with a byte order mark or without.
fn decode(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |rest: &[u8], word: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        if !odd.is_empty() {
            return Err("it ends within a character of UTF-16".to_owned());
        }
        let words: Vec<_> = pairs.iter().map(|pair| word(*pair)).collect();
        String::from_utf16(&words).map_err(|error| error.to_string())
    };
    let utf8 = |rest: &[u8]| String::from_utf8(rest.to_vec()).map_err(|error| error.to_string());
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => utf8(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Settings {
        Settings::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_at_all_and_byte_order_marks_are_fine() {
        let utf16: Vec<u8> = "\u{feff}{\"icc\":false}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Settings::parse(&utf16).unwrap(), parse(r#"{"icc":false}"#));
        let utf16: Vec<u8> = "\u{feff}{\"icc\":false}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(Settings::parse(&utf16).unwrap(), parse(r#"{"icc":false}"#));
        assert!(Settings::parse(&utf16[..utf16.len() - 1]).is_err());
        assert_eq!(Settings::parse(b"\xef\xbb\xbf{\"debug\":true}").unwrap(), parse(r#"{"debug":true}"#));
        for nothing in ["", " \n", "\u{feff}", "{}", "null"] {
            assert_eq!(parse(nothing), Settings::default());
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let error = |text: &str| Settings::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error("[]"), "json: cannot unmarshal array into Go value of type map[string]interface {}");
        assert!(error("{").contains("EOF"));
        assert!(error("{} {}").starts_with("invalid JSON: trailing characters"));
        assert!(Settings::parse(b"\xff{}").is_err());
    }

    #[test]
    fn unknown_keys_are_all_named() {
        assert_eq!(
            parse(r#"{"foo": 1, "mtu": 1400, "bar": {}, "BIP": "x"}"#).check_known().unwrap_err(),
            "the following directives don't match any configuration option: BIP, bar, foo"
        );
        assert_eq!(parse(r#"{"log-driver": "journald", "mtu": 1400}"#).check_known(), Ok(()));
    }

    #[test]
    fn what_is_given_twice_is_refused() {
        let file = parse(r#"{"hosts": ["unix:///a"], "mtu": 1400, "icc": false}"#);
        let flags = parse(r#"{"hosts": ["tcp://b", "fd://"], "mtu": 1500, "ipv6": true}"#);
        assert_eq!(
            Settings::merge(file.clone(), flags).unwrap_err(),
            "the following directives are specified both as a flag and in the configuration file: \
             hosts: (from flag: [tcp://b fd://], from file: [unix:///a]), mtu: (from flag: 1500, from file: 1400)"
        );
        let merged = Settings::merge(file, parse(r#"{"ipv6": true}"#)).unwrap();
        assert_eq!((merged.boolean("icc"), merged.boolean("ipv6")), (Ok(Some(false)), Ok(Some(true))));
    }

    #[test]
    fn other_types_are_refused_in_gos_words() {
        let settings = parse(
            r#"{"mtu": "many", "icc": "yes", "hosts": ["a", 1], "bip": 1.5, "labels": {}, "ipv6": null,
                "default-network-opts": {"bridge": {"a": 1}}}"#,
        );
        let error = |key: &str, kind: &str, wanted: &str| {
            format!("json: cannot unmarshal {kind} into Go struct field Config.{key} of type {wanted}")
        };
        assert_eq!(settings.integer("mtu").unwrap_err().reason, error("mtu", "string", "int"));
        assert_eq!(settings.boolean("icc").unwrap_err().reason, error("icc", "string", "bool"));
        assert_eq!(settings.texts("hosts").unwrap_err().reason, error("hosts", "number", "string"));
        assert_eq!(settings.text("bip").unwrap_err().reason, error("bip", "number 1.5", "string"));
        assert_eq!(settings.texts("labels").unwrap_err().reason, error("labels", "object", "[]string"));
        assert_eq!(settings.boolean("ipv6"), Ok(None));
        assert!(settings.options("default-network-opts").is_err());
        let huge = parse(r#"{"mtu": 99999999999999999999}"#);
        assert!(huge.integer("mtu").is_err());
    }

    #[test]
    fn the_engines_keys_are_passed_over_with_a_word_each() {
        let settings = parse(r#"{"log-driver": "journald", "iptables": false, "mtu": 1400}"#);
        let warnings = settings.foreign().unwrap();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("`iptables` is about netfilter"), "{warnings:?}");
        assert!(warnings[1].contains("`log-driver` belongs to Docker's engine"), "{warnings:?}");
        assert!(parse(r#"{"iptables": "maybe"}"#).foreign().is_err());
    }
}
