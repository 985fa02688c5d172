//! Word of an address to the neighbours of who has it, who may remember somebody else under it: gratuitous ARP
//! (RFC 5227 section 2.3) and unsolicited neighbour advertisements (RFC 4861 section 7.2.6).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use netd_common::advertise;

use super::{Datapath, Error, IfIndex, programs::ADVERTISE};
use crate::model::MacAddress;

const BROADCAST: [u8; 6] = [0xff; 6];
/// The group of all nodes, and the Ethernet address that its packets go to (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;

/// The program that sends the word. It is not taken from among the others: a bridge of a thousand ports takes milliseconds to
/// carry a broadcast to all of them, and nobody else is to wait meanwhile.
pub(super) struct Advertiser(SchedClassifier);

impl Advertiser {
    /// Opens the program that is pinned among others in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let program = SchedClassifier::from_pin(directory.join(ADVERTISE));
        program.map(Self).map_err(|source| Error::Program { name: ADVERTISE, source })
    }

    /// Has the kernel take a frame as come in by `interface`, or send it out there: `way` is one of [`advertise`]'s.
    fn send(&self, interface: IfIndex, way: u32, frame: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::Program { name: ADVERTISE, source };
        // The head of a `__sk_buff`; of what the kernel lets be set, the interface is the last.
        let mut context = [0_u32; 11];
        context[2] = way;
        context[10] = interface.0;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(bytemuck::cast_slice(&context)),
            ..TestRunOptions::new()
        };
        let returned = self.0.test_run(options).map_err(failed)?.return_value.cast_signed();
        if returned == 0 {
            return Ok(());
        }
        Err(Error::Advertise { interface: interface.0, source: io::Error::from_raw_os_error(-returned) })
    }
}

impl Datapath {
    /// Has the container behind `port` say that `address` is at `mac`. It takes the longer the more ports its bridge has.
    ///
    /// # Errors
    /// If the port is gone or down.
    pub fn advertise(&self, port: IfIndex, mac: MacAddress, address: IpAddr) -> Result<(), Error> {
        self.advertiser.send(port, advertise::IN, &frame(mac, address))
    }

    /// Says on an uplink's link that `address` is at `mac`, the uplink's own.
    ///
    /// # Errors
    /// If the uplink is gone or down.
    pub fn advertise_outside(&self, uplink: IfIndex, mac: MacAddress, address: IpAddr) -> Result<(), Error> {
        self.advertiser.send(uplink, advertise::OUT, &frame(mac, address))
    }
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
