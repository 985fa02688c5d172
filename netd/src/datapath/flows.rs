//! The flow tables, read where the kernel keeps them: the records are memory-mapped, and no system call is made for each.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
};
use netd_common::{
    addr::{Address, IfIndex, Ipv4, Ipv6},
    conntrack::State,
    event::Sweep,
    fib::{AF_INET, AF_INET6},
    limits,
    nat::{ACCEPTED, Flow, HOST},
    stats::Traffic,
};

use super::{Error, at, clock, maps, programs::Programs};

/// A live flow.
#[derive(Clone, Debug)]
pub struct FlowView {
    /// IANA protocol number.
    pub protocol: u8,
    /// The container's address and port; for ICMP echo the identifier.
    pub local: SocketAddr,
    /// The remote's address and port; 0 for ICMP echo.
    pub remote: SocketAddr,
    /// What the remote sees.
    pub external: SocketAddr,
    /// The name of the state.
    pub state: &'static str,
    /// The remote began it: it came to a published port.
    pub accepted: bool,
    /// The container's slot; `None` for a flow of the host itself.
    pub endpoint: Option<u32>,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last packet, to the second.
    pub idle: Duration,
    /// From the container.
    pub outbound: Traffic,
    /// To the container.
    pub inbound: Traffic,
    /// Where it leaves.
    pub uplink: IfIndex,
}

/// One flow table, mapped.
struct Table<A: Address> {
    records: *const u8,
    bytes: usize,
    capacity: u32,
    family: u32,
    address: std::marker::PhantomData<A>,
}

// SAFETY: the memory is shared with the kernel and read by volatile loads alone.
unsafe impl<A: Address> Send for Table<A> {}
// SAFETY: as above.
unsafe impl<A: Address> Sync for Table<A> {}

/// Both flow tables, and how far they were ever used.
pub(super) struct Tables {
    v4: Table<Ipv4>,
    v6: Table<Ipv6>,
    drawn: Array<MapData, u64>,
}

impl<A: Address> Table<A>
where
    Flow<A>: Copy,
{
    /// Array values stand 8-byte aligned behind each other.
    const STRIDE: usize = size_of::<Flow<A>>().next_multiple_of(8);

    fn map(ebpf: &Ebpf, name: &'static str, capacity: u32, family: u32) -> Result<Self, Error> {
        let Some(Map::Array(data)) = ebpf.map(name) else { return Err(Error::NoMap(name)) };
        let bytes = Self::STRIDE * capacity as usize;
        // SAFETY: a fresh shared mapping of a map that was made with BPF_F_MMAPABLE and has this many bytes at least.
        let records = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if records == libc::MAP_FAILED {
            return Err(at(name.as_ref())(std::io::Error::last_os_error()));
        }
        Ok(Self { records: records.cast(), bytes, capacity, family, address: std::marker::PhantomData })
    }

    fn get(&self, index: u32) -> Flow<A> {
        assert!(index < self.capacity);
        // SAFETY: within the mapping; any bits are a flow.
        unsafe { self.records.add(Self::STRIDE * index as usize).cast::<Flow<A>>().read_volatile() }
    }

    fn live(&self, drawn: u64) -> impl Iterator<Item = Flow<A>> + '_ {
        let count = u64::from(self.capacity).min(drawn) as u32;
        (0..count).map(|index| self.get(index)).filter(|flow| flow.clock.state() != State::DEAD)
    }

    fn sweep(&self, programs: &Programs, drawn: u64, endpoint: u32) -> Result<u32, Error> {
        let count = u64::from(self.capacity).min(drawn) as u32;
        let mut ended = 0;
        for first in (0..count).step_by(limits::SWEEP_BATCH as usize) {
            let batch = limits::SWEEP_BATCH.min(count - first);
            let order = Sweep { family: self.family, first, count: batch, endpoint, now: 0 };
            ended += programs.sweep(&order)?.0;
        }
        Ok(ended)
    }
}

impl<A: Address> Drop for Table<A> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` and nothing borrows from it.
        unsafe { libc::munmap(self.records.cast_mut().cast(), self.bytes) };
    }
}

impl Tables {
    pub(super) fn map(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            v4: Table::map(ebpf, "FLOWS4", limits::FLOWS4, AF_INET)?,
            v6: Table::map(ebpf, "FLOWS6", limits::FLOWS6, AF_INET6)?,
            drawn: maps::take(ebpf, "FLOWS_DRAWN")?,
        })
    }

    /// How many records were ever in use: all others are still blank.
    fn drawn(&self, family: u32) -> Result<u64, Error> {
        self.drawn.get(&family, 0).map_err(|source| Error::Map { name: "FLOWS_DRAWN", source })
    }

    pub(super) fn end_expired(&self, programs: &Programs) -> Result<u32, Error> {
        self.end_of(programs, Sweep::ANY)
    }

    /// Ends all flows of an endpoint.
    pub(super) fn end_of(&self, programs: &Programs, endpoint: u32) -> Result<u32, Error> {
        let v4 = self.v4.sweep(programs, self.drawn(0)?, endpoint)?;
        Ok(v4 + self.v6.sweep(programs, self.drawn(1)?, endpoint)?)
    }

    /// Ends flows that came to a port which does not lead to their end any more.
    pub(super) fn end_unpublished(&self, programs: &Programs) -> Result<u32, Error> {
        self.end_of(programs, Sweep::UNPUBLISHED)
    }

    /// How many flows are live, per family.
    pub(super) fn count(&self) -> Result<(u64, u64), Error> {
        let v4 = self.v4.live(self.drawn(0)?).count();
        let v6 = self.v6.live(self.drawn(1)?).count();
        Ok((v4 as u64, v6 as u64))
    }

    pub(super) fn list(&self, programs: &Programs, hz: u32) -> Result<Vec<FlowView>, Error> {
        let now = clock::now(programs)?;
        let mut flows: Vec<_> = self.v4.live(self.drawn(0)?).map(|flow| view(&flow, now, hz)).collect();
        flows.extend(self.v6.live(self.drawn(1)?).map(|flow| view(&flow, now, hz)));
        Ok(flows)
    }
}

fn view<A: Address>(flow: &Flow<A>, now: u64, hz: u32) -> FlowView {
    let socket = |address: A, port: netd_common::addr::Be16| SocketAddr::new(ip(address), port.get());
    let accepted = flow.flags & ACCEPTED != 0;
    let seconds = |jiffies: u64| Duration::from_millis(jiffies * 1000 / u64::from(hz.max(1)));
    FlowView {
        protocol: flow.protocol,
        local: socket(flow.local, flow.local_port),
        remote: socket(flow.remote, flow.remote_port),
        external: socket(flow.external, flow.external_port),
        state: flow.clock.state().name(accepted),
        accepted,
        endpoint: (flow.endpoint != HOST).then_some(flow.endpoint),
        age: seconds(now.saturating_sub(flow.created)),
        idle: seconds(flow.clock.age(now)),
        outbound: flow.outbound,
        inbound: flow.inbound,
        uplink: flow.next_hop.uplink,
    }
}

fn ip<A: Address>(address: A) -> IpAddr {
    let words = address.words();
    if size_of::<A>() == size_of::<Ipv4>() {
        IpAddr::V4(Ipv4(words[0]).into())
    } else {
        IpAddr::V6(Ipv6(words).into())
    }
}
