//! Endpoint-independent filtering (RFC 4787 section 5): what comes unasked to the port of a [`binding`], and what the container
//! answers.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netd_common::{
    addr::Be16,
    bridge::{INDEPENDENT_FILTERING, INDEPENDENT_MAPPING, MASQUERADE},
    conntrack::State,
    drop::DropReason,
    endpoint::{NO_GATEWAY, VIA_BRIDGE},
    event::Sweep,
    nat::{ACCEPTED, BOUND, OUTSIDE, OWN_ADDRESS, PEER, SEEN_BOUND, TWICE, UNFILTERED},
    tuple::{
        INBOUND, Tuple,
        protocol::{TCP, UDP},
    },
};

use crate::{
    binding::{self, Bind, at, hold, holds, of, of_seen, release},
    conntrack::{self, Found},
    expiry,
    family::{Family, V4, V6},
    fib, flow_table, guard, mapping,
    maps::{ENDPOINTS, NETWORKS},
    open::{Opened, STACK, TO_BIND, or_drop},
    packet::Packet,
    parse::l4::{self, Ports},
    publish::{self, FULL, Publish},
};

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Filter: Bind {
    /// See [`answer`]. 0 if the flow is to end.
    fn answer_first(index: u32) -> i64;
    /// A record for the flow of a packet that came unasked to a binding's port, not live yet, and [`TO_BIND`] if its client is to be
    /// known by a port of its own; or no flow; or [`FULL`]. `client` as in [`open`].
    fn come(packet: &Packet, client: u32) -> i64;
}

impl Filter for V4 {
    #[inline(always)]
    fn answer_first(index: u32) -> i64 {
        answer_first4(index)
    }
    #[inline(always)]
    fn come(packet: &Packet, client: u32) -> i64 {
        come_to_binding4(packet.skb(), packet.l3 as u32, client)
    }
}

impl Filter for V6 {
    #[inline(always)]
    fn answer_first(index: u32) -> i64 {
        answer_first6(index)
    }
    #[inline(always)]
    fn come(packet: &Packet, client: u32) -> i64 {
        come_to_binding6(packet.skb(), packet.l3 as u32, client)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_first4(index: u32) -> i64 {
    i64::from(answer_first::<V4>(index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_first6(index: u32) -> i64 {
    i64::from(answer_first::<V6>(index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn come_to_binding4(skb: *mut __sk_buff, l3: u32, client: u32) -> i64 {
    let context = TcContext::new(skb);
    or_drop(come::<V4>(&Packet::with_l3(&context, l3), client))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn come_to_binding6(skb: *mut __sk_buff, l3: u32, client: u32) -> i64 {
    let context = TcContext::new(skb);
    or_drop(come::<V6>(&Packet::with_l3(&context, l3), client))
}

/// Opens a flow for a packet that came unasked to a binding's port, if the port is open to all. `client`: the slot of the container
/// that it is from, or [`OUTSIDE`].
#[inline(always)]
pub fn open<F: Publish>(packet: &Packet, client: u32) -> Opened {
    let mut come = F::come(packet, client);
    if let Some(whose) = publish::lacks_room(come) {
        if F::make_room(whose) != 0 {
            come = F::come(packet, client);
        }
        if publish::lacks_room(come).is_some() {
            return Opened::Drop(DropReason::EndpointQuota);
        }
    }
    if client != OUTSIDE && come >= TO_BIND {
        come = binding::bind::<F>(packet, come as u32);
    }
    publish::complete::<F>(packet, come)
}

/// The host keeps what one of its own sockets would receive, whoever was there first.
#[inline(always)]
fn come<F: Family>(packet: &Packet, client: u32) -> Result<i64, DropReason> {
    let globals = fib::globals().ok_or(DropReason::NoBackend)?;
    let ip = F::parse(packet)?;
    if F::is_unroutable(ip.source) {
        return Ok(STACK);
    }
    let Ports { source, destination } = l4::parse(packet, &ip, F::L4, F::ICMP)?.ports;
    let mut key = Tuple::default();
    let Some(found) = at::<F>(ip.destination, ip.protocol, destination, &mut key) else { return Ok(STACK) };
    // SAFETY: the flow points into an array map.
    let binding = unsafe { &*found.flow };
    let endpoint = ENDPOINTS.get(binding.endpoint).ok_or(DropReason::NoBackend)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::NoBackend)?;
    if network.flags & INDEPENDENT_FILTERING == 0 {
        return Ok(STACK);
    }
    (key.source, key.source_port, key.direction) = (ip.source, source, INBOUND);
    if matches!(ip.protocol, TCP | UDP) && mapping::has_socket::<F>(packet.skb(), &key) {
        return Ok(STACK);
    }
    if client == OUTSIDE {
        guard::outsider::<F>(ip.source)?;
    }
    if client != OUTSIDE && endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
        return Err(DropReason::NoBackend);
    }
    let index = match flow_table::draw::<F>(binding.endpoint, globals) {
        Ok(index) => index,
        Err(DropReason::EndpointQuota) => return Ok(FULL | i64::from(binding.endpoint)),
        Err(_) => return Ok(FULL | i64::from(Sweep::ANY)),
    };
    let flow = flow_table::blank::<F>(index)?;
    let mut code = i64::from(index);
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).next_hop = fib::unanswered(packet, client, globals);
        (*flow).local = binding.local;
        (*flow).local_port = binding.local_port;
        (*flow).remote = key.source;
        (*flow).remote_port = key.source_port;
        (*flow).external = key.destination;
        (*flow).external_port = key.destination_port;
        (*flow).seen = key.source;
        (*flow).protocol = key.protocol;
        (*flow).endpoint = binding.endpoint;
        (*flow).peer = client;
        (*flow).flags = ACCEPTED | OWN_ADDRESS | BOUND | UNFILTERED;
        if client != OUTSIDE {
            (*flow).flags |= PEER;
            if is_bound::<F>(client) {
                (*flow).seen = key.destination;
                (*flow).flags ^= OWN_ADDRESS | TWICE | SEEN_BOUND;
                code |= TO_BIND;
            }
        }
    }
    Ok(code)
}

/// A container answers on a flow that came unasked to its port: from now on the flow holds the binding. `false` if that is gone,
/// or another's by now, and the flow with it.
#[inline(always)]
pub fn answer<F: Filter>(found: &Found<F::Address>) -> bool {
    // SAFETY: the flow points into an array map.
    let is_first =
        unsafe { (*found.flow).flags & (ACCEPTED | BOUND) == ACCEPTED | BOUND && (*found.flow).holds == 0 };
    if !is_first || F::answer_first(found.index) != 0 {
        return true;
    }
    // Here and not there, for a call less on the programs' short stack.
    expiry::end::<F>(found.index, conntrack::clock(found.flow));
    false
}

#[inline(always)]
fn answer_first<F: Family>(index: u32) -> bool {
    let Some(found) = conntrack::at::<F>(index) else { return false };
    // A reset is no answer that keeps anything alive (RFC 7857 section 7.1).
    let is_refusal = conntrack::clock(found.flow).state() == State::RESET;
    if is_refusal || !holds::<F>(found.flow).exchange(0, 1) {
        return true;
    }
    // SAFETY: the flow points into an array map.
    let flow = unsafe { &*found.flow };
    let mut key = Tuple::default();
    if let Some(own) = of::<F>(flow, &mut key)
        && is_of::<F>(&own, flow.local, flow.local_port)
        && hold::<F>(&own)
    {
        if flow.flags & SEEN_BOUND == 0 {
            return true;
        }
        if let Some(seen) = of_seen::<F>(flow, &mut key)
            && is_of::<F>(&seen, flow.remote, flow.remote_port)
            && hold::<F>(&seen)
        {
            return true;
        }
        release::<F>(&own);
    }
    holds::<F>(found.flow).store(0);
    false
}

#[inline(always)]
fn is_of<F: Family>(found: &Found<F::Address>, address: F::Address, port: Be16) -> bool {
    // SAFETY: the flow points into an array map.
    unsafe { (*found.flow).local == address && (*found.flow).local_port == port }
}

/// Whether a container's ports are bound.
#[inline(always)]
fn is_bound<F: Family>(slot: u32) -> bool {
    ENDPOINTS.get(slot).and_then(|endpoint| NETWORKS.get(endpoint.network)).is_some_and(|network| {
        network.flags & (MASQUERADE | F::ROUTED | INDEPENDENT_MAPPING) == MASQUERADE | INDEPENDENT_MAPPING
    })
}
