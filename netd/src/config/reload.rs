//! What another reading of the configuration changes, and what of it a running daemon can take over.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Config, go};

/// The keys that take effect at once. Files that the `tls` keys name are read anew as well.
const RELOADED: [&str; 8] =
    ["debug", "labels", "live-restore", "log-format", "log-level", "tlscacert", "tlscert", "tlskey"];

/// One key that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub key: String,
    /// What it was, as Go would print it.
    pub from: String,
    /// What it is.
    pub to: String,
    /// Whether it takes effect at once; else with the next start.
    pub reloaded: bool,
}

impl Config {
    /// What is not in `new` as it is in this one.
    pub fn changes(&self, new: &Self) -> Vec<Changed> {
        let (old, new) = (&self.settings.0, &new.settings.0);
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let show = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), go::show);
        keys.into_iter()
            .filter(|key| old.get(*key) != new.get(*key))
            .map(|key| Changed {
                key: key.clone(),
                from: show(old.get(key)),
                to: show(new.get(key)),
                reloaded: RELOADED.contains(&key.as_str()),
            })
            .collect()
    }

    /// This configuration with what can be taken over from `new`; `new` stays what the next start goes by.
    pub fn reloaded(&self, new: &Self) -> Self {
        let tls = match (&self.tls, &new.tls) {
            (Some(old), Some(new)) => Some(super::Tls { files: new.files.clone(), verify: old.verify }),
            (old, _) => old.clone(),
        };
        let mut settings = self.settings.clone();
        for key in RELOADED {
            match new.settings.0.get(key) {
                Some(value) => settings.0.insert(key.to_owned(), value.clone()),
                None => settings.0.remove(key),
            };
        }
        Self { log: new.log, labels: new.labels.clone(), tls, settings, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    #[test]
    fn changes_are_told_key_by_key() {
        let old = read(r#"{"mtu": 1400, "labels": ["a=b"], "icc": false}"#).unwrap();
        let new =
            read(r#"{"mtu": 1500, "labels": ["a=c"], "icc": false, "debug": true, "hosts": ["fd://"]}"#)
                .unwrap();
        let changes = old.changes(&new);
        let told: Vec<_> = changes.iter().map(|c| (&*c.key, &*c.from, &*c.to, c.reloaded)).collect();
        assert_eq!(
            told,
            [
                ("debug", "unset", "true", true),
                ("hosts", "unset", "[fd://]", false),
                ("labels", "[a=b]", "[a=c]", true),
                ("mtu", "1400", "1500", false),
            ]
        );
        assert!(old.changes(&old).is_empty());
        let reloaded = old.reloaded(&new);
        assert_eq!((&*reloaded.labels, reloaded.bridge.mtu), (&["a=c".to_owned()][..], 1400));
        assert_eq!(reloaded.log.level, log::LevelFilter::Debug);
        // What was not taken over is told of again the next time.
        let left = reloaded.changes(&new);
        assert_eq!(left.iter().map(|c| &*c.key).collect::<Vec<_>>(), ["hosts", "mtu"]);
    }

    #[test]
    fn whether_clients_are_verified_stays_until_the_next_start() {
        let old = read(r#"{"tlsverify": true, "tlscert": "/a"}"#).unwrap();
        let new = read(r#"{"tlsverify": false, "tlscert": "/b"}"#).unwrap();
        let tls = old.reloaded(&new).tls.unwrap();
        assert!(tls.verify);
        assert_eq!(tls.files.cert, std::path::Path::new("/b"));
        assert_eq!(old.reloaded(&read("{}").unwrap()).tls, old.tls);
    }
}
