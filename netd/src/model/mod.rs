//! What netd knows: networks, endpoints, and the requests that make them. Values only, no effects.

mod address;
pub mod attachment;
mod bridge;
mod endpoint;
mod error;
mod external;
mod far_end;
mod forwards;
mod framing;
mod id;
mod lease;
mod network;
mod order;
mod port;
mod port_set;
mod publish;
mod rate;
pub mod request;
mod route;
#[cfg(test)]
pub(crate) mod sample;
mod sandbox;
mod state;
mod sysctl;
mod time;

pub use address::MacAddress;
pub use bridge::{Advertise, Bridge, BridgeSettings, GatewayMode, UnknownGatewayMode};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind};
pub use external::{External, Target};
pub use far_end::{FarEnd, Handover};
pub use forwards::Forwards;
pub use framing::Framing;
pub use id::Id;
pub use lease::LeasedPool;
pub use network::{Driver, Ipam, Network, Pool};
pub use order::{AddressSpace, EndpointOrder, LeaseOrder, NetworkOrder, PoolOrder};
pub use port::{DEFAULT_VLAN, InvalidVlan, Port, VlanRange, vlan};
pub use port_set::PortSet;
pub use publish::{HostPorts, PortSpec, Ports, Protocol, Publication, Reserver};
pub use rate::{Bits, InvalidBits, Rate, Rates};
pub use route::Route;
pub use sandbox::{Sandbox, SandboxKind};
pub use state::State;
pub use sysctl::{InvalidSysctl, Sysctl};
pub use time::Timestamp;
