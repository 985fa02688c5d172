//! `IpamDriver`: subnets and addresses for the engine's networks, of this driver or another.

use std::{collections::BTreeMap, net::IpAddr};

use axum::Router;
use serde::{Deserialize, Serialize};

use super::{
    Done, Interface,
    message::{self, Options},
    method,
};
use crate::{
    engine::Engine,
    model::{AddressSpace, Error, Ipam, LeaseOrder},
};

/// What an address is for, among the options of a request for one.
const ADDRESS_TYPE: &str = "RequestAddressType";
/// An address for the network's gateway.
const GATEWAY: &str = "com.docker.network.gateway";

/// What the engine may ask of the address management.
pub(super) fn routes() -> Router<Engine> {
    use Interface::Ipam;
    Router::new()
        .route("/IpamDriver.GetCapabilities", method(Ipam, capabilities))
        .route("/IpamDriver.GetDefaultAddressSpaces", method(Ipam, address_spaces))
        .route("/IpamDriver.RequestPool", method(Ipam, request_pool))
        .route("/IpamDriver.ReleasePool", method(Ipam, release_pool))
        .route("/IpamDriver.RequestAddress", method(Ipam, request_address))
        .route("/IpamDriver.ReleaseAddress", method(Ipam, release_address))
}

/// Parameters that nobody looks at.
#[derive(Deserialize)]
struct Anything {}

#[derive(Serialize)]
struct Capabilities {
    #[serde(rename = "RequiresMACAddress")]
    mac_address: bool,
    #[serde(rename = "RequiresRequestReplay")]
    request_replay: bool,
}

async fn capabilities(_: Engine, _: Anything) -> Result<Capabilities, Error> {
    Ok(Capabilities { mac_address: false, request_replay: true })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AddressSpaces {
    local_default_address_space: &'static str,
    global_default_address_space: &'static str,
}

async fn address_spaces(_: Engine, _: Anything) -> Result<AddressSpaces, Error> {
    Ok(AddressSpaces {
        local_default_address_space: AddressSpace::Local.name(),
        global_default_address_space: AddressSpace::Global.name(),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RequestPool {
    address_space: String,
    pool: String,
    sub_pool: String,
    options: Options,
    v6: bool,
}

#[derive(Serialize)]
struct PoolRequested {
    #[serde(rename = "PoolID")]
    id: String,
    #[serde(rename = "Pool")]
    pool: String,
    /// The engine asks for the gateway's address by itself, if it is told none here.
    #[serde(rename = "Data")]
    data: BTreeMap<String, String>,
}

impl RequestPool {
    fn order(&self) -> Result<LeaseOrder, Error> {
        let space = AddressSpace::named(&self.address_space).ok_or_else(|| {
            Error::invalid(format!(
                "invalid address space {:?}: there are {} and {}",
                self.address_space,
                AddressSpace::Local.name(),
                AddressSpace::Global.name()
            ))
        })?;
        let read = |field: &str, text: &str| {
            if text.is_empty() { Ok(None) } else { message::net(field, text).map(|net| Some(net.trunc())) }
        };
        let (subnet, range) = (read("pool", &self.pool)?, read("sub-pool", &self.sub_pool)?);
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        if let Some(subnet) = subnet.filter(|subnet| subnet.addr().is_ipv6() != self.v6) {
            return Err(Error::invalid(format!("invalid pool {subnet}: an {family} block is asked for")));
        }
        let serial = message::flag(&self.options, Ipam::SERIAL)?;
        match (subnet, range) {
            (Some(subnet), _) if subnet.prefix_len() == 0 => {
                Err(Error::invalid(format!("invalid pool {subnet}: it is everything there is")))
            }
            (Some(subnet), Some(range)) if !subnet.contains(&range) => Err(Error::invalid(format!(
                "invalid sub-pool {range}: parent pool {subnet} doesn't contain it"
            ))),
            (None, Some(range)) => {
                Err(Error::invalid(format!("invalid sub-pool {range}: there is no pool that it is part of")))
            }
            _ => Ok(LeaseOrder { space, subnet, range, ipv6: self.v6, serial }),
        }
    }
}

async fn request_pool(engine: Engine, request: RequestPool) -> Result<PoolRequested, Error> {
    let leased = engine.lease_pool(request.order()?).await?;
    Ok(PoolRequested { id: leased.id, pool: leased.pool.subnet.to_string(), data: BTreeMap::new() })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ReleasePool {
    #[serde(rename = "PoolID")]
    pool: String,
}

async fn release_pool(engine: Engine, request: ReleasePool) -> Result<Done, Error> {
    engine.return_pool(&request.pool).await?;
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RequestAddress {
    #[serde(rename = "PoolID")]
    pool: String,
    address: String,
    options: Options,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AddressRequested {
    address: String,
    data: BTreeMap<String, String>,
}

async fn request_address(engine: Engine, request: RequestAddress) -> Result<AddressRequested, Error> {
    let address = message::address("address", &request.address)?;
    let gateway = request.options.get(ADDRESS_TYPE).is_some_and(|kind| kind == GATEWAY);
    let address = engine.lease_address(&request.pool, address, gateway).await?;
    Ok(AddressRequested { address: address.to_string(), data: BTreeMap::new() })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ReleaseAddress {
    #[serde(rename = "PoolID")]
    pool: String,
    address: String,
}

async fn release_address(engine: Engine, request: ReleaseAddress) -> Result<Done, Error> {
    let address: IpAddr = message::address("address", &request.address)?
        .ok_or_else(|| Error::invalid("invalid address: it is empty"))?;
    engine.return_address(&request.pool, address).await?;
    Ok(Done {})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(space: &str, pool: &str, sub_pool: &str, v6: bool) -> Result<LeaseOrder, String> {
        let (address_space, pool, sub_pool) = (space.into(), pool.into(), sub_pool.into());
        let request = RequestPool { address_space, pool, sub_pool, options: Options::new(), v6 };
        request.order().map_err(|error| error.message)
    }

    #[test]
    fn pools_are_read() {
        let any = order("netd-local", "", "", true).unwrap();
        assert_eq!((any.space, any.subnet, any.ipv6), (AddressSpace::Local, None, true));
        let this = order("netd-global", "10.9.0.7/16", "10.9.1.0/24", false).unwrap();
        assert_eq!(this.subnet, "10.9.0.0/16".parse().ok());
        assert_eq!(this.range, "10.9.1.0/24".parse().ok());
    }

    #[test]
    fn bad_pools_are_told() {
        for (space, pool, sub_pool, v6, text) in [
            ("x", "", "", false, "invalid address space \"x\": there are netd-local and netd-global"),
            ("netd-local", "10", "", false, "invalid pool 10: invalid CIDR block notation"),
            ("netd-local", "10.9.0.0/16", "", true, "invalid pool 10.9.0.0/16: an IPv6 block is asked for"),
            ("netd-local", "::/0", "", true, "invalid pool ::/0: it is everything there is"),
            (
                "netd-local",
                "10.9.0.0/16",
                "10.8.0.0/24",
                false,
                "invalid sub-pool 10.8.0.0/24: parent pool 10.9.0.0/16 doesn't contain it",
            ),
            (
                "netd-local",
                "",
                "10.8.0.0/24",
                false,
                "invalid sub-pool 10.8.0.0/24: there is no pool that it is part of",
            ),
        ] {
            assert_eq!(order(space, pool, sub_pool, v6).unwrap_err(), text);
        }
    }
}
