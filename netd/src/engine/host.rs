//! What the host's links and routes are, for those who show them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netd_common::{addr::IfIndex, stats};

use super::{Engine, internal, lock};
use crate::{
    link::{Uplink, uplinks},
    model::{Endpoint, Error, Id, Total, Traffic},
};

/// The host as it is seen at one moment.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The interfaces that lead outside.
    pub uplinks: Vec<Uplink>,
    /// The unicast routes that lead through uplinks.
    pub routes: Vec<RouteView>,
    /// What the host's stack and bridges delivered to each endpoint, by the endpoint's id: the kernel's counters of its
    /// veth, and of such as it had before.
    pub endpoints: BTreeMap<Id, Traffic>,
    /// The names of all links.
    pub interfaces: BTreeMap<IfIndex, String>,
}

/// A route of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// Where to.
    pub destination: IpNet,
    /// By whom; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Through which link.
    pub index: IfIndex,
    /// Through which link.
    pub interface: String,
    /// From which address, if the route says so.
    pub source: Option<IpAddr>,
    /// The lower, the better.
    pub metric: u32,
}

impl Engine {
    /// What an endpoint has sent and received until now, as far as the kernel tells.
    pub(super) async fn total_of(&self, endpoint: &Endpoint) -> Total {
        let device = self.0.host.links.counted_device(&endpoint.host_interface).await.ok().flatten();
        let programs = self.datapath().traffic(endpoint.slot).unwrap_or_default();
        Total::of(self.sent_into(endpoint, device.map(|device| device.sent)), programs)
    }

    /// What links have sent into an endpoint: the present one, and such as went.
    fn sent_into(&self, endpoint: &Endpoint, now: Option<stats::Traffic>) -> Traffic {
        let before = lock(&self.0.left).get(&endpoint.host_interface).copied().unwrap_or_default();
        before + now.unwrap_or_default().into()
    }

    /// Looks at the host's links and routes; nothing is remembered from before.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn host(&self) -> Result<HostView, Error> {
        let links = &self.0.host.links;
        let devices = links.counted_devices().await.map_err(internal)?;
        let addresses = links.addresses().await.map_err(internal)?;
        let routes = links.routes().await.map_err(internal)?;
        let mut uplinks =
            uplinks(&devices, &addresses, &routes, &self.0.config.uplinks, |name| self.is_own(name));
        // One that has just come is none yet: what is shown is what the programs go by.
        let in_force = self.datapath().uplinks().map_err(internal)?;
        uplinks.retain(|index, uplink| in_force.get(index).is_some_and(|entry| *entry == uplink.entry()));
        let interfaces: BTreeMap<_, _> =
            devices.iter().map(|device| (IfIndex(device.index), device.name.clone())).collect();
        let routes = routes.into_iter().filter_map(|route| {
            let index = IfIndex(route.index);
            let interface = uplinks.get(&index)?.name.clone();
            let (destination, gateway) = (route.destination, route.gateway);
            Some(RouteView {
                destination,
                gateway,
                index,
                interface,
                source: route.source,
                metric: route.metric,
            })
        });
        let sent: BTreeMap<&str, stats::Traffic> =
            devices.iter().map(|device| (&*device.name, device.sent)).collect();
        let state = self.state();
        let received = |endpoint: &Endpoint| {
            let now = sent.get(endpoint.host_interface.as_str()).copied();
            (endpoint.id, self.sent_into(endpoint, now))
        };
        Ok(HostView {
            routes: routes.collect(),
            uplinks: uplinks.into_values().collect(),
            endpoints: state.endpoints.values().map(|endpoint| received(endpoint)).collect(),
            interfaces,
        })
    }
}
