//! What went to and fro.

use std::{iter::Sum, ops::Add};

use netd_common::stats;
use serde::{Deserialize, Serialize};

/// Packets and bytes. A super-frame of GSO counts as one packet; bytes include the Ethernet header.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<stats::Traffic> for Traffic {
    fn from(traffic: stats::Traffic) -> Self {
        Self { packets: traffic.packets, bytes: traffic.bytes }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// What an endpoint, or a network's endpoints, sent and received.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// By the endpoint.
    pub sent: Traffic,
    /// By the endpoint.
    pub received: Traffic,
}

impl Total {
    /// An endpoint's, of what the kernel's link counted and what the programs did. A program that redirects a packet into a
    /// container takes it past the counters of the veth, so what an endpoint got is what the veth counted and what the
    /// programs did.
    pub fn of(link: Traffic, program: stats::EndpointTraffic) -> Self {
        Self { sent: program.sent.into(), received: link + program.delivered.into() }
    }
}

impl Add for Total {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }
}
