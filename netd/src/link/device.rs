//! What links there are.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use netd_common::stats::Traffic;
use nix::errno::Errno;
use rtnetlink::{
    LinkGetRequest, LinkUnspec,
    packet_route::{
        AddressFamily,
        link::{
            BridgeMulticastRouterType, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
            LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkLayerType, LinkMessage,
        },
    },
};
use tokio::time;

use super::{Doing as _, Error, Links, bridge::settings, gone_is_as_good, removal};
use crate::model::{BridgeSettings, Framing, MacAddress};

/// A link of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its address, if it is an Ethernet device.
    pub mac: Option<MacAddress>,
    /// How its packets begin, if the programs can read that.
    pub framing: Option<Framing>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether frames get through: it is up, and so is what it is connected to.
    pub running: bool,
    /// Index of the bridge that it is a port of.
    pub controller: Option<u32>,
    /// Index of the other end of a veth, in that end's namespace.
    pub peer: Option<u32>,
    /// What it is set to, if it is a bridge.
    pub settings: BridgeSettings,
    /// As the port of a bridge: whether it is isolated.
    pub isolated: bool,
    /// As the port of a bridge: whether frames may go back out of it.
    pub hairpin: bool,
    /// As the port of a bridge: whether all multicast goes there.
    pub multicast_router: bool,
    /// What the kernel counted in; nothing if it was not asked for that.
    pub received: Traffic,
    /// What the kernel counted out; nothing if it was not asked for that.
    pub sent: Traffic,
}

/// What a link is, as far as netd cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A loopback device.
    Loopback,
    /// A bridge.
    Bridge,
    /// One end of a veth pair.
    Veth,
    /// A TUN or TAP device: a process has the other end, a virtual machine's for one.
    Tun,
    /// Something else.
    Other,
}

/// The kernel's own list of devices without a header: <https://github.com/torvalds/linux/blob/v6.18/include/linux/if_arp.h>
fn framing(header: &LinkHeader) -> Option<Framing> {
    match header.link_layer_type {
        LinkLayerType::Ether => Some(Framing::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ip6gre => Some(Framing::Bare),
        // One to many remotes has the remote's address in a header of its own.
        LinkLayerType::Ipgre if header.flags.contains(LinkFlags::Pointopoint) => Some(Framing::Bare),
        _ => None,
    }
}

impl Device {
    fn read(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut device = Self {
            index: message.header.index,
            name: String::new(),
            kind: if flags.contains(LinkFlags::Loopback) { Kind::Loopback } else { Kind::Other },
            mac: None,
            framing: framing(&message.header),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            controller: None,
            peer: None,
            settings: BridgeSettings::default(),
            isolated: false,
            hairpin: false,
            multicast_router: false,
            received: Traffic::default(),
            sent: Traffic::default(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Address(bytes) => device.mac = bytes.try_into().ok().map(MacAddress::new),
                LinkAttribute::Controller(index) => device.controller = Some(index),
                LinkAttribute::Link(index) => device.peer = Some(index),
                LinkAttribute::Stats64(stats) => {
                    device.received = Traffic { packets: stats.rx_packets, bytes: stats.rx_bytes };
                    device.sent = Traffic { packets: stats.tx_packets, bytes: stats.tx_bytes };
                }
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(InfoKind::Bridge) => device.kind = Kind::Bridge,
                            LinkInfo::Kind(InfoKind::Veth) => device.kind = Kind::Veth,
                            LinkInfo::Kind(InfoKind::Tun) => device.kind = Kind::Tun,
                            LinkInfo::Data(InfoData::Bridge(data)) => device.settings = settings(&data),
                            LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                                device.isolated = data.contains(&InfoBridgePort::Isolated(true));
                                device.hairpin = data.contains(&InfoBridgePort::HairpinMode(true));
                                let router =
                                    InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Permanent);
                                device.multicast_router = data.contains(&router);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        device
    }
}

/// A request for links without what the kernel counted.
fn uncounted(handle: &rtnetlink::Handle) -> LinkGetRequest {
    handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
}

/// The answer to a request for one link.
async fn one(request: LinkGetRequest) -> Result<Option<Device>, rtnetlink::Error> {
    let mut messages = pin!(request.execute());
    match messages.try_next().await {
        Ok(message) => Ok(message.map(Device::read)),
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -libc::ENODEV || error.raw_code() == -libc::ENOENT =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Links {
    /// All links.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        self.list("links", |handle| uncounted(&handle).execute().map_ok(Device::read).try_collect()).await
    }

    /// All links, and what the kernel counted of each: to tell it takes longer than all the rest.
    pub async fn counted_devices(&self) -> Result<Vec<Device>, Error> {
        self.list("links", |handle| handle.link().get().execute().map_ok(Device::read).try_collect()).await
    }

    /// The links of these names, as far as they are there, and the bridges that they are ports of.
    pub async fn devices_named(&self, names: impl IntoIterator<Item = &str>) -> Result<Vec<Device>, Error> {
        let mut devices = Vec::new();
        for name in names {
            devices.extend(self.device(name).await?);
        }
        let known: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
        let controllers: BTreeSet<u32> = devices.iter().filter_map(|device| device.controller).collect();
        for &index in controllers.difference(&known) {
            devices.extend(self.device_at(index).await?);
        }
        Ok(devices)
    }

    /// The link of this name, if there is one.
    pub async fn device(&self, name: &str) -> Result<Option<Device>, Error> {
        let request = uncounted(&self.handle).match_name(name.to_owned());
        one(request).await.doing(|| format!("look up the link {name}"))
    }

    /// The link of this name, if there is one, and what the kernel counted of it.
    pub async fn counted_device(&self, name: &str) -> Result<Option<Device>, Error> {
        let request = self.handle.link().get().match_name(name.to_owned());
        one(request).await.doing(|| format!("look up the link {name}"))
    }

    /// The link of this index, if there is one.
    pub async fn device_at(&self, index: u32) -> Result<Option<Device>, Error> {
        let request = uncounted(&self.handle).match_index(index);
        one(request).await.doing(|| format!("look up the link {index}"))
    }

    /// Waits until frames get through a veth's end: the kernel gives it its queue a while after the other end has come up, and until
    /// then loses without a word what is sent (`linkwatch_do_dev` in net/core/link_watch.c); a bridge passes nothing by such a port. If
    /// the other end is down, that is so.
    pub async fn until_running(&self, index: u32) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_millis(500);
        let running = async {
            while self.device_at(index).await?.is_some_and(|device| !device.running) {
                time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        time::timeout(PATIENCE, running).await.unwrap_or(Ok(()))
    }

    /// The index of the link of this name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        if !self.here {
            return Ok(self.device(name).await?.map(|device| device.index));
        }
        // Unlike rtnetlink this waits for nobody who changes links, and tells no more than what was asked.
        match nix::net::if_::if_nametoindex(name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::ENODEV) => Ok(None),
            Err(error) => Err(std::io::Error::from(error)).doing(|| format!("look up the link {name}")),
        }
    }

    /// The index of the link of this name.
    pub async fn index(&self, name: &str) -> Result<u32, Error> {
        let index = self.find(name).await?.ok_or(std::io::Error::from_raw_os_error(libc::ENODEV));
        index.doing(|| format!("find the link {name}"))
    }

    /// Removes the link of this name; there being none is as good.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.find(name).await? else { return Ok(()) };
        if self.here {
            return removal::remove(name, index).await;
        }
        let request = self.handle.link().del(index).execute();
        gone_is_as_good(request.await, libc::ENODEV).doing(|| format!("delete the link {name}"))
    }

    /// Sends one request to change a link.
    pub(super) async fn set(&self, message: LinkMessage, name: &str) -> Result<(), Error> {
        self.handle.link().set(message).execute().await.doing(|| format!("change the link {name}"))
    }

    /// Gives a link another name, which Linux does of one that is up, too.
    pub async fn rename(&self, device: &Device, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(device.index).name(name.to_owned()).build();
        let renamed = self.handle.link().set(message).execute().await;
        renamed.doing(|| format!("rename {} to {name}", device.name))
    }

    /// Sets a link up, by its index.
    pub(super) async fn set_up(&self, index: u32, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_index(index).up().build(), name).await
    }
}
