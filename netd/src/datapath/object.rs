//! The object that netd-ebpf was built to: its maps as this build knows them, and as they are pinned.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, MapInfo, MapType, RingBuf},
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
    stats::{EndpointTraffic, Path as Way},
    tuple::Tuple,
};

use super::{Error, at};

/// What a map is, in the kernel's terms.
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) kind: MapType,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) max_entries: u32,
}

const fn map<K, V>(name: &'static str, kind: MapType, max_entries: u32) -> Definition {
    Definition { name, kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, max_entries }
}

/// A longest-prefix key carries its length in front.
type Prefix<A> = (u32, A);

/// Every map of netd-ebpf/src/maps.rs.
pub(super) const MAPS: [Definition; 50] = [
    map::<u32, Globals>("GLOBALS", MapType::Array, 1),
    map::<u32, Network>("NETWORKS", MapType::Array, limits::NETWORKS),
    map::<IfIndex, u32>("BRIDGES", MapType::Hash, limits::NETWORKS),
    map::<u32, Endpoint>("ENDPOINTS", MapType::Array, limits::ENDPOINTS),
    map::<IfIndex, u32>("PORTS", MapType::Hash, limits::ENDPOINTS),
    map::<FdbKey, u32>("FDB", MapType::Hash, limits::FDB),
    map::<u32, u32>("PORT_SHORTCUTS", MapType::Array, limits::SHORTCUTS),
    map::<u32, u32>("STATION_SHORTCUTS", MapType::Array, limits::SHORTCUTS),
    map::<Ipv4, u32>("ADDRESSES4", MapType::Hash, limits::ENDPOINTS),
    map::<Ipv6, u32>("ADDRESSES6", MapType::Hash, limits::ENDPOINTS),
    map::<LinkLocal, u32>("LINK_LOCALS", MapType::Hash, limits::LINK_LOCALS),
    map::<Prefix<Exempt<Ipv4>>, u32>("EXEMPTS4", MapType::LpmTrie, limits::EXEMPTS),
    map::<Prefix<Exempt<Ipv6>>, u32>("EXEMPTS6", MapType::LpmTrie, limits::EXEMPTS),
    map::<Prefix<Ipv4>, u32>("SUBNETS4", MapType::LpmTrie, limits::SUBNETS),
    map::<Prefix<Ipv6>, u32>("SUBNETS6", MapType::LpmTrie, limits::SUBNETS),
    map::<Prefix<Ipv4>, External<Ipv4>>("EXTERNALS4", MapType::LpmTrie, limits::EXTERNALS),
    map::<Prefix<Ipv6>, External<Ipv6>>("EXTERNALS6", MapType::LpmTrie, limits::EXTERNALS),
    map::<Prefix<Ipv4>, External<Ipv4>>("INTERNALS4", MapType::LpmTrie, limits::EXTERNALS),
    map::<Prefix<Ipv6>, External<Ipv6>>("INTERNALS6", MapType::LpmTrie, limits::EXTERNALS),
    map::<Trusted, u32>("TRUSTED", MapType::Hash, limits::TRUSTED),
    map::<IfIndex, Uplink>("UPLINKS", MapType::Hash, limits::UPLINKS),
    map::<IfIndex, Foreign>("FOREIGN", MapType::Hash, limits::FOREIGN),
    map::<Prefix<PublishedPort<Ipv4>>, Publication>("PUBLICATIONS4", MapType::LpmTrie, limits::PUBLICATIONS),
    map::<Prefix<PublishedPort<Ipv6>>, Publication>("PUBLICATIONS6", MapType::LpmTrie, limits::PUBLICATIONS),
    map::<u32, NextHop>("WAYS", MapType::PerCpuArray, 1),
    map::<u32, u64>("PUBLISHED", MapType::Array, publish::ALL_WORDS),
    map::<Prefix<Ipv4>, u32>("LOCALS4", MapType::LpmTrie, limits::LOCALS),
    map::<Prefix<Ipv6>, u32>("LOCALS6", MapType::LpmTrie, limits::LOCALS),
    map::<i32, Socket>("SOCKETS", MapType::SkStorage, 0),
    map::<u32, Flow<Ipv4>>("FLOWS4", MapType::Array, limits::FLOWS4),
    map::<u32, Flow<Ipv6>>("FLOWS6", MapType::Array, limits::FLOWS6),
    map::<Tuple<Ipv4>, u32>("FLOW_KEYS4", MapType::Hash, 2 * limits::FLOWS4),
    map::<Tuple<Ipv6>, u32>("FLOW_KEYS6", MapType::Hash, 2 * limits::FLOWS6),
    map::<(), u32>("FREE_FLOWS4", MapType::Queue, limits::FLOWS4),
    map::<(), u32>("FREE_FLOWS6", MapType::Queue, limits::FLOWS6),
    map::<u32, u64>("FLOWS_DRAWN", MapType::Array, 2),
    map::<u32, u64>("ENDPOINT_FLOWS", MapType::Array, 2 * limits::ENDPOINTS),
    map::<u32, u64>("PORT_USAGE4", MapType::Array, binding::WORDS),
    map::<u32, u64>("PORT_USAGE6", MapType::Array, binding::WORDS),
    map::<FragmentKey<Ipv4>, u32>("FRAGMENTS4", MapType::LruHash, limits::FRAGMENTS),
    map::<FragmentKey<Ipv6>, u32>("FRAGMENTS6", MapType::LruHash, limits::FRAGMENTS),
    map::<HeldKey, Held>("HELD", MapType::LruHash, limits::HELD),
    map::<u32, Held>("HOLDING", MapType::PerCpuArray, 1),
    map::<u32, EndpointTraffic>("TRAFFIC", MapType::PerCpuArray, limits::ENDPOINTS),
    map::<u32, Rate>("RATES", MapType::Array, limits::ENDPOINTS),
    map::<u32, u64>("BUCKETS", MapType::Array, limits::ENDPOINTS),
    map::<u32, u64>("PATHS", MapType::PerCpuArray, Way::ALL.len() as u32),
    map::<u32, u64>("DROPS", MapType::PerCpuArray, DropReason::ALL.len() as u32),
    map::<u32, u64>("DRAWS", MapType::PerCpuArray, limits::PORT_DRAWS + 2),
    map::<(), ()>("EVENTS", MapType::RingBuf, limits::EVENT_RING),
];

/// Compares the maps that are pinned in `directory` with what this build would make: aya takes a pin as it is. Whether all are
/// there.
pub(super) fn check(directory: &Path) -> Result<bool, Error> {
    let mut is_complete = true;
    for expected in &MAPS {
        let path = directory.join(expected.name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_complete = false;
                continue;
            }
            result => result.map_err(at(&path))?,
        };
        let failed = |source| Error::Map { name: expected.name, source };
        let found = MapInfo::from_pin(&path).map_err(failed)?;
        for (what, found, expected) in [
            ("type", found.map_type().map_err(failed)? as u32, expected.kind as u32),
            ("key size", found.key_size(), expected.key),
            ("value size", found.value_size(), expected.value),
            ("capacity", found.max_entries(), expected.max_entries),
        ] {
            if found != expected {
                return Err(Error::Abi { path, what, found, expected });
            }
        }
    }
    Ok(is_complete)
}

/// Parses the object; makes its maps, or takes those that are pinned.
pub(super) fn load(object: &[u8], directory: &Path, log_level: u8) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    for definition in &MAPS {
        loader.map_pin_path(definition.name, directory.join(definition.name));
    }
    loader.override_global(aya_log::LEVEL, &log_level, true);
    Ok(loader.load(object)?)
}

/// A map of the object.
pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or(Error::NoMap(name))?;
    M::try_from(map).map_err(|source| Error::Map { name, source })
}

/// The ring of events.
pub(super) fn take_events(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, Error> {
    take(ebpf, "EVENTS")
}

pub(super) fn failed(name: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| match (&source, MAPS.iter().find(|map| map.name == name)) {
        (MapError::SyscallError(error), Some(map)) if is_full(&error.io_error) => {
            Error::Full { name, capacity: map.max_entries }
        }
        _ => Error::Map { name, source },
    }
}

/// What the kernel says of a table without room: hashes the one, longest-prefix tries the other.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

/// A removal of what is not there is done already.
pub(super) fn gone(name: &'static str, result: Result<(), MapError>) -> Result<(), Error> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed(name)),
    }
}
