//! External addresses: given to endpoints and networks, and taken back.

mod claim;

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use self::claim::{endpoint, free, name, network, read, shown};
pub(super) use self::claim::{is_routable, not_external};
use super::{Engine, Writer, internal};
use crate::{
    ipam,
    link::Uplink,
    model::{Advertise, Error, External, Framing, Target, Timestamp},
    plan::Touched,
    store::Change,
};

impl Engine {
    /// Gives `target` an external address: an endpoint one address, a network an IPv6 prefix.
    ///
    /// # Errors
    /// If either cannot be, or the address is somebody's already; nothing has changed then.
    pub async fn add_external(&self, external: &str, target: &str) -> Result<(), Error> {
        let (external, target) = (read(external)?, target.to_owned());
        self.act(move |engine, mut writer| async move {
            loop {
                let added = engine.add(&mut writer, external, &target).await;
                // Somebody who is no more may have had the address.
                if added.is_ok() || !engine.forget_departed(&mut writer).await? {
                    return added;
                }
            }
        })
        .await
    }

    /// Takes an external address back.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn remove_external(&self, external: &str) -> Result<(), Error> {
        let external = read(external)?;
        self.act(move |engine, mut writer| async move { engine.take_back(&mut writer, external).await }).await
    }

    async fn add(&self, writer: &mut Writer, external: IpNet, target: &str) -> Result<(), Error> {
        let state = self.state();
        self.not_the_hosts(external).await?;
        // The datapath is not to take it for the host's any more.
        self.refresh_locals(writer).await?;
        free(&state, external)?;
        let target = if external.prefix_len() == external.max_prefix_len() {
            Target::Endpoint(endpoint(&state, external, target)?.id)
        } else {
            Target::Network(network(&state, external, target)?.id)
        };
        let new = External { external, target, created: Timestamp::now() };
        self.change_external(writer, &new, Change::PutExternal(new.clone())).await?;
        log::info!("{} is {external} outside", name(&state, target));
        if let Target::Endpoint(_) = target
            && let Err(error) = self.announce_outside(external.addr()).await
        {
            log::warn!("{external} is not announced: {error}");
        }
        Ok(())
    }

    /// Says on each uplink's link that an address is of that who has had it elsewhere before: routers remember for long.
    async fn announce_outside(&self, address: IpAddr) -> Result<(), Error> {
        let around = self.surroundings().await?;
        let uplinks = self.uplinks_of(&around).into_values().filter(|uplink| {
            let is_on_link = |net: IpNet| net.contains(&address);
            uplink.up && uplink.framing == Framing::Ethernet && around.nets_of(uplink.index).any(is_on_link)
        });
        for uplink in uplinks {
            tokio::spawn(self.clone().repeat_outside(uplink, address));
        }
        Ok(())
    }

    /// Says it on one link, as often as it is said of an endpoint, and no more once the address is taken back.
    async fn repeat_outside(self, uplink: Uplink, address: IpAddr) {
        let Advertise { messages, interval } = Advertise::default();
        for _ in 0..messages {
            if !self.state().externals.contains_key(&IpNet::from(address)) {
                return;
            }
            let datapath = self.0.host.datapath.clone();
            let tell = move || datapath.advertise_outside(uplink.index, uplink.mac, address);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(tell).await {
                return log::warn!("{address} is not announced on {}: {error}", uplink.name);
            }
            tokio::time::sleep(Duration::from_millis(interval.into())).await;
        }
    }

    async fn take_back(&self, writer: &mut Writer, external: IpNet) -> Result<(), Error> {
        let state = self.state();
        let Some(old) = state.externals.get(&external) else {
            let prefix = state.externals.keys().find(|prefix| prefix.contains(&external));
            let part = prefix.map(|prefix| format!(": it is part of {}", shown(*prefix))).unwrap_or_default();
            return Err(Error::not_found(format!("no such external address: {}{part}", shown(external))));
        };
        if let Err(error) = self.change_external(writer, old, Change::RemoveExternal(external)).await {
            match old.target {
                Target::Endpoint(id) if self.has_departed(writer, id).await? => {}
                _ => return Err(error),
            }
        }
        log::info!("{} is {external} no more", name(&state, old.target));
        Ok(())
    }

    async fn change_external(
        &self,
        writer: &mut Writer,
        what: &External,
        change: Change,
    ) -> Result<(), Error> {
        let touched = match what.target {
            Target::Endpoint(id) => Touched::endpoint(id),
            Target::Network(id) => Touched {
                networks: [id].into(),
                endpoints: self.state().endpoints_of(id).map(|endpoint| endpoint.id).collect(),
            },
        };
        self.change(writer, vec![change], touched).await
    }

    /// Whoever has the host's own address, has the host's own traffic; and whoever has its router's, all that is for others.
    async fn not_the_hosts(&self, external: IpNet) -> Result<(), Error> {
        let links = &self.0.host.links;
        let addresses = links.addresses().await.map_err(internal)?;
        if let Some(own) = addresses.iter().find(|own| is_edge(own.net, external)) {
            let subnet = own.net.trunc();
            return Err(Error::conflict(format!(
                "external address {} stands for all of {subnet}",
                shown(external)
            )));
        }
        let Some(own) = addresses.iter().find(|own| external.contains(&own.net.addr())) else {
            return self.no_next_hop(external).await;
        };
        let devices = links.devices().await.map_err(internal)?;
        let device = devices.into_iter().find(|device| device.index == own.index);
        let device = device.map(|device| device.name).unwrap_or_default();
        let (external, own) = (shown(external), own.net.addr());
        Err(Error::conflict(if external == own.to_string() {
            format!("external address {external} is the host's own, on {device}")
        } else {
            format!("external prefix {external} holds the host's own address {own}, on {device}")
        }))
    }

    async fn no_next_hop(&self, external: IpNet) -> Result<(), Error> {
        let routes = self.0.host.links.routes().await.map_err(internal)?;
        match routes.iter().filter_map(|route| route.gateway).find(|gateway| external.contains(gateway)) {
            Some(gateway) if IpNet::from(gateway) == external => {
                Err(Error::conflict(format!("external address {gateway} is a next hop of the host's routes")))
            }
            Some(gateway) => Err(Error::conflict(format!(
                "external prefix {} holds {gateway}, a next hop of the host's routes",
                shown(external)
            ))),
            None => Ok(()),
        }
    }
}

/// Whether the address is the first or the last of a subnet of the host's, which is nobody's: it stands for all hosts there.
fn is_edge(subnet: IpNet, external: IpNet) -> bool {
    subnet.addr().is_ipv4() && ipam::reserved(subnet).any(|address| address == external.addr())
}
