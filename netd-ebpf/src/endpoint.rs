//! Which endpoint a frame comes from, and which it is for.

use netd_common::{
    addr::IfIndex,
    endpoint::{Endpoint, VIA_BRIDGE},
    fdb::FdbKey,
};

use crate::{
    family::Family,
    maps::{ENDPOINTS, FDB, PORT_SHORTCUTS, PORTS, STATION_SHORTCUTS},
};

/// The endpoint behind a port, and its slot.
#[inline(always)]
pub fn behind(port: IfIndex) -> Option<(u32, &'static Endpoint)> {
    if let Some(found) = PORT_SHORTCUTS.get(port.shortcut()).and_then(at)
        && found.1.port == port
    {
        return Some(found);
    }
    // SAFETY: the value is copied at once.
    at(unsafe { PORTS.get(port) }?)
}

/// The endpoint that a station of a network is, and its slot.
#[inline(always)]
pub fn station(key: &FdbKey) -> Option<(u32, &'static Endpoint)> {
    if let Some(found) = STATION_SHORTCUTS.get(key.shortcut()).and_then(at)
        && found.1.mac == key.mac
        && found.1.network == key.network
        && found.1.port != IfIndex(0)
    {
        return Some(found);
    }
    // SAFETY: as above.
    at(unsafe { FDB.get(key) }?)
}

/// The other endpoint of the same container that has an address, and its slot; none where it is the bridge that forwards.
#[inline(always)]
pub fn beside<F: Family>(
    slot: u32,
    endpoint: &Endpoint,
    address: F::Address,
) -> Option<(u32, &'static Endpoint)> {
    let (other, found) = at(&F::slot_of(address)?)?;
    let is_another = found.sandbox == endpoint.sandbox && found.sandbox != 0 && other != slot;
    if is_another && endpoint.flags & VIA_BRIDGE == 0 { Some((other, found)) } else { None }
}

/// Whether two slots are endpoints of the same container, or the same endpoint.
#[inline(always)]
pub fn is_of_one_container(slot: u32, other: u32) -> bool {
    let sandbox = |slot| ENDPOINTS.get(slot).map_or(0, |endpoint| endpoint.sandbox);
    slot == other || sandbox(slot) != 0 && sandbox(slot) == sandbox(other)
}

#[inline(always)]
fn at(slot: &u32) -> Option<(u32, &'static Endpoint)> {
    let slot = *slot;
    Some((slot, ENDPOINTS.get(slot)?))
}
