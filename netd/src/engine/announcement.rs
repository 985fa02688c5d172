//! Word of new endpoints to their neighbours, who may remember somebody else under their addresses.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep},
};

use crate::{
    apply::Host,
    datapath::IfIndex,
    model::{Advertise, Endpoint},
};

/// For how many intervals a repetition waits for a quiet moment.
const PATIENCE: u32 = 60;

/// When it is said again where an endpoint is.
///
/// The first word goes out at once. To carry one to each port of a full bridge takes milliseconds of a processor, and whoever joins or
/// leaves next would wait for it: so repetitions wait until nobody has for as long as their interval, take turns, and leave as much
/// time as they took.
pub(super) struct Announcer {
    changed: Mutex<Instant>,
    turn: tokio::sync::Mutex<()>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self { changed: Mutex::new(Instant::now()), turn: tokio::sync::Mutex::default() }
    }

    /// Says where the endpoint is, as often as it is to be said. Takes seconds; ends early with the port.
    pub(super) async fn announce(self: Arc<Self>, host: Host, endpoint: Endpoint, advertise: Advertise) {
        let Ok(port) = host.links.index(&endpoint.host_interface).await.map(IfIndex) else { return };
        let link_local = endpoint.link_local.iter().map(IpNet::addr);
        let addresses: Vec<_> = endpoint.addresses().chain(link_local).collect();
        let interval = Duration::from_millis(advertise.interval.into());
        for message in 0..advertise.messages {
            let _turn = if message > 0 { Some(self.turn(interval).await) } else { None };
            let (datapath, addresses) = (host.datapath.clone(), addresses.clone());
            let tell =
                move || addresses.iter().try_for_each(|&at| datapath.advertise(port, endpoint.mac, at));
            let begun = Instant::now();
            if let Ok(Err(error)) = tokio::task::spawn_blocking(tell).await {
                log::debug!("{error}");
                return;
            }
            if message > 0 {
                sleep(begun.elapsed()).await;
            }
        }
    }

    /// Somebody joins or leaves, or what leads to him changes.
    pub(super) fn change(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits for the next repetition's turn.
    async fn turn(&self, interval: Duration) -> MutexGuard<'_, ()> {
        sleep(interval).await;
        for _ in 0..PATIENCE {
            let turn = self.turn.lock().await;
            let quiet = self.changed.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if quiet >= interval {
                return turn;
            }
            drop(turn);
            sleep(interval - quiet).await;
        }
        self.turn.lock().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

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
