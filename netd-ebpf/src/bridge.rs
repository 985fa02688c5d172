//! Inside a network: a frame for a station whose port is known goes there, unchanged and untracked.

use netd_common::{
    addr::Mac,
    bridge::{ICC, Network},
    drop::DropReason,
    endpoint::{Endpoint, ISOLATED, VIA_BRIDGE},
    fdb::FdbKey,
    stats::Path,
};

use crate::{
    endpoint,
    packet::Packet,
    redirect, stats,
    verdict::{Outcome, Verdict},
};

#[inline(always)]
pub fn forward(packet: &Packet, sender: u32, from: &Endpoint, network: &Network, to: Mac) -> Outcome {
    let key = FdbKey { network: from.network, mac: to, pad: [0; 2] };
    let Some((slot, endpoint)) = endpoint::station(&key) else { return flood() };
    if network.flags & ICC == 0 {
        return Err(DropReason::Icc);
    }
    if slot == sender || !hears(endpoint, from) {
        return flood();
    }
    stats::took(Path::Bridged);
    stats::delivered(slot, packet.len());
    Ok(redirect::across(packet, endpoint))
}

/// Whether the bridge would forward an untagged frame from one port out of the other one as it is. If not, it is the
/// bridge that says what becomes of the frame.
#[inline(always)]
fn hears(to: &Endpoint, from: &Endpoint) -> bool {
    to.flags & (VIA_BRIDGE | from.flags & ISOLATED) == 0
        && from.flags & VIA_BRIDGE == 0
        && to.vlan == from.vlan
}

/// The kernel bridge does the rest: flooding, snooping, learning, spanning tree.
#[inline(always)]
pub fn flood() -> Outcome {
    stats::took(Path::Flooded);
    Ok(Verdict::NEXT)
}
