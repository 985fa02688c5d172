//! ARP for IPv4 over Ethernet (RFC 826).

use netd_common::{
    addr::{Be16, Ipv4, Mac},
    drop::DropReason,
};
use network_types::eth::EthHdr;

use crate::packet::Packet;

/// As it stands behind the Ethernet header.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub hardware: Be16,
    pub protocol: Be16,
    pub sizes: [u8; 2],
    pub operation: Be16,
    pub sender_mac: Mac,
    /// In halves: the field stands at an odd multiple of two.
    pub sender: [u16; 2],
    pub target_mac: Mac,
    pub target: [u16; 2],
}

/// Who has an address?
pub const REQUEST: Be16 = Be16::new(1);
/// I have.
pub const REPLY: Be16 = Be16::new(2);

impl Header {
    #[inline(always)]
    pub fn sender(&self) -> Ipv4 {
        address(self.sender)
    }

    #[inline(always)]
    pub fn target(&self) -> Ipv4 {
        address(self.target)
    }
}

#[inline(always)]
pub fn parse<'a>(packet: &Packet<'a>) -> Result<&'a Header, DropReason> {
    let header: &Header = packet.read(EthHdr::LEN)?;
    if header.sizes != [6, 4] {
        return Err(DropReason::Malformed);
    }
    Ok(header)
}

#[inline(always)]
fn address([a, b]: [u16; 2]) -> Ipv4 {
    let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
    Ipv4(u32::from_ne_bytes([a, b, c, d]))
}
