//! What has to be done so that the host becomes what it should be.
//!
//! A [`World`] is what netd has, or should have, on the host. [`steps`] leads from one to another; it is pure, and every
//! caller uses it: a request plans from what the host has of one network or endpoint to what it should have, a restart
//! from all that is seen to all that is stored.

mod default_route;
mod desired;
mod queue;
mod segment;
mod step;
mod world;

pub use default_route::{DefaultRoute, gateway_endpoint};
pub use desired::{Touched, desired};
pub use queue::Queue;
pub use segment::{Room, place};
pub use step::{Step, steps};
pub use world::{
    BridgeLink, BridgePort, EndpointRow, FarEnd, Interface, LinkRef, NetworkRow, PublicationRow, Station,
    Trunk, Veth, VlanMembership, Vlans, World,
};
