//! Addresses of links.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};

use super::{Doing as _, Error, Links, gone_is_as_good};

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Good beyond the link, and for use as a source.
    pub global: bool,
}

impl Address {
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link IFA_ADDRESS is the peer's.
                AddressAttribute::Local(own) => local = Some(*own),
                AddressAttribute::Address(either) => address = Some(*either),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        let unfit = AddressFlags::Deprecated | AddressFlags::Dadfailed | AddressFlags::Tentative;
        let global = message.header.scope == AddressScope::Universe && !flags.intersects(unfit);
        Some(Self { index: message.header.index, net, global })
    }

    /// Whether the kernel gave it to the link by itself.
    pub fn is_link_local(self) -> bool {
        matches!(self.net.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl Links {
    /// The addresses of all links.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let messages: Vec<AddressMessage> =
            self.list("addresses", |handle| handle.address().get().execute().try_collect()).await?;
        Ok(messages.iter().filter_map(Address::read).collect())
    }

    /// The addresses of one link; a link that is gone has none.
    pub async fn addresses_of(&self, index: u32) -> Result<Vec<Address>, Error> {
        // The kernel chooses, which passes over those of a thousand ports.
        let get = move |handle: rtnetlink::Handle| {
            let mut request = handle.address().get();
            request.message_mut().header.index = index;
            request.execute().try_collect()
        };
        let messages: Vec<AddressMessage> = self.list("addresses", get).await?;
        Ok(messages.iter().filter_map(Address::read).collect())
    }

    /// The addresses of one link, apart from those that the kernel gave it by itself and that are not `wanted`.
    pub async fn own_addresses(
        &self,
        index: u32,
        wanted: &BTreeSet<IpNet>,
    ) -> Result<BTreeSet<IpNet>, Error> {
        let is_own = |address: &&Address| !address.is_link_local() || wanted.contains(&address.net);
        Ok(self.addresses_of(index).await?.iter().filter(is_own).map(|address| address.net).collect())
    }

    /// Gives a link an address. IPv6's is good at once: netd gives no address twice, so nobody needs to be asked
    /// (RFC 4862 5.4).
    pub(super) async fn add_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, Ipv6Addr::UNSPECIFIED.into(), 128);
        *request.message_mut() = message(index, net);
        // The kernel may have given it to the link by itself.
        gone_is_as_good(request.execute().await, libc::EEXIST).doing(|| format!("add the address {net}"))
    }

    /// Takes an address from a link; it having none such is as good, and so is its having no IPv6.
    pub(super) async fn delete_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let request = self.handle.address().del(message(index, net)).execute();
        let deleted = gone_is_as_good(request.await, libc::EADDRNOTAVAIL);
        gone_is_as_good(deleted, libc::ENXIO).doing(|| format!("delete the address {net}"))
    }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    match net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            // RFC 3021: a /31 has no broadcast address.
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}
