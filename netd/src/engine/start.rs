//! The engine's start: the same plan as for every request, from all that is seen to all that is stored.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::sync::broadcast;

use super::{Announcer, Engine, Inner, Writer, internal, lease::Replay, new_links, publish, site::Prepared};
use crate::{
    apply::Host,
    config::Config,
    datapath::Datapath,
    link::{Grace, Namespace},
    model::{Error, State},
    plan::{self, Touched},
    store::{Change, Store},
};

/// Events that a slow listener may fall behind.
const EVENTS: usize = 1024;

impl Engine {
    /// Makes the host what the store and the configuration say, and is then ready for requests.
    ///
    /// # Errors
    /// If the host refuses; its networks are as they were then.
    pub async fn start(
        config: Config,
        store: Store,
        prepared: Prepared,
        datapath: Datapath,
    ) -> Result<Self, Error> {
        let Prepared { stored, links, pools, wanted } = prepared;
        let host = Host { links, datapath: Arc::new(datapath), grace: Grace::new(&config.run_dir) };
        let uplinks =
            host.datapath.observe().map_err(internal)?.uplinks.into_keys().map(|index| (index, None));
        let uplinks = uplinks.collect();
        let foreign = host.datapath.foreign().map_err(internal)?.into_keys().map(|index| (index, None));
        let foreign = foreign.collect();
        let locals = host.datapath.locals().map_err(internal)?;
        let engine = Self(Arc::new(Inner {
            pools,
            labels: RwLock::new(config.labels.clone().into()),
            config,
            host,
            announcer: Arc::new(Announcer::new()),
            removed: Mutex::default(),
            left: Mutex::default(),
            own_netns: Namespace::current().map_err(internal)?.inode(),
            writer: Arc::new(tokio::sync::Mutex::new(Writer {
                store: Arc::new(store),
                uplinks,
                foreign,
                advertised_to: BTreeSet::new(),
                replay: Replay::of(&stored.state),
                ports: Default::default(),
                locals,
                reserved: None,
            })),
            state: RwLock::new(Arc::new(stored.state)),
            events: broadcast::channel(EVENTS).0,
        }));
        let mut writer = engine.0.writer.clone().lock_owned().await;
        engine.forward_host(&mut writer).await?;
        engine.reconcile(&mut writer, wanted, stored.journal).await?;
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

    async fn reconcile(
        &self,
        writer: &mut Writer,
        wanted: State,
        journal: BTreeSet<String>,
    ) -> Result<(), Error> {
        let old = self.state();
        // What was noted since it was decided what is to be.
        let mut new = State { forwards: old.forwards.clone(), ..wanted };
        for endpoint in old.endpoints.values().filter(|endpoint| !new.endpoints.contains_key(&endpoint.id)) {
            let departed = new.departed.entry(endpoint.network).or_default();
            *departed = *departed + self.total_of(endpoint).await;
        }

        let host = &self.0.host;
        let known = plan::desired(&old, &Touched::all(&old));
        let wanted = plan::desired(&new, &Touched::all(&new));
        // A bridge of a wanted name is taken over, as Docker does with docker0.
        let mut named = known.clone();
        for (name, bridge) in &wanted.bridges {
            named.bridges.entry(name.clone()).or_insert_with(|| bridge.clone());
        }
        host.rename_back(&known).await.map_err(internal)?;
        let seen = host.observe(&named, &journal).await.map_err(internal)?;
        let steps = plan::steps(&seen, &wanted);
        if !steps.is_empty() && !old.networks.is_empty() {
            log::info!("{} steps lead from what is there to what should be", steps.len());
        }
        publish::warn_of_bound(&steps).await?;
        let links = new_links(&known, &wanted);
        let journalled = links.clone();
        writer.store(move |store| store.begin(&journalled)).await?;
        let taken = host.repair(steps).await.map_err(internal)?;
        for (name, bridge) in wanted.bridges.iter().filter(|(_, bridge)| bridge.adopted) {
            host.links.keep_mac(name, bridge).await.map_err(internal)?;
        }
        let changes = Change::between(&old, &new);
        let done: Vec<_> = links.into_iter().chain(journal).collect();
        if let Err(error) = writer.store(move |store| store.commit(&changes, &done)).await {
            taken.undo(host).await;
            return Err(error);
        }
        *self.0.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }
}
