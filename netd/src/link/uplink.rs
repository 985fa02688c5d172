//! Which interfaces lead outside.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use netd_common::{addr::IfIndex, fib};

use super::{Address, Device, Kind, Route, route::MAIN};
use crate::model::{Framing, MacAddress};

/// An interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// How its packets begin.
    pub framing: Framing,
    /// Its first global IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its first global IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// How IPv4 packets leave by it for which there is no route of their own, if they do.
    pub default4: Option<Via>,
    /// The smallest MTU that a route by it says itself, in bytes; 0 if none does.
    pub route_mtu: u16,
    /// Its own MAC.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
}

/// The way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a router.
    Gateway(Ipv4Addr),
    /// All are on the link.
    Link,
}

impl Uplink {
    /// What the programs are told of it.
    pub fn entry(&self) -> fib::Uplink {
        fib::Uplink {
            ipv4: self.ipv4.map(Into::into).unwrap_or_default(),
            ipv6: self.ipv6.map(Into::into).unwrap_or_default(),
            mac: self.mac.into(),
            route_mtu: self.route_mtu,
            default4: match self.default4 {
                Some(Via::Gateway(gateway)) => gateway.into(),
                Some(Via::Link) => fib::Uplink::ON_LINK,
                None => Ipv4Addr::UNSPECIFIED.into(),
            },
        }
    }
}

impl Device {
    /// Whether it is a bridge between guests of this host, containers by veths and virtual machines by TAP devices: another engine's,
    /// which has rules of its own for who may go there. One that leads to a network card, or to whatever else, is not.
    pub fn is_for_guests(&self, devices: &[Self]) -> bool {
        let mut ports = devices.iter().filter(|port| port.controller == Some(self.index));
        self.kind == Kind::Bridge && ports.all(|port| matches!(port.kind, Kind::Veth | Kind::Tun))
    }

    /// Whether something could be forwarded to it: `routes` lead through it. Every link has one to its own fe80::/64,
    /// wherever it leads.
    pub fn leads_on(&self, routes: &[Route]) -> bool {
        let leads_on = |route: &&Route| !matches!(route.destination.addr(), IpAddr::V6(to) if to.is_unicast_link_local() || to.is_multicast());
        self.kind != Kind::Loopback && routes.iter().filter(leads_on).any(|route| route.index == self.index)
    }
}

/// The uplinks among `devices`: those named in `chosen`, or if there are none, those that unicast routes lead through,
/// loopback and netd's `own` links apart. A device whose packets begin in a way that the programs cannot read is none.
pub fn uplinks(
    devices: &[Device],
    addresses: &[Address],
    routes: &[Route],
    chosen: &[String],
    own: impl Fn(&str) -> bool,
) -> BTreeMap<IfIndex, Uplink> {
    let is_uplink = |device: &Device| {
        if !chosen.is_empty() {
            return chosen.contains(&device.name);
        }
        // In this order: of a thousand veths hardly one has a route, and to ask whose a link is takes a while.
        device.leads_on(routes) && !own(&device.name)
    };
    let uplink = |device: &Device| {
        let framing = device.framing.filter(|_| is_uplink(device))?;
        let mut global = addresses.iter().filter(|address| address.index == device.index && address.global);
        let ipv4 = global.clone().find_map(|address| match address.net.addr() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let ipv6 = global.find_map(|address| match address.net.addr() {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        let index = IfIndex(device.index);
        let defaults = routes.iter().filter(|route| {
            route.index == device.index && route.destination == IpNet::V4(Ipv4Net::default())
        });
        let best = defaults.min_by_key(|route| (route.table != MAIN, route.metric));
        let default4 = best.and_then(|route| match route.gateway {
            None => Some(Via::Link),
            Some(IpAddr::V4(gateway)) => Some(Via::Gateway(gateway)),
            Some(IpAddr::V6(_)) => None,
        });
        let by_it = routes.iter().filter(|route| route.index == device.index);
        let route_mtu = by_it.filter_map(|route| u16::try_from(route.mtu?).ok()).min().unwrap_or_default();
        // A tunnel has none.
        let mac = device.mac.unwrap_or(MacAddress::new([0; 6]));
        let (name, mtu, up) = (device.name.clone(), device.mtu, device.up);
        Some((index, Uplink { index, name, framing, ipv4, ipv6, default4, route_mtu, mac, mtu, up }))
    };
    devices.iter().filter_map(uplink).collect()
}

#[cfg(test)]
mod tests {
    use netd_common::stats::Traffic;

    use super::*;
    use crate::model::BridgeSettings;

    fn device(index: u32, name: &str, kind: Kind) -> Device {
        Device {
            index,
            name: name.into(),
            kind,
            mac: Some(MacAddress::new([2, 0, 0, 0, 0, index as u8])),
            framing: Some(Framing::Ethernet),
            mtu: 1500,
            up: true,
            running: true,
            controller: None,
            peer: None,
            settings: BridgeSettings::default(),
            isolated: false,
            hairpin: false,
            multicast_router: false,
            received: Traffic::default(),
            sent: Traffic::default(),
        }
    }

    fn route(destination: &str, index: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            gateway: None,
            index,
            source: None,
            metric: 0,
            table: MAIN,
            mtu: None,
        }
    }

    fn address(index: u32, net: &str, global: bool) -> Address {
        Address { index, net: net.parse().unwrap(), global }
    }

    #[test]
    fn a_bridge_between_guests_has_their_ports_alone() {
        let port = |index, kind, of| Device { controller: Some(of), ..device(index, "port", kind) };
        let devices = [
            device(1, "docker0", Kind::Bridge),
            device(2, "virbr0", Kind::Bridge),
            device(3, "br0", Kind::Bridge),
            device(4, "eth1", Kind::Other),
            port(5, Kind::Veth, 2),
            port(6, Kind::Tun, 2),
            port(7, Kind::Veth, 3),
            port(8, Kind::Other, 3),
        ];
        let guests = devices.iter().filter(|device| device.is_for_guests(&devices));
        assert_eq!(guests.map(|device| &*device.name).collect::<Vec<_>>(), ["docker0", "virbr0"]);
    }

    #[test]
    fn the_default_route_is_the_best_of_those_that_there_are() {
        let by = |gateway: &str, metric, table| Route {
            gateway: Some(gateway.parse().unwrap()),
            metric,
            table,
            ..route("0.0.0.0/0", 2)
        };
        let routes = [by("192.0.2.2", 0, 100), by("192.0.2.3", 200, MAIN), by("192.0.2.1", 100, MAIN)];
        let default4 = |routes: &[Route]| {
            let found = uplinks(&[device(2, "eth0", Kind::Other)], &[], routes, &[], |_| false);
            found[&IfIndex(2)].default4
        };
        assert_eq!(default4(&routes), Some(Via::Gateway([192, 0, 2, 1].into())));
        assert_eq!(default4(&routes[..1]), Some(Via::Gateway([192, 0, 2, 2].into())));
        assert_eq!(default4(&[by("fe80::1", 0, MAIN)]), None, "an IPv4 route may have a next hop of IPv6's");
    }

    #[test]
    fn what_routes_lead_through_is_an_uplink() {
        let devices = [
            device(1, "lo", Kind::Loopback),
            device(2, "eth0", Kind::Other),
            device(3, "wlan0", Kind::Other),
            device(4, "netd0", Kind::Bridge),
            device(5, "idle", Kind::Other),
            Device { framing: Some(Framing::Bare), mac: None, ..device(6, "tun0", Kind::Other) },
            Device { framing: None, mac: None, ..device(7, "ib0", Kind::Other) },
        ];
        let addresses = [
            address(2, "fe80::2/64", false),
            address(2, "192.0.2.9/24", true),
            address(2, "192.0.2.10/24", true),
            address(2, "2001:db8::9/64", true),
        ];
        let routes = [
            route("127.0.0.0/8", 1),
            route("0.0.0.0/0", 2),
            route("2001:db8:1::/48", 3),
            route("172.17.0.0/16", 4),
            route("fe80::/64", 5),
            route("10.8.0.0/16", 6),
            route("10.9.0.0/16", 7),
        ];
        let found = uplinks(&devices, &addresses, &routes, &[], |name| name == "netd0");
        let names: Vec<_> = found.values().map(|uplink| uplink.name.as_str()).collect();
        assert_eq!(names, ["eth0", "wlan0", "tun0"]);
        let eth0 = &found[&IfIndex(2)];
        assert_eq!(eth0.ipv4, Some([192, 0, 2, 9].into()));
        assert_eq!(eth0.ipv6, Some("2001:db8::9".parse().unwrap()));
        assert_eq!((eth0.default4, found[&IfIndex(3)].default4), (Some(Via::Link), None));
        let chosen = ["idle", "ib0", "absent"].map(str::to_owned);
        let found = uplinks(&devices, &addresses, &routes, &chosen, |_| false);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&IfIndex(5)]);
    }
}
