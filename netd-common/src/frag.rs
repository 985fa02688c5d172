//! Fragments: only the first of a datagram has ports, so it leaves a note for those that follow. Those that overtake it are
//! held until it comes.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Ipv4, Ipv6};

/// Key of the fragment tables: what all fragments of one datagram share (RFC 791 section 3.2, RFC 8200 section 4.5).
/// Value: the index of the flow, a `u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address of the fragments.
    pub source: A,
    /// Destination address of the fragments.
    pub destination: A,
    /// The identification field as it stands in the packet; 16 bits of it in IPv4.
    pub identification: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// `tuple::OUTBOUND` or `tuple::INBOUND`.
    pub direction: u8,
    /// Always zero.
    pub pad: [u8; 2],
}

// SAFETY: `repr(C)`, and the golden test of `abi` holds that the fields leave no padding.
unsafe impl Zeroable for FragmentKey<Ipv4> {}
// SAFETY: as above.
unsafe impl Pod for FragmentKey<Ipv4> {}
// SAFETY: as above.
unsafe impl Zeroable for FragmentKey<Ipv6> {}
// SAFETY: as above.
unsafe impl Pod for FragmentKey<Ipv6> {}

/// The largest frame that is held: behind the Ethernet header one byte less than a power of two, so that a mask bounds it.
pub const HELD_BYTES: usize = 14 + 2047;
/// Fragments of one datagram that are held at most.
pub const HELD_PARTS: u32 = 8;
/// Seconds after which a held fragment is too old to belong to a datagram that only now begins.
pub const HELD_SECONDS: u32 = 2;

/// As the direction of a held fragment: a container's, on its way out by the host's stack.
pub const BY_STACK: u8 = 2;

/// Key of `HELD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct HeldKey {
    /// Source address of the fragments, IPv4 in the first word.
    pub source: [u32; 4],
    /// Destination address of the fragments.
    pub destination: [u32; 4],
    /// As in [`FragmentKey`].
    pub identification: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// Where it came from: `tuple::OUTBOUND` from a container, `tuple::INBOUND` from outside, or [`BY_STACK`].
    pub direction: u8,
    /// Which of the datagram's held fragments, by the order in which they came.
    pub part: u8,
    /// 4 or 6.
    pub version: u8,
}

/// A frame that waits for the first fragment of its datagram.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Held {
    /// When it came, in jiffies.
    pub since: u64,
    /// How long it is.
    pub length: u64,
    /// The frame, Ethernet header included.
    pub frame: [u8; HELD_BYTES.next_multiple_of(8)],
}
