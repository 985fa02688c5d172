//! Inside a network: a frame for a station whose port is known goes there, unchanged and untracked.

use netd_common::{
    addr::{Address as _, Mac},
    bridge::{ICC, Network},
    drop::DropReason,
    endpoint::{Endpoint, ISOLATED, NO_GATEWAY, VIA_BRIDGE},
    fdb::FdbKey,
    stats::Path,
};

use crate::{
    endpoint,
    family::Family,
    maps::ENDPOINTS,
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
    Ok(redirect::across(packet, slot, endpoint))
}

/// Who has this address? The question goes to the one who has, and who is to answer, and not to all: of a large network each
/// copy would take a place in the kernel's queue, and there are fewer places than ports. The sender's own address is news for
/// all, and so is a question that nobody known can answer.
#[inline(always)]
pub fn ask<F: Family>(
    packet: &Packet,
    sender: u32,
    from: &Endpoint,
    network: &Network,
    target: F::Address,
) -> Outcome {
    if target == F::gateway(network) {
        return ask_host(from, network);
    }
    let Some(slot) = F::slot_of(target) else { return flood() };
    let Some(endpoint) = ENDPOINTS.get(slot) else { return flood() };
    if slot == sender || endpoint.network != from.network {
        return flood();
    }
    if network.flags & ICC == 0 {
        return Err(DropReason::Icc);
    }
    if !hears(endpoint, from) {
        return flood();
    }
    stats::took(Path::Bridged);
    Ok(redirect::across(packet, slot, endpoint))
}

/// Who is a router? The host, where it has the gateway's address.
#[inline(always)]
pub fn ask_router<F: Family>(from: &Endpoint, network: &Network) -> Outcome {
    if F::gateway(network).is_unspecified() { flood() } else { ask_host(from, network) }
}

#[inline(always)]
fn ask_host(from: &Endpoint, network: &Network) -> Outcome {
    if from.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
        return flood();
    }
    stats::took(Path::StackHost);
    Ok(redirect::up(network))
}

/// As `ask`, if it is the host that asks. `None` if its bridge is to ask them all.
#[inline(always)]
pub fn ask_for_host<F: Family>(network: u32, target: F::Address) -> Option<Verdict> {
    let slot = F::slot_of(target)?;
    let endpoint = ENDPOINTS.get(slot)?;
    if endpoint.network != network || endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
        return None;
    }
    stats::took(Path::Bridged);
    Some(redirect::down(endpoint))
}

/// Whether the bridge would forward an untagged frame from one port out of the other one as it is. If not, it is the
/// bridge that says what becomes of the frame.
#[inline(always)]
fn hears(to: &Endpoint, from: &Endpoint) -> bool {
    to.flags & (VIA_BRIDGE | from.flags & ISOLATED) == 0
        && from.flags & VIA_BRIDGE == 0
        && to.vlan == from.vlan
}

/// A frame of another VLAN than the sender's own: the bridge knows who is in it.
#[inline(always)]
pub fn tagged(network: &Network, to: Mac) -> Outcome {
    let is_between = !to.is_multicast() && to != network.mac;
    if is_between && network.flags & ICC == 0 { Err(DropReason::Icc) } else { flood() }
}

/// The kernel bridge does the rest: flooding, snooping, learning, spanning tree.
#[inline(always)]
pub fn flood() -> Outcome {
    stats::took(Path::Flooded);
    Ok(Verdict::NEXT)
}
