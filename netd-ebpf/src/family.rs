//! What differs between IPv4 and IPv6, so that every stage is written once.

use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, Queue, lpm_trie::Key};
use netd_common::{
    addr::{Address, Be16, Ipv4, Ipv6},
    bridge::{EXEMPTS, Exempt, MASQUERADE, Network, ROUTED4, ROUTED6, UNPROTECTED4, UNPROTECTED6},
    drop::DropReason,
    endpoint::{EXTERNAL4, EXTERNAL6, Endpoint},
    external::External,
    fib::{AF_INET, AF_INET6, OWN, Uplink},
    frag::FragmentKey,
    limits,
    nat::Flow,
    publish::{Publication, PublishedPort},
    tuple::{Tuple, protocol},
};

use crate::{
    conntrack, expiry, flow_table, maps,
    packet::Packet,
    parse::{Ip, eth, ip4, ip6},
};

pub trait Family: Sized + 'static {
    type Address: Address;

    const AF: u32;
    /// ICMP's protocol number.
    const ICMP: u8;
    /// Where the transport header begins, behind the IP header's beginning, if there are no options.
    const L4: usize;
    const ETHERTYPE: Be16;
    /// Which half of the counters that are kept per family.
    const INDEX: u32;
    /// Flow records there are.
    const FLOWS: u32;
    /// Where a socket of the host goes that dials no address at all.
    const LOOPBACK: Self::Address;
    /// The flag of an endpoint that has an external address.
    const EXTERNAL: u32;
    /// The flag of a network whose addresses are routed to.
    const ROUTED: u32;
    /// The flag of a network whose every port is open.
    const UNPROTECTED: u32;

    fn parse(packet: &Packet) -> Result<Ip<Self::Address>, DropReason>;
    /// The destination of a packet that need not be whole.
    fn destination(packet: &Packet) -> Option<Self::Address>;
    /// The address as words of the kernel's `bpf_fib_lookup` and the flow's next hop have it.
    fn from_words(words: [u32; 4]) -> Self::Address;
    /// The address as a socket of IPv6 has it.
    fn mapped(address: Self::Address) -> Ipv6;
    fn gateway(network: &Network) -> Self::Address;
    fn uplink(uplink: &Uplink) -> Self::Address;
    fn endpoint(endpoint: &Endpoint) -> Self::Address;
    /// What masquerade takes instead of an uplink's address; unspecified for nothing.
    fn source(network: &Network) -> Self::Address;
    /// Addresses that mean more than one host, or no host that could be routed to.
    fn is_unroutable(address: Self::Address) -> bool;
    /// Addresses that nobody on a wire has for a source (RFC 1812 section 5.3.7, RFC 4291 sections 2.5 and 2.7).
    fn is_martian(address: Self::Address) -> bool;
    /// Whether the packet is all there, as its header says, and the header as it was sent.
    fn verify(packet: &Packet) -> Result<(), DropReason>;
    /// Whether the sender says by which hosts the packet is to go.
    fn is_source_routed(packet: &Packet) -> bool;

    fn flows() -> &'static Array<Flow<Self::Address>>;
    fn flow_keys() -> &'static HashMap<Tuple<Self::Address>, u32>;
    fn free_flows() -> &'static Queue<u32>;
    fn port_usage() -> &'static Array<u64>;
    fn fragments() -> &'static LruHashMap<FragmentKey<Self::Address>, u32>;
    fn addresses() -> &'static HashMap<Self::Address, u32>;
    fn subnets() -> &'static LpmTrie<Self::Address, u32>;
    fn exempts() -> &'static LpmTrie<Exempt<Self::Address>, u32>;
    fn publications() -> &'static LpmTrie<PublishedPort<Self::Address>, Publication>;
    fn locals() -> &'static LpmTrie<Self::Address, u32>;
    fn externals() -> &'static LpmTrie<Self::Address, External<Self::Address>>;
    fn internals() -> &'static LpmTrie<Self::Address, External<Self::Address>>;

    /// Ends the flow at `index` if its clock still is `seen`; 0 if it is not. A global function: see [`crate::open::Open`].
    fn end(index: u32, seen: u64) -> i64;

    /// A packet passes that may change the flow's state; 0 if the flow has been ended.
    fn advance(flow: *mut Flow<Self::Address>, direction: u8, tcp: u8) -> i64;

    /// Live flows of the container that has the endpoint. A global function, too.
    fn held_together(endpoint: u32) -> u64;

    /// Ends some flows that are over, of the endpoint's container or of any; 0 if none was found.
    fn make_room(endpoint: u32) -> i64;

    /// Whether the address is the host's own, as its routes have it: loopback's are.
    #[inline(always)]
    fn is_local(address: Self::Address) -> bool {
        Self::locals().get(whole(address)).is_some_and(|kind| *kind == OWN)
    }

    /// Whether the address is the host's own, or means all hosts of a link of its.
    #[inline(always)]
    fn is_of_links(address: Self::Address) -> bool {
        Self::locals().get(whole(address)).is_some()
    }

    /// Whether what leaves a network for `destination` takes another address.
    #[inline(always)]
    fn is_masqueraded(number: u32, network: &Network, destination: Self::Address) -> bool {
        network.flags & (MASQUERADE | Self::ROUTED) == MASQUERADE
            && (network.flags & EXEMPTS == 0 || !Self::is_exempt(number, destination))
    }

    #[inline(always)]
    fn is_exempt(network: u32, destination: Self::Address) -> bool {
        let key = Exempt { network, destination };
        Self::exempts().get(Key::new(Exempt::<Self::Address>::BITS, key)).is_some()
    }

    /// The network whose prefix holds the address.
    #[inline(always)]
    fn network_of(address: Self::Address) -> Option<u32> {
        Self::subnets().get(whole(address)).copied()
    }

    /// The slot of the endpoint that has the address.
    #[inline(always)]
    fn slot_of(address: Self::Address) -> Option<u32> {
        // SAFETY: the value is copied at once.
        unsafe { Self::addresses().get(address) }.copied()
    }

    /// The index of the flow that has the key, or had it a moment ago.
    #[inline(always)]
    fn flow_of(key: &Tuple<Self::Address>) -> Option<u32> {
        // SAFETY: the value is copied at once.
        unsafe { Self::flow_keys().get(key) }.copied()
    }

    /// The translation of a destination that the outside knows a container or a network by.
    #[inline(always)]
    fn external(address: Self::Address) -> Option<&'static External<Self::Address>> {
        Self::externals().get(whole(address))
    }

    /// The translation of a container's own address.
    #[inline(always)]
    fn internal(address: Self::Address) -> Option<&'static External<Self::Address>> {
        Self::internals().get(whole(address))
    }
}

/// All of an address, as the key of a search for its longest prefix.
#[inline(always)]
fn whole<A>(address: A) -> Key<A> {
    Key::new(size_of::<A>() as u32 * 8, address)
}

pub struct V4;
pub struct V6;

impl Family for V4 {
    type Address = Ipv4;

    const AF: u32 = AF_INET;
    const ICMP: u8 = protocol::ICMP;
    const L4: usize = ip4::L4;
    const ETHERTYPE: Be16 = eth::IPV4;
    const INDEX: u32 = 0;
    const FLOWS: u32 = limits::FLOWS4;
    const LOOPBACK: Ipv4 = Ipv4(0x7f00_0001_u32.to_be());
    const EXTERNAL: u32 = EXTERNAL4;
    const ROUTED: u32 = ROUTED4;
    const UNPROTECTED: u32 = UNPROTECTED4;

    #[inline(always)]
    fn parse(packet: &Packet) -> Result<Ip<Ipv4>, DropReason> {
        ip4::parse(packet)
    }
    #[inline(always)]
    fn destination(packet: &Packet) -> Option<Ipv4> {
        packet.load(packet.l3 + ip4::ADDRESSES + size_of::<Ipv4>()).ok()
    }
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Ipv4 {
        Ipv4(words[0])
    }
    #[inline(always)]
    fn mapped(address: Ipv4) -> Ipv6 {
        Ipv6::mapped(address)
    }
    #[inline(always)]
    fn gateway(network: &Network) -> Ipv4 {
        network.gateway4
    }
    #[inline(always)]
    fn uplink(uplink: &Uplink) -> Ipv4 {
        uplink.ipv4
    }
    #[inline(always)]
    fn endpoint(endpoint: &Endpoint) -> Ipv4 {
        endpoint.ipv4
    }
    #[inline(always)]
    fn source(network: &Network) -> Ipv4 {
        network.source4
    }
    #[inline(always)]
    fn is_unroutable(address: Ipv4) -> bool {
        address.is_multicast_or_broadcast() || address.is_loopback() || address.0 == 0
    }
    #[inline(always)]
    fn is_martian(address: Ipv4) -> bool {
        address.is_multicast_or_broadcast() || address.is_loopback() || address.is_this_network()
    }
    #[inline(always)]
    fn verify(packet: &Packet) -> Result<(), DropReason> {
        ip4::verify(packet)
    }
    #[inline(always)]
    fn is_source_routed(packet: &Packet) -> bool {
        ip4::source_routed4(packet.skb(), packet.l3 as u32) != 0
    }
    #[inline(always)]
    fn flows() -> &'static Array<Flow<Ipv4>> {
        &maps::FLOWS4
    }
    #[inline(always)]
    fn flow_keys() -> &'static HashMap<Tuple<Ipv4>, u32> {
        &maps::FLOW_KEYS4
    }
    #[inline(always)]
    fn free_flows() -> &'static Queue<u32> {
        &maps::FREE_FLOWS4
    }
    #[inline(always)]
    fn port_usage() -> &'static Array<u64> {
        &maps::PORT_USAGE4
    }
    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKey<Ipv4>, u32> {
        &maps::FRAGMENTS4
    }
    #[inline(always)]
    fn addresses() -> &'static HashMap<Ipv4, u32> {
        &maps::ADDRESSES4
    }
    #[inline(always)]
    fn subnets() -> &'static LpmTrie<Ipv4, u32> {
        &maps::SUBNETS4
    }
    #[inline(always)]
    fn exempts() -> &'static LpmTrie<Exempt<Ipv4>, u32> {
        &maps::EXEMPTS4
    }
    #[inline(always)]
    fn publications() -> &'static LpmTrie<PublishedPort<Ipv4>, Publication> {
        &maps::PUBLICATIONS4
    }
    #[inline(always)]
    fn locals() -> &'static LpmTrie<Ipv4, u32> {
        &maps::LOCALS4
    }
    #[inline(always)]
    fn externals() -> &'static LpmTrie<Ipv4, External<Ipv4>> {
        &maps::EXTERNALS4
    }
    #[inline(always)]
    fn internals() -> &'static LpmTrie<Ipv4, External<Ipv4>> {
        &maps::INTERNALS4
    }
    #[inline(always)]
    fn end(index: u32, seen: u64) -> i64 {
        expiry::end4(index, seen)
    }
    #[inline(always)]
    fn advance(flow: *mut Flow<Ipv4>, direction: u8, tcp: u8) -> i64 {
        conntrack::advance4(flow, u32::from(direction), u32::from(tcp))
    }
    #[inline(always)]
    fn make_room(endpoint: u32) -> i64 {
        expiry::make_room4(endpoint)
    }
    #[inline(always)]
    fn held_together(endpoint: u32) -> u64 {
        flow_table::held_together4(endpoint)
    }
}

impl Family for V6 {
    type Address = Ipv6;

    const AF: u32 = AF_INET6;
    const ICMP: u8 = protocol::ICMPV6;
    const L4: usize = ip6::L4;
    const ETHERTYPE: Be16 = eth::IPV6;
    const INDEX: u32 = 1;
    const FLOWS: u32 = limits::FLOWS6;
    const LOOPBACK: Ipv6 = Ipv6([0, 0, 0, 1_u32.to_be()]);
    const EXTERNAL: u32 = EXTERNAL6;
    const ROUTED: u32 = ROUTED6;
    const UNPROTECTED: u32 = UNPROTECTED6;

    #[inline(always)]
    fn parse(packet: &Packet) -> Result<Ip<Ipv6>, DropReason> {
        ip6::parse(packet)
    }
    #[inline(always)]
    fn destination(packet: &Packet) -> Option<Ipv6> {
        packet.load(packet.l3 + ip6::ADDRESSES + size_of::<Ipv6>()).ok()
    }
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Ipv6 {
        Ipv6(words)
    }
    #[inline(always)]
    fn mapped(address: Ipv6) -> Ipv6 {
        address
    }
    #[inline(always)]
    fn gateway(network: &Network) -> Ipv6 {
        network.gateway6
    }
    #[inline(always)]
    fn uplink(uplink: &Uplink) -> Ipv6 {
        uplink.ipv6
    }
    #[inline(always)]
    fn endpoint(endpoint: &Endpoint) -> Ipv6 {
        endpoint.ipv6
    }
    #[inline(always)]
    fn source(network: &Network) -> Ipv6 {
        network.source6
    }
    #[inline(always)]
    fn is_unroutable(address: Ipv6) -> bool {
        address.is_multicast() || address.is_link_local() || address.is_loopback() || address.is_unspecified()
    }
    #[inline(always)]
    fn is_martian(address: Ipv6) -> bool {
        address.is_multicast()
            || address.is_loopback()
            || address.is_unspecified()
            || address.to_mapped().is_some()
    }
    #[inline(always)]
    fn verify(packet: &Packet) -> Result<(), DropReason> {
        ip6::verify(packet)
    }
    /// The kernel takes no routing header but those of protocols that it was set up for (`seg6_enabled`).
    #[inline(always)]
    fn is_source_routed(_packet: &Packet) -> bool {
        false
    }
    #[inline(always)]
    fn flows() -> &'static Array<Flow<Ipv6>> {
        &maps::FLOWS6
    }
    #[inline(always)]
    fn flow_keys() -> &'static HashMap<Tuple<Ipv6>, u32> {
        &maps::FLOW_KEYS6
    }
    #[inline(always)]
    fn free_flows() -> &'static Queue<u32> {
        &maps::FREE_FLOWS6
    }
    #[inline(always)]
    fn port_usage() -> &'static Array<u64> {
        &maps::PORT_USAGE6
    }
    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKey<Ipv6>, u32> {
        &maps::FRAGMENTS6
    }
    #[inline(always)]
    fn addresses() -> &'static HashMap<Ipv6, u32> {
        &maps::ADDRESSES6
    }
    #[inline(always)]
    fn subnets() -> &'static LpmTrie<Ipv6, u32> {
        &maps::SUBNETS6
    }
    #[inline(always)]
    fn exempts() -> &'static LpmTrie<Exempt<Ipv6>, u32> {
        &maps::EXEMPTS6
    }
    #[inline(always)]
    fn publications() -> &'static LpmTrie<PublishedPort<Ipv6>, Publication> {
        &maps::PUBLICATIONS6
    }
    #[inline(always)]
    fn locals() -> &'static LpmTrie<Ipv6, u32> {
        &maps::LOCALS6
    }
    #[inline(always)]
    fn externals() -> &'static LpmTrie<Ipv6, External<Ipv6>> {
        &maps::EXTERNALS6
    }
    #[inline(always)]
    fn internals() -> &'static LpmTrie<Ipv6, External<Ipv6>> {
        &maps::INTERNALS6
    }
    #[inline(always)]
    fn end(index: u32, seen: u64) -> i64 {
        expiry::end6(index, seen)
    }
    #[inline(always)]
    fn advance(flow: *mut Flow<Ipv6>, direction: u8, tcp: u8) -> i64 {
        conntrack::advance6(flow, u32::from(direction), u32::from(tcp))
    }
    #[inline(always)]
    fn make_room(endpoint: u32) -> i64 {
        expiry::make_room6(endpoint)
    }
    #[inline(always)]
    fn held_together(endpoint: u32) -> u64 {
        flow_table::held_together6(endpoint)
    }
}
