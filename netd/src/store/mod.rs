//! Where the networks and endpoints are kept: one embedded database in the state directory.
//!
//! Each action is one transaction, on the disk before its answer. Beside the state there is a journal: the names of links
//! that an action is about to make. What a daemon that died half-way left behind is found there.

mod change;
mod lock;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::Ipv6Net;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

pub use change::Change;
pub use lock::{Lock, LockError};

use crate::model::{Endpoint, External, Id, LeasedPool, Network, State, Total};

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
    /// It is closed since it failed: see [`Store::settle`].
    #[error("state store: it has failed, and is closed")]
    Closed,
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

/// The database.
pub struct Store {
    path: PathBuf,
    ula: Ipv6Net,
    /// `None` after a failure: the database serves no more until it is opened again, and nobody knows whether what failed is on the disk.
    database: Mutex<Option<Database>>,
}

impl Store {
    /// Opens the database, or makes a new one with `ula` as this host's unique local prefix.
    pub fn open(path: &Path, ula: Ipv6Net) -> Result<(Self, Stored), Error> {
        let mut store = Self { path: path.to_owned(), ula, database: Mutex::new(Some(database(path)?)) };
        let stored = store.load()?;
        store.ula = stored.ula;
        Ok((store, stored))
    }

    /// Makes the tables that are not there yet.
    fn prepare(&self) -> Result<(), Error> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            for (key, value) in [("format", FORMAT.to_string()), ("ula", self.ula.to_string())] {
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
        })
    }

    /// Whether it serves.
    pub fn is_open(&self) -> bool {
        self.database().is_some()
    }

    /// Has a store that has failed serve again, and hold `state`.
    ///
    /// # Errors
    /// If it fails again; it is closed as before then.
    pub fn settle(&self, state: &State) -> Result<(), Error> {
        *self.database() = Some(database(&self.path)?);
        let settled = self.load().and_then(|stored| {
            let changes = Change::between(&stored.state, state);
            if changes.is_empty() { Ok(()) } else { self.commit(&changes, &[]) }
        });
        if settled.is_err() {
            *self.database() = None;
        }
        settled
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Result<Stored, Error> {
        self.prepare()?;
        let transaction = self.database().as_ref().ok_or(Error::Closed)?.begin_read()?;
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
            ula: get("ula")?.parse().unwrap_or(self.ula),
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

    /// One transaction; it is on the disk when this returns. A failure closes the database.
    fn write(&self, f: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), Error> {
        let mut database = self.database();
        let done = transact(database.as_ref().ok_or(Error::Closed)?, f);
        if done.is_err() {
            *database = None;
        }
        done
    }
}

fn database(path: &Path) -> Result<Database, Error> {
    Ok(Database::builder().set_cache_size(CACHE).create(path)?)
}

fn transact(
    database: &Database,
    f: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    f(&transaction)?;
    transaction.commit()?;
    Ok(())
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
    use nix::{
        mount::{MsFlags, mount, umount},
        sched::{CloneFlags, unshare},
    };

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
    fn a_store_that_was_full_serves_again_and_holds_what_is_so() {
        // A mount namespace is a thread's own.
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
            let directory = tempfile::tempdir().unwrap();
            mount(nothing, directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
            let path = directory.path().join(FILE);
            let (store, _) = Store::open(&path, ula("fd00:1::/48")).unwrap();
            let (one, two, three) = (network(1), network(2), network(3));
            store.commit(&[Change::PutNetwork(one.clone())], &[]).unwrap();

            let filler = directory.path().join("filler");
            let full = std::fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
            let large = Network { labels: [("x".to_owned(), "x".repeat(1 << 20))].into(), ..network(9) };
            assert!(matches!(store.commit(&[Change::PutNetwork(large)], &[]), Err(Error::Database(_))));
            assert!(matches!(store.commit(&[], &[]), Err(Error::Closed)));
            std::fs::remove_file(filler).unwrap();

            let state = |networks: [&Network; 2]| State {
                networks: networks.map(|it| (it.id, it.clone())).into(),
                ..State::default()
            };
            store.settle(&state([&one, &two])).unwrap();
            store.commit(&[Change::PutNetwork(three.clone())], &[]).unwrap();
            // Of what is on the disk, though nobody was told so, nothing is left.
            *store.database() = None;
            store.settle(&state([&one, &two])).unwrap();
            drop(store);
            let (store, stored) = Store::open(&path, ula("fd00:2::/48")).unwrap();
            assert_eq!((stored.state, stored.ula), (state([&one, &two]), ula("fd00:1::/48")));
            drop(store);
            umount(directory.path()).unwrap();
        })
        .join()
        .unwrap();
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
