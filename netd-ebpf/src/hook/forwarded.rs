//! What the host forwards: tcx egress of each interface that is none of netd's, uplinks too, on a host that netd has made
//! forward. Before every other program: what these do to a packet is no matter here.

use aya_ebpf::programs::TcContext;
use netd_common::{
    addr::{IfIndex, Mac},
    drop::DropReason,
    forwarded::Foreign,
    globals::{CLOSED4, CLOSED6},
};

use crate::{
    endpoint, fib,
    maps::{BRIDGES, FOREIGN},
    packet::Packet,
    parse::eth,
    redirect::TRANSLATED,
    verdict::{Outcome, Verdict},
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> Outcome {
    let packet = Packet::of(ctx);
    // Before all else: nearly every packet.
    if packet.has_mark(TRANSLATED) {
        return Ok(Verdict::NEXT);
    }
    let family = match packet.ethertype() {
        eth::IPV4 => CLOSED4,
        eth::IPV6 => CLOSED6,
        _ => return Ok(Verdict::NEXT),
    };
    let is_closed = fib::globals().is_some_and(|globals| globals.flags & family != 0);
    if is_closed && is_forwarded(&packet) && !forwards(packet.came_by(), family) {
        return Err(DropReason::NotForwarded);
    }
    Ok(Verdict::NEXT)
}

/// Whether the host's stack forwards it. What a socket sends has come in nowhere, or belongs to the socket still; and what a
/// bridge, or another station on the same wire, sends by this interface has not this interface's MAC.
#[inline(always)]
fn is_forwarded(packet: &Packet) -> bool {
    if packet.came_by() == IfIndex(0) || packet.has_socket() {
        return false;
    }
    match foreign(IfIndex(packet.ifindex())) {
        // Whatever forwards to a group has been told to by name.
        Some(Foreign { mac, .. }) if mac != Mac::default() => {
            eth::parse(packet).is_ok_and(|frame| frame.source == mac && !frame.destination.is_multicast())
        }
        _ => true,
    }
}

/// Whether the host is to forward what came in by an interface: a bridge, the host's end of a veth, or one whose packets it forwarded
/// before netd came.
#[inline(always)]
fn forwards(interface: IfIndex, family: u32) -> bool {
    // SAFETY: whether there is a value, and nothing of it.
    unsafe { BRIDGES.get(interface) }.is_some()
        || endpoint::behind(interface).is_some()
        || foreign(interface).is_some_and(|foreign| u32::from(foreign.forwards) & family != 0)
}

#[inline(always)]
fn foreign(interface: IfIndex) -> Option<Foreign> {
    // SAFETY: the value is copied at once.
    unsafe { FOREIGN.get(interface) }.copied()
}
