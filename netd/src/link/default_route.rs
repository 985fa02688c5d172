//! The default route of a sandbox, which leads through one of its interfaces.

use std::{io, net::IpAddr};

use rtnetlink::packet_route::route::RouteMessage;

use super::{Doing as _, Error, Links, gone_is_as_good, route};
use crate::{
    model::{self, Sandbox},
    plan::DefaultRoute,
};

impl Links {
    /// Has another interface of a sandbox carry a default route, without a moment in which there is none. If the one is not there
    /// any more, the other is a new one.
    pub async fn move_default_route(
        &self,
        sandbox: &Sandbox,
        from: &DefaultRoute,
        to: &DefaultRoute,
    ) -> Result<(), Error> {
        let inside = Self::within(&sandbox.enter()?).await?;
        let (leaves, takes) = (self.far_end(&from.veth).await?, self.far_end(&to.veth).await?);
        inside.until_running(takes).await?;
        if !inside.routes().await?.iter().any(|route| route.is_default(leaves, from.gateway)) {
            return inside.add_default_route(takes, to.gateway, sandbox).await;
        }
        let request = inside.handle.route().add(message(takes, to.gateway)).replace().execute();
        request
            .await
            .doing(|| format!("put the default route via {} in place of {}", to.gateway, from.gateway))
    }

    /// The index of a veth's other end, in that end's namespace.
    async fn far_end(&self, name: &str) -> Result<u32, Error> {
        let peer = self.device(name).await?.and_then(|device| device.peer);
        let peer = peer.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV));
        peer.doing(|| format!("find the far end of {name}"))
    }

    /// Makes `gateway`, a neighbour on the link, the default route of its family. One that is there already is the sandbox's own, a
    /// VPN's for one, and stays.
    pub(super) async fn add_default_route(
        &self,
        index: u32,
        gateway: IpAddr,
        sandbox: &Sandbox,
    ) -> Result<(), Error> {
        match self.handle.route().add(message(index, gateway)).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => {
                log::warn!(
                    "{sandbox} has a default route of its own, which stays: there is none via {gateway}"
                );
                Ok(())
            }
            added => added.doing(|| format!("add the default route via {gateway}")),
        }
    }

    /// Takes back [`Links::add_default_route`]; there being no such route is as good.
    pub(super) async fn delete_default_route(&self, index: u32, gateway: IpAddr) -> Result<(), Error> {
        let request = self.handle.route().del(message(index, gateway)).execute();
        gone_is_as_good(request.await, libc::ESRCH)
            .doing(|| format!("delete the default route via {gateway}"))
    }
}

fn message(index: u32, gateway: IpAddr) -> RouteMessage {
    route::message(index, &model::Route::default_via(gateway))
}
