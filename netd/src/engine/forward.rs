//! The host's forwarding, for what goes by its stack, and because the kernel's routes are looked up for forwarding links alone.
//!
//! Bridges and uplinks have to forward, the answers to what went by the stack come in by the latter; and an engine that comes
//! later believes `ip_forward`. So it is the host's, as Docker has it. The FORWARD chain is never netd's: where Docker would make
//! it drop, a program drops what the host would forward between interfaces that are none of netd's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use netd_common::addr::{IfIndex, Mac};

use super::{Engine, Writer, internal, uplinks::Surroundings};
use crate::{
    config::Forwarding,
    datapath::{self, CLOSED4, CLOSED6, Foreign},
    link::{Device, Kind, sysctl},
    model::{Error, Forwards, Network},
    store::Change,
};

impl Engine {
    /// Switches on the host's own forwarding of IPv4, as it is told to.
    pub(super) async fn forward_host(&self, writer: &mut Writer) -> Result<(), Error> {
        let here = place()?;
        let mut forwards = self.state().forwards.clone();
        if forwards.place != here {
            forwards = Forwards { place: here, ..Forwards::default() };
        }
        let switches = self.opens() && !sysctl::forwards_ipv4().map_err(internal)?;
        if switches {
            forwards.ipv4 = true;
            forwards.by_link4 = sysctl::links_forwarding_ipv4().map_err(internal)?;
        }
        self.note_and_close(writer, forwards).await?;
        if switches {
            sysctl::forward_ipv4().map_err(internal)?;
            log::warn!("net.ipv4.ip_forward is now 1: {}", self.between_others());
        }
        Ok(())
    }

    /// Has the host forward what a network sends.
    pub(super) async fn forward(&self, writer: &mut Writer, network: &Network) -> Result<(), Error> {
        if network.bridge.is_some() && !network.internal && network.enable_ipv6 && self.opens() {
            self.forward_host_ipv6(writer).await?;
        }
        Ok(())
    }

    /// Whether the host may be made to forward.
    pub(super) fn opens(&self) -> bool {
        self.0.config.forwarding == Forwarding::Host
    }

    /// Sees to it that the host forwards IPv6, and that it keeps its own routes though it does.
    async fn forward_host_ipv6(&self, writer: &mut Writer) -> Result<(), Error> {
        if sysctl::forwards_ipv6().map_err(internal)? {
            return Ok(());
        }
        let forwards = Forwards {
            ipv6: true,
            by_link6: sysctl::links_forwarding_ipv6().map_err(internal)?,
            ..self.state().forwards.clone()
        };
        let around = self.note_and_close(writer, forwards).await?;
        self.keep_advertised_routes(writer, &around).await?;
        sysctl::forward_ipv6().map_err(internal)?;
        log::warn!("net.ipv6.conf.all.forwarding is now 1: {}", self.between_others());
        Ok(())
    }

    /// Has links that take the addresses and routes of router advertisements go on with it though the host is a router itself, by netd's
    /// doing: those that are new, too, for it is by advertisements that they may come to lead anywhere.
    pub(super) async fn keep_advertised_routes(
        &self,
        writer: &mut Writer,
        around: &Surroundings,
    ) -> Result<(), Error> {
        let mut told = BTreeSet::new();
        let mut looked_at = BTreeSet::new();
        for device in self.hosts_own(around) {
            let index = IfIndex(device.index);
            looked_at.insert(index);
            // What somebody sets later is as he wants it.
            if !writer.advertised_to.contains(&index)
                && sysctl::heeds_routers(&device.name).map_err(internal)?
            {
                told.insert(device.name.clone());
            }
        }
        writer.advertised_to = looked_at;
        if told.is_empty() {
            return Ok(());
        }
        let mut forwards = self.state().forwards.clone();
        forwards.advertised.extend(told.iter().cloned());
        self.note(writer, forwards).await?;
        for link in told {
            sysctl::always_heed_routers(&link).map_err(internal)?;
            log::info!("net.ipv6.conf.{link}.accept_ra is now 2: the host keeps taking routes there");
        }
        Ok(())
    }

    /// What comes of it for the others.
    fn between_others(&self) -> &'static str {
        if self.0.config.forwards_for_others {
            "the host forwards between all its interfaces"
        } else {
            "the host forwards for netd's networks, and what it would forward between its other interfaces is dropped"
        }
    }

    /// Notes what is about to be switched on, and closes it for others: there is no moment at which it is open to all. Returns what
    /// is around.
    async fn note_and_close(&self, writer: &mut Writer, forwards: Forwards) -> Result<Surroundings, Error> {
        self.note(writer, forwards).await?;
        let around = self.surroundings().await?;
        self.refresh_foreign(writer, &around)?;
        Ok(around)
    }

    /// Notes what is about to be changed, for the cleanup.
    async fn note(&self, writer: &mut Writer, forwards: Forwards) -> Result<(), Error> {
        if self.state().forwards == forwards {
            return Ok(());
        }
        let change = Change::Forward(forwards);
        let stored = change.clone();
        writer.store(move |store| store.commit(&[stored], &[])).await?;
        self.remember(change);
        Ok(())
    }

    /// Tells the datapath what is closed, and to which interfaces.
    pub(super) fn refresh_foreign(&self, writer: &mut Writer, around: &Surroundings) -> Result<(), Error> {
        let closed = self.closed();
        let others = if closed == 0 { Vec::new() } else { self.others(around) };
        let (engines, foreign): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|device| device.is_for_guests(&around.devices));
        let engines = engines.iter().map(|device| IfIndex(device.index)).collect();
        self.datapath().set_other_bridges(&engines).map_err(internal)?;
        // IPv6 is forwarded for all links or for none, whatever each one's setting is.
        let by_link4 = &self.state().forwards.by_link4;
        let as_known = |device: &Device| Foreign {
            mac: device.mac.map(Mac::from).unwrap_or_default(),
            forwards: if by_link4.contains(&device.name) { CLOSED4 as u16 } else { 0 },
        };
        let found: BTreeMap<_, _> =
            foreign.into_iter().map(|device| (IfIndex(device.index), as_known(device))).collect();
        for (&index, &known) in &found {
            if writer.foreign.get(&index) != Some(&Some(known)) {
                self.datapath().put_foreign(index, known).map_err(internal)?;
                writer.foreign.insert(index, Some(known));
            }
        }
        self.datapath().close(closed).map_err(internal)?;
        let gone: Vec<_> =
            writer.foreign.keys().filter(|index| !found.contains_key(index)).copied().collect();
        for index in gone {
            self.datapath().remove_foreign(index).map_err(internal)?;
            writer.foreign.remove(&index);
        }
        Ok(())
    }

    /// The families that the host forwards by netd's doing, and for netd alone.
    fn closed(&self) -> u32 {
        if self.0.config.forwards_for_others {
            return 0;
        }
        let forwards = &self.state().forwards;
        (if forwards.ipv4 { CLOSED4 } else { 0 }) | if forwards.ipv6 { CLOSED6 } else { 0 }
    }

    /// The interfaces that are none of netd's and no guests'. A bridge's ports take no advertisements, the bridge does.
    fn hosts_own<'a>(&self, around: &'a Surroundings) -> impl Iterator<Item = &'a Device> {
        around.devices.iter().filter(|device| {
            device.kind != Kind::Loopback
                && device.controller.is_none()
                && !device.is_for_guests(&around.devices)
                && !self.is_own(&device.name)
        })
    }

    /// The interfaces that are none of netd's and that something could be forwarded to.
    fn others<'a>(&self, around: &'a Surroundings) -> Vec<&'a Device> {
        let leading = around.devices.iter().filter(|device| device.leads_on(&around.routes));
        leading.filter(|device| !self.is_own(&device.name)).collect()
    }
}

/// The daemon's network namespace, told from all that were and will be.
fn place() -> Result<String, Error> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(internal)?;
    let namespace = datapath::netns_cookie().map_err(internal)?;
    Ok(format!("{} {namespace}", boot.trim()))
}

/// Switches off what netd has switched on, on a host that is cleaned up.
pub fn stop_forwarding(forwards: &Forwards) -> Result<(), Error> {
    if forwards.place != place()? {
        return Ok(());
    }
    if forwards.ipv4 {
        sysctl::stop_forwarding_ipv4(&forwards.by_link4).map_err(internal)?;
    }
    if forwards.ipv6 {
        sysctl::stop_forwarding_ipv6(&forwards.by_link6).map_err(internal)?;
    }
    for uplink in &forwards.advertised {
        sysctl::heed_routers_as_before(uplink).map_err(internal)?;
    }
    Ok(())
}
