//! Who has an address (RFC 826)? An external one this host (RFC 1027): its uplinks have no such address, so its stack would not
//! say so.

use netd_common::{
    addr::{Ipv4, Mac},
    drop::DropReason,
    stats::Path,
};
use network_types::eth::EthHdr;

use crate::{
    external,
    family::V4,
    packet::Packet,
    parse::{
        arp::{self, Header},
        eth::{self, Frame},
    },
    rewrite, stats,
};

#[derive(Clone, Copy)]
#[repr(C)]
struct Answer {
    frame: Frame,
    arp: Header,
}

/// The address that a request asks for. `None` if the packet is anything else.
#[inline(always)]
pub fn target(packet: &Packet) -> Option<Ipv4> {
    Some(question(packet)?.target())
}

#[inline(always)]
fn question<'a>(packet: &Packet<'a>) -> Option<&'a Header> {
    let header = arp::parse(packet).ok()?;
    // A sender that asks for its own address announces it (RFC 5227 section 3).
    if header.operation == arp::REQUEST && header.target != header.sender { Some(header) } else { None }
}

/// Turns a request for an external address into its answer: `mac` has it. `false`, and nothing is done, if it is anything else.
#[inline(always)]
pub fn answer(packet: &Packet, mac: Mac) -> Result<bool, DropReason> {
    let Some(&asked) = question(packet) else { return Ok(false) };
    if external::endpoint_of::<V4>(asked.target()).is_none() {
        return Ok(false);
    }
    let frame = Frame { destination: asked.sender_mac, source: mac, ethertype: eth::ARP };
    let arp = Header {
        operation: arp::REPLY,
        sender_mac: mac,
        sender: asked.target,
        target_mac: asked.sender_mac,
        target: asked.sender,
        ..asked
    };
    rewrite::store(packet, 0, &Answer { frame, arp })?;
    stats::took(Path::Answered);
    Ok(true)
}

const _: () = assert!(size_of::<Answer>() == EthHdr::LEN + 28);
