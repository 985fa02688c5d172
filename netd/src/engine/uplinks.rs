//! The interfaces that lead outside, followed as the host's links, addresses and routes change.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Mutex,
    time::Duration,
};

use ipnet::IpNet;
use netd_common::{addr::IfIndex, policy::Trusted};
use tokio::sync::Notify;

use super::{Engine, Writer, internal, lock, spec::bridges};
use crate::{
    link::{Address, Changes, Device, Route, Uplink, Watch, uplinks},
    model::{Error, Segment},
};

/// Changes come in bursts: how long to wait after looking at what came of one, before looking again.
const BURST: Duration = Duration::from_millis(50);

/// What is around netd on the host.
pub(super) struct Surroundings {
    pub(super) devices: Vec<Device>,
    addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

impl Surroundings {
    /// The addresses of a link, with the subnets that they are in.
    pub(super) fn nets_of(&self, link: IfIndex) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(move |address| address.index == link.0).map(|address| address.net)
    }
}

impl Engine {
    /// Follows the uplinks for as long as the daemon runs.
    pub async fn follow_uplinks(self, mut watch: Watch) {
        let (seen, change) = (Mutex::<Changes>::default(), Notify::new());
        // Next hops are looked up anew at once; a new uplink waits for the action under way.
        let next_hops = async {
            while let Some(changes) = watch.changed().await {
                self.keep_counts(&changes);
                self.announce_expected(&changes);
                let changes = self.of_others(changes);
                if changes.is_empty() {
                    continue;
                }
                if let Err(error) = self.datapath().bump_fib_generation() {
                    log::error!("{error}");
                }
                lock(&seen).extend(changes);
                change.notify_one();
            }
        };
        let uplinks = async {
            loop {
                change.notified().await;
                let changes = mem::take(&mut *lock(&seen));
                let refresh = self.act(|engine, mut writer| async move {
                    // What was new to netd itself a moment ago is its own by now.
                    if engine.of_others(changes).is_empty() {
                        return Ok(());
                    }
                    engine.refresh_uplinks(&mut writer).await?;
                    engine.refresh_locals(&mut writer).await
                });
                if let Err(error) = refresh.await {
                    log::error!("following the uplinks: {error}");
                }
                tokio::time::sleep(BURST).await;
            }
        };
        tokio::select! {
            () = next_hops => log::error!("the kernel tells of no more changes: uplinks are no longer followed"),
            () = uplinks => {}
        }
    }

    /// Without the comings and goings of netd's own links, which are no way out: to look at all that there is takes the longer
    /// the more endpoints there are, and whoever joins next waits for it.
    fn of_others(&self, mut changes: Changes) -> Changes {
        let mut removed = lock(&self.0.removed);
        changes.links.retain(|name| !removed.contains(name) && !self.is_own(name));
        changes.gone.retain(|name, _| !removed.remove(name) && !self.is_own(name));
        changes
    }

    /// What an endpoint received does not become less when its link goes without netd: with its namespace, for one.
    fn keep_counts(&self, changes: &Changes) {
        let (removed, state) = (lock(&self.0.removed), self.state());
        let mut left = lock(&self.0.left);
        for (name, &sent) in &changes.gone {
            if !removed.contains(name) && state.endpoints.at_link(name).is_some() {
                let sum = left.entry(name.clone()).or_default();
                *sum = *sum + sent.into();
            }
        }
    }

    pub(super) async fn surroundings(&self) -> Result<Surroundings, Error> {
        let links = &self.0.host.links;
        Ok(Surroundings {
            devices: links.devices().await.map_err(internal)?,
            addresses: links.addresses().await.map_err(internal)?,
            routes: links.routes().await.map_err(internal)?,
        })
    }

    /// What leads outside.
    pub(super) fn uplinks_of(&self, around: &Surroundings) -> BTreeMap<IfIndex, Uplink> {
        let Surroundings { devices, addresses, routes } = around;
        uplinks(devices, addresses, routes, &self.0.config.uplinks, |name| self.is_own(name))
    }

    /// Whether a link is a bridge or veth of netd's.
    pub(super) fn is_own(&self, name: &str) -> bool {
        let state = self.state();
        state.endpoints.at_link(name).is_some()
            || state
                .networks
                .values()
                .any(|network| network.bridge.as_ref().is_some_and(|bridge| bridge.interface == name))
            || state.networks.keys().any(|&network| Segment::is_of(network, name))
    }

    /// Tells the datapath of uplinks that came, changed or went.
    pub(super) async fn refresh_uplinks(&self, writer: &mut Writer) -> Result<(), Error> {
        let around = self.surroundings().await?;
        self.refresh_foreign(writer, &around)?;
        let found = self.uplinks_of(&around);
        for (&index, uplink) in &found {
            let entry = uplink.entry();
            match writer.uplinks.get(&index) {
                Some(Some(known)) if *known == entry => continue,
                Some(Some(_)) => {
                    log::info!("uplink {} has other addresses, or another default route", uplink.name);
                }
                Some(None) | None => log::info!("uplink {}", uplink.name),
            }
            self.datapath().put_uplink(index, uplink.framing, &entry).map_err(internal)?;
            writer.uplinks.insert(index, Some(entry));
        }
        let gone: Vec<_> =
            writer.uplinks.keys().filter(|index| !found.contains_key(index)).copied().collect();
        for index in gone {
            match around.devices.iter().find(|device| device.index == index.0) {
                Some(device) => log::info!("{} is an uplink no more", device.name),
                None => log::info!("the uplink with index {} is no more", index.0),
            }
            self.datapath().remove_uplink(index).map_err(internal)?;
            writer.uplinks.remove(&index);
        }
        if self.state().forwards.ipv6 {
            self.keep_advertised_routes(writer, &around).await?;
        }
        self.refresh_trusted().await
    }

    /// Tells the datapath which networks trust which interfaces, by the names that these have at present.
    pub(super) async fn refresh_trusted(&self) -> Result<(), Error> {
        let state = self.state();
        let trusting = || bridges(&state).filter(|(_, bridge)| !bridge.trusted_interfaces.is_empty());
        let known = self.datapath().trusted().map_err(internal)?;
        if known.is_empty() && trusting().next().is_none() {
            return Ok(());
        }
        let devices = self.0.host.links.devices().await.map_err(internal)?;
        let named = |name: &String| devices.iter().find(|device| device.name == *name);
        let mut wanted = BTreeSet::new();
        for (_, bridge) in trusting() {
            wanted.extend(
                bridge
                    .trusted_interfaces
                    .iter()
                    .filter_map(named)
                    .map(|device| Trusted { uplink: IfIndex(device.index), network: bridge.number }),
            );
        }
        for pair in wanted.difference(&known) {
            self.datapath().put_trusted(*pair).map_err(internal)?;
        }
        for pair in known.difference(&wanted) {
            self.datapath().remove_trusted(*pair).map_err(internal)?;
        }
        Ok(())
    }
}
