//! The forwarding database: which port of a bridge a MAC is behind.

use bytemuck::{Pod, Zeroable};

use crate::addr::Mac;

/// Key of `FDB`. Value: the endpoint's slot, a `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FdbKey {
    /// The network's number.
    pub network: u32,
    /// The station's MAC.
    pub mac: Mac,
    /// Always zero.
    pub pad: [u8; 2],
}
