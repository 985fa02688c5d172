//! The kernel's word that a link, an address, a route or a rule changed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use netd_common::stats::Traffic;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
        route::{RouteMessage, RouteType},
    },
};

use super::{Doing as _, Error};

/// What moves the way that packets leave.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// A subscription to changes in the daemon's own namespace.
pub struct Watch {
    messages: BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The links that came or changed, by name.
    pub links: BTreeSet<String>,
    /// Those that went, and what the kernel had counted out of them.
    pub gone: BTreeMap<String, Traffic>,
    /// Whether anything else did.
    pub others: bool,
}

impl Watch {
    /// Subscribes. Must be called within a tokio runtime.
    pub fn new() -> Result<Self, Error> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .doing(|| "watch for changes of links and routes".into())?;
        tokio::spawn(connection);
        Ok(Self { messages: messages.map(|(message, _)| message.payload).boxed() })
    }

    /// Waits for a change, and takes all that are known by then as one. `None` if there will be none any more.
    pub async fn changed(&mut self) -> Option<Changes> {
        let mut changes = Changes::default();
        changes.note(&self.messages.next().await?);
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            changes.note(&message);
        }
        Some(changes)
    }
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.gone.is_empty() && !self.others
    }

    /// Adds what changed later.
    pub fn extend(&mut self, later: Self) {
        self.links.extend(later.links);
        self.gone.extend(later.gone);
        self.others |= later.others;
    }

    /// When messages were lost for want of room the kernel says so in a message: then anything may have changed.
    fn note(&mut self, message: &NetlinkPayload<RouteNetlinkMessage>) {
        let is_multicast = |route: &RouteMessage| route.header.kind == RouteType::Multicast;
        if let NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) = message
            && is_multicast(route)
        {
            // The kernel's own, of each link that comes up: no packet that netd sends on goes by it.
            return;
        }
        let (link, is_gone) = match message {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => (link, false),
            // Of a bridge's family it says that a port has left, which may stay.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                (link, link.header.interface_family != AddressFamily::Bridge)
            }
            _ => return self.others = true,
        };
        match name(link) {
            Some(name) if is_gone => _ = self.gone.insert(name, sent(link)),
            Some(name) => _ = self.links.insert(name),
            None => self.others = true,
        }
    }
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn sent(link: &LinkMessage) -> Traffic {
    let counts = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(counts) => {
            Some(Traffic { packets: counts.tx_packets, bytes: counts.tx_bytes })
        }
        _ => None,
    });
    counts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::Stats64;

    use super::*;

    #[test]
    fn links_are_told_by_name_and_the_rest_as_one() {
        let link = |names: &[&str]| {
            let mut link = LinkMessage::default();
            link.attributes = names.iter().map(|name| LinkAttribute::IfName((*name).to_owned())).collect();
            link
        };
        let noted = |messages: Vec<NetlinkPayload<RouteNetlinkMessage>>| {
            let mut changes = Changes::default();
            messages.iter().for_each(|message| changes.note(message));
            changes
        };
        let mut counted = link(&["eth0"]);
        let mut counts = Stats64::default();
        (counts.tx_packets, counts.tx_bytes) = (3, 180);
        counted.attributes.push(LinkAttribute::Stats64(counts));
        let links = vec![
            NetlinkPayload::from(RouteNetlinkMessage::NewLink(link(&["veth0"]))),
            NetlinkPayload::from(RouteNetlinkMessage::DelLink(counted)),
        ];
        let one = |name: &str| BTreeSet::from([name.to_owned()]);
        let gone = BTreeMap::from([("eth0".to_owned(), Traffic { packets: 3, bytes: 180 })]);
        let named = Changes { links: one("veth0"), gone, others: false };
        assert_eq!(noted(links), named);
        let mut port = link(&["veth0"]);
        port.header.interface_family = AddressFamily::Bridge;
        let left = noted(vec![NetlinkPayload::from(RouteNetlinkMessage::DelLink(port))]);
        assert_eq!(left, Changes { links: one("veth0"), ..Changes::default() });
        for other in [
            NetlinkPayload::from(RouteNetlinkMessage::NewLink(link(&[]))),
            NetlinkPayload::from(RouteNetlinkMessage::DelRoute(RouteMessage::default())),
            NetlinkPayload::Overrun(Default::default()),
        ] {
            assert_eq!(noted(vec![other]), Changes { others: true, ..Changes::default() });
        }
        let mut multicast = RouteMessage::default();
        multicast.header.kind = RouteType::Multicast;
        let of_a_link = NetlinkPayload::from(RouteNetlinkMessage::NewRoute(multicast));
        assert!(noted(vec![of_a_link]).is_empty());
    }
}
