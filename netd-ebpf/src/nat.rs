//! Masquerade: translation of packets whose flow is known.

use netd_common::{
    addr::Address,
    drop::DropReason,
    endpoint::{NO_GATEWAY, VIA_BRIDGE},
    nat::{Flow, HOST},
    stats::Path,
    tuple::{INBOUND, OUTBOUND},
};

use crate::{
    conntrack,
    maps::{ENDPOINTS, NETWORKS},
    packet::Packet,
    parse::{Ip, l4::L4},
    redirect,
    rewrite::{self, End, Rewrite, Translation},
    stats,
    verdict::{Outcome, Verdict},
};

/// Whether each IP packet that leaves is small enough for the route: of a super-frame, each segment.
#[inline(always)]
fn fits<A>(packet: &Packet, ip: &Ip<A>, l4: Option<&L4>, mtu: u32) -> bool {
    let segment = packet.segment_size();
    let size = match l4 {
        Some(l4) if segment != 0 => (ip.l4 - packet.l3) as u32 + l4.length + segment,
        _ => packet.len() - packet.l3 as u32,
    };
    size <= mtu
}

#[inline(always)]
pub fn to_external<A: Address>(flow: &Flow<A>, ttl: u8) -> Translation<A> {
    Translation {
        end: End::Source,
        from: flow.local,
        to: flow.external,
        from_port: flow.local_port,
        to_port: flow.external_port,
        ttl,
    }
}

#[inline(always)]
pub fn to_local<A: Address>(flow: &Flow<A>, ttl: u8) -> Translation<A> {
    Translation {
        end: End::Destination,
        from: flow.external,
        to: flow.local,
        from_port: flow.external_port,
        to_port: flow.local_port,
        ttl,
    }
}

/// From a container to the outside in one pass. `l4` is absent in later fragments.
#[inline(always)]
pub fn masquerade<F: Rewrite>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    flow: *mut Flow<F::Address>,
) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    if !fits(packet, ip, l4, record.next_hop.mtu) {
        stats::took(Path::StackMtu);
        return Ok(Verdict::NEXT);
    }
    conntrack::tally(flow, OUTBOUND, packet.len());
    externalise::<F>(packet, ip, l4, &to_external(record, ip.ttl - 1))?;
    stats::took(Path::Masqueraded);
    Ok(redirect::out(packet, &record.next_hop))
}

/// What the stack lets out, translated over the same table. The TTL is the stack's business and done.
#[inline(always)]
pub fn masquerade_from_stack<F: Rewrite>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    flow: *mut Flow<F::Address>,
) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    conntrack::tally(flow, OUTBOUND, packet.len());
    externalise::<F>(packet, ip, l4, &to_external(record, ip.ttl))?;
    stats::took(Path::StackMasqueraded);
    Ok(Verdict::NEXT)
}

/// Writes a translation into transport and IP header.
#[inline(always)]
fn externalise<F: Rewrite>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    translation: &Translation<F::Address>,
) -> Result<(), DropReason> {
    if l4.is_some() {
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, translation)?;
    }
    rewrite::ip::<F>(packet, translation)
}

/// From the outside back to whoever began the flow.
#[inline(always)]
pub fn restore<F: Rewrite>(
    packet: &Packet,
    ip: &Ip<F::Address>,
    l4: Option<&L4>,
    flow: *mut Flow<F::Address>,
) -> Outcome {
    // SAFETY: `flow` points into an array map.
    let record = unsafe { &*flow };
    conntrack::tally(flow, INBOUND, packet.len());
    if l4.is_some() {
        rewrite::transport::<F>(packet, ip.l4, ip.protocol, &to_local(record, 0))?;
    }
    stats::took(Path::Returned);
    deliver::<F>(packet, ip, record)
}

/// Turns the packet's destination back into the flow's own end, and hands it there.
#[inline(always)]
pub fn deliver<F: Rewrite>(packet: &Packet, ip: &Ip<F::Address>, flow: &Flow<F::Address>) -> Outcome {
    if flow.endpoint == HOST {
        rewrite::ip::<F>(packet, &to_local(flow, ip.ttl))?;
        return Ok(Verdict::NEXT);
    }
    let endpoint = ENDPOINTS.get(flow.endpoint).ok_or(DropReason::UnknownEndpoint)?;
    let network = NETWORKS.get(endpoint.network).ok_or(DropReason::UnknownEndpoint)?;
    if endpoint.port.0 == 0 {
        return Err(DropReason::UnknownEndpoint);
    }
    if endpoint.flags & (VIA_BRIDGE | NO_GATEWAY) != 0 {
        // The stack routes it to the bridge, as any other packet.
        rewrite::ip::<F>(packet, &to_local(flow, ip.ttl))?;
        return Ok(Verdict::NEXT);
    }
    // The container is the last hop: a TTL that ends here has still arrived, and must not become 0.
    let ttl = if ip.ttl > 1 { ip.ttl - 1 } else { 1 };
    rewrite::frame_and_ip::<F>(packet, &to_local(flow, ttl), network.mac, endpoint.mac)?;
    stats::delivered(flow.endpoint, packet.len());
    Ok(redirect::into(packet, endpoint))
}
