//! Counters, summed over the CPUs.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use netd_common::{
    drop::DropReason,
    limits,
    stats::{EndpointTraffic, Path as Way},
};

use super::{
    Error, at,
    object::{failed, take},
};

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

/// The maps that count, each CPU for itself.
pub(super) struct Tallies {
    traffic: PerCpuArray<MapData, EndpointTraffic>,
    ways: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, u64>,
    draws: PerCpuArray<MapData, u64>,
}

impl Tallies {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            traffic: take(ebpf, "TRAFFIC")?,
            ways: take(ebpf, "PATHS")?,
            drops: take(ebpf, "DROPS")?,
            draws: take(ebpf, "DRAWS")?,
        })
    }

    /// All of them, with the traffic of these endpoints.
    pub(super) fn counters(&self, slots: impl IntoIterator<Item = u32>) -> Result<Counters, Error> {
        let mut counters = Counters::default();
        for way in Way::ALL {
            counters.paths.push((way.name(), self.took(*way)?));
        }
        for reason in DropReason::ALL {
            counters.drops.push((reason.name(), sum("DROPS", &self.drops, *reason as u32)?));
        }
        for draws in 0..limits::PORT_DRAWS + 2 {
            counters.draws.push(sum("DRAWS", &self.draws, draws)?);
        }
        for slot in slots {
            counters.endpoints.insert(slot, self.traffic(slot)?);
        }
        Ok(counters)
    }

    /// How many took one way.
    pub(super) fn took(&self, way: Way) -> Result<u64, Error> {
        sum("PATHS", &self.ways, way as u32)
    }

    pub(super) fn traffic(&self, slot: u32) -> Result<EndpointTraffic, Error> {
        let values = self.traffic.get(&slot, 0).map_err(failed("TRAFFIC"))?;
        Ok(values.iter().fold(EndpointTraffic::default(), add))
    }

    /// Begins an endpoint's traffic at zero.
    pub(super) fn clear(&mut self, slot: u32) -> Result<(), Error> {
        let cpus = nr_cpus().map_err(|(path, source)| Error::Io { path: path.into(), source })?;
        let zero =
            PerCpuValues::try_from(vec![EndpointTraffic::default(); cpus]).map_err(at("TRAFFIC".as_ref()))?;
        self.traffic.set(slot, zero, 0).map_err(failed("TRAFFIC"))
    }
}

fn sum(name: &'static str, map: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, Error> {
    Ok(map.get(&index, 0).map_err(failed(name))?.iter().sum())
}

fn add(mut a: EndpointTraffic, b: &EndpointTraffic) -> EndpointTraffic {
    a.sent.packets += b.sent.packets;
    a.sent.bytes += b.sent.bytes;
    a.delivered.packets += b.delivered.packets;
    a.delivered.bytes += b.delivered.bytes;
    a
}
