//! Literal packets, and their reading back with every checksum looked at.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

use super::fixture::{Container, GATEWAY, ROUTER, UPLINK};

/// The remote of most tests.
pub const REMOTE: &str = "198.51.100.7";
/// The remote of most tests.
pub const REMOTE6: &str = "2001:db8:1::7";

pub const SYN: u8 = 0x02;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Where the IP header begins.
pub const L3: usize = 14;

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn remote(v6: bool) -> IpAddr {
    address(if v6 { REMOTE6 } else { REMOTE })
}

/// The uplink's address.
pub fn external(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8::1" } else { "203.0.113.1" })
}

/// Where the transport header begins in a packet of [`frame`].
pub fn l4(v6: bool) -> usize {
    L3 + if v6 { Ipv6Header::LEN } else { Ipv4Header::MIN_LEN }
}

/// What a transport is to be.
#[derive(Clone, Copy, Debug)]
pub enum L4 {
    /// Ports and flags.
    Tcp(u16, u16, u8),
    Udp(u16, u16),
    /// Echo request, or reply; identifier.
    Echo(bool, u16),
    /// Ports and nothing else, which is all that NAT reads of it.
    Sctp(u16, u16),
    /// Any IP protocol.
    Other(u8),
}

impl L4 {
    /// What the other end answers with.
    pub fn reply(self) -> Self {
        match self {
            Self::Tcp(from, to, _) => Self::Tcp(to, from, SYN | ACK),
            Self::Udp(from, to) => Self::Udp(to, from),
            Self::Echo(request, id) => Self::Echo(!request, id),
            Self::Sctp(from, to) => Self::Sctp(to, from),
            Self::Other(_) => self,
        }
    }
}

/// A frame. `macs` are source and destination.
pub fn frame(
    macs: [[u8; 6]; 2],
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    l4: L4,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]);
    let mut out = Vec::new();
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            builder.ipv4(source.octets(), destination.octets(), ttl)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            builder.ipv6(source.octets(), destination.octets(), ttl)
        }
        _ => panic!("two families in one packet"),
    };
    match l4 {
        L4::Tcp(from, to, flags) => {
            let mut step = builder.tcp(from, to, 1000, 64000);
            step = if flags & SYN != 0 { step.syn() } else { step };
            step = if flags & FIN != 0 { step.fin() } else { step };
            step = if flags & RST != 0 { step.rst() } else { step };
            step = if flags & ACK != 0 { step.ack(2000) } else { step };
            step.write(&mut out, payload).unwrap();
        }
        L4::Udp(from, to) => builder.udp(from, to).write(&mut out, payload).unwrap(),
        L4::Echo(request, id) => match (source.is_ipv4(), request) {
            (true, true) => builder.icmpv4_echo_request(id, 1).write(&mut out, payload).unwrap(),
            (true, false) => builder.icmpv4_echo_reply(id, 1).write(&mut out, payload).unwrap(),
            (false, true) => builder.icmpv6_echo_request(id, 1).write(&mut out, payload).unwrap(),
            (false, false) => builder.icmpv6_echo_reply(id, 1).write(&mut out, payload).unwrap(),
        },
        L4::Sctp(from, to) => {
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            builder.write(&mut out, IpNumber::SCTP, &[&ports, payload].concat()).unwrap();
        }
        L4::Other(protocol) => builder.write(&mut out, IpNumber(protocol), payload).unwrap(),
    }
    out
}

/// From a container to an address, by way of the gateway.
pub fn to(container: Container, destination: &str, l4: L4) -> Vec<u8> {
    let destination = address(destination);
    let source = container.address(destination.is_ipv6());
    frame([container.mac, GATEWAY], source, destination, 64, l4, b"to the outside")
}

/// From a container to the remote.
pub fn out(container: Container, v6: bool, l4: L4) -> Vec<u8> {
    to(container, if v6 { REMOTE6 } else { REMOTE }, l4)
}

/// From an address outside to another, as it arrives at the uplink.
pub fn arriving(source: IpAddr, destination: IpAddr, l4: L4) -> Vec<u8> {
    frame([ROUTER, UPLINK], source, destination, 57, l4, b"and back")
}

/// From the remote to the uplink's address.
pub fn back(v6: bool, l4: L4) -> Vec<u8> {
    arriving(remote(v6), external(v6), l4)
}

/// From an address of the host to another, as it leaves by the uplink.
pub fn leaving(source: IpAddr, destination: IpAddr, l4: L4) -> Vec<u8> {
    frame([UPLINK, ROUTER], source, destination, 63, l4, b"by the stack")
}

/// The packet with its IPv4 header changed, its checksum right again.
pub fn with_ipv4(packet: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let (mut header, payload) = Ipv4Header::from_slice(&packet[L3..]).unwrap();
    change(&mut header);
    header.set_payload_len(payload.len()).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut out = packet[..L3].to_vec();
    header.write(&mut out).unwrap();
    out.extend(payload);
    out
}

/// The IPv4 packet with a header that says it is so long, its checksum right.
pub fn with_total_length(packet: &[u8], length: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[L3 + 2..L3 + 4].copy_from_slice(&length.to_be_bytes());
    packet[L3 + 10..L3 + 12].fill(0);
    let checksum = internet_checksum(&packet[L3..l4(false)]);
    packet[L3 + 10..L3 + 12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The packet with a header that says how long it is.
pub fn with_length(packet: &[u8]) -> Vec<u8> {
    if packet[L3] >> 4 == 4 {
        return with_total_length(packet, (packet.len() - L3) as u16);
    }
    let mut packet = packet.to_vec();
    let length = (packet.len() - l4(true)) as u16;
    packet[L3 + 4..L3 + 6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// The IPv6 packet with `headers` put between its header and what it carries, `first` being the first one's number.
pub fn with_extensions(packet: &[u8], first: u8, headers: &[u8]) -> Vec<u8> {
    let mut out = packet[..l4(true)].to_vec();
    out[L3 + 6] = first;
    let length = (packet.len() - l4(true) + headers.len()) as u16;
    out[L3 + 4..L3 + 6].copy_from_slice(&length.to_be_bytes());
    out.extend(headers);
    out.extend(&packet[l4(true)..]);
    out
}

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// An extension header that holds nothing but padding.
pub fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// The packet in two fragments, cut `at` bytes behind the IP header.
pub fn fragments(packet: &[u8], identification: u16, at: usize) -> [Vec<u8>; 2] {
    assert_eq!(at % 8, 0);
    let v6 = packet[L3] >> 4 == 6;
    let payload = &packet[l4(v6)..];
    [(0, true, &payload[..at]), (at, false, &payload[at..])].map(|(offset, more, part)| {
        let whole = [&packet[..l4(v6)], part].concat();
        if v6 {
            let place = offset as u16 | u16::from(more);
            let mut header = vec![packet[L3 + 6], 0];
            header.extend(place.to_be_bytes());
            header.extend(u32::from(identification).to_be_bytes());
            with_extensions(&whole, 44, &header)
        } else {
            let mut short = whole;
            let length = (short.len() - L3) as u16;
            short[L3 + 2..L3 + 4].copy_from_slice(&length.to_be_bytes());
            with_ipv4(&short, |header| {
                header.dont_fragment = false;
                header.identification = identification;
                header.more_fragments = more;
                header.fragment_offset = ((offset / 8) as u16).try_into().unwrap();
            })
        }
    })
}

/// What [`fragments`] cut, put together again, if the IP checksums are right.
pub fn reassemble([first, later]: [&[u8]; 2]) -> Vec<u8> {
    let v6 = first[L3] >> 4 == 6;
    assert_eq!(first[L3 + 12..l4(v6)], later[L3 + 12..l4(v6)], "the addresses differ");
    if v6 {
        let mut whole = [&first[..l4(true)], &first[l4(true) + 8..], &later[l4(true) + 8..]].concat();
        whole[L3 + 6] = first[l4(true)];
        let length = (whole.len() - l4(true)) as u16;
        whole[L3 + 4..L3 + 6].copy_from_slice(&length.to_be_bytes());
        return whole;
    }
    for part in [first, later] {
        assert_eq!(internet_checksum(&part[L3..l4(false)]), 0, "IP checksum of {part:02x?}");
    }
    let mut whole = [first, &later[l4(false)..]].concat();
    let length = (whole.len() - L3) as u16;
    whole[L3 + 2..L3 + 4].copy_from_slice(&length.to_be_bytes());
    with_ipv4(&whole, |header| header.more_fragments = false)
}

/// A packet's fields, if every checksum in it is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// Ports, or the echo identifier twice.
    pub ports: [u16; 2],
    pub macs: [[u8; 6]; 2],
    pub payload: Vec<u8>,
}

pub fn read(frame: &[u8]) -> Read {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let macs = [frame[6..12].try_into().unwrap(), frame[..6].try_into().unwrap()];
    let (source, destination, ttl): (IpAddr, IpAddr, u8) = match sliced.net.as_ref().expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum of {frame:02x?}");
            (header.source.into(), header.destination.into(), header.time_to_live)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (ports, payload) = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            ([udp.source_port(), udp.destination_port()], udp.payload().to_vec())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            ([tcp.source_port(), tcp.destination_port()], tcp.payload().to_vec())
        }
        Some(TransportSlice::Icmpv4(icmp)) => ([word(icmp.slice(), 4); 2], icmp.payload().to_vec()),
        Some(TransportSlice::Icmpv6(icmp)) => ([word(icmp.slice(), 4); 2], icmp.payload().to_vec()),
        Some(TransportSlice::Igmp(_)) => panic!("IGMP"),
        None => {
            let bytes = sliced.ip_payload().unwrap().payload;
            ([word(bytes, 0), word(bytes, 2)], bytes[4..].to_vec())
        }
    };
    assert_checksum(&sliced, source, destination);
    Read { source, destination, ttl, ports, macs, payload }
}

/// The transport checksum over the pseudo header, from scratch.
fn assert_checksum(sliced: &SlicedPacket, source: IpAddr, destination: IpAddr) {
    let (protocol, bytes): (u8, &[u8]) = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) if udp.checksum() == 0 => return,
        Some(TransportSlice::Udp(udp)) => (17, udp.slice()),
        Some(TransportSlice::Tcp(tcp)) => (6, tcp.slice()),
        Some(TransportSlice::Icmpv4(icmp)) => (1, icmp.slice()),
        Some(TransportSlice::Icmpv6(icmp)) => (58, icmp.slice()),
        // SCTP's covers no address.
        _ => return,
    };
    let pseudo = if protocol == 1 { Vec::new() } else { pseudo_header(source, destination, protocol, bytes) };
    assert_eq!(internet_checksum(&[&pseudo, bytes].concat()), 0, "transport checksum of {bytes:02x?}");
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> Vec<u8> {
    let mut pseudo: Vec<u8> = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
        _ => unreachable!("one packet, one family"),
    };
    pseudo.extend([0, protocol]);
    pseudo.extend((bytes.len() as u16).to_be_bytes());
    pseudo
}

/// RFC 1071. 0 over data that holds a right checksum.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ICMP error: type and code, the word behind the checksum, and the packet (from its IP header on) that it is about.
pub fn icmp_error(
    macs: [[u8; 6]; 2],
    source: IpAddr,
    destination: IpAddr,
    kind: [u8; 2],
    word: u32,
    about: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(about);
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    let pseudo =
        if source.is_ipv4() { Vec::new() } else { pseudo_header(source, destination, protocol, &message) };
    let checksum = internet_checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame(macs, source, destination, 60, L4::Other(protocol), &message)
}

/// What an ICMP error says, if its checksums and those of the packet that it quotes whole are right.
pub struct ReadError {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub kind: [u8; 2],
    pub word: u32,
    pub macs: [[u8; 6]; 2],
    /// The quoted packet, from its IP header on.
    pub about: Vec<u8>,
}

impl ReadError {
    /// The quoted packet, if it is whole.
    pub fn quoted(&self) -> Read {
        read(&behind_ethernet([[0; 6]; 2], &self.about))
    }
}

pub fn read_error(frame: &[u8]) -> ReadError {
    let outer = read(frame);
    let message = &frame[l4(outer.source.is_ipv6())..];
    ReadError {
        source: outer.source,
        destination: outer.destination,
        ttl: outer.ttl,
        kind: [message[0], message[1]],
        word: u32::from_be_bytes(message[4..8].try_into().unwrap()),
        macs: outer.macs,
        about: message[8..].to_vec(),
    }
}

/// An IP packet in a frame.
pub fn behind_ethernet(macs: [[u8; 6]; 2], packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 6 { EtherType::IPV6 } else { EtherType::IPV4 };
    ethernet(macs, ether_type, packet)
}

/// Anything in a frame.
pub fn ethernet(macs: [[u8; 6]; 2], ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: macs[0], destination: macs[1], ether_type };
    [&header.to_bytes()[..], payload].concat()
}
