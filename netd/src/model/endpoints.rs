//! All endpoints, found by what they are asked for by: there are thousands, and each request asks several times.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash},
    ops::Deref,
    path::Path,
    sync::Arc,
};

use netd_common::limits;

use super::{Endpoint, Id, Sandbox};

/// Endpoints by id, to be read as the map of them. Each is shared, and all else are numbers: a change begins with a copy of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    by_id: BTreeMap<Id, Arc<Endpoint>>,
    /// By its place in the datapath's tables.
    by_slot: BTreeMap<u32, Id>,
    /// By the digests of its links in the host's namespace.
    by_link: BTreeSet<(u64, Id)>,
    /// By its sandbox's inode.
    by_inode: BTreeSet<(u64, Id)>,
    /// By the digest of its sandbox's path, whoever furnishes it there.
    by_path: BTreeSet<(u64, Id)>,
}

impl Endpoints {
    /// Adds an endpoint, in the place of the one with its id.
    pub fn insert(&mut self, endpoint: Endpoint) {
        let id = endpoint.id;
        self.remove(&id);
        self.by_slot.insert(endpoint.slot, id);
        self.by_link.extend(endpoint.links().map(|link| (digest(link), id)));
        if let Some(sandbox) = endpoint.far_end.sandbox() {
            self.by_inode.insert((sandbox.inode, id));
        }
        self.by_path.extend(endpoint.far_end.path().map(|path| (digest(path), id)));
        self.by_id.insert(id, Arc::new(endpoint));
    }

    /// Takes an endpoint away, if it is there.
    pub fn remove(&mut self, id: &Id) {
        let Some(endpoint) = self.by_id.remove(id) else { return };
        self.by_slot.remove(&endpoint.slot);
        for link in endpoint.links() {
            self.by_link.remove(&(digest(link), *id));
        }
        if let Some(sandbox) = endpoint.far_end.sandbox() {
            self.by_inode.remove(&(sandbox.inode, *id));
        }
        if let Some(path) = endpoint.far_end.path() {
            self.by_path.remove(&(digest(path), *id));
        }
    }

    /// The one at a place in the datapath's tables.
    pub fn at_slot(&self, slot: u32) -> Option<&Endpoint> {
        self.by_slot.get(&slot).map(|id| &*self.by_id[id])
    }

    /// The lowest place in the datapath's tables that nobody has; `None` if there is none left.
    pub fn free_slot(&self) -> Option<u32> {
        let taken = self.by_slot.keys().copied().map(Some).chain([None]);
        (0..limits::ENDPOINTS).zip(taken).find(|(slot, taken)| *taken != Some(*slot)).map(|(slot, _)| slot)
    }

    /// The one that has a link in the host's namespace.
    pub fn at_link(&self, name: &str) -> Option<&Endpoint> {
        self.at(&self.by_link, digest(name)).find(|endpoint| endpoint.links().any(|link| link == name))
    }

    /// Those that are in a sandbox, however it was named.
    pub fn in_sandbox(&self, sandbox: &Sandbox) -> impl Iterator<Item = &Endpoint> {
        self.at(&self.by_inode, sandbox.inode)
    }

    /// Those that joined by a path.
    pub fn at_path<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Endpoint> {
        let is_there = |sandbox: &Sandbox| sandbox.path == *path;
        let found = self.at(&self.by_path, digest(path));
        found.filter(move |endpoint| endpoint.far_end.sandbox().is_some_and(is_there))
    }

    /// Those that an engine has taken to the namespace at a path.
    pub fn taken_to<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Endpoint> {
        let is_there = move |endpoint: &&Endpoint| {
            endpoint.far_end.handover().and_then(|handover| handover.joined.as_deref()) == Some(path)
        };
        self.at(&self.by_path, digest(path)).filter(is_there)
    }

    fn at<'a>(&'a self, index: &'a BTreeSet<(u64, Id)>, key: u64) -> impl Iterator<Item = &'a Endpoint> {
        index.range((key, Id::FIRST)..=(key, Id::LAST)).map(|(_, id)| &*self.by_id[id])
    }
}

fn digest(name: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

impl Deref for Endpoints {
    type Target = BTreeMap<Id, Arc<Endpoint>>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<T: IntoIterator<Item = Endpoint>>(endpoints: T) -> Self {
        let mut all = Self::default();
        endpoints.into_iter().for_each(|endpoint| all.insert(endpoint));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FarEnd, Handover, sample};

    /// An endpoint in a sandbox of this inode.
    fn endpoint(byte: u8, slot: u32, name: &str, inode: u64) -> Endpoint {
        let mut endpoint = sample::endpoint(&sample::network(1, "n", Vec::new()), byte, name);
        (endpoint.slot, endpoint.host_interface) = (slot, format!("veth{byte}"));
        if let FarEnd::Sandbox(sandbox) = &mut endpoint.far_end {
            sandbox.inode = inode;
        }
        endpoint
    }

    #[test]
    fn each_is_found_by_all_that_it_is_at() {
        let [one, two] = [endpoint(1, 0, "box", 7), endpoint(2, 2, "box", 8)];
        let mut handed = endpoint(3, 1, "engine", 0);
        handed.far_end = FarEnd::Engine(Handover { id: "e".into(), joined: None, name: None });
        handed.interface = "peer3".into();
        let mut all: Endpoints = [one.clone(), two.clone(), handed.clone()].into_iter().collect();
        let id = |found: Option<&Endpoint>| found.map(|endpoint| endpoint.id);
        for (name, wanted) in [("veth1", Some(one.id)), ("peer3", Some(handed.id)), ("eth0", None)] {
            assert_eq!(id(all.at_link(name)), wanted, "{name}");
        }
        let sandbox = |endpoint: &Endpoint| endpoint.far_end.sandbox().unwrap().clone();
        let ids = |found: Vec<&Endpoint>| found.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>();
        assert_eq!(ids(all.in_sandbox(&sandbox(&two)).collect()), [two.id]);
        assert_eq!(ids(all.at_path(&sandbox(&one).path).collect()), [one.id, two.id]);
        assert_eq!((id(all.at_slot(2)), all.free_slot()), (Some(two.id), Some(3)));

        // What an endpoint is no more at, it is not found by.
        all.insert(endpoint(1, 5, "other", 8));
        assert_eq!((all.len(), id(all.at_slot(0)), all.free_slot()), (3, None, Some(0)));
        assert_eq!(ids(all.in_sandbox(&sandbox(&two)).collect()), [one.id, two.id]);
        assert_eq!(ids(all.at_path(&sandbox(&one).path).collect()), [two.id]);
        [&one, &two, &handed].into_iter().for_each(|endpoint| all.remove(&endpoint.id));
        assert_eq!(all, Endpoints::default());
    }
}
