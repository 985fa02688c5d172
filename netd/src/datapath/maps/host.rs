//! What is around netd on the host: its own addresses, uplinks, and interfaces of others.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netd_common::{
    addr::IfIndex,
    fib::{BROADCAST, OWN, Uplink},
    forwarded::Foreign,
    globals::MULTIHOMED,
    limits,
    policy::Trusted,
};

use super::{
    super::{
        Error,
        object::{failed, gone},
        prefix::{key4, key6, net4, net6},
    },
    Maps,
};
use crate::model::Local;

impl Maps {
    pub(in crate::datapath) fn put_local(&mut self, prefix: IpNet, local: Local) -> Result<(), Error> {
        let kind = match local {
            Local::Own => OWN,
            Local::Broadcast => BROADCAST,
        };
        match prefix {
            IpNet::V4(prefix) => self.locals4.insert(&key4(prefix), kind, 0).map_err(failed("LOCALS4")),
            IpNet::V6(prefix) => self.locals6.insert(&key6(prefix), kind, 0).map_err(failed("LOCALS6")),
        }
    }

    pub(in crate::datapath) fn remove_local(&mut self, prefix: IpNet) -> Result<(), Error> {
        match prefix {
            IpNet::V4(prefix) => gone("LOCALS4", self.locals4.remove(&key4(prefix))),
            IpNet::V6(prefix) => gone("LOCALS6", self.locals6.remove(&key6(prefix))),
        }
    }

    pub(in crate::datapath) fn locals(&self) -> Result<BTreeMap<IpNet, Local>, Error> {
        let local = |kind| if kind == BROADCAST { Local::Broadcast } else { Local::Own };
        let mut locals = BTreeMap::new();
        for entry in self.locals4.iter() {
            let (key, kind) = entry.map_err(failed("LOCALS4"))?;
            locals.extend(net4(&key).map(|prefix| (prefix, local(kind))));
        }
        for entry in self.locals6.iter() {
            let (key, kind) = entry.map_err(failed("LOCALS6"))?;
            locals.extend(net6(&key).map(|prefix| (prefix, local(kind))));
        }
        Ok(locals)
    }

    pub(in crate::datapath) fn put_uplink(&mut self, uplink: IfIndex, entry: &Uplink) -> Result<(), Error> {
        self.uplinks.insert(uplink, entry, 0).map_err(failed("UPLINKS"))?;
        self.count_uplinks()
    }

    pub(in crate::datapath) fn remove_uplink(&mut self, uplink: IfIndex) -> Result<(), Error> {
        gone("UPLINKS", self.uplinks.remove(&uplink))?;
        self.count_uplinks()
    }

    fn count_uplinks(&mut self) -> Result<(), Error> {
        let is_multihomed = self.uplinks.keys().nth(1).is_some();
        self.set_flags(MULTIHOMED, if is_multihomed { MULTIHOMED } else { 0 })
    }

    pub(in crate::datapath) fn uplinks(&self) -> Result<BTreeMap<IfIndex, Uplink>, Error> {
        self.uplinks.iter().collect::<Result<_, _>>().map_err(failed("UPLINKS"))
    }

    /// Bridges of other engines.
    pub(in crate::datapath) fn other_bridges(&self) -> Result<BTreeSet<IfIndex>, Error> {
        let mut bridges = BTreeSet::new();
        for entry in self.bridges.iter() {
            let (bridge, network) = entry.map_err(failed("BRIDGES"))?;
            if network == limits::NETWORKS {
                bridges.insert(bridge);
            }
        }
        Ok(bridges)
    }

    pub(in crate::datapath) fn put_other_bridge(&mut self, bridge: IfIndex) -> Result<(), Error> {
        self.bridges.insert(bridge, limits::NETWORKS, 0).map_err(failed("BRIDGES"))
    }

    pub(in crate::datapath) fn remove_other_bridge(&mut self, bridge: IfIndex) -> Result<(), Error> {
        gone("BRIDGES", self.bridges.remove(&bridge))
    }

    pub(in crate::datapath) fn put_foreign(
        &mut self,
        interface: IfIndex,
        foreign: Foreign,
    ) -> Result<(), Error> {
        self.foreign.insert(interface, foreign, 0).map_err(failed("FOREIGN"))
    }

    pub(in crate::datapath) fn remove_foreign(&mut self, interface: IfIndex) -> Result<(), Error> {
        gone("FOREIGN", self.foreign.remove(&interface))
    }

    pub(in crate::datapath) fn foreign(&self) -> Result<BTreeMap<IfIndex, Foreign>, Error> {
        self.foreign.iter().collect::<Result<_, _>>().map_err(failed("FOREIGN"))
    }

    pub(in crate::datapath) fn put_trusted(&mut self, pair: Trusted) -> Result<(), Error> {
        self.trusted.insert(pair, 1, 0).map_err(failed("TRUSTED"))
    }

    pub(in crate::datapath) fn remove_trusted(&mut self, pair: Trusted) -> Result<(), Error> {
        gone("TRUSTED", self.trusted.remove(&pair))
    }

    pub(in crate::datapath) fn trusted(&self) -> Result<BTreeSet<Trusted>, Error> {
        self.trusted.keys().collect::<Result<_, _>>().map_err(failed("TRUSTED"))
    }
}
