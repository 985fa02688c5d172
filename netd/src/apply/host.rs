//! The host that the daemon runs on.

use std::{collections::BTreeMap, sync::Arc};

use super::{Error, Taken, Target, run};
use crate::{
    datapath::{Datapath, EndpointEntry, IfIndex, NetworkEntry},
    link::{Grace, Links},
    plan::{EndpointRow, LinkRef, NetworkRow, Step, Veth, World},
};

/// The host: its links, and the datapath at them.
#[derive(Clone)]
pub struct Host {
    /// The links of the daemon's network namespace.
    pub links: Links,
    /// The programs and maps.
    pub datapath: Arc<Datapath>,
    /// What the kernel waits for when links change.
    pub grace: Grace,
}

impl Host {
    /// Takes all steps, or undoes those it took before the one that failed.
    pub async fn apply(&self, steps: Vec<Step>) -> Result<Taken, Error> {
        self.run(steps, |_| None).await
    }

    /// As [`Host::apply`], but for what fails of one endpoint: whatever has become of one container, the others are served.
    pub async fn repair(&self, steps: Vec<Step>) -> Result<Taken, Error> {
        self.run(steps, Step::endpoint).await
    }

    async fn run(&self, steps: Vec<Step>, spares: fn(&Step) -> Option<String>) -> Result<Taken, Error> {
        let _expedited = if steps.is_empty() { None } else { self.grace.expedite() };
        run(self, steps, spares).await
    }

    async fn index(&self, link: &LinkRef) -> Result<IfIndex, Error> {
        match link {
            LinkRef::Name(name) => Ok(IfIndex(self.links.index(name).await?)),
            LinkRef::Gone(index) => Ok(IfIndex(*index)),
        }
    }

    async fn network_entry(&self, row: &NetworkRow) -> Result<NetworkEntry, Error> {
        Ok(NetworkEntry {
            bridge: self.index(&row.bridge).await?,
            flags: row.flags,
            gateway4: row.gateway4.map(Into::into).unwrap_or_default(),
            gateway6: row.gateway6.map(Into::into).unwrap_or_default(),
            source4: row.source4.map(Into::into).unwrap_or_default(),
            source6: row.source6.map(Into::into).unwrap_or_default(),
            mac: row.mac.into(),
            pad: [0; 2],
        })
    }

    async fn endpoint_entry(&self, row: &EndpointRow) -> Result<EndpointEntry, Error> {
        Ok(EndpointEntry {
            port: self.index(&row.port).await?,
            network: row.network,
            flags: row.flags,
            ipv4: row.ipv4.map(Into::into).unwrap_or_default(),
            ipv6: row.ipv6.map(Into::into).unwrap_or_default(),
            mac: row.mac.into(),
            vlan: row.vlan,
            sandbox: row.sandbox,
            beside: row.beside,
        })
    }
}

/// Veth pairs, and `from_container` at them.
impl Host {
    async fn add_veth(&self, name: &str, veth: &Veth) -> Result<(), Error> {
        if !veth.heard {
            return Ok(self.links.add_veth(name, veth).await?);
        }
        let silent = Veth { up: false, heard: false, ..veth.clone() };
        self.links.add_veth(name, &silent).await?;
        let heard = self.set_veth(name, &silent, veth).await;
        if heard.is_err() {
            self.links.delete(name).await?;
        }
        heard
    }

    /// One that comes up is heard before, one that goes down is heard to the end.
    async fn set_veth(&self, name: &str, from: &Veth, to: &Veth) -> Result<(), Error> {
        let Self { links, datapath, .. } = self;
        if from.heard == to.heard {
            return Ok(links.set_veth(name, from, to).await?);
        }
        let port = IfIndex(links.index(name).await?);
        if to.heard {
            datapath.attach_port(port)?;
        }
        let set = async {
            if (Veth { heard: to.heard, ..from.clone() }) != *to {
                links.set_veth(name, from, to).await?;
            }
            if to.heard { Ok(()) } else { Ok(datapath.detach_port(port)?) }
        };
        let set = set.await;
        if set.is_err() && to.heard {
            datapath.detach_port(port)?;
        }
        set
    }

    /// Gives the ports of known endpoints their names back, whoever has renamed them: the programs know them by their indices. What
    /// cannot have its name back is told of, and left.
    pub async fn rename_back(&self, known: &World) -> Result<(), Error> {
        let observed = self.datapath.observe()?;
        let port = |(slot, row): (&u32, &EndpointRow)| {
            let port = observed.endpoints.get(slot)?.port;
            let LinkRef::Name(name) = &row.port else { return None };
            // The index alone may be another link's by now.
            observed.ports.contains(&port).then(|| (port, name.clone()))
        };
        let names: BTreeMap<IfIndex, String> = known.endpoints.iter().filter_map(port).collect();
        for device in self.links.devices().await? {
            let name = names.get(&IfIndex(device.index)).filter(|name| **name != device.name);
            let Some(name) = name else { continue };
            match self.links.rename(&device, name).await {
                Ok(()) => log::warn!("{} is {name} again: somebody had renamed it", device.name),
                Err(error) => log::error!("{error}"),
            }
        }
        Ok(())
    }

    /// Detaches `from_container` from what is no endpoint's. What is a bridge's port still is not left unguarded: nothing comes in
    /// by a port that the tables do not know.
    async fn forsake(&self, port: u32) -> Result<(), Error> {
        let is_port = self.links.device_at(port).await?.is_some_and(|device| device.controller.is_some());
        if is_port { Ok(()) } else { Ok(self.datapath.detach_port(IfIndex(port))?) }
    }

    /// The kernel detaches what is attached to a link that goes, which is sooner done than detaching it first.
    async fn delete_veth(&self, name: &str, veth: &Veth) -> Result<(), Error> {
        let Self { links, datapath, .. } = self;
        let Some(index) = links.find(name).await? else { return Ok(()) };
        links.delete(name).await?;
        if veth.heard {
            datapath.detach_port(IfIndex(index))?;
        }
        Ok(())
    }
}

impl Target for Host {
    type Error = Error;

    async fn take(&self, step: &Step) -> Result<(), Error> {
        let Self { links, datapath, .. } = self;
        match step {
            Step::Discard { link } => links.delete(link).await?,
            Step::Bridge { name, from, to } => match (from, to) {
                (Some(from), Some(to)) => links.set_bridge(name, from, to).await?,
                (None, Some(to)) if !to.adopted => links.add_bridge(name, to).await?,
                (Some(from), None) if !from.adopted => links.delete(name).await?,
                // It was there before it was known, if it is there at all.
                (None, Some(to)) if links.device(name).await?.is_some() => {
                    links.set_bridge(name, &to.released(), to).await?;
                }
                (Some(from), None) => links.set_bridge(name, from, &from.released()).await?,
                (None, _) => {}
            },
            Step::Veth { name, from, to } => match (from, to) {
                (Some(from), Some(to)) => self.set_veth(name, from, to).await?,
                (None, Some(to)) => self.add_veth(name, to).await?,
                (Some(from), None) => self.delete_veth(name, from).await?,
                (None, None) => {}
            },
            Step::DefaultRoute { sandbox, from, to } => links.move_default_route(sandbox, from, to).await?,
            Step::Station { station, put: true } => links.add_station(station).await?,
            Step::Station { station, put: false } => links.remove_station(station).await?,
            Step::Network { number, to: Some(row), .. } => {
                datapath.put_network(*number, &self.network_entry(row).await?)?;
            }
            Step::Network { number, to: None, .. } => datapath.remove_network(*number)?,
            Step::Exempt { network, destination, put: true } => {
                datapath.put_exempt(*network, *destination)?;
            }
            Step::Exempt { network, destination, put: false } => {
                datapath.remove_exempt(*network, *destination)?;
            }
            Step::Subnet { prefix, to: Some(number), .. } => datapath.put_subnet(*prefix, *number)?,
            Step::Subnet { prefix, to: None, .. } => datapath.remove_subnet(*prefix)?,
            Step::External { external, to: Some(internal), .. } => {
                datapath.put_external(*external, *internal)?;
            }
            Step::External { external, from, to: None } => datapath.remove_external(*external, *from)?,
            Step::Endpoint { slot, to: Some(row), .. } => {
                let entry = self.endpoint_entry(row).await?;
                // Before the flags that ask for it.
                datapath.put_rate(*slot, row.rate)?;
                datapath.put_link_locals(*slot, row.network, &row.link_locals)?;
                datapath.put_endpoint(*slot, &entry)?;
            }
            Step::Endpoint { slot, to: None, .. } => datapath.remove_endpoint(*slot)?,
            Step::Forsake { port } => self.forsake(*port).await?,
            Step::Segment { link, attach: true } => datapath.attach_segment(self.index(link).await?)?,
            Step::Segment { link, attach: false } => datapath.detach_segment(self.index(link).await?)?,
            Step::Publication { host, to: Some(row), .. } => {
                datapath.put_publication(host, row.slot, row.container, row.reserved_by)?;
            }
            Step::Publication { host, to: None, .. } => datapath.remove_publication(host)?,
            Step::EndUnbound => drop(datapath.end_unbound()?),
            Step::EndUnpublished => drop(datapath.end_unpublished()?),
        }
        Ok(())
    }
}
