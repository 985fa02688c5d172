//! Veth pairs: the host's end a port of a bridge, the other end the interface of a sandbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::AsRawFd as _,
};

use ipnet::IpNet;
use rtnetlink::{
    LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{
        AfSpecInet6, AfSpecUnspec, BridgeMulticastRouterType, In6AddrGenMode, InfoData, InfoVeth,
        LinkAttribute,
    },
};

use super::{Device, Doing as _, Error, Links, Namespace, gone_is_as_good, sysctl};
use crate::{
    model::{
        DEFAULT_VLAN, MacAddress, Route, Sandbox, Sysctl,
        request::{EGRESS, INGRESS},
    },
    plan::{BridgePort, FarEnd, Interface, Trunk, Veth, VlanMembership, Vlans},
};

/// The index of every namespace's `lo` (`loopback_net_init` in drivers/net/loopback.c).
const LOOPBACK: u32 = 1;

/// A sandbox, entered.
struct Inside {
    namespace: Namespace,
    links: Links,
}

impl Inside {
    async fn enter(interface: &Interface) -> Result<Self, Error> {
        let namespace = interface.sandbox.enter()?;
        let links = Links::within(&namespace).await?;
        Ok(Self { namespace, links })
    }
}

/// One end of a pair as the port of a bridge.
#[derive(Clone, Copy)]
struct End<'a> {
    bridge: Option<&'a str>,
    /// Any if absent.
    mac: Option<MacAddress>,
    up: bool,
    mtu: u32,
    port: &'a BridgePort,
}

impl<'a> End<'a> {
    fn of(veth: &'a Veth) -> Self {
        let Veth { mac, up, mtu, port, .. } = veth;
        Self { bridge: veth.bridge.as_deref(), mac: Some(*mac), up: *up, mtu: *mtu, port }
    }

    fn of_trunk(trunk: &'a Trunk) -> Self {
        Self { bridge: trunk.bridge.as_deref(), mac: None, up: trunk.up, mtu: trunk.mtu, port: &trunk.port }
    }
}

impl Links {
    /// The interface at the far end of `host_end`, as far as it is what `wanted` says: addresses and routes that its
    /// owner added are not mentioned. `None` if the far end is not in that sandbox.
    pub async fn interface(host_end: &Device, wanted: &Interface) -> Result<Option<Interface>, Error> {
        let Some(namespace) = wanted.sandbox.open() else { return Ok(None) };
        let links = Self::within(&namespace).await?;
        let devices = links.devices().await?;
        let Some(device) = devices
            .into_iter()
            .find(|device| Some(device.index) == host_end.peer && device.peer == Some(host_end.index))
        else {
            return Ok(None);
        };
        let Some(mac) = device.mac else { return Ok(None) };
        let name = device.name.clone();
        let wanted_sysctls = wanted.sysctls.clone();
        let inside = move || -> Result<_, Error> {
            let tree = sysctl::Tree::own();
            let holds = |sysctl: &Sysctl| {
                let value = tree.read(&sysctl.path(&name))?;
                Ok(value.map(|value| Sysctl { value, ..sysctl.clone() }))
            };
            let sysctls: Vec<_> = wanted_sysctls.iter().map(holds).collect::<Result<_, Error>>()?;
            Ok((tree.has_ipv6(&name)?, sysctls.into_iter().flatten().collect()))
        };
        let (ipv6, sysctls) = namespace.run(inside).await??;
        let queues = if wanted.queue.is_some() { links.queues().await? } else { BTreeMap::new() };
        let addresses = links.own_addresses(device.index, &wanted.addresses).await?;
        let routes = links.routes().await?;
        let leads = |gateway| routes.iter().any(|route| route.is_default(device.index, gateway));
        let there = |wanted: &Route| {
            let (wanted, index) = (*wanted, device.index);
            move |route: &super::Route| {
                route.index == index
                    && route.destination == wanted.destination
                    && route.gateway == wanted.gateway
                    && (wanted.metric == 0 || route.metric == wanted.metric)
            }
        };
        Ok(Some(Interface {
            sandbox: wanted.sandbox.clone(),
            name: wanted.name.clone(),
            mac,
            mtu: device.mtu,
            up: device.up,
            queue: queues.get(&device.index).copied(),
            ipv6,
            addresses: addresses.intersection(&wanted.addresses).copied().collect(),
            sysctls,
            gateway4: wanted.gateway4.filter(|&gateway| leads(gateway.into())),
            gateway6: wanted.gateway6.filter(|&gateway| leads(gateway.into())),
            routes: wanted.routes.iter().filter(|wanted| routes.iter().any(there(wanted))).copied().collect(),
        }))
    }

    /// Makes a pair and its far end's addresses and routes, or nothing.
    pub async fn add_veth(&self, name: &str, veth: &Veth) -> Result<(), Error> {
        let far = LinkMessageBuilder::<LinkUnspec>::default();
        let (far, inside, what) = match &veth.far_end {
            FarEnd::Sandbox(interface) => {
                let inside = Inside::enter(interface).await?;
                let far = far
                    .name(interface.name.clone())
                    .address(interface.mac.octets().to_vec())
                    .mtu(interface.mtu)
                    .setns_by_fd(inside.namespace.as_raw_fd());
                (far, Some(inside), format!("{} in {}", interface.name, interface.sandbox))
            }
            FarEnd::Engine { name, mac } => {
                let far = far.name(name.clone()).address(mac.octets().to_vec()).mtu(veth.mtu);
                (far, None, name.clone())
            }
            FarEnd::Trunk(trunk) => (far.name(trunk.name.clone()).mtu(trunk.mtu), None, trunk.name.clone()),
        };
        let near = LinkMessageBuilder::<LinkVeth>::new(name, "")
            .address(veth.mac.octets().to_vec())
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())))
            .build();
        let result = self.handle.link().add(near).execute().await;
        result.doing(|| format!("make the veth pair of {name} and {what}"))?;
        let result = self.furnish(name, veth, inside.as_ref()).await;
        if result.is_err() {
            self.delete(name).await?;
        }
        result
    }

    /// Brings a pair that was just made to what it should be.
    async fn furnish(&self, name: &str, veth: &Veth, inside: Option<&Inside>) -> Result<(), Error> {
        let index = self.index(name).await?;
        self.silence(index, name).await?;
        let mut bare = Veth { bridge: None, up: false, queue: None, ..veth.clone() };
        match &mut bare.far_end {
            FarEnd::Sandbox(interface) => {
                (interface.up, interface.queue) = (false, None);
                // Neither on nor off: whatever the sandbox's default is, it is to be set.
                interface.ipv6 = !interface.ipv6;
                interface.addresses.clear();
                interface.sysctls.clear();
                interface.routes.clear();
                (interface.gateway4, interface.gateway6) = (None, None);
            }
            FarEnd::Engine { .. } => {}
            FarEnd::Trunk(trunk) => {
                self.silence(self.index(&trunk.name).await?, &trunk.name).await?;
                (trunk.bridge, trunk.up) = (None, false);
            }
        }
        if let Some(Inside { links, .. }) = inside {
            links.set_up(LOOPBACK, "lo").await?;
        }
        self.change_veth(name, &bare, veth, inside).await
    }

    /// A port has no IPv6 address of its own: it would only talk to itself. With an MTU below IPv6's 1,280 bytes it has no IPv6.
    async fn silence(&self, index: u32, name: &str) -> Result<(), Error> {
        let silent = vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])];
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(silent))
            .build();
        gone_is_as_good(self.handle.link().set(message).execute().await, libc::EAFNOSUPPORT)
            .doing(|| format!("keep {name} from having an IPv6 address"))
    }

    /// Changes a pair, or leaves it as it is.
    pub async fn set_veth(&self, name: &str, from: &Veth, to: &Veth) -> Result<(), Error> {
        let inside = match to.far_end.interface() {
            Some(interface) if from.far_end != to.far_end => Some(Inside::enter(interface).await?),
            _ => None,
        };
        let result = self.change_veth(name, from, to, inside.as_ref()).await;
        if result.is_err()
            && let Err(error) = self.change_veth(name, to, from, inside.as_ref()).await
        {
            log::debug!("while {name} was put back: {error}");
        }
        result
    }

    async fn change_veth(
        &self,
        name: &str,
        from: &Veth,
        to: &Veth,
        inside: Option<&Inside>,
    ) -> Result<(), Error> {
        let near = self.device(name).await?;
        let near = near.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV));
        let near = near.doing(|| format!("find the link {name}"))?;
        if let (Some(inside), Some(is), Some(should)) =
            (inside, from.far_end.interface(), to.far_end.interface())
            && is != should
        {
            let peer = near.peer.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV));
            let peer = peer.doing(|| format!("find the far end of {name}"))?;
            inside.links.change_interface(peer, is, should, &inside.namespace).await?;
        }
        if from.queue != to.queue {
            self.change_queue(near.index, (name, INGRESS), from.queue, to.queue).await?;
        }
        if let (FarEnd::Trunk(is), FarEnd::Trunk(should)) = (&from.far_end, &to.far_end) {
            let far = self.device(&should.name).await?;
            let far = far.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV));
            let far = far.doing(|| format!("find the link {}", should.name))?;
            self.change_end(&far, End::of_trunk(is), End::of_trunk(should)).await?;
        }
        self.change_end(&near, End::of(from), End::of(to)).await
    }

    /// Changes one end as the port of a bridge.
    async fn change_end(&self, device: &Device, from: End<'_>, to: End<'_>) -> Result<(), Error> {
        let moves = from.bridge != to.bridge;
        // The bridge is told of its port before that comes up.
        let settles = if moves { *to.port != BridgePort::default() } else { from.port != to.port };
        let up = to.up && !settles && (device.up || !moves);
        if moves || (from.mac, from.mtu) != (to.mac, to.mtu) || up != device.up {
            let mut message = LinkUnspec::new_with_index(device.index);
            if let Some(mac) = to.mac.filter(|_| from.mac != to.mac) {
                message = message.address(mac.octets().to_vec());
            }
            if from.mtu != to.mtu {
                message = message.mtu(to.mtu);
            }
            if moves {
                message = match to.bridge {
                    Some(bridge) => message.controller(self.index(bridge).await?),
                    None => message.nocontroller(),
                };
            }
            message = if up { message.up() } else { message.down() };
            self.set(message.build(), &device.name).await?;
        }
        if to.bridge.is_some() {
            self.change_port(device, from, to).await?;
        }
        if up == to.up { Ok(()) } else { self.set_up(device.index, &device.name).await }
    }

    /// Sets what the bridge has to know of its port; a port that is new on a bridge has forgotten all that was set before.
    async fn change_port(&self, device: &Device, from: End<'_>, to: End<'_>) -> Result<(), Error> {
        let (index, name) = (device.index, &*device.name);
        let (is, should) = if from.bridge == to.bridge {
            (from.port.clone(), to.port)
        } else {
            (BridgePort { vlans: Some(default_vlans()), ..BridgePort::default() }, to.port)
        };
        let flags = |port: &BridgePort| (port.isolated, port.hairpin, port.multicast_router);
        if flags(&is) != flags(should) {
            let router = if should.multicast_router {
                BridgeMulticastRouterType::Permanent
            } else {
                BridgeMulticastRouterType::TempQuery
            };
            let message = LinkBridgePort::new(index).isolated(should.isolated).hairpin(should.hairpin);
            let message = message.mcast_router(router).build();
            let request = self.handle.link().set_port(message).execute();
            request.await.doing(|| format!("change the settings of the bridge port {name}"))?;
        }
        if let Some(should) = &should.vlans {
            let is = is.vlans.unwrap_or_else(default_vlans);
            self.change_vlans(index, name, &is, should).await?;
        }
        Ok(())
    }

    /// Changes the sandbox's end; `self` is in the sandbox.
    async fn change_interface(
        &self,
        index: u32,
        from: &Interface,
        to: &Interface,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        // Its owner may have renamed it, so the name comes from the kernel.
        let device = self.device_at(index).await?;
        let name = device.map_or_else(|| to.name.clone(), |device| device.name);
        let ipv6 = (from.ipv6 != to.ipv6).then_some(to.ipv6);
        let sysctls = if from.sysctls == to.sysctls { BTreeSet::new() } else { to.sysctls.clone() };
        let mut link_local = None;
        if ipv6.is_some() || !sysctls.is_empty() {
            let link = name.clone();
            let set = move || -> Result<bool, Error> {
                let tree = sysctl::Tree::own();
                ipv6.map(|on| tree.set_ipv6(&link, on)).transpose()?;
                sysctls.iter().try_for_each(|sysctl| tree.write(&sysctl.path(&link), &sysctl.value))?;
                Ok(ipv6 == Some(true) && tree.addresses_follow_mac(&link)?)
            };
            link_local = namespace.run(set).await??.then(|| to.mac.link_local().into());
        }
        // With the last address of a link the kernel takes the routes that lead through it.
        let addresses = |interface: &Interface, like: IpAddr| {
            let of_family = |net: &&IpNet| net.addr().is_ipv4() == like.is_ipv4();
            interface.addresses.iter().filter(of_family).copied().collect::<BTreeSet<_>>()
        };
        let stays = |gateway: IpAddr| addresses(from, gateway) == addresses(to, gateway);
        let [is, should] = [from, to].map(|interface| interface.gateways().collect::<BTreeSet<_>>());
        for &gateway in is.iter().filter(|&&gateway| !should.contains(&gateway) || !stays(gateway)) {
            self.delete_default_route(index, gateway).await?;
        }
        for route in
            from.routes.iter().filter(|route| !to.routes.contains(route) || !stays(route.destination.addr()))
        {
            self.delete_route(index, route).await?;
        }
        for &net in from.addresses.difference(&to.addresses) {
            self.delete_address(index, net).await?;
        }
        let mut message = LinkUnspec::new_with_index(index);
        if from.mac != to.mac {
            message = message.address(to.mac.octets().to_vec());
        }
        if from.mtu != to.mtu {
            message = message.mtu(to.mtu);
        }
        if from.queue != to.queue {
            self.change_queue(index, (&name, EGRESS), from.queue, to.queue).await?;
        }
        message = if to.up { message.up() } else { message.down() };
        self.set(message.build(), &name).await?;
        // The kernel would give the link the same one, and ask for two seconds whether it is somebody else's; until then it solicits
        // nobody there for a packet under another link's address (`ndisc_send_ns` in net/ipv6/ndisc.c).
        for &net in to.addresses.difference(&from.addresses).chain(&link_local) {
            self.add_address(index, net).await?;
        }
        for &gateway in should.iter().filter(|&&gateway| !is.contains(&gateway) || !stays(gateway)) {
            self.add_default_route(index, gateway, &to.sandbox).await?;
        }
        for route in
            to.routes.iter().filter(|route| !from.routes.contains(route) || !stays(route.destination.addr()))
        {
            self.add_route(index, route).await?;
        }
        Ok(())
    }
}

/// Where a port is that has just come to a bridge.
fn default_vlans() -> Vlans {
    Vlans::from([(DEFAULT_VLAN, VlanMembership { pvid: true, untagged: true })])
}

impl Sandbox {
    /// The namespace, if it is still the one that it was.
    pub fn open(&self) -> Option<Namespace> {
        Namespace::open(&self.path).ok().filter(|namespace| namespace.inode() == self.inode)
    }

    pub(super) fn enter(&self) -> Result<Namespace, Error> {
        let namespace = self.open().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        namespace.doing(|| format!("enter {self}"))
    }
}
