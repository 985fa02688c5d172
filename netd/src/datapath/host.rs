//! The host around the networks: its uplinks, its own addresses, its other interfaces.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netd_common::forwarded::Foreign;

use super::{Datapath, Error, IfIndex, UplinkEntry, programs};
use crate::model::{Framing, Local};

impl Datapath {
    /// Makes an interface an uplink: its addresses known, both programs attached.
    pub fn put_uplink(&self, uplink: IfIndex, framing: Framing, entry: &UplinkEntry) -> Result<(), Error> {
        let (to, from) = match framing {
            Framing::Ethernet => (programs::TO_UPLINK, programs::FROM_UPLINK),
            Framing::Bare => (programs::TO_TUNNEL, programs::FROM_TUNNEL),
        };
        // The catch-all first: nothing may leave untranslated in between. And flows only once their answers are heard: to attach
        // takes the kernel some milliseconds.
        let mut programs = self.programs();
        programs.attach(to, uplink)?;
        programs.attach(from, uplink)?;
        self.maps().put_uplink(uplink, entry)
    }

    /// Undoes [`Self::put_uplink`]. Not an error if the interface is none, or is gone.
    pub fn remove_uplink(&self, uplink: IfIndex) -> Result<(), Error> {
        self.maps().remove_uplink(uplink)?;
        let programs = self.programs();
        for hook in [programs::FROM_UPLINK, programs::FROM_TUNNEL, programs::TO_UPLINK, programs::TO_TUNNEL] {
            programs.detach(hook, uplink)?;
        }
        Ok(())
    }

    /// The uplinks that the programs know.
    pub fn uplinks(&self) -> Result<BTreeMap<IfIndex, UplinkEntry>, Error> {
        self.maps().uplinks()
    }

    /// Has the host forward the families [`CLOSED4`], [`CLOSED6`] for netd's networks alone, as far as its other interfaces
    /// are known.
    pub fn close(&self, families: u32) -> Result<(), Error> {
        self.maps().set_closed(families)
    }

    /// Tells which bridges are other engines': the host forwards for those too.
    pub fn set_other_bridges(&self, bridges: &BTreeSet<IfIndex>) -> Result<(), Error> {
        let mut maps = self.maps();
        let known = maps.other_bridges()?;
        for bridge in bridges.difference(&known) {
            maps.put_other_bridge(*bridge)?;
        }
        for bridge in known.difference(bridges) {
            maps.remove_other_bridge(*bridge)?;
        }
        Ok(())
    }

    /// Tells of an interface that is none of netd's.
    pub fn put_foreign(&self, interface: IfIndex, foreign: Foreign) -> Result<(), Error> {
        self.maps().put_foreign(interface, foreign)?;
        self.programs().attach(programs::FORWARDED, interface)
    }

    /// Undoes [`Self::put_foreign`]. Not an error if the interface is not known, or is gone.
    pub fn remove_foreign(&self, interface: IfIndex) -> Result<(), Error> {
        self.programs().detach(programs::FORWARDED, interface)?;
        self.maps().remove_foreign(interface)
    }

    /// The interfaces that are known as none of netd's.
    pub fn foreign(&self) -> Result<BTreeMap<IfIndex, Foreign>, Error> {
        self.maps().foreign()
    }

    /// Tells what addresses are to the host itself.
    pub fn put_local(&self, prefix: IpNet, local: Local) -> Result<(), Error> {
        self.maps().put_local(prefix, local)
    }

    /// Tells that addresses are nothing to the host itself any more. Not an error if they were not.
    pub fn remove_local(&self, prefix: IpNet) -> Result<(), Error> {
        self.maps().remove_local(prefix)
    }

    /// The addresses that are something to the host itself.
    pub fn locals(&self) -> Result<BTreeMap<IpNet, Local>, Error> {
        self.maps().locals()
    }
}
