//! Where subnets come from that nobody asked for.

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{go, settings::Invalid};

/// The key.
const KEY: &str = "default-address-pools";

/// A prefix that is cut into subnets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole, host bits zero.
    pub base: IpNet,
    /// Prefix length of each subnet; at least that of `base`.
    pub size: u8,
}

/// Reads one pool as a flag has it, `base=PREFIX,size=LENGTH`, into what the file would say.
pub(super) fn parse_flag(text: &str) -> Result<Value, String> {
    let mut pool = Map::new();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        let value = match key {
            "base" => prefix(value).map(|_| value.into())?,
            "size" => match value.parse::<i64>() {
                Ok(size) => size.into(),
                Err(_) => {
                    return Err(format!("invalid size value: \"{text}\" (must be integer): \"{value}\""));
                }
            },
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        };
        pool.insert(key.to_owned(), value);
    }
    Ok(Value::Object(pool))
}

/// Reads the pools in the order of their addresses, which is that in which Docker uses them; one within another adds nothing.
pub(super) fn read(entries: &[&Map<String, Value>]) -> Result<Vec<AddressPool>, Invalid> {
    let mut pools = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| AddressPool::read(index, entry))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| Invalid::new(KEY, reason))?;
    pools.sort_by_key(|pool| (pool.base.addr(), pool.base.prefix_len()));
    pools.dedup_by(|inner, outer| outer.base.contains(&inner.base));
    Ok(pools)
}

impl AddressPool {
    fn read(index: usize, entry: &Map<String, Value>) -> Result<Self, String> {
        let shown = || go::show(&Value::Object(entry.clone()));
        if let Some(key) = entry.keys().find(|key| !["base", "size"].contains(&key.as_str())) {
            return Err(format!("unexpected key '{key}' in '{}'", shown()));
        }
        let mismatch = |value: &Value, field: &str, kind: &str| {
            let is = go::kind(value);
            format!(
                "json: cannot unmarshal {is} into Go struct field NetworkToSplit.{KEY}.{field} of type {kind}"
            )
        };
        let no_canon = || {
            format!(
                "could not construct local address space: network at index {index} ({}) is not in canonical form",
                shown()
            )
        };
        let base = match entry.get("base") {
            None | Some(Value::Null) => return Err(no_canon()),
            Some(Value::String(text)) => prefix(text)?,
            Some(value) => return Err(mismatch(value, "base", "string")),
        };
        let size = match entry.get("size") {
            None | Some(Value::Null) => 0,
            Some(value) => value.as_i64().ok_or_else(|| mismatch(value, "size", "int"))?,
        };
        let version = if base.addr().is_ipv4() { "v4" } else { "v6" };
        let refused = |reason: String| {
            let shown = format!("{{{base} {size}}}");
            format!(
                "could not construct local {version} address space: network at index {index} ({shown}) {reason}"
            )
        };
        let (from, to) = (base.prefix_len(), base.max_prefix_len());
        match u8::try_from(size) {
            Ok(0) => Err(refused("has no target size".to_owned())),
            Err(_) => Err(refused("is not in canonical form".to_owned())),
            Ok(size) if size < from => Err(refused(format!(
                "has a smaller prefix (/{from}) than the target size of that pool (/{size})"
            ))),
            Ok(size) if size > to => Err(refused(format!("has a target size (/{size}) beyond /{to}"))),
            Ok(size) => Ok(Self { base: base.trunc(), size }),
        }
    }
}

/// A prefix, with the words of Go's `netip` for what is none.
fn prefix(text: &str) -> Result<IpNet, String> {
    let why =
        |reason: String| format!("invalid base prefix \"{text}\": netip.ParsePrefix(\"{text}\"): {reason}");
    let Some((address, length)) = text.split_once('/') else { return Err(why("no '/'".to_owned())) };
    let address: std::net::IpAddr =
        address.parse().map_err(|_| why(format!("ParseAddr(\"{address}\"): unable to parse IP")))?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (length.len() > 1 && length.starts_with('0')) {
        return Err(why(format!("bad bits after slash: \"{length}\"")));
    }
    length
        .parse()
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| why("prefix length out of range".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(json: &str) -> Result<Vec<String>, String> {
        let values: Vec<Value> = serde_json::from_str(&format!("[{json}]")).unwrap();
        let entries: Vec<_> = values.iter().map(|value| value.as_object().unwrap()).collect();
        let pools = read(&entries).map_err(|error| error.reason)?;
        Ok(pools.iter().map(|pool| format!("{}:{}", pool.base, pool.size)).collect())
    }

    #[test]
    fn pools_are_in_order_and_none_is_within_another() {
        let read = pools(
            r#"{"base": "fd00:1::/48", "size": 64}, {"base": "10.2.0.0/16", "size": 24},
               {"base": "10.1.0.9/16", "size": 16}, {"base": "10.2.128.0/17", "size": 28}"#,
        );
        assert_eq!(read.unwrap(), ["10.1.0.0/16:16", "10.2.0.0/16:24", "fd00:1::/48:64"]);
    }

    #[test]
    fn bad_pools_are_refused_in_dockers_words() {
        let error = |json| pools(json).unwrap_err();
        assert_eq!(
            error(r#"{"base": "foo", "size": 24}"#),
            "invalid base prefix \"foo\": netip.ParsePrefix(\"foo\"): no '/'"
        );
        assert!(error(r#"{"base": "10.0.0.0/33", "size": 33}"#).ends_with("prefix length out of range"));
        assert!(error(r#"{"base": "10.0.0.0/08", "size": 24}"#).ends_with("bad bits after slash: \"08\""));
        assert!(error(r#"{"base": "x/8", "size": 24}"#).ends_with("ParseAddr(\"x\"): unable to parse IP"));
        assert_eq!(
            error(r#"{"base": "10.0.0.0/16", "size": 8}"#),
            "could not construct local v4 address space: network at index 0 ({10.0.0.0/16 8}) has a smaller prefix \
             (/16) than the target size of that pool (/8)"
        );
        assert!(
            error(r#"{"base": "fd00::/48", "size": 64}, {"base": "10.0.0.0/8", "size": 33}"#).starts_with(
                "could not construct local v4 address space: network at index 1 ({10.0.0.0/8 33})"
            )
        );
        for (json, why) in [
            (r#"{"base": "fd00::/48", "size": 0}"#, "has no target size"),
            (r#"{"base": "fd00::/48"}"#, "has no target size"),
            (r#"{"base": "fd00::/48", "size": -1}"#, "is not in canonical form"),
        ] {
            assert!(error(json).starts_with("could not construct local v6 address space"), "{json}");
            assert!(error(json).ends_with(why), "{json}");
        }
        assert!(error(r#"{"size": 24}"#).starts_with("could not construct local address space"));
        assert_eq!(
            error(r#"{"base": "10.0.0.0/8", "k": 1}"#),
            "unexpected key 'k' in 'map[base:10.0.0.0/8 k:1]'"
        );
        assert!(error(r#"{"base": "10.0.0.0/8", "size": "24"}"#).contains("cannot unmarshal string"));
    }

    #[test]
    fn a_flag_says_the_same_as_the_file() {
        let flag = |text| parse_flag(text);
        assert_eq!(
            flag("base=10.0.0.0/8,size=24").unwrap(),
            serde_json::json!({"base": "10.0.0.0/8", "size": 24})
        );
        assert_eq!(flag("base=10.0.0.0/8,k=v").unwrap_err(), "unexpected key 'k' in 'k=v'");
        assert_eq!(flag("10.0.0.0/8").unwrap_err(), "invalid field '10.0.0.0/8' must be a key=value pair");
        assert!(flag("base=x,size=24").unwrap_err().starts_with("invalid base prefix \"x\": "));
        assert!(flag("base=10.0.0.0/8,size=big").unwrap_err().contains("must be integer"));
    }
}
