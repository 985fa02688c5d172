//! Addresses, ports and indexes as they stand in packets and map keys: network byte order, aligned to their words.

use bytemuck::{Pod, Zeroable};

use crate::{limits, nptv6};

/// An IPv4 address, in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ipv4(pub u32);

/// An IPv6 address, in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ipv6(pub [u32; 4]);

/// A 16-bit number of the wire (a port, an ICMP identifier, an ethertype), in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(pub u16);

/// An Ethernet address. Held in 16-bit words: that is how a frame aligns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Mac(pub [u16; 3]);

/// An interface index in the daemon's network namespace. 0 is no interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct IfIndex(pub u32);

impl IfIndex {
    /// The entry of `PORT_SHORTCUTS` that the interface shares with few others.
    #[inline(always)]
    pub const fn shortcut(self) -> u32 {
        self.0 % limits::SHORTCUTS
    }
}

/// An address of either family: what the datapath's generic code is generic over.
pub trait Address: Copy + Default + Eq + Pod {
    /// Whether the address is 0.0.0.0 or `::`.
    fn is_unspecified(self) -> bool;
    /// The address in 32-bit words of network byte order, the unused ones zero.
    fn words(self) -> [u32; 4];
    /// The last 32 bits, in network byte order.
    fn last_word(self) -> u32;
    /// The address with its first `length` bits replaced by those of `prefix`: a whole address by another, an IPv6 prefix as
    /// [`crate::nptv6::translate`] does it.
    fn translate(self, prefix: Self, length: u32, adjustment: u16) -> Option<Self>;
}

impl Ipv4 {
    /// Whether the address is in 224.0.0.0/4 or is 255.255.255.255: nothing that is routed to one host.
    #[inline(always)]
    pub const fn is_multicast_or_broadcast(self) -> bool {
        self.0.to_ne_bytes()[0] & 0xf0 == 224 || self.0 == u32::MAX
    }

    /// Whether the address is in 127.0.0.0/8.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        self.0.to_ne_bytes()[0] == 127
    }

    /// Whether the address is in 0.0.0.0/8.
    #[inline(always)]
    pub const fn is_this_network(self) -> bool {
        self.0.to_ne_bytes()[0] == 0
    }

    /// Whether the address is in 169.254.0.0/16.
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        u32::from_be(self.0) >> 16 == 0xa9fe
    }
}

impl Address for Ipv4 {
    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0 == 0
    }
    #[inline(always)]
    fn last_word(self) -> u32 {
        self.0
    }
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
    #[inline(always)]
    fn translate(self, prefix: Self, _length: u32, _adjustment: u16) -> Option<Self> {
        Some(prefix)
    }
}

impl Ipv6 {
    /// Whether the address is `::1`.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | (self.0[3] ^ 1u32.to_be()) == 0
    }

    /// The IPv4-mapped address (RFC 4291 section 2.5.5.2).
    #[inline(always)]
    pub const fn mapped(address: Ipv4) -> Self {
        Self([0, 0, 0xffffu32.to_be(), address.0])
    }

    /// The IPv4 address that is mapped into it.
    #[inline(always)]
    pub const fn to_mapped(self) -> Option<Ipv4> {
        if self.0[0] | self.0[1] == 0 && self.0[2] == 0xffffu32.to_be() {
            Some(Ipv4(self.0[3]))
        } else {
            None
        }
    }

    /// Whether the address is in fe80::/10.
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        let first = u32::from_be(self.0[0]);
        first >> 22 == 0xfe80 >> 6
    }

    /// Whether the address is in ff00::/8.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        u32::from_be(self.0[0]) >> 24 == 0xff
    }
}

impl Address for Ipv6 {
    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }
    #[inline(always)]
    fn last_word(self) -> u32 {
        self.0[3]
    }
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }
    #[inline(always)]
    fn translate(self, prefix: Self, length: u32, adjustment: u16) -> Option<Self> {
        if length == 128 { Some(prefix) } else { nptv6::translate(self, prefix, length, adjustment) }
    }
}

impl Be16 {
    /// From a number of the host.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// As a number of the host.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl Mac {
    /// From the six bytes, first on the wire first.
    pub const fn new(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    /// The six bytes, first on the wire first.
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Whether the group bit is set: multicast, and broadcast with it.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 == 1
    }
}

impl From<core::net::Ipv4Addr> for Ipv4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv4> for core::net::Ipv4Addr {
    fn from(address: Ipv4) -> Self {
        address.0.to_ne_bytes().into()
    }
}

impl From<core::net::Ipv6Addr> for Ipv6 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        Self(bytemuck::cast(address.octets()))
    }
}

impl From<Ipv6> for core::net::Ipv6Addr {
    fn from(address: Ipv6) -> Self {
        bytemuck::cast::<_, [u8; 16]>(address.0).into()
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        let v4 = Ipv4Addr::new(172, 17, 0, 2);
        assert_eq!(Ipv4Addr::from(Ipv4::from(v4)), v4);
        let v6: Ipv6Addr = "fd00:18::2".parse().unwrap();
        assert_eq!(Ipv6Addr::from(Ipv6::from(v6)), v6);
        let mac = [0x02, 0x42, 0xac, 0x11, 0x00, 0x02];
        assert_eq!(Mac::new(mac).octets(), mac);
        assert_eq!(Mac::new(mac).to_string(), "02:42:ac:11:00:02");
    }

    #[test]
    fn special_ranges_are_told_apart() {
        assert!(
            Ipv6::from(Ipv6Addr::LOCALHOST).is_loopback() && !Ipv6::from(Ipv6Addr::UNSPECIFIED).is_loopback()
        );
        assert!(Ipv6::from("fe80::1".parse::<Ipv6Addr>().unwrap()).is_link_local());
        assert!(Ipv6::from("febf::1".parse::<Ipv6Addr>().unwrap()).is_link_local());
        assert!(!Ipv6::from("fec0::1".parse::<Ipv6Addr>().unwrap()).is_link_local());
        assert!(Ipv6::from("ff02::1".parse::<Ipv6Addr>().unwrap()).is_multicast());
        assert!(Ipv4::from(Ipv4Addr::new(169, 254, 0, 1)).is_link_local());
        assert!(!Ipv4::from(Ipv4Addr::new(169, 253, 255, 255)).is_link_local());
        assert!(Ipv4::from(Ipv4Addr::BROADCAST).is_multicast_or_broadcast());
        assert!(Ipv4::from(Ipv4Addr::new(239, 255, 255, 255)).is_multicast_or_broadcast());
        for host in [Ipv4Addr::new(223, 255, 255, 255), Ipv4Addr::new(240, 9, 9, 9)] {
            assert!(!Ipv4::from(host).is_multicast_or_broadcast());
        }
        let mapped = Ipv6::from("::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(mapped.to_mapped(), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_eq!(Ipv6::mapped(Ipv4Addr::new(192, 0, 2, 1).into()), mapped);
        assert_eq!(Ipv6::from(Ipv6Addr::LOCALHOST).to_mapped(), None);
        assert!(Mac::new([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        assert!(!Mac::new([0x02, 0x33, 0, 0, 0, 1]).is_multicast());
    }
}
