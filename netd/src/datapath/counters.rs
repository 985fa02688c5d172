//! Counters, summed over the CPUs.

use std::collections::BTreeMap;

use netd_common::stats::EndpointTraffic;

/// Every counter of the datapath.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Dropped packets by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Packets by the way they took.
    pub paths: Vec<(&'static str, u64)>,
    /// Traffic by endpoint slot.
    pub endpoints: BTreeMap<u32, EndpointTraffic>,
    /// New flows by the number of ports that were tried; the last entry counts those that found none.
    pub draws: Vec<u64>,
}

impl Counters {
    pub(super) fn add(mut a: EndpointTraffic, b: &EndpointTraffic) -> EndpointTraffic {
        a.sent.packets += b.sent.packets;
        a.sent.bytes += b.sent.bytes;
        a.delivered.packets += b.delivered.packets;
        a.delivered.bytes += b.delivered.bytes;
        a
    }
}
