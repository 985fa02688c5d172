//! Addresses: which subnet a network gets, and which address an endpoint.
//!
//! Pure functions of what is taken. Nothing is reserved here: what is taken is what the state's networks and endpoints
//! hold, so an address can neither leak nor be forgotten.

mod address;
mod default_bridge;
mod pool;
mod request;
mod span;
mod subnet;

use std::net::IpAddr;

pub use address::{bounds, claim, lowest_free, next_free, reserved};
pub use default_bridge::{DefaultBridge, RangeOutside};
pub use pool::complete;
pub use request::{Requested, read};
pub use subnet::{Pools, overlaps};

/// The name of netd's own IPAM, which is Docker's.
pub const DEFAULT: &str = "default";

/// Why there is no address or no subnet, in Docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No subnet is left in the pools.
    #[error("all predefined address pools have been fully subnetted")]
    Subnetted,
    /// No address is left in the range.
    #[error("no available addresses on this pool")]
    Exhausted,
    /// The address is taken or reserved.
    #[error("Address already in use")]
    InUse,
    /// The address is outside the subnet.
    #[error("requested address is out of range")]
    OutOfRange,
    /// The gateway is taken or reserved.
    #[error("failed to allocate gateway ({0}): Address already in use")]
    Gateway(IpAddr),
    /// There is no room for a gateway.
    #[error("failed to allocate gateway (): no available addresses on this pool")]
    NoGateway,
    /// An auxiliary address is taken or reserved.
    #[error("failed to allocate secondary ip address ({name}:{address}): Address already in use")]
    Auxiliary {
        /// Who it is for.
        name: String,
        /// The address.
        address: IpAddr,
    },
}

#[cfg(test)]
mod tests;
