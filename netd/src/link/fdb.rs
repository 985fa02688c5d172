//! Who is to be found at which port of a bridge, whether the bridge has heard it or not.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Device, Doing as _, Error, Links, gone_is_as_good};
use crate::{model::MacAddress, plan::Station};

impl Links {
    /// The stations that bridges were told of; not those that they have learnt of. `devices` are all links there are.
    pub async fn stations(&self, devices: &[Device]) -> Result<BTreeSet<Station>, Error> {
        let messages: Vec<NeighbourMessage> = self
            .list("stations of bridges", |handle| {
                let mut request = handle.neighbours().get();
                request.message_mut().header.family = AddressFamily::Bridge;
                request.execute().try_collect()
            })
            .await?;
        let names: BTreeMap<u32, &String> =
            devices.iter().map(|device| (device.index, &device.name)).collect();
        let name = |index: u32| names.get(&index).map(|&name| name.clone());
        let station = |message: &NeighbourMessage| {
            let (bridge, port, mac, vlan) = read(message)?;
            Some(Station { bridge: name(bridge)?, port: name(port)?, mac, vlan })
        };
        Ok(messages.iter().filter_map(station).collect())
    }

    /// Tells a bridge of a station.
    pub async fn add_station(&self, station: &Station) -> Result<(), Error> {
        let index = self.index(&station.port).await?;
        let mut request = self.handle.neighbours().add_bridge(index, &station.mac.octets());
        request.message_mut().attributes.extend(station.vlan.map(NeighbourAttribute::Vlan));
        let request = request.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller).replace();
        request.execute().await.doing(|| format!("tell {} who is at {}", station.bridge, station.port))
    }

    /// Has a bridge forget a station; its not being there is as good.
    pub async fn remove_station(&self, station: &Station) -> Result<(), Error> {
        let Some(port) = self.device(&station.port).await? else { return Ok(()) };
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port.index;
        message.header.flags = NeighbourFlags::Controller;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(station.mac.octets().to_vec()));
        message.attributes.extend(station.vlan.map(NeighbourAttribute::Vlan));
        let result = self.handle.neighbours().del(message).execute().await;
        gone_is_as_good(result, libc::ENOENT)
            .doing(|| format!("have {} forget who is at {}", station.bridge, station.port))
    }
}

/// Bridge, port, address and VLAN of an entry that was made by hand.
fn read(message: &NeighbourMessage) -> Option<(u32, u32, MacAddress, Option<u16>)> {
    let (mut bridge, mut mac, mut vlan) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddress::new);
            }
            NeighbourAttribute::Vlan(id) => vlan = Some(*id),
            _ => {}
        }
    }
    let is_told = message.header.state == NeighbourState::Noarp;
    is_told.then_some((bridge?, message.header.ifindex, mac?, vlan))
}
