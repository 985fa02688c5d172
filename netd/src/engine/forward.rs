//! The host's forwarding, for what goes by its stack, and because the kernel's routes are looked up for forwarding links alone.
//!
//! A network's bridge forwards. The host's other interfaces do not start to because of netd, unless it is told to let them:
//! where Docker closes the FORWARD chain that it opened, netd never opens it.

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
            Forwarding::Networks => {
                if sysctl::forward_ipv4_but_no_link().map_err(internal)? {
                    log::info!(
                        "net.ipv4.ip_forward is now 1; interfaces that are not netd's forward as little as before"
                    );
                }
            }
            Forwarding::Host => {
                if sysctl::forward_ipv4().map_err(internal)? {
                    log::warn!("net.ipv4.ip_forward is now 1: the host forwards between all its interfaces");
                }
            }
        }
        Ok(())
    }

    /// Has a network's bridge forward.
    pub(super) async fn forward(&self, network: &Network) -> Result<(), Error> {
        let Some(bridge) = network.bridge.as_ref().filter(|_| !network.internal) else { return Ok(()) };
        if self.0.config.forwarding == Forwarding::Untouched {
            return Ok(());
        }
        if network.enable_ipv4 {
            sysctl::forward_link_ipv4(&bridge.interface).map_err(internal)?;
        }
        if network.enable_ipv6 {
            if self.opens_ipv6() {
                self.forward_host_ipv6().await?;
            }
            sysctl::forward_link_ipv6(&bridge.interface).map_err(internal)?;
        }
        Ok(())
    }

    /// Whether all interfaces of the host have to forward IPv6 so that a bridge does: if it is told so, and before Linux
    /// 6.17, which has no such setting for one.
    pub(super) fn opens_ipv6(&self) -> bool {
        match self.0.config.forwarding {
            Forwarding::Untouched => false,
            Forwarding::Networks => !sysctl::links_forward_ipv6(),
            Forwarding::Host => true,
        }
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
