//! Traffic of endpoints that have left: a network's totals must not fall when one does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::view::Traffic;
use crate::model::Id;

/// What an endpoint, or a network's endpoints, sent and received.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) sent: Traffic,
    pub(crate) received: Traffic,
}

/// By network, what endpoints had when they left. Kept for as long as the daemon runs and the network is there.
#[derive(Debug, Default, Clone)]
pub(crate) struct Departed(Arc<Mutex<HashMap<Id, Total>>>);

impl Departed {
    /// An endpoint with this total has left `network`.
    pub(crate) fn add(&self, network: Id, total: Total) {
        let mut networks = self.lock();
        let sum = networks.entry(network).or_default();
        *sum = Total { sent: sum.sent + total.sent, received: sum.received + total.received };
    }

    /// The totals of the networks that `is_there` still knows; the others are forgotten.
    pub(crate) fn totals(&self, is_there: impl Fn(&Id) -> bool) -> HashMap<Id, Total> {
        let mut networks = self.lock();
        networks.retain(|network, _| is_there(network));
        networks.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Total>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_and_go_with_their_network() {
        let departed = Departed::default();
        let traffic = |n| Traffic { packets: n, bytes: 10 * n };
        let (a, b) = (Id::new([1; 32]), Id::new([2; 32]));
        departed.add(a, Total { sent: traffic(1), received: traffic(2) });
        departed.add(a, Total { sent: traffic(3), received: traffic(4) });
        departed.add(b, Total::default());
        let totals = departed.totals(|network| *network == a);
        assert_eq!(totals, HashMap::from([(a, Total { sent: traffic(4), received: traffic(6) })]));
        assert!(departed.totals(|_| true).contains_key(&a) && !departed.totals(|_| true).contains_key(&b));
    }
}
