//! ARP for IPv4 over Ethernet (RFC 826).

use netd_common::{
    addr::{Be16, Ipv4, Mac},
    drop::DropReason,
};
use network_types::eth::EthHdr;

use crate::packet::Packet;

/// The part of the header that names the sender.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    hardware: Be16,
    protocol: Be16,
    sizes: [u8; 2],
    operation: Be16,
    sender_mac: Mac,
    /// In halves: the field stands at an odd multiple of two.
    sender: [u16; 2],
}

/// Who says that they are where.
pub struct Sender {
    pub mac: Mac,
    pub address: Ipv4,
}

#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Sender, DropReason> {
    let header: &Header = packet.read(EthHdr::LEN)?;
    if header.sizes != [6, 4] {
        return Err(DropReason::Malformed);
    }
    let [a, b] = header.sender;
    Ok(Sender { mac: header.sender_mac, address: Ipv4(u32::from_ne_bytes(halves(a, b))) })
}

#[inline(always)]
fn halves(a: u16, b: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
    [a, b, c, d]
}
