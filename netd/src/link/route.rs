//! Routes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{
            RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
            RouteVia,
        },
    },
};

use super::{Doing as _, Error, Links, gone_is_as_good};
use crate::model::{self, Local};

/// The main routing table.
pub(super) const MAIN: u32 = 254;

/// One way that a unicast route leads; a multipath route is several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// By whom; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Through which link.
    pub index: u32,
    /// From which address, if the route says so.
    pub source: Option<IpAddr>,
    /// The lower, the better.
    pub metric: u32,
    /// The routing table; [`MAIN`] for one.
    pub table: u32,
    /// How large its packets may be, in bytes, if the route says so.
    pub mtu: Option<u32>,
}

impl Route {
    /// Whether it is the default route that leads through this link by that neighbour.
    pub(super) fn is_default(&self, index: u32, gateway: IpAddr) -> bool {
        (self.index, self.gateway) == (index, Some(gateway)) && self.destination.prefix_len() == 0
    }

    fn read(message: &RouteMessage) -> Vec<Self> {
        if message.header.kind != RouteType::Unicast {
            return Vec::new();
        }
        let Some(destination) = destination(message) else { return Vec::new() };
        let mut route = Self {
            destination,
            gateway: None,
            index: 0,
            source: None,
            metric: 0,
            table: u32::from(message.header.table),
            mtu: None,
        };
        let mut hops = Vec::new();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::PrefSource(from) => route.source = address(from),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Oif(index) => route.index = *index,
                RouteAttribute::MultiPath(paths) => {
                    hops.extend(paths.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes))));
                }
                _ => {}
            }
        }
        if hops.is_empty() {
            hops.push((route.index, gateway(&message.attributes)));
        }
        let hops = hops.into_iter().filter(|(index, _)| *index != 0);
        hops.map(|(index, gateway)| Self { index, gateway, ..route.clone() }).collect()
    }
}

/// Where a route leads to; everywhere, if it does not say.
fn destination(message: &RouteMessage) -> Option<IpNet> {
    let any: IpAddr = if message.header.address_family == AddressFamily::Inet {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => address(to),
        _ => None,
    });
    IpNet::new(named.unwrap_or(any), message.header.destination_prefix_length).ok()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(to) => address(to),
        // An IPv4 route by an IPv6 neighbour (RFC 8950).
        RouteAttribute::Via(RouteVia::Inet(to)) => Some((*to).into()),
        RouteAttribute::Via(RouteVia::Inet6(to)) => Some((*to).into()),
        _ => None,
    })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

impl Links {
    /// The unicast routes of all tables and both families.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        Ok(self.route_messages(RouteType::Unicast).await?.iter().flat_map(Route::read).collect())
    }

    /// The routes of one kind, of all tables and both families. The kernel knows one of another kind for each link.
    async fn route_messages(&self, kind: RouteType) -> Result<Vec<RouteMessage>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            (request.header.address_family, request.header.kind) = (family, kind);
            let messages: Vec<RouteMessage> =
                self.list("routes", |handle| handle.route().get(request).execute().try_collect()).await?;
            routes.extend(messages);
        }
        Ok(routes)
    }

    /// What routes of the host itself lead to: its own addresses, loopback's among them, and the broadcast addresses of its links. Not
    /// what leads everything to it, which is for packets with a mark (a transparent proxy's).
    pub async fn locals(&self) -> Result<BTreeMap<IpNet, Local>, Error> {
        let mut locals = BTreeMap::new();
        for (kind, local) in [(RouteType::Broadcast, Local::Broadcast), (RouteType::Local, Local::Own)] {
            let messages = self.route_messages(kind).await?;
            let prefixes = messages.iter().filter_map(destination).filter(|prefix| prefix.prefix_len() > 0);
            locals.extend(prefixes.map(|prefix| (prefix, local)));
        }
        Ok(locals)
    }

    /// Makes a link lead somewhere.
    pub(super) async fn add_route(&self, index: u32, route: &model::Route) -> Result<(), Error> {
        let request = self.handle.route().add(message(index, route)).execute();
        request.await.doing(|| format!("add the route to {}", route.destination))
    }

    /// Makes a link lead to the subnet of an address of its own, as the kernel does when it gets the address; there being such a
    /// route is as good.
    pub(super) async fn connect_subnet(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let request = self.handle.route().add(connected(index, net)).execute();
        gone_is_as_good(request.await, libc::EEXIST).doing(|| format!("add the route to {}", net.trunc()))
    }

    /// Takes back [`Links::add_route`]; there being no such route is as good.
    pub(super) async fn delete_route(&self, index: u32, route: &model::Route) -> Result<(), Error> {
        let request = self.handle.route().del(message(index, route)).execute();
        gone_is_as_good(request.await, libc::ESRCH)
            .doing(|| format!("delete the route to {}", route.destination))
    }
}

/// The kernel's own route to an address' subnet: it takes it away with the address.
fn connected(index: u32, net: IpNet) -> RouteMessage {
    /// `IP6_RT_PRIO_ADDRCONF` in include/net/ip6_route.h.
    const METRIC6: u32 = 256;
    let metric = if net.addr().is_ipv6() { METRIC6 } else { 0 };
    let mut message = message(index, &model::Route { destination: net.trunc(), gateway: None, metric });
    message.header.protocol = RouteProtocol::Kernel;
    if let IpAddr::V4(own) = net.addr() {
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(own)));
    }
    message
}

pub(super) fn message(index: u32, route: &model::Route) -> RouteMessage {
    let length = route.destination.prefix_len();
    // A gateway may lie outside the subnet of a /32 or /128: it is on the link all the same.
    let mut message = match (route.destination.network(), route.gateway) {
        (IpAddr::V4(to), via) => {
            let mut builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, length);
            builder = match via {
                Some(IpAddr::V4(gateway)) => builder.gateway(gateway).onlink(),
                Some(IpAddr::V6(gateway)) => builder.via(gateway).onlink(),
                None => builder.scope(RouteScope::Link),
            };
            builder.output_interface(index).build()
        }
        (IpAddr::V6(to), via) => {
            let mut builder = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, length);
            if let Some(IpAddr::V6(gateway)) = via {
                builder = builder.gateway(gateway).onlink();
            }
            builder.output_interface(index).build()
        }
    };
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}
