//! What arrives at an interface, as packets one can ask about.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use etherparse::IpNumber;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Namespace, PATIENCE};

/// An IP packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The protocol above IP, extension headers skipped.
    pub protocol: IpNumber,
    /// Identification, offset in bytes and whether more follow, if it is a fragment.
    pub fragment: Option<(u32, u16, bool)>,
    /// What IP carries.
    pub payload: Vec<u8>,
}

/// An ICMP message that carries the packet it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// MTU of "fragmentation needed" and "packet too big".
    pub mtu: u32,
    /// The packet it is about, as far as it is quoted.
    pub about: Packet,
}

impl Packet {
    /// An Ethernet frame's packet, if it carries IP.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] | [0x86, 0xdd] => Self::of_ip(&frame[14..]),
            _ => None,
        }
    }

    /// An IP packet, which may be cut short after its header, and may be a super-frame whose length says nothing.
    fn of_ip(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_ipv4(packet),
            6 => Self::of_ipv6(packet),
            _ => None,
        }
    }

    fn of_ipv4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let start = usize::from(header[0] & 0xf) * 4;
        let end = Some(usize::from(word(2))).filter(|end| (start..=packet.len()).contains(end));
        let (offset, more) = ((word(6) & 0x1fff) * 8, word(6) & 0x2000 != 0);
        Some(Self {
            source: [header[12], header[13], header[14], header[15]].into(),
            destination: [header[16], header[17], header[18], header[19]].into(),
            ttl: header[8],
            protocol: IpNumber(header[9]),
            fragment: (offset != 0 || more).then(|| (word(4).into(), offset, more)),
            payload: packet.get(start..end.unwrap_or(packet.len()))?.to_vec(),
        })
    }

    fn of_ipv6(packet: &[u8]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<40>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut payload = rest.get(..length).unwrap_or(rest);
        let (mut protocol, mut fragment) = (IpNumber(header[6]), None);
        loop {
            let length = match (protocol, payload) {
                (IpNumber::IPV6_HEADER_HOP_BY_HOP | IpNumber::IPV6_ROUTE_HEADER, [_, length, ..])
                | (IpNumber::IPV6_DESTINATION_OPTIONS, [_, length, ..]) => (usize::from(*length) + 1) * 8,
                (IpNumber::IPV6_FRAGMENTATION_HEADER, [_, _, o1, o2, i1, i2, i3, i4, ..]) => {
                    let offset = u16::from_be_bytes([*o1, *o2]);
                    fragment = Some((u32::from_be_bytes([*i1, *i2, *i3, *i4]), offset & !7, offset & 1 != 0));
                    8
                }
                _ => break,
            };
            let Some(after) = payload.get(length..) else { break };
            (protocol, payload) = (IpNumber(payload[0]), after);
            if fragment.is_some_and(|(_, offset, _)| offset != 0) {
                break;
            }
        }
        let address = |at: usize| {
            std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("16 bytes"))
        };
        let (source, destination) = (address(8).into(), address(24).into());
        Some(Self { source, destination, ttl: header[7], protocol, fragment, payload: payload.to_vec() })
    }

    /// Source and destination port of TCP or UDP.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let has_ports = matches!(self.protocol, IpNumber::TCP | IpNumber::UDP);
        let is_first = self.fragment.is_none_or(|(_, offset, _)| offset == 0);
        let header = (has_ports && is_first).then(|| self.payload.get(..4))??;
        Some((u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]])))
    }

    /// Type and code, if it is ICMP.
    pub fn icmp_type(&self) -> Option<(u8, u8)> {
        let is_icmp = matches!(self.protocol, IpNumber::ICMP | IpNumber::IPV6_ICMP);
        let header = is_icmp.then(|| self.payload.get(..8))??;
        Some((header[0], header[1]))
    }

    /// The ICMP error that it is.
    pub fn icmp_error(&self) -> Option<Icmp> {
        let (kind, code) = self.icmp_type()?;
        let is_error = match self.destination {
            IpAddr::V4(_) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            IpAddr::V6(_) => kind < 128,
        };
        let rest = &self.payload[4..8];
        let mtu = match self.destination {
            IpAddr::V4(_) => u16::from_be_bytes([rest[2], rest[3]]).into(),
            IpAddr::V6(_) => u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]),
        };
        let about = is_error.then(|| Self::of_ip(&self.payload[8..]))??;
        Some(Icmp { kind, code, mtu, about })
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} > {} ttl {} {:?}", self.source, self.destination, self.ttl, self.protocol)?;
        if let Some((from, to)) = self.ports() {
            write!(f, " {from} > {to}")?;
        }
        if let Some((kind, code)) = self.icmp_type() {
            write!(f, " {kind}/{code}")?;
        }
        if let Some((id, offset, more)) = self.fragment {
            write!(f, " fragment {id:#x}@{offset}{}", if more { "+" } else { "" })?;
        }
        write!(f, " length {}", self.payload.len())
    }
}

/// What arrives at an interface from now on; not what leaves by it.
pub struct Capture {
    socket: Socket,
    /// Packets come with an Ethernet header. A tunnel's do not.
    framed: bool,
}

impl Capture {
    /// Listens on an interface.
    pub fn new(ns: &Namespace, interface: &str) -> Self {
        let socket = ns.enter(|| listen(interface));
        let socket = socket.unwrap_or_else(|e| panic!("capturing {interface} in {}: {e}", ns.name()));
        let address = socket.local_addr().expect("a bound socket");
        // SAFETY: the address of a packet socket, as the kernel wrote it.
        let kind = unsafe { (*address.as_ptr().cast::<libc::sockaddr_ll>()).sll_hatype };
        Self { socket, framed: kind == libc::ARPHRD_ETHER }
    }

    /// The next packet for which something holds; others before it are passed over.
    pub fn expect(&mut self, what: &str, holds: impl Fn(&Packet) -> bool) -> Packet {
        let (deadline, mut others) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(packet) if holds(&packet) => return packet,
                Some(other) => others.push(other),
                None => panic!("not seen within {PATIENCE:?}: {what}; seen: {others:#?}"),
            }
        }
    }

    /// All frames, whatever they carry, up to and with the next one for which something holds.
    pub fn frames(&mut self, what: &str, is_last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (deadline, mut frames) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let patience = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(patience)).expect("a socket's timeout");
            let frame = self.receive_frame();
            frames.push(frame.unwrap_or_else(|| panic!("not seen within {PATIENCE:?}: {what}")));
            if frames.last().is_some_and(|frame| is_last(frame)) {
                assert_eq!(self.lost(), 0, "packets lost by the capture itself");
                return frames;
            }
        }
    }

    /// All that has arrived and was not asked for yet. Panics if the kernel had no room for some of it.
    pub fn drain(&mut self) -> Vec<Packet> {
        let mut all = Vec::new();
        self.socket.set_nonblocking(true).expect("a socket's mode");
        while let Some(packet) = self.receive() {
            all.push(packet);
        }
        self.socket.set_nonblocking(false).expect("a socket's mode");
        assert_eq!(self.lost(), 0, "packets lost by the capture itself");
        all
    }

    fn next(&mut self, patience: Duration) -> Option<Packet> {
        let patience = patience.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(patience)).expect("a socket's timeout");
        self.receive()
    }

    /// The next IP packet, or `None` if none comes in time.
    fn receive(&mut self) -> Option<Packet> {
        let read = if self.framed { Packet::of_frame } else { Packet::of_ip };
        loop {
            if let Some(packet) = read(&self.receive_frame()?) {
                return Some(packet);
            }
        }
    }

    /// The next frame, or `None` if none comes in time.
    fn receive_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 256 * 1024];
        loop {
            match self.socket.read(&mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => panic!("capturing: {e}"),
            }
        }
    }

    fn lost(&self) -> u32 {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: PACKET_STATISTICS writes a `tpacket_stats`, whose size is given.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "PACKET_STATISTICS: {}", io::Error::last_os_error());
        stats.tp_drops
    }
}

fn listen(interface: &str) -> io::Result<Socket> {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    // Protocol 0: it hears nothing until it is bound to the interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let (on, size): (libc::c_int, libc::c_int) = (1, 256 << 20);
    for (level, name, value) in
        [(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, on), (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size)]
    {
        let length = size_of_val(&value) as libc::socklen_t;
        // SAFETY: both options read an int, whose size is given.
        let result =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    bind(&socket, interface, libc::ETH_P_ALL as u16)?;
    Ok(socket)
}

/// Ties a packet socket to an interface of the calling thread's namespace, and to what it is to hear there: 0 for nothing.
pub(super) fn bind(socket: &Socket, interface: &str, protocol: u16) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    // SAFETY: the address is written as the `sockaddr_ll` that its length says.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address: *mut libc::sockaddr_ll = storage.cast();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = protocol.to_be();
            (*address).sll_ifindex = index.cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    socket.bind(&address)
}

#[cfg(test)]
mod tests {
    use super::Packet;
    use crate::lab::{Datagram, Family, at};

    #[test]
    fn fragments_are_told_apart_and_cut_packets_bear_reading() {
        for family in Family::BOTH {
            let datagram = Datagram::udp(at(family.host(), 5), at(family.outside(), 6), &[7; 100]);
            let whole = Packet::of_ip(&datagram.bytes()).expect("a packet");
            assert_eq!((whole.ports(), whole.fragment), (Some((5, 6)), None));
            assert_eq!((whole.source, whole.destination), (family.host(), family.outside()));
            assert_eq!(whole.payload, datagram.payload);
            let parts = datagram.fragments(64, 9);
            let read: Vec<_> = parts.iter().map(|part| Packet::of_ip(part).expect("a packet")).collect();
            assert_eq!(
                read.iter().map(|p| p.fragment).collect::<Vec<_>>(),
                [Some((9, 0, true)), Some((9, 64, false))]
            );
            assert_eq!(read.iter().map(Packet::ports).collect::<Vec<_>>(), [Some((5, 6)), None]);
            assert_eq!([&read[0].payload[..], &read[1].payload[..]].concat(), datagram.payload);
            for bytes in parts.iter().chain([&datagram.bytes()]) {
                for length in 0..bytes.len() {
                    if let Some(cut) = Packet::of_ip(&bytes[..length]) {
                        assert_eq!(cut.source, family.host());
                    }
                }
            }
        }
    }
}
