//! The only caller of the redirect helpers.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::generated::{bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use netd_common::{
    addr::IfIndex,
    bridge::Network,
    endpoint::{DELIVERED_LIMITED, Endpoint, NO_GATEWAY, PEER_IN_OTHER_NETNS, VIA_BRIDGE},
    fib::NextHop,
};

use crate::{packet::Packet, stats, verdict::Verdict};

/// On packets that the programs are done with, between a redirection and the next hook on their way, which clears it: so that
/// it need not look at them again. "netd" in ASCII.
pub const TRANSLATED: u32 = 0x6e65_7464;

/// On fragments that go the same way for the second time: they were counted at the first. "repl" in ASCII.
pub const REPLAYED: u32 = 0x7265_706c;

/// From a neighbour on the same bridge straight into the container, past the bridge and the veth's queue; if the container may
/// be sent only so much, past the bridge alone, for it is the queue that knows how much. The caller has seen that the bridge
/// would do the same. `slot` is the endpoint's: what goes past the veth's counters is counted there.
///
/// The kernel scrubs much of the packet on this way but neither mark nor priority, which are the host's business.
#[inline(always)]
pub fn across(packet: &Packet, slot: u32, endpoint: &Endpoint) -> Verdict {
    let skb = packet.skb();
    // SAFETY: the kernel hands a valid context, and lets tc programs write these two fields.
    unsafe {
        (*skb).mark = 0;
        (*skb).priority = 0;
    }
    let port = endpoint.port.0;
    let is_past_queue = endpoint.flags & (PEER_IN_OTHER_NETNS | DELIVERED_LIMITED) == PEER_IN_OTHER_NETNS;
    if is_past_queue {
        stats::delivered(slot, packet.len());
    }
    // SAFETY: plain helper calls.
    Verdict::redirected(unsafe {
        if is_past_queue { bpf_redirect_peer(port, 0) } else { bpf_redirect(port, 0) }
    })
}

/// From beyond the bridge straight into the container; unless the way there is the bridge's to decide.
#[inline(always)]
pub fn into(packet: &Packet, slot: u32, endpoint: &Endpoint) -> Verdict {
    if endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
        return Verdict::NEXT;
    }
    across(packet, slot, endpoint)
}

/// From a container to the host, which hears it alone of all that are at the bridge.
#[inline(always)]
pub fn up(network: &Network) -> Verdict {
    // SAFETY: a plain helper call.
    Verdict::redirected(unsafe { bpf_redirect(network.bridge.0, u64::from(BPF_F_INGRESS)) })
}

/// To a container, past the bridge alone: there is no shorter way from a hook of what is sent by the host, nor for a packet that has got
/// another network header, which is found anew on this way.
#[inline(always)]
pub fn down(endpoint: &Endpoint) -> Verdict {
    // SAFETY: a plain helper call.
    Verdict::redirected(unsafe { bpf_redirect(endpoint.port.0, 0) })
}

/// To the host, as if it had come in by the uplink: what is sent from an address that belongs out there is taken for a
/// forgery anywhere else.
#[inline(always)]
pub fn in_by(packet: &Packet, uplink: IfIndex) -> Verdict {
    // SAFETY: the kernel hands a valid context; a plain helper call.
    Verdict::redirected(unsafe {
        (*packet.skb()).mark = TRANSLATED;
        bpf_redirect(uplink.0, u64::from(BPF_F_INGRESS))
    })
}

/// In once more by the interface that it came in by, for the program to look at as it is now.
#[inline(always)]
pub fn again(packet: &Packet) -> Verdict {
    // SAFETY: a plain helper call.
    Verdict::redirected(unsafe { bpf_redirect(packet.ifindex(), u64::from(BPF_F_INGRESS)) })
}

/// A copy of the packet comes in by the packet's interface, as if sent by whatever is at the far end; or leaves by it. Unlike the others
/// at once, so that it works where nobody carries out a verdict. Returns 0, or the kernel's error.
#[inline(always)]
pub fn copy(packet: &Packet, out: bool) -> i32 {
    let flags = if out { 0 } else { u64::from(BPF_F_INGRESS) };
    // SAFETY: the kernel hands a valid context; a plain helper call.
    unsafe { bpf_clone_redirect(packet.skb(), packet.ifindex(), flags) as i32 }
}

/// Out by the interface that the program is attached to.
#[inline(always)]
pub fn back(packet: &Packet) -> Verdict {
    along(packet, IfIndex(packet.ifindex()))
}

/// Out of the uplink, as the frame is.
#[inline(always)]
pub fn along(packet: &Packet, uplink: IfIndex) -> Verdict {
    // SAFETY: the kernel hands a valid context; a plain helper call.
    Verdict::redirected(unsafe {
        (*packet.skb()).mark = TRANSLATED;
        bpf_redirect(uplink.0, 0)
    })
}

/// Out of the uplink, to the neighbour; the kernel resolves its MAC, and holds the packet while it does.
#[inline(always)]
pub fn out(packet: &Packet, hop: &NextHop) -> Verdict {
    let mut neighbour = bpf_redir_neigh {
        nh_family: hop.family,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: hop.address },
    };
    // SAFETY: the kernel hands a valid context; the helper reads `neighbour` and no more than its size.
    Verdict::redirected(unsafe {
        (*packet.skb()).mark = TRANSLATED;
        bpf_redirect_neigh(hop.uplink.0, &raw mut neighbour, size_of::<bpf_redir_neigh>() as i32, 0)
    })
}
