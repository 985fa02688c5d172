//! How many questions may be under way at once, and how many of one asker's.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::{FarEnd, Id, State};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A container, in however many networks it is: the inode of its namespace.
    Sandbox(u64),
    /// A container, by the path that its engine has it at.
    Path(PathBuf),
    /// All else in a network together.
    Network(Id),
}

impl Asker {
    /// Who has an address of a network.
    pub(super) fn of(state: &State, network: Id, address: IpAddr) -> Self {
        let endpoint = state.endpoints_of(network).find(|endpoint| endpoint.has(address));
        let by_path = |far_end: &FarEnd| far_end.path().map(|path| Self::Path(path.to_owned()));
        match endpoint.map(|endpoint| &endpoint.far_end) {
            Some(FarEnd::Sandbox(sandbox)) => Self::Sandbox(sandbox.inode),
            Some(far_end) => by_path(far_end).unwrap_or(Self::Network(network)),
            None => Self::Network(network),
        }
    }
}

/// An asker may have this part of the places that are left.
const PART: usize = 4;

/// Places for questions. An asker may have a quarter as many as are left: one alone has a fifth of all, and when two dozen have taken what
/// they can get there still is one for the next (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
/// Switches", 1998).
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    sum: usize,
    by: HashMap<Asker, usize>,
}

impl Places {
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::default() })
    }

    /// A place for a question of `asker`; none if it has its share.
    pub(super) fn take(self: &Arc<Self>, asker: Asker) -> Option<Place> {
        let mut taken = self.taken();
        let left = self.all - taken.sum;
        let own = taken.by.get(&asker).copied().unwrap_or_default();
        if own * PART >= left {
            return None;
        }
        taken.by.insert(asker.clone(), own + 1);
        taken.sum += 1;
        drop(taken);
        Some(Place { places: self.clone(), asker })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    asker: Asker,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.sum -= 1;
        if let Some(own) = taken.by.get_mut(&self.asker) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Handover, sample};

    fn take_all(places: &Arc<Places>, inode: u64) -> Vec<Place> {
        std::iter::from_fn(|| places.take(Asker::Sandbox(inode))).collect()
    }

    #[test]
    fn one_leaves_room_for_the_next_however_many_there_are() {
        let places = Places::new(1024);
        let mut held: Vec<_> = (0..24).map(|inode| take_all(&places, inode)).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts[..5], [205, 164, 131, 105, 84]);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        // Whoever has more than his share by now gets no other, and what is given back is for all.
        held[0].truncate(190);
        assert!(places.take(Asker::Sandbox(0)).is_none());
        assert!(places.take(Asker::Sandbox(23)).is_some());
        drop(held);
        assert_eq!(take_all(&places, 23).len(), 205);
        assert!(places.taken().by.is_empty() && places.taken().sum == 0);
    }

    #[test]
    fn a_container_is_one_asker_in_all_of_its_networks() {
        let networks = [1, 2].map(|byte| sample::network(byte, "n", Vec::new()));
        let mut endpoints = [0, 1].map(|at: u8| Endpoint {
            ipv4: Some(format!("10.{at}.0.2/16").parse().unwrap()),
            ipv6: Some(format!("fd00:{at}::2/64").parse().unwrap()),
            ..sample::endpoint(&networks[usize::from(at)], at, "box")
        });
        let state = |all: &[Endpoint]| State { endpoints: all.iter().cloned().collect(), ..State::default() };
        let askers = |endpoints: &[Endpoint]| -> Vec<Asker> {
            let state = state(endpoints);
            endpoints
                .iter()
                .flat_map(|it| {
                    it.addresses().map(|address| Asker::of(&state, it.network, address)).collect::<Vec<_>>()
                })
                .collect()
        };
        let all = askers(&endpoints);
        assert!(all.iter().all(|asker| *asker == all[0]), "{all:?}");
        let joined =
            |path: &str| FarEnd::Engine(Handover { id: "e".into(), joined: Some(path.into()), name: None });
        endpoints[0].far_end = joined("/run/docker/netns/a");
        endpoints[1].far_end = joined("/run/docker/netns/a");
        let all = askers(&endpoints);
        assert!(all.iter().all(|asker| *asker == Asker::Path("/run/docker/netns/a".into())), "{all:?}");
        // Whoever has no address of its own is one with all that have none.
        let nobody = Asker::of(&state(&endpoints), networks[0].id, [10, 9, 9, 9].into());
        assert_eq!(nobody, Asker::Network(networks[0].id));
    }
}
