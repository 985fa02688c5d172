//! The engine's start: the same plan as for every request, from all that is seen to all that is stored.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::sync::broadcast;

use super::{Announcer, Engine, Inner, Writer, internal, lease::Replay, new_links, publish};
use crate::{
    apply::Host,
    config::Config,
    datapath::Datapath,
    ipam::Pools,
    link::{Device, Grace, Links, Namespace},
    model::{Endpoint, Error, FarEnd, State},
    plan::{self, Touched},
    store::{Change, Store, Stored},
};

/// Events that a slow listener may fall behind.
const EVENTS: usize = 1024;

impl Engine {
    /// Makes the host what the store and the configuration say, and is then ready for requests.
    ///
    /// # Errors
    /// If the configuration and the store contradict each other, or the host refuses; it is as it was then.
    pub async fn start(
        config: Config,
        store: Store,
        stored: Stored,
        datapath: Datapath,
    ) -> Result<Self, Error> {
        let host = Host {
            links: Links::here().map_err(internal)?,
            datapath: Arc::new(datapath),
            grace: Grace::new(&config.run_dir),
        };
        let uplinks =
            host.datapath.observe().map_err(internal)?.uplinks.into_keys().map(|index| (index, None));
        let uplinks = uplinks.collect();
        let foreign = host.datapath.foreign().map_err(internal)?.into_keys().map(|index| (index, None));
        let foreign = foreign.collect();
        let locals = host.datapath.locals().map_err(internal)?;
        let engine = Self(Arc::new(Inner {
            pools: Pools::new(&config.address_pools, stored.ula),
            labels: RwLock::new(config.labels.clone().into()),
            config,
            host,
            announcer: Arc::new(Announcer::new()),
            removed: Mutex::default(),
            own_netns: Namespace::current().map_err(internal)?.inode(),
            writer: Arc::new(tokio::sync::Mutex::new(Writer {
                store: Arc::new(store),
                uplinks,
                foreign,
                replay: Replay::of(&stored.state),
                ports: Default::default(),
                locals,
                reserved: None,
            })),
            state: RwLock::new(Arc::new(stored.state)),
            events: broadcast::channel(EVENTS).0,
        }));
        let mut writer = engine.0.writer.clone().lock_owned().await;
        engine.check_uplinks().await?;
        engine.forward_host(&mut writer).await?;
        engine.reconcile(&mut writer, stored.journal).await?;
        for network in engine.state().networks.values() {
            engine.forward(&mut writer, network).await?;
        }
        engine.refresh_uplinks(&mut writer).await?;
        engine.refresh_locals(&mut writer).await?;
        engine.reserve(&mut writer).await?;
        // Nobody listened to the kernel since the last daemon.
        engine.datapath().bump_fib_generation().map_err(internal)?;
        drop(writer);
        Ok(engine)
    }

    /// An uplink that was named and is not there is a slip of the pen until somebody says otherwise.
    async fn check_uplinks(&self) -> Result<(), Error> {
        for uplink in &self.0.config.uplinks {
            match self.0.host.links.device(uplink).await.map_err(internal)? {
                None => return Err(Error::invalid(format!("--uplink {uplink}: there is no such interface"))),
                Some(device) if device.framing.is_none() => {
                    let why =
                        "neither Ethernet nor a tunnel, and netd does not know how to use such an interface";
                    return Err(Error::invalid(format!("--uplink {uplink}: {why}")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn reconcile(&self, writer: &mut Writer, journal: BTreeSet<String>) -> Result<(), Error> {
        let old = self.state();
        let mut new = State::clone(&old);
        let devices = self.0.host.links.devices().await.map_err(internal)?;
        let is_alive = |endpoint: &Endpoint| match &endpoint.far_end {
            FarEnd::Sandbox(sandbox) => sandbox.open().is_some(),
            FarEnd::Engine(handover) => handover.joined.is_none() || is_away(endpoint, &devices),
        };
        for endpoint in old.endpoints.values().filter(|endpoint| !is_alive(endpoint)) {
            log::warn!("{} is no more: its endpoint is removed", endpoint.far_end);
            new.endpoints.remove(&endpoint.id);
            let departed = new.departed.entry(endpoint.network).or_default();
            *departed = *departed + self.total_of(endpoint).await;
        }
        free_leases(&old, &mut new);
        self.predefine(&mut new).await?;
        let gone: Vec<_> =
            new.externals.values().filter(|it| it.internal(&new).is_none()).map(|it| it.external).collect();
        new.externals.retain(|external, _| !gone.contains(external));

        let host = &self.0.host;
        let known = plan::desired(&old, &Touched::all(&old));
        let wanted = plan::desired(&new, &Touched::all(&new));
        // A bridge of a wanted name is taken over, as Docker does with docker0.
        let mut named = known.clone();
        for (name, bridge) in &wanted.bridges {
            named.bridges.entry(name.clone()).or_insert_with(|| bridge.clone());
        }
        let seen = host.observe(&named, &journal).await.map_err(internal)?;
        let steps = plan::steps(&seen, &wanted);
        if !steps.is_empty() && !old.networks.is_empty() {
            log::info!("{} steps lead from what is there to what should be", steps.len());
        }
        publish::warn_of_bound(&steps).await?;
        let links = new_links(&known, &wanted);
        let journalled = links.clone();
        writer.store(move |store| store.begin(&journalled)).await?;
        let taken = host.apply(steps).await.map_err(internal)?;
        let changes = changes(&old, &new);
        let done: Vec<_> = links.into_iter().chain(journal).collect();
        if let Err(error) = writer.store(move |store| store.commit(&changes, &done)).await {
            taken.undo(host).await;
            return Err(error);
        }
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }
}

/// Whether the far end of a veth is in another namespace. One that an engine had taken and that is gone, or is back, was
/// left while no daemon listened.
fn is_away(endpoint: &Endpoint, devices: &[Device]) -> bool {
    let near = devices.iter().find(|device| device.name == endpoint.host_interface);
    near.is_some_and(|near| {
        let is_far_end = |device: &Device| Some(device.index) == near.peer && device.peer == Some(near.index);
        !devices.iter().any(is_far_end)
    })
}

/// Takes the leases of endpoints that are no more: their engine could not give them back.
fn free_leases(old: &State, new: &mut State) {
    for endpoint in old.endpoints.values().filter(|endpoint| !new.endpoints.contains_key(&endpoint.id)) {
        let subnets = old.networks[&endpoint.network].ipam.pools.iter().map(|pool| pool.subnet);
        let subnets: Vec<_> = subnets.collect();
        for pool in new.pools.values_mut().filter(|pool| subnets.contains(&pool.pool.subnet)) {
            pool.leases.retain(|&lease| !endpoint.has(lease));
        }
    }
}

/// What is different between two states.
fn changes(old: &State, new: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, network) in &new.networks {
        if old.networks.get(id) != Some(network) {
            changes.push(Change::PutNetwork(network.clone()));
        }
    }
    for (id, endpoint) in new.endpoints.iter() {
        if old.endpoints.get(id) != Some(endpoint) {
            changes.push(Change::PutEndpoint(Endpoint::clone(endpoint)));
        }
    }
    let gone = old.endpoints.keys().filter(|id| !new.endpoints.contains_key(id));
    changes.extend(gone.map(|id| Change::RemoveEndpoint(*id)));
    let gone = old.networks.keys().filter(|id| !new.networks.contains_key(id));
    changes.extend(gone.map(|id| Change::RemoveNetwork(*id)));
    for (id, total) in &new.departed {
        if old.departed.get(id) != Some(total) {
            changes.push(Change::Depart(*id, *total));
        }
    }
    for (id, pool) in &new.pools {
        if old.pools.get(id) != Some(pool) {
            changes.push(Change::PutPool(pool.clone()));
        }
    }
    let gone = old.externals.keys().filter(|external| !new.externals.contains_key(external));
    changes.extend(gone.map(|external| Change::RemoveExternal(*external)));
    changes
}
