//! The forwarding database: which port of a bridge a MAC is behind.

use bytemuck::{Pod, Zeroable};

use crate::{addr::Mac, limits};

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

impl FdbKey {
    /// The entry of `STATION_SHORTCUTS` that the station shares with few others: networks differ, and so do the last bytes of a MAC.
    #[inline(always)]
    pub const fn shortcut(&self) -> u32 {
        (self.mac.0[2] as u32 ^ self.network.wrapping_mul(0x9e37)) % limits::SHORTCUTS
    }
}
