//! The single writer: requests become states, states become steps, steps are taken, and only then is there an answer.

mod announcement;
mod attach;
mod attachment;
mod bridge;
mod choice;
mod configuration;
mod endpoint;
mod event;
mod external;
mod forward;
mod handover;
mod host;
mod lease;
mod local;
mod masquerade;
mod options;
mod predefined;
mod publish;
mod rate;
mod reserve;
mod site;
mod spec;
mod start;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use ipnet::IpNet;
use netd_common::addr::IfIndex;
use tokio::sync::{OwnedMutexGuard, broadcast};

pub use crate::model::{Error, ErrorKind};
use crate::{
    apply::Host,
    config::Config,
    datapath::{Datapath, Foreign, UplinkEntry},
    ipam::Pools,
    model::{Endpoint, Id, Local, Network, PortSet, State, Traffic, request},
    plan::{self, Touched, World},
    store::{self, Change, Store},
};
use announcement::Announcer;
pub use event::{Action, Event, Happened, Reloaded};
pub use forward::stop_forwarding;
pub use host::{HostView, RouteView};
pub use predefined::validate;
use reserve::Reservation;
pub use reserve::release;
pub use site::Prepared;

/// The answer to a request for a new network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The network's id.
    pub id: Id,
    /// What the user should know; empty for nothing.
    pub warning: String,
}

/// A handle of the engine; all handles are of the same one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    /// The daemon's labels, which change while it runs.
    labels: RwLock<Arc<[String]>>,
    pools: Pools,
    host: Host,
    announcer: Arc<Announcer>,
    /// Links that netd takes away, until the kernel says that they are gone.
    removed: Mutex<BTreeSet<String>>,
    /// What endpoints' links had sent into them that went without netd, by link.
    left: Mutex<BTreeMap<String, Traffic>>,
    /// Inode of the daemon's own network namespace.
    own_netns: u64,
    state: RwLock<Arc<State>>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    events: broadcast::Sender<Event>,
}

/// What only one action at a time may use.
struct Writer {
    store: Arc<Store>,
    /// The uplinks that the datapath knows; `None` for one that an earlier daemon told it of.
    uplinks: BTreeMap<IfIndex, Option<UplinkEntry>>,
    /// The interfaces that are none of netd's as the datapath knows them; `None` as above.
    foreign: BTreeMap<IfIndex, Option<Foreign>>,
    /// The interfaces that were looked at for whether they take router advertisements.
    advertised_to: BTreeSet<IfIndex>,
    /// What a container engine may ask for again.
    replay: lease::Replay,
    /// The ports that were published last of those that nobody named.
    ports: publish::Cursor,
    /// The host's own addresses that the datapath knows.
    locals: BTreeMap<IpNet, Local>,
    /// What the host's own sockets are kept from.
    reserved: Option<PortSet>,
}

impl Engine {
    /// The state that the last answered request left.
    pub fn state(&self) -> Arc<State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the daemon was told when it started.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The daemon's labels.
    pub fn labels(&self) -> Arc<[String]> {
        self.0.labels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon goes by something else from now on.
    pub fn reload(&self, reloaded: Reloaded) {
        *self.0.labels.write().unwrap_or_else(PoisonError::into_inner) = reloaded.labels.clone();
        self.send(Happened::Reload { daemon: self.state().daemon_id(), reloaded });
    }

    /// The programs and maps.
    pub fn datapath(&self) -> &Datapath {
        &self.0.host.datapath
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Makes a network.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn create_network(&self, request: request::NetworkCreate) -> Result<Created, Error> {
        self.act(move |engine, mut writer| async move { engine.create(&mut writer, request).await }).await
    }

    /// Removes a network that has no endpoints; a container engine's only by `force`.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn remove_network(&self, name_or_id: &str, force: bool) -> Result<(), Error> {
        let name = name_or_id.to_owned();
        self.act(move |engine, mut writer| async move { engine.remove(&mut writer, &name, force).await })
            .await
    }

    /// Attaches a network namespace to a network.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn connect(&self, network: &str, request: request::NetworkConnect) -> Result<Endpoint, Error> {
        let network = network.to_owned();
        self.act(move |engine, mut writer| async move { engine.attach(&mut writer, &network, request).await })
            .await
    }

    /// Detaches a network namespace from a network, whether it still exists or not.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn disconnect(&self, network: &str, request: request::NetworkDisconnect) -> Result<(), Error> {
        let network = network.to_owned();
        self.act(
            move |engine, mut writer| async move { engine.detach(&mut writer, &network, &request).await },
        )
        .await
    }

    /// Runs an action alone, and to its end: whoever asked for it may go away before.
    async fn act<T, F>(
        &self,
        action: impl FnOnce(Self, OwnedMutexGuard<Writer>) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let writer = engine.0.writer.clone().lock_owned().await;
            writer.settle(engine.state()).await?;
            action(engine, writer).await
        });
        task.await.unwrap_or_else(|error| Err(Error::internal(format!("the action died: {error}"))))
    }

    /// Brings about `changes`: on the host, then in the store, then in the state that everyone sees. On failure all three
    /// are as before.
    async fn change(
        &self,
        writer: &mut Writer,
        mut changes: Vec<Change>,
        mut touched: Touched,
    ) -> Result<(), Error> {
        self.0.announcer.change();
        let old = self.state();
        let mut new = State::clone(&old);
        for change in &changes {
            change.clone().make(&mut new);
        }
        // A segment comes with its first endpoint and goes with the last.
        let on_segments = changes.iter().filter_map(|change| change.endpoint(&old)?.segment());
        touched.networks.extend(on_segments.map(|segment| segment.network));
        let mut known = plan::desired(&old, &touched);
        let mut wanted = plan::desired(&new, &touched);
        let host = &self.0.host;
        let mut seen = host.observe_part(&with_adopted(&known, &wanted), &wanted).await.map_err(internal)?;
        // A bridge that somebody has taken away comes back with all of its ports.
        let is_lost = |name: &String| known.bridges.contains_key(name) && !seen.bridges.contains_key(name);
        let lost: BTreeSet<_> = wanted.bridges.keys().filter(|name| is_lost(name)).cloned().collect();
        if !lost.is_empty() {
            log::warn!("{lost:?} are no more: they are made anew");
            let is_lost = |network: &&Network| {
                network.bridge.as_ref().is_some_and(|bridge| lost.contains(&bridge.interface))
            };
            let on_lost = new.networks.values().filter(is_lost).flat_map(|it| new.endpoints_of(it.id));
            touched.endpoints.extend(on_lost.map(|endpoint| endpoint.id));
            known = plan::desired(&old, &touched);
            wanted = plan::desired(&new, &touched);
            seen = host.observe_part(&with_adopted(&known, &wanted), &wanted).await.map_err(internal)?;
        }
        let links = new_links(&known, &wanted);
        let steps = plan::steps(&seen, &wanted);

        let journal = links.clone();
        writer.store(move |store| store.begin(&journal)).await?;
        let removed = steps.iter().flat_map(plan::Step::removed).map(str::to_owned);
        lock(&self.0.removed).extend(removed);
        let taken = host.apply(steps).await;
        let mut reservation = None;
        let stored = match &taken {
            Ok(_) => {
                reservation = Reservation::begin(writer, &old, &new);
                if let Some(change) = reservation.as_ref().and_then(|it| it.change(&old)) {
                    change.clone().make(&mut new);
                    changes.push(change);
                }
                let links = links.clone();
                writer.store(move |store| store.commit(&changes, &links)).await
            }
            Err(_) => Ok(()),
        };
        match (taken, stored) {
            (Ok(_), Ok(())) => {
                *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                if let Some(reservation) = reservation {
                    reservation.finish();
                }
                Ok(())
            }
            (taken, stored) => {
                if let Some(reservation) = reservation {
                    reservation.undo(writer);
                }
                let error = match taken {
                    Ok(taken) => {
                        taken.undo(host).await;
                        stored.err()
                    }
                    Err(error) => Some(internal(error)),
                };
                // What could not be undone stays in the journal, and goes at the next start.
                let devices = host.links.devices().await.map_err(internal)?;
                if !devices.iter().any(|device| links.contains(&device.name))
                    && let Err(error) = writer.store(move |store| store.commit(&[], &links)).await
                {
                    log::debug!("{error}");
                }
                Err(error.unwrap_or_else(|| Error::internal("the action failed")))
            }
        }
    }

    /// Shows everyone a change that the store has and the host needs nothing more for.
    fn remember(&self, change: Change) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        change.make(Arc::make_mut(&mut state));
    }
}

impl Writer {
    /// Has a store that has failed serve again, if it can: there may be room on the disk by now.
    async fn settle(&self, state: Arc<State>) -> Result<(), Error> {
        if self.store.is_open() {
            return Ok(());
        }
        self.store(move |store| store.settle(&state)).await?;
        log::info!("the state store serves again");
        Ok(())
    }

    /// Runs `f`, which waits for the disk, where waiting is allowed.
    async fn store(
        &self,
        f: impl FnOnce(&Store) -> Result<(), store::Error> + Send + 'static,
    ) -> Result<(), Error> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || f(&store)).await;
        done.map_err(internal)?.map_err(internal)
    }
}

/// Bridges that are about to be adopted are there before they are known.
fn with_adopted(known: &World, wanted: &World) -> World {
    let mut known = known.clone();
    let adopted = wanted.bridges.iter().filter(|(_, bridge)| bridge.adopted);
    known.bridges.extend(adopted.map(|(name, bridge)| (name.clone(), bridge.clone())));
    known
}

/// Links that are in `wanted` alone, and that netd would make.
fn new_links(known: &World, wanted: &World) -> Vec<String> {
    let bridges =
        wanted.bridges.iter().filter(|(name, bridge)| !known.bridges.contains_key(*name) && !bridge.adopted);
    let veths = wanted.veths.keys().filter(|name| !known.veths.contains_key(*name));
    bridges.map(|(name, _)| name).chain(veths).cloned().collect()
}

/// An error of the host's, with all its causes that it does not tell of itself.
fn internal(error: impl std::error::Error) -> Error {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Error::internal(message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `N` random bytes.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// The lowest number below `end` that is not in use.
fn lowest_free(used: impl Iterator<Item = u32>, end: u32) -> Option<u32> {
    let used: BTreeSet<u32> = used.collect();
    (0..end).find(|number| !used.contains(number))
}
