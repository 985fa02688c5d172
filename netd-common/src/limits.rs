//! Capacities. Every map is preallocated at these sizes; the daemon shows their fill.

/// Networks on one host.
pub const NETWORKS: u32 = 1024;
/// Endpoints on one host.
pub const ENDPOINTS: u32 = 16384;
/// Stations in the forwarding database.
pub const FDB: u32 = ENDPOINTS;
/// Entries of each table of shortcuts; a power of two.
pub const SHORTCUTS: u32 = 65_536;
/// Prefixes of all networks, per family.
pub const SUBNETS: u32 = 4096;
/// Destinations that see containers' own addresses, of all networks, per family.
pub const EXEMPTS: u32 = 4096;
/// Addresses and prefixes with a 1:1 translation, per family.
pub const EXTERNALS: u32 = ENDPOINTS;
/// Interfaces that lead outside.
pub const UPLINKS: u32 = 256;
/// Interfaces that are none of netd's, on a host that forwards for netd alone.
pub const FOREIGN: u32 = 4096;
/// Uplinks that networks trust: pairs of the two.
pub const TRUSTED: u32 = 4096;
/// Flows through NAT, IPv4.
pub const FLOWS4: u32 = 131_072;
/// Flows through NAT, IPv6.
pub const FLOWS6: u32 = 65_536;
/// Flows of one container by family, IPv4 first: half of the table, so that no container can starve all others (RFC 6888 REQ-4).
pub const FLOWS_PER_CONTAINER: [u32; 2] = [FLOWS4 / 2, FLOWS6 / 2];
/// Endpoints of one container whose flows are summed up; more than the kernel gives interfaces their names for (eth0 to eth99).
pub const ENDPOINTS_SUMMED: u32 = 128;
/// Link-local addresses that endpoints were given.
pub const LINK_LOCALS: u32 = ENDPOINTS;
/// Prefixes of published ports, per family.
pub const PUBLICATIONS: u32 = 131_072;
/// Prefixes of the host's own addresses, per family.
pub const LOCALS: u32 = 65_536;
/// Datagrams whose fragments are under way, per family.
pub const FRAGMENTS: u32 = 8192;
/// Fragments that wait for the first of their datagram.
pub const HELD: u32 = 1024;
/// Bytes of the event ring; a power of two and a multiple of the page size.
pub const EVENT_RING: u32 = 65_536;
/// Draws for a free port before a new flow is refused.
pub const PORT_DRAWS: u32 = 32;
/// Draws for a free port before the place of a flow that is over is taken. With half of the ports held by such flows one new flow
/// in 256 takes one. More draws would be more memory to look at: to one remote at full rate nothing else is found.
pub const SPARING_DRAWS: u32 = 8;
/// Flows that one run of the `sweep` program looks at.
pub const SWEEP_BATCH: u32 = 4096;
/// Seconds that the kernel takes to ask a neighbour for its MAC in vain: three times, one apart, unless somebody has set that
/// otherwise (`mcast_solicit`, `retrans_time_ms`).
pub const NEIGHBOUR_PATIENCE: u64 = 3;
/// Seconds that the kernel knows a neighbour for at least, once it has been sent something (half of `gc_stale_time`'s default).
pub const NEIGHBOUR_MEMORY: u64 = 30;
