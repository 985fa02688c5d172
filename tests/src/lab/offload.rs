//! Segmentation and checksum offloads of an interface, as `ethtool -K` sets them.

use std::io;

use super::Namespace;

// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/ethtool.h#L1840-L1870>
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches TSO, GSO, GRO and transmit checksums of an interface on or off. Off, each packet carries real checksums
/// and is no larger than the MTU.
pub fn set_offloads(ns: &Namespace, interface: &str, on: bool) {
    // Without checksum offload there is no segmentation offload, so it is switched on first.
    for command in [ETHTOOL_STXCSUM, ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_SGRO] {
        ns.enter(|| set(interface, command, on))
            .unwrap_or_else(|e| panic!("offload {command:#x} of {interface} in {}: {e}", ns.name()));
    }
}

fn set(interface: &str, command: u32, on: bool) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut value = Value { command, data: on.into() };
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(interface.len() < request.ifr_name.len(), "{interface} is too long for an interface name");
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    use std::os::fd::AsRawFd as _;
    // SAFETY: SIOCETHTOOL reads and writes the `ethtool_value` that `request` points to, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
