//! Prefixes as keys of longest-prefix maps.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::{Pod, maps::lpm_trie::Key};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netd_common::{
    addr::{Ipv4, Ipv6},
    bridge::Exempt,
};

pub(super) fn key4(prefix: Ipv4Net) -> Key<Ipv4> {
    Key::new(u32::from(prefix.prefix_len()), prefix.network().into())
}

pub(super) fn key6(prefix: Ipv6Net) -> Key<Ipv6> {
    Key::new(u32::from(prefix.prefix_len()), prefix.network().into())
}

/// The key of `destination` for one network.
pub(super) fn exempt<A: Pod>(network: u32, destination: Key<A>) -> Key<Exempt<A>>
where
    Exempt<A>: Pod,
{
    let key = Exempt { network, destination: destination.data() };
    Key::new(Exempt::<A>::NETWORK_BITS + destination.prefix_len(), key)
}

/// Undoes [`exempt`].
pub(super) fn destination<A: Pod>(key: &Key<Exempt<A>>) -> (u32, Key<A>)
where
    Exempt<A>: Pod,
{
    let Exempt { network, destination } = key.data();
    (network, Key::new(key.prefix_len().saturating_sub(Exempt::<A>::NETWORK_BITS), destination))
}

pub(super) fn net4(key: &Key<Ipv4>) -> Option<IpNet> {
    Some(Ipv4Net::new(Ipv4Addr::from(key.data()), key.prefix_len() as u8).ok()?.into())
}

pub(super) fn net6(key: &Key<Ipv6>) -> Option<IpNet> {
    Some(Ipv6Net::new(Ipv6Addr::from(key.data()), key.prefix_len() as u8).ok()?.into())
}
