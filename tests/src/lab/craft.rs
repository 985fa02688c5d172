//! Packets written by hand: what sockets would not send.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, UdpHeader, ip_number,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Namespace;

/// Sends IP packets as they are written, header included.
pub struct RawSocket(Socket);

impl RawSocket {
    /// A raw socket in a namespace, of the family of `peer`.
    pub fn new(ns: &Namespace, peer: IpAddr) -> Self {
        let domain = if peer.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        Self(ns.enter(|| Socket::new(domain, Type::RAW, raw)).expect("a raw socket"))
    }

    /// Sends a packet towards its destination.
    pub fn send(&self, packet: &[u8], destination: IpAddr) {
        let sent = self.0.send_to(packet, &SocketAddr::new(destination, 0).into());
        assert_eq!(sent.unwrap_or_else(|e| panic!("sending to {destination}: {e}")), packet.len());
    }
}

/// Sends frames as they are written, Ethernet header included.
pub struct RawLink(Socket);

impl RawLink {
    /// A raw socket on an interface.
    pub fn new(ns: &Namespace, interface: &str) -> Self {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            super::capture::bind(&socket, interface, 0).map(|()| socket)
        };
        Self(ns.enter(open).unwrap_or_else(|e| panic!("a raw socket on {interface}: {e}")))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        assert_eq!(self.0.send(frame).expect("sending a frame"), frame.len());
    }
}

/// An IP packet to be written, which may be fragmented on its way.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What the header says that it carries.
    pub protocol: IpNumber,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// UDP, with a valid checksum.
    pub fn udp(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Self {
        let (from, to) = (source.port(), destination.port());
        let header = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                UdpHeader::with_ipv4_checksum(from, to, &header4(source.octets(), destination.octets()), data)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                UdpHeader::with_ipv6_checksum(from, to, &header6(source.octets(), destination.octets()), data)
            }
            _ => panic!("{source} and {destination} are of two families"),
        };
        let mut payload = header.expect("a datagram below 64 KiB").to_bytes().to_vec();
        payload.extend_from_slice(data);
        Self {
            source: source.ip(),
            destination: destination.ip(),
            ttl: 64,
            protocol: ip_number::UDP,
            payload,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.part(0, self.payload.len(), None)
    }

    /// Its bytes in fragments that carry at most `size` bytes (a multiple of 8) each, in order.
    pub fn fragments(&self, size: usize, id: u16) -> Vec<Vec<u8>> {
        let offsets = (0..self.payload.len()).step_by(size);
        offsets.map(|from| self.part(from, self.payload.len().min(from + size), Some(id))).collect()
    }

    fn part(&self, from: usize, to: usize, id: Option<u16>) -> Vec<u8> {
        let payload = &self.payload[from..to];
        let length = u16::try_from(payload.len()).expect("a packet below 64 KiB");
        let offset = IpFragOffset::try_new(u16::try_from(from / 8).expect("a datagram below 64 KiB"));
        let offset = offset.expect("an offset of 13 bits");
        let more = to < self.payload.len();
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = header4(source.octets(), destination.octets());
                header.set_payload_len(length.into()).expect("a packet below 64 KiB");
                (header.time_to_live, header.protocol) = (self.ttl, self.protocol);
                (header.fragment_offset, header.more_fragments) = (offset, more);
                (header.identification, header.dont_fragment) = (id.unwrap_or_default(), false);
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = header6(source.octets(), destination.octets());
                (header.hop_limit, header.next_header, header.payload_length) =
                    (self.ttl, self.protocol, length);
                match id {
                    None => header.to_bytes().to_vec(),
                    Some(id) => {
                        let fragment = Ipv6FragmentHeader::new(self.protocol, offset, more, id.into());
                        header.next_header = ip_number::IPV6_FRAG;
                        header.payload_length += u16::try_from(fragment.header_len()).expect("8 bytes");
                        [&header.to_bytes()[..], &fragment.to_bytes()[..]].concat()
                    }
                }
            }
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        };
        packet.extend_from_slice(payload);
        packet
    }
}

fn header4(source: [u8; 4], destination: [u8; 4]) -> Ipv4Header {
    Ipv4Header::new(0, 64, ip_number::UDP, source, destination).expect("an empty packet")
}

fn header6(source: [u8; 16], destination: [u8; 16]) -> Ipv6Header {
    let (traffic_class, flow_label) = (0, Ipv6FlowLabel::ZERO);
    let (payload_length, next_header, hop_limit) = (0, ip_number::UDP, 64);
    Ipv6Header { traffic_class, flow_label, payload_length, next_header, hop_limit, source, destination }
}
