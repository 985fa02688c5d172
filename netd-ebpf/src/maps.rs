//! Every map of the datapath. The daemon pins them by these names; nothing else names a map.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, Queue, RingBuf},
};
use netd_common::{
    addr::{IfIndex, Ipv4, Ipv6},
    binding,
    bridge::{Exempt, Network},
    drop::DropReason,
    endpoint::Endpoint,
    external::External,
    fdb::FdbKey,
    fib::{NextHop, Uplink},
    forwarded::Foreign,
    frag::{FragmentKey, Held, HeldKey},
    globals::Globals,
    limits,
    link_local::LinkLocal,
    nat::Flow,
    policy::Trusted,
    publish::{self, Publication, PublishedPort},
    rate::Rate,
    socket::Socket,
    stats::{EndpointTraffic, Path},
    tuple::Tuple,
};

/// BPF_F_NO_PREALLOC, which longest-prefix tries demand.
const NO_PREALLOC: u32 = 1;

#[map]
pub static GLOBALS: Array<Globals> = Array::with_max_entries(1, 0);

#[map]
pub static NETWORKS: Array<Network> = Array::with_max_entries(limits::NETWORKS, 0);
/// A network's bridge to the network's number; and another engine's bridge, which forwards as well, to a number that is none.
#[map]
pub static BRIDGES: HashMap<IfIndex, u32> = HashMap::with_max_entries(limits::NETWORKS, 0);
#[map]
pub static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(limits::ENDPOINTS, 0);
/// The host's end of a veth to the endpoint's slot.
#[map]
pub static PORTS: HashMap<IfIndex, u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub static FDB: HashMap<FdbKey, u32> = HashMap::with_max_entries(limits::FDB, 0);
/// Slots by a part of the keys above, where a look-up costs a tenth of a hash's. An entry may be another key's, or stale: the
/// endpoint in the slot says whether it is meant; if it is not, the hash knows.
#[map]
pub static PORT_SHORTCUTS: Array<u32> = Array::with_max_entries(limits::SHORTCUTS, 0);
#[map]
pub static STATION_SHORTCUTS: Array<u32> = Array::with_max_entries(limits::SHORTCUTS, 0);
/// An endpoint's address to its slot.
#[map]
pub static ADDRESSES4: HashMap<Ipv4, u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub static ADDRESSES6: HashMap<Ipv6, u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
/// A link-local address that an endpoint was given to the endpoint's slot.
#[map]
pub static LINK_LOCALS: HashMap<LinkLocal, u32> = HashMap::with_max_entries(limits::LINK_LOCALS, 0);
/// An address to the network whose prefix holds it.
#[map]
pub static SUBNETS4: LpmTrie<Ipv4, u32> = LpmTrie::with_max_entries(limits::SUBNETS, NO_PREALLOC);
#[map]
pub static SUBNETS6: LpmTrie<Ipv6, u32> = LpmTrie::with_max_entries(limits::SUBNETS, NO_PREALLOC);
/// Destinations that see the own addresses of a network's containers. The value is of no matter.
#[map]
pub static EXEMPTS4: LpmTrie<Exempt<Ipv4>, u32> = LpmTrie::with_max_entries(limits::EXEMPTS, NO_PREALLOC);
#[map]
pub static EXEMPTS6: LpmTrie<Exempt<Ipv6>, u32> = LpmTrie::with_max_entries(limits::EXEMPTS, NO_PREALLOC);
/// What the outside sees to what it stands for: addresses and prefixes with a 1:1 translation.
#[map]
pub static EXTERNALS4: LpmTrie<Ipv4, External<Ipv4>> =
    LpmTrie::with_max_entries(limits::EXTERNALS, NO_PREALLOC);
#[map]
pub static EXTERNALS6: LpmTrie<Ipv6, External<Ipv6>> =
    LpmTrie::with_max_entries(limits::EXTERNALS, NO_PREALLOC);
/// The same by what it stands for.
#[map]
pub static INTERNALS4: LpmTrie<Ipv4, External<Ipv4>> =
    LpmTrie::with_max_entries(limits::EXTERNALS, NO_PREALLOC);
#[map]
pub static INTERNALS6: LpmTrie<Ipv6, External<Ipv6>> =
    LpmTrie::with_max_entries(limits::EXTERNALS, NO_PREALLOC);
/// Uplinks that networks trust.
#[map]
pub static TRUSTED: HashMap<Trusted, u32> = HashMap::with_max_entries(limits::TRUSTED, 0);
#[map]
pub static UPLINKS: HashMap<IfIndex, Uplink> = HashMap::with_max_entries(limits::UPLINKS, 0);

/// Interfaces that are none of netd's, where the host forwards for netd alone.
#[map]
pub static FOREIGN: HashMap<IfIndex, Foreign> = HashMap::with_max_entries(limits::FOREIGN, 0);

/// Ports of the host and ranges of them, and where they lead.
#[map]
pub static PUBLICATIONS4: LpmTrie<PublishedPort<Ipv4>, Publication> =
    LpmTrie::with_max_entries(limits::PUBLICATIONS, NO_PREALLOC);
#[map]
pub static PUBLICATIONS6: LpmTrie<PublishedPort<Ipv6>, Publication> =
    LpmTrie::with_max_entries(limits::PUBLICATIONS, NO_PREALLOC);

/// Where a packet without a flow leaves, from one stage to the next: a program's stack has no room for it.
#[map]
pub static WAYS: PerCpuArray<NextHop> = PerCpuArray::with_max_entries(1, 0);
/// A bit for each port that is published at some address and that sockets are refused, see [`publish::published_bit`].
#[map]
pub static PUBLISHED: Array<u64> = Array::with_max_entries(publish::ALL_WORDS, 0);
/// The host's own addresses, loopback's too, by the prefixes of its local routes; and its links' broadcast addresses. See
/// [`netd_common::fib::OWN`].
#[map]
pub static LOCALS4: LpmTrie<Ipv4, u32> = LpmTrie::with_max_entries(limits::LOCALS, NO_PREALLOC);
#[map]
pub static LOCALS6: LpmTrie<Ipv6, u32> = LpmTrie::with_max_entries(limits::LOCALS, NO_PREALLOC);
/// Sockets of the host that have dialled published ports.
#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Flow records. Memory-mapped by the daemon, which lists them without a system call each.
#[map]
pub static FLOWS4: Array<Flow<Ipv4>> = Array::with_max_entries(limits::FLOWS4, BPF_F_MMAPABLE);
#[map]
pub static FLOWS6: Array<Flow<Ipv6>> = Array::with_max_entries(limits::FLOWS6, BPF_F_MMAPABLE);
/// Both directions' tuples to the index of their flow or binding.
#[map]
pub static FLOW_KEYS4: HashMap<Tuple<Ipv4>, u32> = HashMap::with_max_entries(2 * limits::FLOWS4, 0);
#[map]
pub static FLOW_KEYS6: HashMap<Tuple<Ipv6>, u32> = HashMap::with_max_entries(2 * limits::FLOWS6, 0);
/// Indexes of ended flows, oldest first.
#[map]
pub static FREE_FLOWS4: Queue<u32> = Queue::with_max_entries(limits::FLOWS4, 0);
#[map]
pub static FREE_FLOWS6: Queue<u32> = Queue::with_max_entries(limits::FLOWS6, 0);
/// How many indexes were ever drawn, per family: those beyond it are free and in no queue.
#[map]
pub static FLOWS_DRAWN: Array<u64> = Array::with_max_entries(2, 0);
/// Live flows of each endpoint: index is twice the slot, plus one for IPv6.
#[map]
pub static ENDPOINT_FLOWS: Array<u64> = Array::with_max_entries(2 * limits::ENDPOINTS, 0);

/// Who has each external port: two ports in a word, see [`binding::Usage`].
#[map]
pub static PORT_USAGE4: Array<u64> = Array::with_max_entries(binding::WORDS, 0);
#[map]
pub static PORT_USAGE6: Array<u64> = Array::with_max_entries(binding::WORDS, 0);

/// Forgetting a fragment's note loses one datagram, so this one table may evict.
#[map]
pub static FRAGMENTS4: LruHashMap<FragmentKey<Ipv4>, u32> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
#[map]
pub static FRAGMENTS6: LruHashMap<FragmentKey<Ipv6>, u32> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
/// Fragments that overtook the first of their datagram.
#[map]
pub static HELD: LruHashMap<HeldKey, Held> = LruHashMap::with_max_entries(limits::HELD, 0);
/// Where a frame is put together before it goes into `HELD`: too large for a program's stack.
#[map]
pub static HOLDING: PerCpuArray<Held> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static TRAFFIC: PerCpuArray<EndpointTraffic> = PerCpuArray::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub static PATHS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Path::ALL.len() as u32, 0);
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DropReason::ALL.len() as u32, 0);
/// New flows by the number of ports that were tried; the last entry counts those that found none.
#[map]
pub static DRAWS: PerCpuArray<u64> = PerCpuArray::with_max_entries(limits::PORT_DRAWS + 2, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENT_RING, 0);

/// How fast endpoints may send.
#[map]
pub static RATES: Array<Rate> = Array::with_max_entries(limits::ENDPOINTS, 0);
/// When the bucket of each is full, by `bpf_ktime_get_ns`.
#[map]
pub static BUCKETS: Array<u64> = Array::with_max_entries(limits::ENDPOINTS, 0);
