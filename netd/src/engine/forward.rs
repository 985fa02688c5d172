//! The host's forwarding, for what goes by its stack, and because the kernel's routes are looked up for forwarding links alone.
//!
//! Bridges and uplinks have to forward, the answers to what went by the stack come in by the latter; and an engine that comes
//! later believes `ip_forward`. So it is the host's, as Docker has it; the FORWARD chain is never netd's.

use super::{Engine, internal};
use crate::{
    config::Forwarding,
    link::sysctl,
    model::{Error, Network},
};

impl Engine {
    /// Switches on the host's own forwarding of IPv4, as it is told to.
    pub(super) fn forward_host(&self) -> Result<(), Error> {
        match self.0.config.forwarding {
            Forwarding::Untouched => {}
            Forwarding::Host => {
                if sysctl::forward_ipv4().map_err(internal)? {
                    log::warn!("net.ipv4.ip_forward is now 1: the host forwards between all its interfaces");
                }
            }
        }
        Ok(())
    }

    /// Has the host forward what a network sends.
    pub(super) async fn forward(&self, network: &Network) -> Result<(), Error> {
        if network.bridge.is_some() && !network.internal && network.enable_ipv6 && self.opens_ipv6() {
            self.forward_host_ipv6().await?;
        }
        Ok(())
    }

    /// Whether the host may be made to forward IPv6.
    pub(super) fn opens_ipv6(&self) -> bool {
        self.0.config.forwarding == Forwarding::Host
    }

    /// Sees to it that the host forwards IPv6, and that it keeps its own routes though it does.
    async fn forward_host_ipv6(&self) -> Result<(), Error> {
        let uplinks: Vec<_> = self.find_uplinks().await?.into_values().map(|uplink| uplink.name).collect();
        let Some(told) = sysctl::forward_ipv6(&uplinks).map_err(internal)? else { return Ok(()) };
        log::warn!("net.ipv6.conf.all.forwarding is now 1: the host forwards between all its interfaces");
        for uplink in told {
            log::info!("net.ipv6.conf.{uplink}.accept_ra is now 2: the host keeps taking routes there");
        }
        Ok(())
    }
}
