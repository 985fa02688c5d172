//! What holds for all networks.

use netd_common::{
    globals::{CLOSED4, CLOSED6, FIB_SOURCE, Globals},
    limits,
    nat::{PortRange, PortRanges},
};

use super::{
    super::{Error, object::failed, status},
    Maps,
};

impl Maps {
    pub(in crate::datapath) fn globals(&self) -> Result<Globals, Error> {
        self.globals.get(&0, 0).map_err(failed("GLOBALS"))
    }

    /// Writes what holds for all networks; the FIB generation goes on from where it was, and the flags stay as they are.
    pub(in crate::datapath) fn set_globals(
        &mut self,
        hz: u32,
        host_ports: PortRange,
        netns: u64,
    ) -> Result<(), Error> {
        let before = self.globals()?;
        let globals = Globals {
            netns,
            fib_generation: before.fib_generation.wrapping_add(1),
            hz,
            ports: PortRanges::beside(host_ports),
            flows_per_container: limits::FLOWS_PER_CONTAINER,
            flags: before.flags & !FIB_SOURCE | if status::kernel_is_at_least(6, 7) { FIB_SOURCE } else { 0 },
        };
        self.globals.set(0, globals, 0).map_err(failed("GLOBALS"))
    }

    pub(in crate::datapath) fn set_closed(&mut self, closed: u32) -> Result<(), Error> {
        self.set_flags(CLOSED4 | CLOSED6, closed)
    }

    /// Sets those of the flags in `mask` that are in `flags`, and clears the others.
    pub(super) fn set_flags(&mut self, mask: u32, flags: u32) -> Result<(), Error> {
        let before = self.globals()?;
        let globals = Globals { flags: before.flags & !mask | flags, ..before };
        self.globals.set(0, globals, 0).map_err(failed("GLOBALS"))
    }

    pub(in crate::datapath) fn bump_fib_generation(&mut self) -> Result<u32, Error> {
        let mut globals = self.globals()?;
        globals.fib_generation = globals.fib_generation.wrapping_add(1);
        self.globals.set(0, globals, 0).map_err(failed("GLOBALS"))?;
        Ok(globals.fib_generation)
    }
}
