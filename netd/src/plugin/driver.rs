//! `NetworkDriver`: networks and endpoints of the engine's.

use std::{collections::BTreeMap, path::PathBuf};

use axum::Router;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Done, Interface,
    message::{self, Options},
    method,
};
use crate::{
    engine::Engine,
    model::{AddressSpace, Endpoint, EndpointOrder, Error, FarEnd, NetworkOrder, PoolOrder},
};

/// Whether a network's endpoints have no way out.
const INTERNAL: &str = "com.docker.network.internal";
/// What an endpoint's interface is to be called.
const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// The ports of an endpoint's that are to be published.
const PORTMAP: &str = "com.docker.network.portmap";

/// What the engine may ask of the driver.
pub(super) fn routes() -> Router<Engine> {
    use Interface::Network;
    Router::new()
        .route("/NetworkDriver.GetCapabilities", method(Network, capabilities))
        .route("/NetworkDriver.GwAllocCheck", method(Network, gateway_allocation))
        .route("/NetworkDriver.AllocateNetwork", method(Network, allocate_network))
        .route("/NetworkDriver.FreeNetwork", method(Network, nothing))
        .route("/NetworkDriver.CreateNetwork", method(Network, create_network))
        .route("/NetworkDriver.DeleteNetwork", method(Network, delete_network))
        .route("/NetworkDriver.CreateEndpoint", method(Network, create_endpoint))
        .route("/NetworkDriver.EndpointOperInfo", method(Network, endpoint_info))
        .route("/NetworkDriver.DeleteEndpoint", method(Network, delete_endpoint))
        .route("/NetworkDriver.Join", method(Network, join))
        .route("/NetworkDriver.Leave", method(Network, leave))
        .route("/NetworkDriver.ProgramExternalConnectivity", method(Network, program))
        .route("/NetworkDriver.RevokeExternalConnectivity", method(Network, revoke))
        .route("/NetworkDriver.DiscoverNew", method(Network, nothing))
        .route("/NetworkDriver.DiscoverDelete", method(Network, nothing))
}

/// Parameters that nobody looks at.
#[derive(Deserialize)]
struct Anything {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    scope: &'static str,
    connectivity_scope: &'static str,
    gw_alloc_checker: bool,
}

async fn capabilities(_: Engine, _: Anything) -> Result<Capabilities, Error> {
    Ok(Capabilities { scope: "local", connectivity_scope: "local", gw_alloc_checker: true })
}

/// A method that is there for other drivers: swarm's nodes, come and gone, are nothing to a network of one host.
async fn nothing(_: Engine, _: Anything) -> Result<Done, Error> {
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkOptions {
    options: Options,
}

#[derive(Serialize)]
struct GatewayAllocation {
    #[serde(rename = "SkipIPv4")]
    ipv4: bool,
    #[serde(rename = "SkipIPv6")]
    ipv6: bool,
}

/// For which families the engine need not set an address for a gateway aside: those of a network that never has one.
async fn gateway_allocation(_: Engine, network: NetworkOptions) -> Result<GatewayAllocation, Error> {
    let options = message::driver_options(&network.options)?;
    let is = |label: &str, value: &str| {
        options.get(&format!("com.docker.network.bridge.{label}")).is_some_and(|given| given == value)
    };
    let without = is("inhibit_ipv4", "true") && message::flag(&network.options, INTERNAL)?;
    Ok(GatewayAllocation {
        ipv4: is("gateway_mode_ipv4", "isolated") || without,
        ipv6: is("gateway_mode_ipv6", "isolated"),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Allocated {
    options: BTreeMap<String, String>,
}

/// Asked of drivers whose networks span hosts.
async fn allocate_network(_: Engine, _: Anything) -> Result<Allocated, Error> {
    Ok(Allocated { options: BTreeMap::new() })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    network: String,
    options: Options,
    #[serde(rename = "IPv4Data")]
    ipv4: Vec<IpamData>,
    #[serde(rename = "IPv6Data")]
    ipv6: Vec<IpamData>,
}

/// A subnet that the engine's address management, or netd's, has for the network.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct IpamData {
    address_space: String,
    pool: String,
    gateway: String,
    aux_addresses: BTreeMap<String, String>,
}

impl CreateNetwork {
    fn order(self) -> Result<NetworkOrder, Error> {
        let id = required("NetworkID", self.network)?;
        if self.ipv4.len() > 1 || self.ipv6.len() > 1 {
            return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
        }
        let (ipv4, ipv6) = (!self.ipv4.is_empty(), !self.ipv6.is_empty());
        let all = self.ipv4.into_iter().chain(self.ipv6).map(IpamData::order);
        let mut pools = all.collect::<Result<Vec<_>, _>>()?;
        // Everything there is: what the IPAM driver `null` has to give.
        let nothing = |pool: &PoolOrder| pool.subnet.prefix_len() == 0;
        if pools.iter().all(nothing) {
            pools.clear();
        } else if let Some(pool) = pools.iter().find(|pool| nothing(pool)) {
            return Err(Error::invalid(format!(
                "invalid pool {}: the other family has a subnet",
                pool.subnet
            )));
        }
        Ok(NetworkOrder {
            id,
            internal: message::flag(&self.options, INTERNAL)?,
            options: message::driver_options(&self.options)?,
            ipv4,
            ipv6,
            pools,
        })
    }
}

impl IpamData {
    fn order(self) -> Result<PoolOrder, Error> {
        let subnet: IpNet = message::net("pool", &self.pool)?.trunc();
        let mut auxiliary = BTreeMap::new();
        for (name, text) in self.aux_addresses {
            if let Some(address) = message::address("auxiliary address", &text)? {
                auxiliary.insert(name, address);
            }
        }
        Ok(PoolOrder {
            subnet,
            gateway: message::address("gateway", &self.gateway)?,
            auxiliary,
            leased: AddressSpace::named(&self.address_space).is_some(),
        })
    }
}

async fn create_network(engine: Engine, network: CreateNetwork) -> Result<Done, Error> {
    engine.order_network(network.order()?).await?;
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkId {
    #[serde(rename = "NetworkID")]
    network: String,
}

async fn delete_network(engine: Engine, id: NetworkId) -> Result<Done, Error> {
    engine.return_network(&id.network).await?;
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    interface: InterfaceData,
    options: Options,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct InterfaceData {
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    address_ipv6: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mac_address: String,
}

/// The interface, with nothing but what the request left open: the engine rolls back whatever else is in the answer.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointCreated {
    interface: InterfaceData,
}

impl CreateEndpoint {
    fn order(&self) -> Result<EndpointOrder, Error> {
        let net =
            |text: &str| if text.is_empty() { Ok(None) } else { message::net("address", text).map(Some) };
        let ipv4 = match net(&self.interface.address)? {
            Some(IpNet::V6(net)) => return Err(Error::invalid(format!("invalid IPv4 address: {net}"))),
            Some(IpNet::V4(net)) => Some(net),
            None => None,
        };
        let ipv6 = match net(&self.interface.address_ipv6)? {
            Some(IpNet::V4(net)) => return Err(Error::invalid(format!("invalid IPv6 address: {net}"))),
            Some(IpNet::V6(net)) => Some(net),
            None => None,
        };
        let mac = Some(&self.interface.mac_address).filter(|mac| !mac.is_empty());
        let mac =
            mac.map(|mac| mac.parse().map_err(|error| Error::invalid(format!("{error}")))).transpose()?;
        Ok(EndpointOrder {
            network: self.network.clone(),
            id: required("EndpointID", self.endpoint.clone())?,
            ipv4,
            ipv6,
            mac,
            options: message::own_options(&self.options),
            name: self.options.get(IFNAME).map(message::text).filter(|name| !name.is_empty()),
        })
    }
}

async fn create_endpoint(engine: Engine, request: CreateEndpoint) -> Result<EndpointCreated, Error> {
    let endpoint = engine.order_endpoint(request.order()?).await?;
    let chosen = request.interface.mac_address.is_empty().then(|| endpoint.mac.to_string());
    let interface = InterfaceData { mac_address: chosen.unwrap_or_default(), ..InterfaceData::default() };
    Ok(EndpointCreated { interface })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EndpointId {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointInfo {
    value: Options,
}

async fn endpoint_info(engine: Engine, id: EndpointId) -> Result<EndpointInfo, Error> {
    let state = engine.state();
    let network = state.network_of_engine(&id.network)?;
    let endpoint = state.endpoint_of_engine(network.id, &id.endpoint)?;
    let mut value = Options::new();
    if !endpoint.publications.is_empty() {
        let ports: Vec<_> =
            endpoint.publications.iter().flat_map(|it| message::port_bindings(endpoint, it)).collect();
        value.insert(PORTMAP.to_owned(), Value::from(ports));
    }
    Ok(EndpointInfo { value })
}

async fn delete_endpoint(engine: Engine, id: EndpointId) -> Result<Done, Error> {
    engine.return_endpoint(&id.network, &id.endpoint).await?;
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Join {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    sandbox_key: String,
}

/// What the engine is to do with the far end.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Joined {
    interface_name: InterfaceName,
    gateway: String,
    #[serde(rename = "GatewayIPv6")]
    gateway_ipv6: String,
    static_routes: [Value; 0],
    disable_gateway_service: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InterfaceName {
    src_name: String,
    dst_prefix: String,
    dst_name: String,
}

impl Joined {
    fn of(endpoint: &Endpoint, prefix: &str) -> Self {
        let name = match &endpoint.far_end {
            FarEnd::Engine(handover) => handover.name.clone(),
            FarEnd::Sandbox(_) => None,
        };
        Self {
            interface_name: InterfaceName {
                src_name: endpoint.interface.clone(),
                dst_prefix: prefix.to_owned(),
                dst_name: name.unwrap_or_default(),
            },
            gateway: endpoint.gateway4.map(|gateway| gateway.to_string()).unwrap_or_default(),
            gateway_ipv6: endpoint.gateway6.map(|gateway| gateway.to_string()).unwrap_or_default(),
            static_routes: [],
            // An engine that sees no IPv4 gateway would give the container a second network to have one.
            disable_gateway_service: endpoint.gateway4.is_none(),
        }
    }
}

async fn join(engine: Engine, request: Join) -> Result<Joined, Error> {
    let sandbox = PathBuf::from(required("SandboxKey", request.sandbox_key)?);
    let endpoint = engine.join(&request.network, &request.endpoint, sandbox).await?;
    let state = engine.state();
    let bridge = state.networks.get(&endpoint.network).and_then(|network| network.bridge.as_ref());
    Ok(Joined::of(&endpoint, bridge.map_or("eth", |bridge| &bridge.prefix)))
}

async fn leave(engine: Engine, id: EndpointId) -> Result<Done, Error> {
    engine.leave(&id.network, &id.endpoint).await?;
    Ok(Done {})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ExternalConnectivity {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    options: Options,
}

/// The endpoint has become its sandbox's way out: its ports are published here.
async fn program(engine: Engine, request: ExternalConnectivity) -> Result<Done, Error> {
    let ports = request.options.get(PORTMAP).map(|ports| (PORTMAP.to_owned(), message::text(ports)));
    engine.publish_for_engine(&request.network, &request.endpoint, ports.into_iter().collect()).await?;
    Ok(Done {})
}

async fn revoke(engine: Engine, id: EndpointId) -> Result<Done, Error> {
    engine.unpublish_for_engine(&id.network, &id.endpoint).await?;
    Ok(Done {})
}

/// A text that a call cannot be without.
fn required(field: &str, text: String) -> Result<String, Error> {
    if text.is_empty() { Err(Error::invalid(format!("invalid {field}: it is empty"))) } else { Ok(text) }
}
