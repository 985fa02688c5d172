//! Published ports: the first packet of whoever comes from elsewhere to a port of the host.

use aya_ebpf::{
    bindings::__sk_buff, helpers::generated::bpf_get_prandom_u32, maps::lpm_trie::Key, programs::TcContext,
};
use netd_common::{
    addr::{Address as _, Be16, IfIndex},
    bridge::{INTERNAL, NAMES},
    drop::DropReason,
    endpoint::{NO_GATEWAY, VIA_BRIDGE},
    event::Sweep,
    globals::Globals,
    limits,
    nat::{ACCEPTED, Flow, OPEN, OUTSIDE, OWN_ADDRESS, PEER, SEEN_BOUND, TWICE},
    publish::{Publication, PublishedPort},
    tuple::Tuple,
};

use crate::{
    conntrack,
    family::{Family, V4, V6},
    fib,
    filtering::{self, Filter},
    flow_table, guard, loops, mapping,
    maps::{ENDPOINTS, NETWORKS},
    open::Opened,
    packet::Packet,
    parse::l4::Ports,
    port_usage, rewrite,
};

/// Where a port of the host leads: what is published for the very address goes before what is for all.
#[inline(always)]
pub fn find<F: Family>(address: F::Address, protocol: u8, port: Be16) -> Option<&'static Publication> {
    // One key for both lookups: the programs' stack is short.
    let mut key = Key::new(PublishedPort::<F::Address>::BITS, PublishedPort::new(address, protocol, port));
    if let Some(publication) = F::publications().get(&key) {
        return Some(publication);
    }
    key.data.address = F::from_words([0; 4]);
    F::publications().get(&key)
}

/// What is published at an address of the host. Port 53 of a gateway is netd's own, where it answers for names.
#[inline(always)]
pub fn at<F: Family>(address: F::Address, protocol: u8, port: Be16) -> Option<&'static Publication> {
    let publication = find::<F>(address, protocol, port)?;
    if port == DOMAIN && is_name_server::<F>(address) { None } else { Some(publication) }
}

#[inline(always)]
fn is_name_server<F: Family>(address: F::Address) -> bool {
    F::network_of(address)
        .and_then(|number| NETWORKS.get(number))
        .is_some_and(|network| network.flags & NAMES != 0 && F::gateway(network) == address)
}

/// The port of name servers.
const DOMAIN: Be16 = Be16::new(53);

/// The subprograms of this file, by family: global functions, see [`Open`].
pub trait Publish: Filter {
    /// Where the packet, which came to a port of the host, goes: a record for its flow that is not live yet, or no flow; or
    /// [`FULL`], or [`BOUND_PORT`]. `client` as in [`open`].
    fn accept(packet: &Packet, client: u32) -> i64;
    /// Gives an accepted flow the port that the container sees, and the outbound key that holds it. The index, or no flow.
    fn take_seen_port(packet: &Packet, index: u32) -> i64;
}

impl Publish for V4 {
    #[inline(always)]
    fn accept(packet: &Packet, client: u32) -> i64 {
        accept4(packet.skb(), packet.l3 as u32, client)
    }
    #[inline(always)]
    fn take_seen_port(packet: &Packet, index: u32) -> i64 {
        take_seen_port4(packet.skb(), index)
    }
}

impl Publish for V6 {
    #[inline(always)]
    fn accept(packet: &Packet, client: u32) -> i64 {
        accept6(packet.skb(), packet.l3 as u32, client)
    }
    #[inline(always)]
    fn take_seen_port(packet: &Packet, index: u32) -> i64 {
        take_seen_port6(packet.skb(), index)
    }
}

/// Beside the slot of an endpoint that holds as many flows as it may.
pub const FULL: i64 = 1 << 33;
/// The port is not published, but may be a binding's.
const BOUND_PORT: i64 = i64::MAX;

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn accept4(skb: *mut __sk_buff, l3: u32, client: u32) -> i64 {
    accept::<V4>(skb, l3, client)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn accept6(skb: *mut __sk_buff, l3: u32, client: u32) -> i64 {
    accept::<V6>(skb, l3, client)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_seen_port4(skb: *mut __sk_buff, index: u32) -> i64 {
    take_seen_port::<V4>(skb, index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_seen_port6(skb: *mut __sk_buff, index: u32) -> i64 {
    take_seen_port::<V6>(skb, index)
}

/// Opens a flow for a packet that came to a port of the host, if the port is published, or else bound and open to all. `client`: the slot of the container that it
/// is from, or [`OUTSIDE`].
#[inline(always)]
pub fn open<F: Publish>(packet: &Packet, client: u32) -> Opened {
    let mut accepted = F::accept(packet, client);
    if accepted == BOUND_PORT {
        return filtering::open::<F>(packet, client);
    }
    if let Some(whose) = lacks_room(accepted) {
        if F::make_room(whose) != 0 {
            accepted = F::accept(packet, client);
        }
        if lacks_room(accepted).is_some() {
            return Opened::Drop(DropReason::EndpointQuota);
        }
    }
    complete::<F>(packet, accepted)
}

/// Gives a record, if it is one, what it lacks to be live.
#[inline(always)]
pub fn complete<F: Publish>(packet: &Packet, mut accepted: i64) -> Opened {
    if accepted >= 0 {
        accepted = F::take_seen_port(packet, accepted as u32);
    }
    if accepted >= 0 {
        accepted = F::go_live(accepted as u32);
    }
    Opened::decode(accepted)
}

/// The endpoint whose flows are too many, or any.
#[inline(always)]
pub fn lacks_room(accepted: i64) -> Option<u32> {
    if accepted >= FULL { Some(accepted as u32) } else { None }
}

#[inline(always)]
fn accept<F: Family>(skb: *mut __sk_buff, l3: u32, client: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = &Packet::with_l3(&context, l3);
    match record::<F>(packet, client) {
        Ok(Some(index)) => i64::from(index),
        Ok(None) => Opened::Stack.encode(),
        Err(Refused::Full(whose)) => FULL | i64::from(whose),
        Err(Refused::Bound) => BOUND_PORT,
        Err(Refused::Because(reason)) => Opened::Drop(reason).encode(),
    }
}

/// Why a packet to a published port is not let in.
enum Refused {
    /// There is no room for another flow of this endpoint, or of any.
    Full(u32),
    /// The port is a binding's.
    Bound,
    Because(DropReason),
}

impl From<DropReason> for Refused {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Because(reason)
    }
}

/// Draws a record for the packet and fills it in, but for the port that the container sees. `None` if the packet is not for a
/// published port.
#[inline(always)]
fn record<F: Family>(packet: &Packet, client: u32) -> Result<Option<u32>, Refused> {
    let ip = F::parse(packet)?;
    // 127.0.0.1 and ::1 are the host's alone, whatever is published there and whoever claims to be on the wire.
    if F::is_unroutable(ip.source) || F::is_unroutable(ip.destination) {
        return Ok(None);
    }
    let Ports { destination: port, .. } = packet.load(ip.l4)?;
    let publication = at::<F>(ip.destination, ip.protocol, port);
    if client == OUTSIDE {
        // A port of all addresses is one of the host's own, and of no address that it routes to, nor of one that means all of a link.
        let is_host = |slot| {
            F::is_local(ip.destination)
                || !F::is_of_links(ip.destination)
                    && fib::is_host::<F>(packet, ip.source, ip.destination, bridge_of(slot))
        };
        if !publication.is_some_and(|it| is_host(it.endpoint)) {
            return match F::network_of(ip.destination) {
                Some(_) => Err(DropReason::DirectAccess.into()),
                None if is_bound::<F>(ip.destination, ip.protocol, port) => Err(Refused::Bound),
                None => Ok(None),
            };
        }
        guard::outsider::<F>(ip.source)?;
    } else if !F::is_local(ip.destination) || !may_come_from(client) {
        return Ok(None);
    }
    let Some(publication) = publication else {
        let is_bound = is_bound::<F>(ip.destination, ip.protocol, port);
        return if is_bound { Err(Refused::Bound) } else { Ok(None) };
    };
    let globals = fib::globals().ok_or(DropReason::NoBackend)?;
    // A pointer, read where it is needed: what is held meanwhile is held on the programs' short stack.
    let endpoint = ENDPOINTS.get_ptr(publication.endpoint).ok_or(DropReason::NoBackend)?;
    // SAFETY: a value of an array map, which only the daemon writes.
    let is_there = unsafe { (*endpoint).port != IfIndex(0) && !F::endpoint(&*endpoint).is_unspecified() };
    // SAFETY: as above.
    let by_bridge = unsafe { (*endpoint).flags & (VIA_BRIDGE | NO_GATEWAY) != 0 };
    if !is_there || client != OUTSIDE && by_bridge {
        return Err(DropReason::NoBackend.into());
    }
    let index = match flow_table::draw::<F>(publication.endpoint, globals) {
        Ok(index) => index,
        Err(DropReason::EndpointQuota) => return Err(Refused::Full(publication.endpoint)),
        Err(_) => return Err(Refused::Full(Sweep::ANY)),
    };
    let flow = flow_table::blank::<F>(index)?;
    // Again, for the same reason.
    let ports: Ports = packet.load(ip.l4)?;
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).next_hop = fib::unanswered(packet, client, globals);
        (*flow).local = F::endpoint(&*endpoint);
        (*flow).local_port = publication.container_port(ports.destination);
        (*flow).remote = ip.source;
        (*flow).remote_port = ports.source;
        (*flow).external = ip.destination;
        (*flow).external_port = ports.destination;
        (*flow).seen = ip.source;
        (*flow).protocol = ip.protocol;
        (*flow).endpoint = publication.endpoint;
        (*flow).peer = client;
        (*flow).flags = ACCEPTED | OWN_ADDRESS;
        if client != OUTSIDE {
            (*flow).flags |= PEER;
            if let Some(gateway) = common_gateway::<F>((*endpoint).network, client)? {
                (*flow).seen = gateway;
                (*flow).flags ^= OWN_ADDRESS | TWICE;
            }
        }
    }
    Ok(Some(index))
}

#[inline(always)]
fn is_bound<F: Family>(address: F::Address, protocol: u8, port: Be16) -> bool {
    port_usage::Ports::of::<F>(address, protocol).is_bound::<F>(port)
}

/// Whether a container's packets may go anywhere but to its network and the host.
#[inline(always)]
fn may_come_from(client: u32) -> bool {
    let Some(endpoint) = ENDPOINTS.get(client) else { return false };
    let is_internal = NETWORKS.get(endpoint.network).is_none_or(|network| network.flags & INTERNAL != 0);
    !is_internal && endpoint.flags & VIA_BRIDGE == 0
}

/// The gateway's address if the client is in this network: a server that knew the client's own would answer past the gateway.
#[inline(always)]
fn common_gateway<F: Family>(network: u32, client: u32) -> Result<Option<F::Address>, DropReason> {
    let client = ENDPOINTS.get(client).ok_or(DropReason::UnknownEndpoint)?;
    if client.network != network {
        return Ok(None);
    }
    let gateway = F::gateway(NETWORKS.get(network).ok_or(DropReason::UnknownEndpoint)?);
    if gateway.is_unspecified() { Err(DropReason::NoBackend) } else { Ok(Some(gateway)) }
}

/// The bridge that an endpoint is behind: an interface that forwards, which the FIB asks for; an uplink need not.
#[inline(always)]
fn bridge_of(slot: u32) -> IfIndex {
    let network = ENDPOINTS.get(slot).and_then(|endpoint| NETWORKS.get(endpoint.network));
    network.map_or(IfIndex(0), |network| network.bridge)
}

/// A search for a port that the container may see, as its body sees it.
struct Search<F: Family> {
    skb: *mut __sk_buff,
    flow: *mut Flow<F::Address>,
    index: u32,
    draws: u32,
    claimed: bool,
    /// The container knows the remote by the gateway's address, whose ports are the host's own sockets' too.
    hidden: bool,
    /// The remote's own port is the first to be tried.
    keeps: bool,
    /// The port that is tried first is the only one there is.
    is_fixed: bool,
    /// The outbound tuple; its destination port is what is searched.
    key: Tuple<F::Address>,
}

/// The port that the container sees is the remote's own, unless the remote has come by another published port to the same one
/// of the container already: then a random one tells the two apart. So it does where the container is known by an external address
/// as well, at which the remote may speak to it without a flow. And no remote has a say in which of the gateway's ports it is known by:
/// a socket of the host's may come to be bound there.
#[inline(always)]
fn take_seen_port<F: Family>(skb: *mut __sk_buff, index: u32) -> i64 {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return Opened::Stack.encode() };
    // SAFETY: as in `record`.
    let record = unsafe { &mut *flow };
    let is_bound = record.flags & SEEN_BOUND != 0;
    if !is_bound {
        record.seen_port = record.remote_port;
    }
    let hidden = !is_bound && record.flags & OWN_ADDRESS == 0;
    let is_fixed = is_bound || rewrite::has_fixed_port(record.protocol);
    let is_known_otherwise = record.peer == OUTSIDE
        && record.flags & OPEN == 0
        && ENDPOINTS.get(record.endpoint).is_some_and(|endpoint| endpoint.flags & F::EXTERNAL != 0);
    let keeps = is_fixed || !hidden && !is_known_otherwise;
    let key = record.outbound_key();
    let mut search = Search::<F> { skb, flow, index, draws: 0, claimed: false, hidden, keeps, is_fixed, key };
    loops::repeat(limits::PORT_DRAWS, &mut search, try_seen_port::<F>);
    if search.claimed {
        return Opened::Flow(index).encode();
    }
    // SAFETY: as in `record`.
    let (protocol, endpoint) = unsafe { ((*flow).protocol, (*flow).endpoint) };
    flow_table::give_back::<F>(index, endpoint);
    mapping::no_port(protocol)
}

extern "C" fn try_seen_port<F: Family>(_: u64, search: *mut Search<F>) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let search = unsafe { &mut *search };
    let Some(globals) = fib::globals() else { return 1 };
    let own = search.key.destination_port.get();
    if search.draws > 0 || !search.keeps {
        if search.is_fixed {
            return 1;
        }
        // SAFETY: a plain helper call.
        let random = unsafe { bpf_get_prandom_u32() };
        let drawn = if search.hidden { globals.ports.draw(own, random) } else { None };
        search.key.destination_port = Be16::new(drawn.unwrap_or(1024 + (random as u16 % (u16::MAX - 1023))));
        // SAFETY: as in `record`.
        unsafe {
            (*search.flow).seen_port = search.key.destination_port;
            (*search.flow).flags |= TWICE;
        }
    }
    search.draws += 1;
    if search.hidden && is_the_hosts::<F>(search, globals) {
        return 0;
    }
    search.claimed = conntrack::claim::<F>(&search.key, search.index);
    i64::from(search.claimed)
}

/// Whether what the container would send to the gateway's port is for a socket of the host's, or for whom the port is published.
#[inline(always)]
fn is_the_hosts<F: Family>(search: &Search<F>, globals: &Globals) -> bool {
    let Tuple { destination, destination_port: port, protocol, .. } = search.key;
    find::<F>(destination, protocol, port).is_some()
        || if search.is_fixed {
            !globals.ports.keeps(port.get())
        } else {
            mapping::has_socket::<F>(search.skb, &search.key)
        }
}
