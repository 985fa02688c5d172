//! Kernel bridges.

use std::{collections::BTreeSet, io};

use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec,
    packet_route::link::{BridgeStpState, InfoBridge},
};

use super::{Address, Doing as _, Error, Links, sysctl};
use crate::{
    model::{BridgeSettings, IPV6_MTU, MacAddress},
    plan::BridgeLink,
};

impl Links {
    /// Makes a bridge, or nothing.
    pub async fn add_bridge(&self, name: &str, bridge: &BridgeLink) -> Result<(), Error> {
        let mut message =
            LinkMessageBuilder::<LinkBridge>::new(name).address(bridge.mac.octets().to_vec()).mtu(bridge.mtu);
        for attribute in attributes(&BridgeSettings::default(), &bridge.settings) {
            message = message.append_info_data(attribute);
        }
        let made = self.handle.link().add(message.build()).execute().await;
        made.doing(|| format!("make the bridge {name}"))
            .map_err(|error| known_lack(error, &bridge.settings))?;
        let bare = BridgeLink { up: false, addresses: BTreeSet::new(), ..bridge.clone() };
        let result = async {
            restrain_ipv6(name, bridge)?;
            self.change_bridge(name, &bare, bridge).await
        };
        let result = result.await;
        if result.is_err() {
            self.delete(name).await?;
        }
        result
    }

    /// Has a bridge that was there before keep the MAC that it has: the kernel gives it that of whichever port has the lowest, until
    /// somebody says one (`br_stp_recalculate_bridge_id` in net/bridge/br_stp_if.c).
    pub async fn keep_mac(&self, name: &str, bridge: &BridgeLink) -> Result<(), Error> {
        self.change_bridge(name, bridge, bridge).await
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
        // See `keep_mac`.
        if from.mac != to.mac || to.adopted {
            message = message.address(to.mac.octets().to_vec());
        }
        if from.mtu != to.mtu {
            message = message.mtu(to.mtu);
        }
        message = if to.up { message.up() } else { message.down() };
        if from.settings != to.settings {
            let mut message = LinkMessageBuilder::<LinkBridge>::new(name);
            for attribute in attributes(&from.settings, &to.settings) {
                message = message.append_info_data(attribute);
            }
            let changed = self.handle.link().change(message.build()).execute().await;
            changed
                .doing(|| format!("change the settings of the bridge {name}"))
                .map_err(|error| known_lack(error, &to.settings))?;
        }
        self.set(message.build(), name).await?;
        if from.mtu < IPV6_MTU && !to.adopted {
            // It had no IPv6, and with it the kernel has forgotten what it was told of that.
            restrain_ipv6(name, to)?;
        }
        if to.addresses.iter().any(|net| net.addr().is_ipv6()) {
            sysctl::set_ipv6(name, true)?;
        }
        for &net in from.addresses.difference(&to.addresses) {
            self.delete_address(index, net).await?;
        }
        for &net in to.addresses.difference(&from.addresses) {
            self.add_address(index, net).await?;
        }
        if to.connected && !from.connected {
            for net in to.connecting() {
                self.connect_subnet(index, net).await?;
            }
        }
        if to.up && !to.adopted && to.addresses.iter().any(|net| net.addr().is_ipv6()) {
            self.ensure_link_local(index, to.mac).await?;
        }
        Ok(())
    }

    /// The host needs a link-local address to ask where a container is that others send to. The kernel gives a bridge one that gets its
    /// first port, and does not use it for two seconds, in which it asks whether it is somebody else's; and none again that somebody has
    /// taken from it.
    async fn ensure_link_local(&self, index: u32, mac: MacAddress) -> Result<(), Error> {
        if self.addresses_of(index).await?.into_iter().any(Address::is_link_local) {
            return Ok(());
        }
        self.add_address(index, mac.link_local().into()).await
    }
}

/// Keeps a bridge of netd's own from what the kernel would do with IPv6 there by itself.
fn restrain_ipv6(name: &str, bridge: &BridgeLink) -> Result<(), Error> {
    sysctl::refuse_router_advertisements(name)?;
    sysctl::keep_addresses(name)?;
    if bridge.ipv6 { Ok(()) } else { sysctl::set_ipv6(name, false) }
}

/// What the kernel has to be told so that a bridge has the settings `to`.
fn attributes(from: &BridgeSettings, to: &BridgeSettings) -> Vec<InfoBridge> {
    fn changed<T: PartialEq + Copy>(from: Option<T>, to: Option<T>) -> Option<T> {
        if from == to { None } else { to }
    }
    let stp = |on| if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
    // A kernel that cannot tell VLANs apart refuses even to be told not to.
    let vlan_filtering = changed(from.vlan_filtering.or(Some(false)), to.vlan_filtering);
    [
        changed(from.forward_delay, to.forward_delay).map(InfoBridge::ForwardDelay),
        changed(from.ageing_time, to.ageing_time).map(InfoBridge::AgeingTime),
        changed(from.stp, to.stp).map(stp).map(InfoBridge::StpState),
        changed(from.priority, to.priority).map(InfoBridge::Priority),
        vlan_filtering.map(InfoBridge::VlanFiltering),
        changed(from.mcast_snooping, to.mcast_snooping).map(InfoBridge::MulticastSnooping),
        changed(from.mcast_querier, to.mcast_querier).map(InfoBridge::MulticastQuerier),
        changed(from.mcast_igmp_version, to.mcast_igmp_version).map(InfoBridge::MulticastIgmpVersion),
        changed(from.mcast_mld_version, to.mcast_mld_version).map(InfoBridge::MulticastMldVersion),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The kernel's "not supported", told by what it lacks.
fn known_lack(error: Error, settings: &BridgeSettings) -> Error {
    if error.kind() != io::ErrorKind::Unsupported || settings.vlan_filtering != Some(true) {
        return error;
    }
    let lack =
        "this kernel was built without CONFIG_BRIDGE_VLAN_FILTERING, so its bridges cannot tell VLANs apart";
    Error { reason: io::Error::new(io::ErrorKind::Unsupported, lack), ..error }
}

/// All settings of a bridge, as the kernel tells them.
pub(super) fn settings(attributes: &[InfoBridge]) -> BridgeSettings {
    let mut settings = BridgeSettings::default();
    for attribute in attributes {
        match attribute {
            InfoBridge::ForwardDelay(time) => settings.forward_delay = Some(*time),
            InfoBridge::AgeingTime(time) => settings.ageing_time = Some(*time),
            InfoBridge::StpState(state) => settings.stp = Some(*state != BridgeStpState::Disabled),
            InfoBridge::Priority(priority) => settings.priority = Some(*priority),
            InfoBridge::VlanFiltering(on) => settings.vlan_filtering = Some(*on),
            InfoBridge::MulticastSnooping(on) => settings.mcast_snooping = Some(*on),
            InfoBridge::MulticastQuerier(on) => settings.mcast_querier = Some(*on),
            InfoBridge::MulticastIgmpVersion(version) => settings.mcast_igmp_version = Some(*version),
            InfoBridge::MulticastMldVersion(version) => settings.mcast_mld_version = Some(*version),
            _ => {}
        }
    }
    settings
}

/// What a bridge is set to, of what is `wanted`.
pub fn wanted_settings(seen: &BridgeSettings, wanted: &BridgeSettings) -> BridgeSettings {
    // The kernel keeps times in jiffies, and may tell a hundredth less than it was told.
    let time = |seen: Option<u32>, wanted: Option<u32>| match (seen, wanted) {
        (Some(seen), Some(wanted)) if seen.abs_diff(wanted) <= 1 => Some(wanted),
        (seen, wanted) => wanted.and(seen),
    };
    BridgeSettings {
        stp: wanted.stp.and(seen.stp),
        forward_delay: time(seen.forward_delay, wanted.forward_delay),
        priority: wanted.priority.and(seen.priority),
        ageing_time: time(seen.ageing_time, wanted.ageing_time),
        mcast_snooping: wanted.mcast_snooping.and(seen.mcast_snooping),
        mcast_querier: wanted.mcast_querier.and(seen.mcast_querier),
        mcast_igmp_version: wanted.mcast_igmp_version.and(seen.mcast_igmp_version),
        mcast_mld_version: wanted.mcast_mld_version.and(seen.mcast_mld_version),
        vlan_filtering: wanted.vlan_filtering.and(seen.vlan_filtering),
    }
}
