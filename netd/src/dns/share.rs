//! How many questions may be under way at once, and how many of one asker's.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::Id;

/// Who asks: an address of a network; all of those that a container may have any number of are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    network: Id,
    address: Option<IpAddr>,
}

impl Asker {
    pub(super) fn new(network: Id, address: IpAddr) -> Self {
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        Self { network, address: (!is_link_local).then_some(address) }
    }
}

/// Places for questions. An asker may have as many as are left for all others: one alone has half of them, two a third each, and there
/// always is one for the next (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998).
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
        if own >= left {
            return None;
        }
        taken.by.insert(asker, own + 1);
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

    fn asker(text: &str) -> Asker {
        Asker::new(Id::try_from("0".repeat(64)).unwrap(), text.parse().unwrap())
    }

    fn take_all(places: &Arc<Places>, asker: Asker) -> Vec<Place> {
        std::iter::from_fn(|| places.take(asker)).collect()
    }

    #[test]
    fn one_leaves_room_for_the_next_however_many_there_are() {
        let places = Places::new(1024);
        let mut held = Vec::new();
        for last in 1..=9 {
            held.push(take_all(&places, asker(&format!("10.0.0.{last}"))));
        }
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [512, 256, 128, 64, 32, 16, 8, 4, 2]);
        // Whoever has more than his share by now gets no other, and what is given back is for all.
        held[0].truncate(500);
        assert!(places.take(asker("10.0.0.1")).is_none());
        assert!(places.take(asker("10.0.0.9")).is_some());
        drop(held);
        assert_eq!(take_all(&places, asker("10.0.0.9")).len(), 512);
        assert!(places.taken().by.is_empty() && places.taken().sum == 0);
    }

    #[test]
    fn link_local_addresses_are_one_asker() {
        assert_eq!(asker("fe80::1"), asker("fe80::2"));
        assert_eq!(asker("169.254.0.1"), asker("169.254.0.2"));
        assert_ne!(asker("10.0.0.1"), asker("10.0.0.2"));
    }
}
