//! What the programs tell the daemon unasked, through the ring buffer `EVENTS`.

use bytemuck::{Pod, Zeroable};

use crate::addr::Be16;

/// A new flow was refused (RFC 6888 REQ-11): one record of the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Refused {
    /// The endpoint's slot.
    pub endpoint: u32,
    /// The `DropReason`, as a number.
    pub reason: u32,
    /// The remote's address, IPv4 in the first word.
    pub remote: [u32; 4],
    /// `fib::AF_INET` or `fib::AF_INET6`.
    pub family: u32,
    /// The remote's port.
    pub remote_port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
}

/// An order to the `sweep` program: end flows among `count` records from `first` on.
///
/// BPF_PROG_TEST_RUN takes it for an Ethernet frame, and refuses one whose ethertype promises an IP header that is not there:
/// bytes 12 and 13 are part of `now`, and zero on the way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sweep {
    /// `fib::AF_INET` or `fib::AF_INET6`.
    pub family: u32,
    /// Index of the first record.
    pub first: u32,
    /// Zero; in the answer the kernel's time, in jiffies.
    pub now: u64,
    /// How many records; at most `limits::SWEEP_BATCH`.
    pub count: u32,
    /// [`Sweep::ANY`]: flows whose time is up. [`Sweep::UNPUBLISHED`]: flows that came to a port, or have an address, which leads elsewhere by now.
    /// [`Sweep::UNBOUND`]: bindings, and flows that came to them, that their network would not have now. Else: all flows of this endpoint's slot.
    pub endpoint: u32,
}

impl Sweep {
    /// No endpoint in particular.
    pub const ANY: u32 = u32::MAX - 1;
    /// No endpoint in particular.
    pub const UNPUBLISHED: u32 = u32::MAX - 2;
    /// No endpoint in particular.
    pub const UNBOUND: u32 = u32::MAX - 3;
}
