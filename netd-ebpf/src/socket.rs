//! The host's own sockets at published ports: one that dials such a port is led straight to the container, and is shown the port
//! that it dialled; one that wants such a port for itself does not get it.

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};
use netd_common::{
    addr::{Address as _, Be16, IfIndex, Ipv4, Ipv6},
    bridge::NAMES,
    endpoint::NO_GATEWAY,
    publish::{Publication, published_bit},
    socket::Dialled,
    stats::Path,
    tuple::protocol::{TCP, UDP},
};

use crate::{
    call::Call,
    family::{Family, V4, V6},
    maps::{ENDPOINTS, LOCALS4, LOCALS6, NETWORKS, PUBLISHED},
    publish, stats,
};

/// The port of name servers.
const DOMAIN: Be16 = Be16::new(53);

/// What is known of each family's addresses.
pub trait Host: Family {
    /// Where a socket goes that dials no address at all.
    const LOOPBACK: Self::Address;

    /// The address as a socket of either family has it.
    fn mapped(address: Self::Address) -> Ipv6;
    /// The host's own addresses, as its routes have them: loopback is one.
    fn locals() -> &'static LpmTrie<Self::Address, u32>;

    #[inline(always)]
    fn is_local(address: Self::Address) -> bool {
        Self::locals().get(Key::new(size_of::<Self::Address>() as u32 * 8, address)).is_some()
    }
}

impl Host for V4 {
    const LOOPBACK: Ipv4 = Ipv4(0x7f00_0001_u32.to_be());

    #[inline(always)]
    fn mapped(address: Ipv4) -> Ipv6 {
        Ipv6::mapped(address)
    }
    #[inline(always)]
    fn locals() -> &'static LpmTrie<Ipv4, u32> {
        &LOCALS4
    }
}

impl Host for V6 {
    const LOOPBACK: Ipv6 = Ipv6([0, 0, 0, 1_u32.to_be()]);

    #[inline(always)]
    fn mapped(address: Ipv6) -> Ipv6 {
        address
    }
    #[inline(always)]
    fn locals() -> &'static LpmTrie<Ipv6, u32> {
        &LOCALS6
    }
}

/// The container's port that a socket is led to which dials this address; `None` if it goes where it wants to.
#[inline(always)]
pub fn dial<F: Host>(call: Call, address: F::Address) -> Option<(F::Address, Dialled)> {
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

/// Connects a socket: to the container whose published port it dials.
#[inline(always)]
pub fn connect<F: Host>(call: Call, address: F::Address) -> Option<(F::Address, Be16)> {
    let Some((container, dialled)) = dial::<F>(call, address) else {
        // What it was connected to before it is connected to no more.
        if let Some(socket) = call.dialled() {
            socket.connected = Dialled::default();
        }
        return None;
    };
    call.dialling()?.connected = dialled;
    stats::took_by_task(Path::Dialled);
    Some((container, dialled.container_port))
}

/// Sends a datagram that names its destination: to the container whose published port that is.
#[inline(always)]
pub fn send<F: Host>(call: Call, address: F::Address) -> Option<(F::Address, Be16)> {
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
pub fn may_bind<F: Host>(call: Call, address: F::Address) -> bool {
    let (protocol, port) = (call.protocol(), call.port());
    let is_published = if address.is_unspecified() {
        // All addresses are taken if any is.
        is_published_anywhere(F::AF == V6::AF, protocol, port)
            || F::AF == V6::AF && !call.is_ipv6_only() && is_published_anywhere(false, protocol, port)
    } else {
        published_at::<F>(address, protocol, port).is_some()
    };
    // Port 0 is any but those: the kernel is told which are reserved.
    let refused = is_published && port.0 != 0;
    if refused {
        stats::took_by_task(Path::BindRefused);
    }
    !refused
}

#[inline(always)]
fn is_published_anywhere(is_ipv6: bool, protocol: u8, port: Be16) -> bool {
    let Some((word, bit)) = published_bit(is_ipv6, protocol, port.get()) else { return false };
    PUBLISHED.get(word).is_some_and(|word| word & bit != 0)
}

/// Where a port of the host leads those on it.
#[inline(always)]
fn published_at<F: Family>(address: F::Address, protocol: u8, port: Be16) -> Option<&'static Publication> {
    let publication = publish::find::<F>(address, protocol, port)?;
    // Link-local addresses lead nowhere: they are of every link.
    let is_link_local =
        F::AF == V6::AF && F::is_unroutable(address) && address != F::from_words(V6::LOOPBACK.0);
    if is_link_local || port == DOMAIN && is_name_server::<F>(address) { None } else { Some(publication) }
}

/// Whether netd answers for names at this address.
#[inline(always)]
fn is_name_server<F: Family>(address: F::Address) -> bool {
    F::network_of(address)
        .and_then(|number| NETWORKS.get(number))
        .is_some_and(|network| network.flags & NAMES != 0 && F::gateway(network) == address)
}
