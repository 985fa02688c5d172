//! Word of an endpoint's addresses to its neighbours, who may remember somebody else under them: gratuitous ARP
//! (RFC 5227 section 2.3) and unsolicited neighbour advertisements (RFC 4861 section 7.2.6).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use nix::net::if_::if_nametoindex;

use super::{Doing as _, Error};
use crate::model::{Advertise, MacAddress, Sandbox};

const BROADCAST: [u8; 6] = [0xff; 6];
/// The group of all nodes, and the Ethernet address that its packets go to (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;

/// Tells the neighbours of `interface`, as often as they are to be told. Ends early with the interface or its sandbox,
/// which it does not keep alive.
pub async fn advertise(
    sandbox: &Sandbox,
    interface: &str,
    mac: MacAddress,
    addresses: &[IpAddr],
    advertise: Advertise,
) -> Result<(), Error> {
    for message in 0..advertise.messages {
        if message > 0 {
            tokio::time::sleep(Duration::from_millis(advertise.interval.into())).await;
        }
        let frames: Vec<_> = addresses.iter().map(|&address| frame(mac, address)).collect();
        let name = interface.to_owned();
        let Some(namespace) = sandbox.open() else { return Ok(()) };
        let sent = namespace.run(move || send(&name, &frames)).await?;
        sent.doing(|| format!("advertise the addresses of {interface}"))?;
    }
    Ok(())
}

fn frame(mac: MacAddress, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => announcement(mac, address),
        IpAddr::V6(address) => advertisement(mac, address),
    }
}

/// An ARP request of an address for itself.
fn announcement(mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let mac = mac.octets();
    let mut frame = [BROADCAST, mac].concat();
    // ARP; Ethernet, IPv4, their lengths; a request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// A neighbour advertisement that overrides what is known.
fn advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mac = mac.octets();
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // The target's link-layer address, in units of eight bytes.
    message.extend([2, 1]);
    message.extend(mac);
    let length = message.len() as u8;
    let pseudo = [&address.octets()[..], &ALL_NODES.octets(), &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let checksum = checksum(pseudo.iter().chain(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [ALL_NODES_MAC, mac].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u16 {
    let bytes: Vec<u8> = bytes.copied().collect();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Sends frames out of an interface of the calling thread's namespace.
fn send(interface: &str, frames: &[Vec<u8>]) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    // SAFETY: a plain system call; the descriptor that it returns is nobody else's.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            socket => OwnedFd::from_raw_fd(socket),
        }
    };
    for frame in frames {
        // SAFETY: all zeros are a sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        // SAFETY: frame and address outlive the call, and their lengths are given with them.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress::new([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_announcement_asks_for_its_own_address() {
        let frame = announcement(MAC, [10, 0, 0, 2].into());
        assert_eq!(frame.len(), 42);
        assert_eq!(
            (&frame[..6], &frame[6..12], &frame[12..14]),
            (&[0xff; 6][..], &MAC.octets()[..], &[8, 6][..])
        );
        assert_eq!((&frame[22..28], &frame[28..32]), (&MAC.octets()[..], &[10, 0, 0, 2][..]));
        assert_eq!(&frame[38..], [10, 0, 0, 2]);
    }

    #[test]
    fn an_advertisement_has_a_good_checksum() {
        let address: Ipv6Addr = "fd00::2".parse().unwrap();
        let frame = advertisement(MAC, address);
        assert_eq!((frame.len(), frame[21]), (86, 255));
        let (addresses, message) = (&frame[22..54], &frame[54..]);
        assert_eq!(
            (message[0], &message[8..24], &message[26..]),
            (136, &address.octets()[..], &MAC.octets()[..])
        );
        let pseudo = [addresses, &[0, 0, 0, 32, 0, 0, 0, ICMPV6]].concat();
        assert_eq!(
            checksum(pseudo.iter().chain(message)),
            0,
            "RFC 1071: the sum with the checksum is all ones"
        );
    }
}
