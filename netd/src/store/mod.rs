//! Where the networks and endpoints are kept: one embedded database in the state directory.
//!
//! Each action is one transaction, on the disk before its answer. Beside the state there is a journal: the names of links
//! that an action is about to make. What a daemon that died half-way left behind is found there.

mod lock;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use ipnet::{IpNet, Ipv6Net};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

pub use lock::{Lock, LockError};

use crate::model::{Endpoint, External, Forwards, Id, LeasedPool, Network, PortSet, State, Total};

/// Name of the database in the state directory.
pub const FILE: &str = "netd.redb";

/// Changed with any change to the records that an older netd could not read.
const FORMAT: u32 = 1;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const ENDPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("endpoints");
const POOLS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pools");
const EXTERNALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("externals");
const DEPARTED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("departed");
const JOURNAL: TableDefinition<'_, &str, ()> = TableDefinition::new("journal");

/// Key of the ports that netd has reserved.
const RESERVED: &str = "reserved";
/// Key of what netd has switched on of the host's forwarding.
const FORWARDS: &str = "forwards";

/// Why the store does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed: the disk is full, or the file is damaged.
    #[error("state store: {0}")]
    Database(redb::Error),
    /// A record is not what this netd writes.
    #[error("state store: the record {key} cannot be read: {reason}")]
    Record {
        /// The record's key.
        key: String,
        /// Why.
        reason: serde_json::Error,
    },
    /// Another netd wrote it.
    #[error("state store: its format is {found}, this netd reads {FORMAT}; use the netd that wrote it")]
    Format {
        /// The format found.
        found: String,
    },
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// One change to the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A network is new or changed.
    PutNetwork(Network),
    /// A network is gone.
    RemoveNetwork(Id),
    /// An endpoint is new or changed.
    PutEndpoint(Endpoint),
    /// An endpoint is gone.
    RemoveEndpoint(Id),
    /// What a network's endpoints that are gone had sent and received, all together.
    Depart(Id, Total),
    /// An engine's pool is new or changed.
    PutPool(LeasedPool),
    /// An engine's pool is gone.
    RemovePool(String),
    /// An external address is new.
    PutExternal(External),
    /// An external address is gone.
    RemoveExternal(IpNet),
    /// The ports that netd has reserved are others.
    Reserve(PortSet),
    /// Something of the host's forwarding is switched on.
    Forward(Forwards),
}

impl Change {
    /// The endpoint that it is about, if it is about one.
    pub fn endpoint<'a>(&'a self, before: &'a State) -> Option<&'a Endpoint> {
        match self {
            Self::PutEndpoint(endpoint) => Some(endpoint),
            Self::RemoveEndpoint(id) => before.endpoints.get(id).map(Arc::as_ref),
            _ => None,
        }
    }

    /// Makes the change to a state in memory.
    pub fn make(self, state: &mut State) {
        match self {
            Self::PutNetwork(network) => drop(state.networks.insert(network.id, network)),
            Self::RemoveNetwork(id) => {
                state.networks.remove(&id);
                state.departed.remove(&id);
            }
            Self::PutEndpoint(endpoint) => state.endpoints.insert(endpoint),
            Self::RemoveEndpoint(id) => state.endpoints.remove(&id),
            Self::Depart(network, total) => drop(state.departed.insert(network, total)),
            Self::PutPool(pool) => drop(state.pools.insert(pool.id.clone(), pool)),
            Self::RemovePool(id) => drop(state.pools.remove(&id)),
            Self::PutExternal(external) => drop(state.externals.insert(external.external, external)),
            Self::RemoveExternal(external) => drop(state.externals.remove(&external)),
            Self::Reserve(ports) => state.reserved = ports,
            Self::Forward(forwards) => state.forwards = forwards,
        }
    }
}

/// What the store held when it was opened.
#[derive(Debug)]
pub struct Stored {
    /// The networks, endpoints and leases.
    pub state: State,
    /// Links that an action was about to make when the daemon died.
    pub journal: BTreeSet<String>,
    /// This host's unique local prefix.
    pub ula: Ipv6Net,
}

/// What the database may keep in memory, in bytes: it is read once, and written a few records at a time.
const CACHE: usize = 1 << 20;

/// The open database.
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the database, or makes a new one with `ula` as this host's unique local prefix.
    pub fn open(path: &Path, ula: Ipv6Net) -> Result<(Self, Stored), Error> {
        let database = Database::builder().set_cache_size(CACHE).create(path)?;
        let store = Self { database };
        store.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            for (key, value) in [("format", FORMAT.to_string()), ("ula", ula.to_string())] {
                if meta.get(key)?.is_none() {
                    meta.insert(key, value.as_str())?;
                }
            }
            transaction.open_table(NETWORKS)?;
            transaction.open_table(ENDPOINTS)?;
            transaction.open_table(POOLS)?;
            transaction.open_table(EXTERNALS)?;
            transaction.open_table(DEPARTED)?;
            transaction.open_table(JOURNAL)?;
            Ok(())
        })?;
        let stored = store.load(ula)?;
        Ok((store, stored))
    }

    fn load(&self, new_ula: Ipv6Net) -> Result<Stored, Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let get = |key: &str| -> Result<String, Error> {
            let value = meta.get(key)?;
            Ok(value.map(|value| value.value().to_owned()).unwrap_or_default())
        };
        let found = get("format")?;
        if found != FORMAT.to_string() {
            return Err(Error::Format { found });
        }
        let networks: Vec<Network> = records(&transaction, NETWORKS)?;
        let endpoints: Vec<Endpoint> = records(&transaction, ENDPOINTS)?;
        let pools: Vec<LeasedPool> = records(&transaction, POOLS)?;
        let externals: Vec<External> = records(&transaction, EXTERNALS)?;
        let departed: Vec<(Id, Total)> = records(&transaction, DEPARTED)?;
        let journal = transaction.open_table(JOURNAL)?;
        let journal = journal.iter()?;
        let journal = journal.map(|entry| Ok(entry?.0.value().to_owned()));
        Ok(Stored {
            state: State {
                networks: networks.into_iter().map(|network| (network.id, network)).collect(),
                endpoints: endpoints.into_iter().collect(),
                pools: pools.into_iter().map(|pool| (pool.id.clone(), pool)).collect(),
                externals: externals.into_iter().map(|external| (external.external, external)).collect(),
                departed: departed.into_iter().collect(),
                reserved: get(RESERVED)?.parse().unwrap_or_default(),
                forwards: serde_json::from_str(&get(FORWARDS)?).unwrap_or_default(),
            },
            journal: journal.collect::<Result<_, Error>>()?,
            ula: get("ula")?.parse().unwrap_or(new_ula),
        })
    }

    /// Notes down the links that an action is about to make.
    pub fn begin(&self, links: &[String]) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut journal = transaction.open_table(JOURNAL)?;
            for link in links {
                journal.insert(link.as_str(), ())?;
            }
            Ok(())
        })
    }

    /// Makes the changes of one action, and strikes out the links it noted down.
    pub fn commit(&self, changes: &[Change], links: &[String]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut networks = transaction.open_table(NETWORKS)?;
            let mut endpoints = transaction.open_table(ENDPOINTS)?;
            let mut pools = transaction.open_table(POOLS)?;
            let mut externals = transaction.open_table(EXTERNALS)?;
            let mut departed = transaction.open_table(DEPARTED)?;
            let mut journal = transaction.open_table(JOURNAL)?;
            for change in changes {
                match change {
                    Change::PutNetwork(network) => {
                        networks.insert(&*network.id.to_string(), &*json(network))?;
                    }
                    Change::RemoveNetwork(id) => {
                        networks.remove(&*id.to_string())?;
                        departed.remove(&*id.to_string())?;
                    }
                    Change::PutEndpoint(endpoint) => {
                        endpoints.insert(&*endpoint.id.to_string(), &*json(endpoint))?;
                    }
                    Change::RemoveEndpoint(id) => drop(endpoints.remove(&*id.to_string())?),
                    Change::Depart(network, total) => {
                        departed.insert(&*network.to_string(), &*json(&(network, total)))?;
                    }
                    Change::PutPool(pool) => drop(pools.insert(&*pool.id, &*json(pool))?),
                    Change::RemovePool(id) => drop(pools.remove(id.as_str())?),
                    Change::PutExternal(external) => {
                        externals.insert(&*external.external.to_string(), &*json(external))?;
                    }
                    Change::RemoveExternal(external) => drop(externals.remove(&*external.to_string())?),
                    Change::Reserve(ports) => {
                        transaction.open_table(META)?.insert(RESERVED, &*ports.to_string())?;
                    }
                    Change::Forward(forwards) => {
                        let text = serde_json::to_string(forwards).expect("text and flags");
                        transaction.open_table(META)?.insert(FORWARDS, &*text)?;
                    }
                }
            }
            for link in links {
                journal.remove(link.as_str())?;
            }
            Ok(())
        })
    }

    /// One transaction; it is on the disk when this returns.
    fn write(&self, f: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        f(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

fn records<T: DeserializeOwned>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
) -> Result<Vec<T>, Error> {
    let table = transaction.open_table(table)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let record = serde_json::from_slice(value.value());
        records.push(record.map_err(|reason| Error::Record { key: key.value().to_owned(), reason })?);
    }
    Ok(records)
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys and no fallible fields")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Driver, Ipam, Timestamp, Traffic};

    fn network(last: u8) -> Network {
        Network {
            id: Id::new([last; 32]),
            name: format!("n{last}"),
            created: Timestamp::now(),
            driver: Driver::Null,
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            config_only: false,
            config_from: None,
            ipam: Ipam::default(),
            options: Default::default(),
            labels: Default::default(),
            bridge: None,
            engine_id: None,
        }
    }

    fn ula(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_committed_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (store, stored) = Store::open(&path, ula("fd00:1::/48")).unwrap();
        assert_eq!(stored.state, State::default());
        let (one, two) = (network(1), network(2));
        store.commit(&[Change::PutNetwork(one.clone()), Change::PutNetwork(two.clone())], &[]).unwrap();
        store.begin(&["veth1".into(), "veth2".into()]).unwrap();
        let total = Total { sent: Traffic { packets: 1, bytes: 60 }, received: Traffic::default() };
        store.commit(&[Change::Depart(one.id, total), Change::Depart(two.id, total)], &[]).unwrap();
        store.commit(&[Change::RemoveNetwork(one.id)], &["veth1".into()]).unwrap();
        drop(store);
        let (_store, stored) = Store::open(&path, ula("fd00:2::/48")).unwrap();
        assert_eq!(stored.state.departed, [(two.id, total)].into());
        assert_eq!(stored.state.networks.into_values().collect::<Vec<_>>(), [two]);
        assert_eq!(stored.journal, BTreeSet::from(["veth2".to_owned()]));
        assert_eq!(stored.ula, ula("fd00:1::/48"));
    }

    #[test]
    fn another_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (store, _) = Store::open(&path, ula("fd00:1::/48")).unwrap();
        store
            .write(|transaction| {
                transaction.open_table(META)?.insert("format", "99")?;
                Ok(())
            })
            .unwrap();
        drop(store);
        let error = Store::open(&path, ula("fd00:1::/48")).err().unwrap();
        assert!(matches!(error, Error::Format { found } if found == "99"));
    }
}
