//! Who may speak to a container at its own address, from the outside or from another network, and the flows that this begins:
//! the answers have to find their way back, whatever the container may do unasked.

use aya_ebpf::{bindings::__sk_buff, maps::lpm_trie::Key, programs::TcContext};
use netd_common::{
    addr::IfIndex,
    bridge::INTERNAL,
    drop::DropReason,
    event::Sweep,
    fib::NextHop,
    nat::{ACCEPTED, OPEN, OUTSIDE, OWN_ADDRESS, PEER},
    policy::{Access, Origin, Service, Trusted},
    publish::PublishedPort,
    tuple::{INBOUND, OUTBOUND, Tuple},
};

use crate::{
    conntrack,
    family::{Family, V4, V6},
    fib, flow_table, frag, guard,
    maps::{ENDPOINTS, NETWORKS, TRUSTED},
    open::{Opened, STACK, or_drop},
    packet::Packet,
    parse::{
        Ip,
        icmp::Kind,
        l4::{self, L4Kind, Ports},
    },
    publish::{self, FULL, Publish},
};

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Policy: Publish {
    /// Whether the packet may go to the container that has its destination: that endpoint's slot, and beside it [`NO_PORT`] if no
    /// published port is what lets it in; or no flow, if no container has it. `peer`: the sender's slot, or [`OUTSIDE`].
    fn judge(packet: &Packet, peer: u32) -> i64;
    /// A record for the flow of an admitted packet that is not live yet; its live flow's, and [`LIVE`]; or no flow, if it needs
    /// none; or [`FULL`].
    fn begin(packet: &Packet, admitted: i64, peer: u32) -> i64;
    /// The flow between networks that the packet answers; negative if there is none.
    fn answers(packet: &Packet) -> i64;
}

impl Policy for V4 {
    #[inline(always)]
    fn judge(packet: &Packet, peer: u32) -> i64 {
        judge4(packet.skb(), peer, packet.l3 as u32)
    }
    #[inline(always)]
    fn begin(packet: &Packet, admitted: i64, peer: u32) -> i64 {
        begin4(packet.skb(), admitted as u64, peer, packet.l3 as u32)
    }
    #[inline(always)]
    fn answers(packet: &Packet) -> i64 {
        policy_answers4(packet.skb())
    }
}

impl Policy for V6 {
    #[inline(always)]
    fn judge(packet: &Packet, peer: u32) -> i64 {
        judge6(packet.skb(), peer, packet.l3 as u32)
    }
    #[inline(always)]
    fn begin(packet: &Packet, admitted: i64, peer: u32) -> i64 {
        begin6(packet.skb(), admitted as u64, peer, packet.l3 as u32)
    }
    #[inline(always)]
    fn answers(packet: &Packet) -> i64 {
        policy_answers6(packet.skb())
    }
}

/// Beside the slot of an endpoint that is reached without a published port.
const NO_PORT: i64 = 1 << 32;
/// Beside the index of a flow that is live.
const LIVE: i64 = 1 << 32;

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge4(skb: *mut __sk_buff, peer: u32, l3: u32) -> i64 {
    judge::<V4>(skb, peer, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge6(skb: *mut __sk_buff, peer: u32, l3: u32) -> i64 {
    judge::<V6>(skb, peer, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin4(skb: *mut __sk_buff, admitted: u64, peer: u32, l3: u32) -> i64 {
    begin::<V4>(skb, admitted as i64, peer, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin6(skb: *mut __sk_buff, admitted: u64, peer: u32, l3: u32) -> i64 {
    begin::<V6>(skb, admitted as i64, peer, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn policy_answers4(skb: *mut __sk_buff) -> i64 {
    answered::<V4>(skb).map_or(-1, i64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn policy_answers6(skb: *mut __sk_buff) -> i64 {
    answered::<V6>(skb).map_or(-1, i64::from)
}

/// The flow of a packet that [`Policy::judge`] has admitted.
#[inline(always)]
pub fn open<F: Policy>(packet: &Packet, admitted: i64, peer: u32) -> Opened {
    let mut begun = F::begin(packet, admitted, peer);
    if begun >= FULL {
        if F::make_room(begun as u32) != 0 {
            begun = F::begin(packet, admitted, peer);
        }
        if begun >= FULL {
            return Opened::Drop(DropReason::EndpointQuota);
        }
    }
    if begun >= LIVE {
        return Opened::Flow(begun as u32);
    }
    publish::complete::<F>(packet, begun)
}

#[inline(always)]
fn judge<F: Family>(skb: *mut __sk_buff, peer: u32, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    or_drop(admit::<F>(packet, peer).map(|admitted| admitted.unwrap_or(STACK)))
}

#[inline(always)]
fn admit<F: Family>(packet: &Packet, peer: u32) -> Result<Option<i64>, DropReason> {
    let ip = F::parse(packet)?;
    let slot = F::slot_of(ip.destination);
    let number = match slot.and_then(|slot| ENDPOINTS.get(slot)) {
        Some(endpoint) => endpoint.network,
        // A network's gateway, or nobody: of those the stack knows better, but not whether the outside may ask.
        None => match F::network_of(ip.destination) {
            Some(number) if peer == OUTSIDE => number,
            _ => return Ok(None),
        },
    };
    let mut origin = Origin::Network;
    if peer == OUTSIDE {
        guard::outsider::<F>(ip.source)?;
        let key = Trusted { uplink: IfIndex(packet.ifindex()), network: number };
        // SAFETY: whether there is a value, and nothing of it.
        let is_trusted = unsafe { TRUSTED.get(key) }.is_some();
        origin = if is_trusted { Origin::Trusted } else { Origin::Outside };
    } else {
        let sender = ENDPOINTS.get(peer).ok_or(DropReason::UnknownEndpoint)?;
        if sender.network == number {
            return Ok(None);
        }
        let network = NETWORKS.get(sender.network).ok_or(DropReason::UnknownEndpoint)?;
        if network.flags & INTERNAL != 0 {
            return Err(DropReason::Internal);
        }
    }
    let network = NETWORKS.get(number).ok_or(DropReason::UnknownEndpoint)?;
    let service = service::<F>(packet, &ip)?;
    let access = Access { flags: network.flags, routed: F::ROUTED, unprotected: F::UNPROTECTED };
    access.judge(origin, service)?;
    let needs_port = service == Service::Published && network.flags & F::UNPROTECTED == 0;
    Ok(slot.map(|slot| i64::from(slot) | if needs_port { 0 } else { NO_PORT }))
}

/// A later fragment goes where the first of its datagram went, or nowhere: it is not its own port that is asked for.
#[inline(always)]
fn service<F: Family>(packet: &Packet, ip: &Ip<F::Address>) -> Result<Service, DropReason> {
    if ip.protocol == F::ICMP {
        return Ok(Service::Icmp);
    }
    if ip.fragment.later {
        return Ok(Service::Published);
    }
    let Ports { destination: port, .. } = packet.load(ip.l4)?;
    let key = PublishedPort::<F::Address>::new(ip.destination, ip.protocol, port);
    let key = Key::new(PublishedPort::<F::Address>::BITS, key);
    let publication = F::publications().get(&key);
    // The row is looked into, as in `external::is_external`.
    let is_published = publication.is_some_and(|row| row.ports.contains(port.get()));
    Ok(if is_published { Service::Published } else { Service::Other })
}

#[inline(always)]
fn begin<F: Family>(skb: *mut __sk_buff, admitted: i64, peer: u32, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    or_drop(record::<F>(packet, admitted, peer))
}

#[inline(always)]
fn record<F: Family>(packet: &Packet, admitted: i64, peer: u32) -> Result<i64, DropReason> {
    let globals = fib::globals().ok_or(DropReason::NoBackend)?;
    let ip = F::parse(packet)?;
    if ip.fragment.later {
        return match frag::find::<F>(&ip, INBOUND) {
            Some(found) if conntrack::refresh::<F>(found.flow, INBOUND, 0, globals) => {
                Ok(LIVE | i64::from(found.index))
            }
            _ => Err(DropReason::Fragment),
        };
    }
    let l4 = l4::parse(packet, &ip, F::L4, F::ICMP)?;
    if matches!(l4.kind, L4Kind::Icmp(kind) if kind != Kind::EchoRequest) {
        return Ok(STACK);
    }
    let Ports { source, destination } = l4.ports;
    let key = Tuple::inbound(ip.source, ip.destination, source, destination, ip.protocol);
    if let Some(found) = conntrack::find::<F>(&key)
        && conntrack::refresh::<F>(found.flow, INBOUND, l4.flags, globals)
    {
        return Ok(LIVE | i64::from(found.index));
    }
    if !l4.is_first(ip.protocol) {
        return Err(DropReason::TcpUnrelated);
    }
    let slot = admitted as u32;
    let index = match flow_table::draw::<F>(slot, globals) {
        Ok(index) => index,
        Err(DropReason::EndpointQuota) => return Ok(FULL | i64::from(slot)),
        Err(_) => return Ok(FULL | i64::from(Sweep::ANY)),
    };
    let flow = flow_table::blank::<F>(index)?;
    let is_outside = peer == OUTSIDE;
    let open = if admitted & NO_PORT != 0 { OPEN } else { 0 };
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).next_hop = if is_outside {
            fib::unanswered(packet, peer, globals)
        } else {
            NextHop { generation: globals.fib_generation, mtu: u32::MAX, ..NextHop::default() }
        };
        (*flow).local = key.destination;
        (*flow).local_port = key.destination_port;
        (*flow).remote = key.source;
        (*flow).remote_port = key.source_port;
        (*flow).external = key.destination;
        (*flow).external_port = key.destination_port;
        (*flow).seen = key.source;
        (*flow).protocol = key.protocol;
        (*flow).endpoint = slot;
        (*flow).peer = peer;
        (*flow).flags = ACCEPTED | OWN_ADDRESS | open | if is_outside { 0 } else { PEER };
    }
    Ok(i64::from(index))
}

#[inline(always)]
fn answered<F: Family>(skb: *mut __sk_buff) -> Option<u32> {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let globals = fib::globals()?;
    let ip = F::parse(packet).ok()?;
    if ip.fragment.later {
        return None;
    }
    let l4 = l4::parse(packet, &ip, F::L4, F::ICMP).ok()?;
    let Ports { source, destination } = l4.ports;
    let key = Tuple::outbound(ip.source, ip.destination, source, destination, ip.protocol);
    let found = conntrack::find::<F>(&key)?;
    // SAFETY: the flow points into an array map.
    let is_between_networks = unsafe { (*found.flow).flags } & PEER != 0;
    if is_between_networks && conntrack::refresh::<F>(found.flow, OUTBOUND, l4.flags, globals) {
        Some(found.index)
    } else {
        None
    }
}
