//! Ethernet.

use netd_common::addr::{Be16, Mac};
use netd_common::drop::DropReason;

use crate::packet::Packet;

pub const IPV4: Be16 = Be16::new(0x0800);
pub const IPV6: Be16 = Be16::new(0x86dd);
pub const ARP: Be16 = Be16::new(0x0806);

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    pub destination: Mac,
    pub source: Mac,
    pub ethertype: Be16,
}

#[inline(always)]
pub fn parse<'a>(packet: &Packet<'a>) -> Result<&'a Frame, DropReason> {
    packet.read(0)
}
