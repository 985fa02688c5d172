//! Word of new endpoints to their neighbours, who may remember somebody else under their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep},
};

use super::{Engine, Inner, lock};
use crate::{
    apply::Host,
    datapath::{Datapath, IfIndex},
    link::Changes,
    model::{Advertise, Endpoint, Id, MacAddress},
};

/// For how many intervals a repetition waits for a quiet moment.
const PATIENCE: u32 = 60;

/// When it is said where an endpoint is.
///
/// The first word goes out at once where somebody may be remembered under its address. To carry one to each port of a full bridge
/// takes milliseconds of a processor, and whoever joins or leaves next would wait for it: so all others wait until nobody has for as
/// long as their interval, take turns, and leave as much time as they took.
pub(super) struct Announcer {
    changed: Mutex<Instant>,
    turn: tokio::sync::Mutex<()>,
    /// Endpoints that an engine has yet to bring up.
    expected: Mutex<BTreeSet<Id>>,
    /// By network that this daemon has made, the addresses that somebody has had there. Of others' pasts it knows nothing.
    had: Mutex<BTreeMap<Id, BTreeSet<IpAddr>>>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        let (turn, expected, had) = Default::default();
        Self { changed: Mutex::new(Instant::now()), turn, expected, had }
    }

    /// Says where the endpoint is, as often as it is to be said. Where somebody may be remembered under its address the first word is
    /// out when this returns, so that whoever is told of the endpoint reaches it; the rest takes seconds, and ends early with the port.
    pub(super) async fn announce(self: Arc<Self>, host: &Host, endpoint: &Endpoint, advertise: Advertise) {
        let Ok(port) = host.links.index(&endpoint.host_interface).await.map(IfIndex) else { return };
        let addresses: Vec<_> = endpoint.all_addresses().collect();
        let mut left = advertise.messages;
        let is_urgent = self.is_remembered(endpoint.network, &addresses);
        let word = Word { datapath: host.datapath.clone(), port, mac: endpoint.mac, addresses };
        if is_urgent && left > 0 {
            left -= 1;
            if let Err(error) = host.links.until_running(port.0).await {
                log::debug!("{error}");
            }
            if !word.say().await {
                return;
            }
        }
        tokio::spawn(self.repeat(word, left, Duration::from_millis(advertise.interval.into())));
    }

    async fn repeat(self: Arc<Self>, word: Word, times: u8, interval: Duration) {
        for _ in 0..times {
            let _turn = self.turn(interval).await;
            let begun = Instant::now();
            if !word.say().await {
                return;
            }
            sleep(begun.elapsed()).await;
        }
    }

    /// An engine is about to bring an endpoint up: nobody hears it before.
    pub(super) fn expect(&self, endpoint: Id) {
        lock(&self.expected).insert(endpoint);
    }

    /// An endpoint is no more.
    pub(super) fn forget(&self, endpoint: Id) {
        lock(&self.expected).remove(&endpoint);
    }

    /// A network begins, without a past.
    pub(super) fn begin(&self, network: Id) {
        lock(&self.had).insert(network, BTreeSet::new());
    }

    /// A network is no more.
    pub(super) fn end(&self, network: Id) {
        lock(&self.had).remove(&network);
    }

    /// Whether a neighbour may remember somebody under one of these addresses, which somebody has from now on.
    fn is_remembered(&self, network: Id, addresses: &[IpAddr]) -> bool {
        lock(&self.had).get_mut(&network).is_none_or(|had| {
            let again = addresses.iter().any(|address| had.contains(address));
            had.extend(addresses);
            again
        })
    }

    /// Somebody joins or leaves, or what leads to him changes.
    pub(super) fn change(&self) {
        *lock(&self.changed) = Instant::now();
    }

    /// Waits for the next repetition's turn.
    async fn turn(&self, interval: Duration) -> MutexGuard<'_, ()> {
        sleep(interval).await;
        for _ in 0..PATIENCE {
            let turn = self.turn.lock().await;
            let quiet = lock(&self.changed).elapsed();
            if quiet >= interval {
                return turn;
            }
            drop(turn);
            sleep(interval - quiet).await;
        }
        self.turn.lock().await
    }
}

impl Engine {
    /// Announces the endpoints that an engine may have brought up just now.
    pub(super) fn announce_expected(&self, changes: &Changes) {
        let expected = lock(&self.0.announcer.expected);
        if expected.is_empty() {
            return;
        }
        let state = self.state();
        let endpoints = changes.links.iter().filter_map(|link| state.endpoints.at_link(link));
        for endpoint in endpoints.filter(|endpoint| expected.contains(&endpoint.id)) {
            tokio::spawn(self.clone().announce_if_up(endpoint.clone()));
        }
    }

    async fn announce_if_up(self, endpoint: Endpoint) {
        let Inner { host, announcer, .. } = &*self.0;
        let device = host.links.device(&endpoint.host_interface).await.ok().flatten();
        if !device.is_some_and(|device| device.running) || !lock(&announcer.expected).remove(&endpoint.id) {
            return;
        }
        let bridge = self.state().networks.get(&endpoint.network).and_then(|network| network.bridge.clone());
        if let Some(bridge) = bridge {
            announcer.clone().announce(host, &endpoint, bridge.advertise).await;
        }
    }
}

/// That addresses are at a MAC address.
struct Word {
    datapath: Arc<Datapath>,
    port: IfIndex,
    mac: MacAddress,
    addresses: Vec<IpAddr>,
}

impl Word {
    /// Says it once. `false` if it cannot be said, and never will.
    async fn say(&self) -> bool {
        let (datapath, addresses, port, mac) =
            (self.datapath.clone(), self.addresses.clone(), self.port, self.mac);
        let tell = move || addresses.iter().try_for_each(|&at| datapath.advertise(port, mac, at));
        match tokio::task::spawn_blocking(tell).await {
            Ok(Err(error)) => {
                log::debug!("{error}");
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn who_has_had_an_address_may_be_remembered() {
        let announcer = Announcer::new();
        let (new, old) = (Id::new([1; 32]), Id::new([2; 32]));
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        announcer.begin(new);
        let remembered = |network, addresses: &[IpAddr]| announcer.is_remembered(network, addresses);
        assert_eq!(
            [remembered(new, &[one]), remembered(new, &[two]), remembered(new, &[one])],
            [false, false, true]
        );
        // A network from before the daemon's start, or one that began anew.
        assert!(remembered(old, &[one]));
        announcer.end(new);
        announcer.begin(new);
        assert!(!remembered(new, &[one, two]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_comes_an_interval_later() {
        let (announcer, begun) = (Announcer::new(), Instant::now());
        drop(announcer.turn(INTERVAL).await);
        assert_eq!(begun.elapsed(), INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_or_leaves_goes_before_repetitions() {
        let (announcer, begun) = (Announcer::new(), Instant::now());
        let change = async {
            sleep(INTERVAL / 2).await;
            announcer.change();
        };
        tokio::join!(async { drop(announcer.turn(INTERVAL).await) }, change);
        assert_eq!(begun.elapsed(), INTERVAL * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_never_quiet_repeats_in_the_end() {
        let (announcer, begun) = (Announcer::new(), Instant::now());
        let changes = async {
            loop {
                announcer.change();
                sleep(INTERVAL / 4).await;
            }
        };
        let turn = timeout(INTERVAL * (PATIENCE + 1), announcer.turn(INTERVAL));
        tokio::select! {
            turn = turn => drop(turn.expect("it waits for no more intervals than it has patience for")),
            () = changes => {}
        }
        assert!(begun.elapsed() >= INTERVAL * PATIENCE / 2, "{:?}", begun.elapsed());
    }
}
