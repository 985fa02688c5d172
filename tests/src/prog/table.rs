//! The pinned maps, read and written from beside the daemon.

use std::fmt::Debug;

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    conntrack::{Clock, State},
    globals::Globals,
    nat::Flow,
    tuple::Tuple,
};

use super::fixture::{Container, Fixture};

impl Fixture {
    fn pinned(&self, map: &str) -> MapData {
        MapData::from_pin(self.pins.join("maps").join(map)).unwrap()
    }

    pub fn array<V: Pod>(&self, map: &str) -> Array<MapData, V> {
        Map::Array(self.pinned(map)).try_into().unwrap()
    }

    /// Changes what holds for all networks.
    pub fn change_globals(&self, change: impl FnOnce(&mut Globals)) {
        let mut map = self.array::<Globals>("GLOBALS");
        let mut globals = map.get(&0, 0).unwrap();
        change(&mut globals);
        map.set(0, globals, 0).unwrap();
    }

    /// Makes every live flow as old as if its last packet had come `seconds` earlier.
    pub fn age(&self, seconds: u64) {
        self.age_table::<Ipv4>("FLOWS4", 0, seconds);
        self.age_table::<Ipv6>("FLOWS6", 1, seconds);
    }

    fn age_table<A: Address>(&self, map: &str, family: u32, seconds: u64)
    where
        Flow<A>: Pod,
    {
        let hz = u64::from(self.array::<Globals>("GLOBALS").get(&0, 0).unwrap().hz);
        let mut flows = self.array::<Flow<A>>(map);
        for index in 0..self.drawn(family) as u32 {
            let mut flow = flows.get(&index, 0).unwrap();
            if flow.clock.state() != State::DEAD {
                flow.clock = Clock::new(flow.clock.state(), flow.clock.jiffies() - seconds * hz);
                flows.set(index, flow, 0).unwrap();
            }
        }
    }

    /// How many records of a family were ever in use.
    pub fn drawn(&self, family: u32) -> u64 {
        self.array::<u64>("FLOWS_DRAWN").get(&family, 0).unwrap()
    }

    /// How many keys there are in the flow tables, per family.
    pub fn keys(&self) -> [usize; 2] {
        [self.keys_in::<Ipv4>("FLOW_KEYS4"), self.keys_in::<Ipv6>("FLOW_KEYS6")]
    }

    fn keys_in<A: Debug>(&self, map: &str) -> usize
    where
        Tuple<A>: Pod,
    {
        let map: HashMap<_, Tuple<A>, u32> = Map::HashMap(self.pinned(map)).try_into().unwrap();
        map.keys().count()
    }

    /// How many flows a container is charged with, per family.
    pub fn held(&self, container: Container) -> [u64; 2] {
        let held = self.array::<u64>("ENDPOINT_FLOWS");
        [0, 1].map(|family| held.get(&(2 * container.slot + family), 0).unwrap())
    }
}
