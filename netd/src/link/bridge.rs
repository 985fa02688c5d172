//! Kernel bridges.

use std::collections::BTreeSet;

use ipnet::IpNet;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{Address, Doing as _, Error, Links, sysctl};
use crate::plan::BridgeLink;

impl Links {
    /// Makes a bridge, or nothing.
    pub async fn add_bridge(&self, name: &str, bridge: &BridgeLink) -> Result<(), Error> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .address(bridge.mac.octets().to_vec())
            .mtu(bridge.mtu)
            .build();
        self.handle.link().add(message).execute().await.doing(|| format!("make the bridge {name}"))?;
        let bare = BridgeLink { up: false, addresses: BTreeSet::new(), ..*bridge };
        let result = async {
            sysctl::refuse_router_advertisements(name)?;
            self.change_bridge(name, &bare, bridge).await
        };
        let result = result.await;
        if result.is_err() {
            self.delete(name).await?;
        }
        result
    }

    /// Changes a bridge, or leaves it as it is.
    pub async fn set_bridge(&self, name: &str, from: &BridgeLink, to: &BridgeLink) -> Result<(), Error> {
        let result = self.change_bridge(name, from, to).await;
        if result.is_err()
            && let Err(error) = self.change_bridge(name, to, from).await
        {
            log::debug!("while {name} was put back: {error}");
        }
        result
    }

    async fn change_bridge(&self, name: &str, from: &BridgeLink, to: &BridgeLink) -> Result<(), Error> {
        let index = self.index(name).await?;
        let mut message = LinkUnspec::new_with_index(index);
        if from.mac != to.mac {
            message = message.address(to.mac.octets().to_vec());
        }
        if from.mtu != to.mtu {
            message = message.mtu(to.mtu);
        }
        message = if to.up { message.up() } else { message.down() };
        if to.addresses.iter().any(|net| net.addr().is_ipv6()) {
            sysctl::set_ipv6(name, true)?;
        }
        self.set(message.build(), name).await?;
        for &net in from.addresses.difference(&to.addresses) {
            self.delete_address(index, net).await?;
        }
        for &net in to.addresses.difference(&from.addresses) {
            self.add_address(index, net).await?;
        }
        Ok(())
    }
}

/// The addresses of one link, apart from those that the kernel gave it by itself and that are not `wanted`.
pub fn own_addresses(addresses: &[Address], index: u32, wanted: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let own = |address: &&Address| {
        address.index == index && (!address.is_link_local() || wanted.contains(&address.net))
    };
    addresses.iter().filter(own).map(|address| address.net).collect()
}
