//! The host's own sockets at published ports: one that dials such a port is led straight to the container, and is shown the port
//! that it dialled; one that wants such a port for itself does not get it.

use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use netd_common::{
    addr::{Address as _, Be16, IfIndex},
    endpoint::NO_GATEWAY,
    publish::{Publication, RESERVED_BY_RUNTIME, published_bit},
    socket::{Dialled, Socket},
    stats::Path,
    tuple::protocol::{TCP, UDP},
};

use crate::{
    call::Call,
    family::{Family, V4, V6},
    maps::{ENDPOINTS, PUBLISHED, SOCKETS},
    packet::Packet,
    publish, stats,
};

/// The container's port that a socket is led to which dials this address; `None` if it goes where it wants to.
#[inline(always)]
pub fn dial<F: Family>(call: Call, address: F::Address) -> Option<(F::Address, Dialled)> {
    let (protocol, port) = (call.protocol(), call.port());
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let address = if address.is_unspecified() { F::LOOPBACK } else { address };
    let publication = published_at::<F>(address, protocol, port)?;
    // The host's own address is asked for and not a remote's; and one that cannot leave the host is no source.
    if !F::is_local(address) || call.is_bound_to_loopback() {
        return None;
    }
    let endpoint = ENDPOINTS.get(publication.endpoint)?;
    let container = F::endpoint(endpoint);
    if endpoint.port == IfIndex(0) || endpoint.flags & NO_GATEWAY != 0 || container.is_unspecified() {
        return None;
    }
    let dialled = Dialled {
        container: F::mapped(container),
        published: F::mapped(address),
        container_port: publication.container_port(port),
        published_port: port,
    };
    Some((container, dialled))
}

/// What the socket that sends a packet has dialled, if it has dialled a published port ever.
#[inline(always)]
pub fn of<'a>(packet: &Packet<'a>) -> Option<&'a Socket> {
    let sender = packet.sender();
    if sender.is_null() {
        return None;
    }
    // SAFETY: a socket of the kernel's, which outlives its packet; the value is the socket's own.
    unsafe {
        let map = (&raw const SOCKETS).cast_mut().cast();
        bpf_sk_storage_get(map, sender.cast(), core::ptr::null_mut(), 0).cast::<Socket>().as_ref()
    }
}

/// Whether what was dialled leads there still.
#[inline(always)]
pub fn leads<F: Family>(protocol: u8, dialled: &Dialled) -> bool {
    let [first, second, third, last] = dialled.published.0;
    let is_mapped = F::AF == V4::AF;
    let published = F::from_words(if is_mapped { [last, 0, 0, 0] } else { [first, second, third, last] });
    // The address may have left the host.
    let Some(publication) =
        published_at::<F>(published, protocol, dialled.published_port).filter(|_| F::is_local(published))
    else {
        return false;
    };
    let Some(endpoint) = ENDPOINTS.get(publication.endpoint) else { return false };
    endpoint.port != IfIndex(0)
        && F::mapped(F::endpoint(endpoint)) == dialled.container
        && publication.container_port(dialled.published_port) == dialled.container_port
}

/// Connects a socket: to the container whose published port it dials.
#[inline(always)]
pub fn connect<F: Family>(call: Call, address: F::Address) -> Option<(F::Address, Be16)> {
    let Some((container, dialled)) = dial::<F>(call, address) else {
        if let Some(socket) = call.dialled() {
            *socket = Socket::default();
        }
        return None;
    };
    *call.dialling()? = Socket::connected(dialled);
    stats::took_by_task(Path::Dialled);
    Some((container, dialled.container_port))
}

/// Sends a datagram that names its destination: to the container whose published port that is.
#[inline(always)]
pub fn send<F: Family>(call: Call, address: F::Address) -> Option<(F::Address, Be16)> {
    let Some((container, dialled)) = dial::<F>(call, address) else {
        if let Some(socket) = call.dialled() {
            socket.forget(&F::mapped(address), call.port());
        }
        return None;
    };
    call.dialling()?.remember(&dialled);
    stats::took_by_task(Path::Dialled);
    Some((container, dialled.container_port))
}

/// Whether a socket may have an address and port for itself.
#[inline(always)]
pub fn may_bind<F: Family>(call: Call, address: F::Address) -> bool {
    let (protocol, port) = (call.protocol(), call.port());
    let is_reserved = if address.is_unspecified() {
        // All addresses are taken if any is.
        is_reserved_anywhere(F::AF == V6::AF, protocol, port)
            || F::AF == V6::AF && !call.is_ipv6_only() && is_reserved_anywhere(false, protocol, port)
    } else {
        published_at::<F>(address, protocol, port).is_some_and(|it| it.flags & RESERVED_BY_RUNTIME == 0)
    };
    // Port 0 is any but those: the kernel is told which are reserved.
    let refused = is_reserved && port.0 != 0;
    if refused {
        stats::took_by_task(Path::BindRefused);
    }
    !refused
}

#[inline(always)]
fn is_reserved_anywhere(is_ipv6: bool, protocol: u8, port: Be16) -> bool {
    let Some((word, bit)) = published_bit(is_ipv6, protocol, port.get()) else { return false };
    PUBLISHED.get(word).is_some_and(|word| word & bit != 0)
}

/// Where a port of the host leads those on it.
#[inline(always)]
fn published_at<F: Family>(address: F::Address, protocol: u8, port: Be16) -> Option<&'static Publication> {
    // Link-local addresses lead nowhere: they are of every link.
    let is_link_local =
        F::AF == V6::AF && F::is_unroutable(address) && address != F::from_words(V6::LOOPBACK.0);
    if is_link_local { None } else { publish::at::<F>(address, protocol, port) }
}
