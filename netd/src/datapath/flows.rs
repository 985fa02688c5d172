//! The flow tables, read where the kernel keeps them: the records are memory-mapped, and no system call is made for each.

use std::{
    io,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
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
    nat::{ACCEPTED, BINDING, Flow, HOST},
    stats::Traffic,
};

use super::{Error, at, clock, object, programs::Programs};

/// A live flow, or a binding.
#[derive(Clone, Debug)]
pub struct FlowView {
    /// IANA protocol number.
    pub protocol: u8,
    /// The container's address and port; for ICMP echo the identifier.
    pub local: SocketAddr,
    /// The remote's address and port; 0 for ICMP echo. `None` for a binding, which serves any.
    pub remote: Option<SocketAddr>,
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

/// How many records of a family are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Flows.
    pub flows: u64,
    /// Bindings.
    pub bindings: u64,
}

/// One flow table.
struct Table<A: Address> {
    map: OwnedFd,
    capacity: u32,
    family: u32,
    address: PhantomData<A>,
}

/// The records of a flow table that were ever in use, mapped for as long as they are read: pages that are mapped count as the
/// daemon's own memory.
struct Records<A: Address> {
    at: *const u8,
    count: usize,
    address: PhantomData<A>,
}

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
    fn of(ebpf: &Ebpf, name: &'static str, capacity: u32, family: u32) -> Result<Self, Error> {
        let Some(Map::Array(data)) = ebpf.map(name) else { return Err(Error::NoMap(name)) };
        let map = data.fd().as_fd().try_clone_to_owned().map_err(at(name.as_ref()))?;
        Ok(Self { map, capacity, family, address: PhantomData })
    }

    /// The live records among the first `drawn`.
    fn live(&self, drawn: u64) -> Result<Vec<Flow<A>>, Error> {
        let records = Records::map(&self.map, u64::from(self.capacity).min(drawn) as usize)?;
        let all = (0..records.count).map(|index| records.get(index));
        Ok(all.filter(|flow| flow.clock.state() != State::DEAD).collect())
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

impl<A: Address> Records<A> {
    /// Array values stand 8-byte aligned behind each other.
    const STRIDE: usize = size_of::<Flow<A>>().next_multiple_of(8);

    fn map(map: &OwnedFd, count: usize) -> Result<Self, Error> {
        if count == 0 {
            return Ok(Self { at: ptr::null(), count, address: PhantomData });
        }
        // SAFETY: a fresh shared mapping of a map that was made with BPF_F_MMAPABLE and has this many values at least.
        let records = unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(ptr::null_mut(), Self::STRIDE * count, read, shared, map.as_raw_fd(), 0)
        };
        if records == libc::MAP_FAILED {
            return Err(at("the flow table".as_ref())(io::Error::last_os_error()));
        }
        Ok(Self { at: records.cast(), count, address: PhantomData })
    }

    fn get(&self, index: usize) -> Flow<A> {
        assert!(index < self.count);
        // SAFETY: within the mapping, which is shared with the kernel; any bits are a flow.
        unsafe { self.at.add(Self::STRIDE * index).cast::<Flow<A>>().read_volatile() }
    }
}

impl<A: Address> Drop for Records<A> {
    fn drop(&mut self) {
        if self.count != 0 {
            // SAFETY: the mapping was made by `map` and nothing borrows from it.
            unsafe { libc::munmap(self.at.cast_mut().cast(), Self::STRIDE * self.count) };
        }
    }
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            v4: Table::of(ebpf, "FLOWS4", limits::FLOWS4, AF_INET)?,
            v6: Table::of(ebpf, "FLOWS6", limits::FLOWS6, AF_INET6)?,
            drawn: object::take(ebpf, "FLOWS_DRAWN")?,
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

    /// Ends bindings, and flows that came to them, where networks have no endpoint-independent mapping or filtering any more.
    pub(super) fn end_unbound(&self, programs: &Programs) -> Result<u32, Error> {
        self.end_of(programs, Sweep::UNBOUND)
    }

    /// How many records are in use, per family, IPv4 first.
    pub(super) fn count(&self) -> Result<[Count; 2], Error> {
        Ok([count(&self.v4.live(self.drawn(0)?)?), count(&self.v6.live(self.drawn(1)?)?)])
    }

    pub(super) fn list(&self, programs: &Programs, hz: u32) -> Result<Vec<FlowView>, Error> {
        let now = clock::now(programs)?;
        let mut flows: Vec<_> =
            self.v4.live(self.drawn(0)?)?.iter().map(|flow| view(flow, now, hz)).collect();
        flows.extend(self.v6.live(self.drawn(1)?)?.iter().map(|flow| view(flow, now, hz)));
        Ok(flows)
    }
}

fn count<A: Address>(live: &[Flow<A>]) -> Count {
    let bindings = live.iter().filter(|flow| flow.flags & BINDING != 0).count() as u64;
    Count { flows: live.len() as u64 - bindings, bindings }
}

fn view<A: Address>(flow: &Flow<A>, now: u64, hz: u32) -> FlowView {
    let socket = |address: A, port: netd_common::addr::Be16| SocketAddr::new(ip(address), port.get());
    let accepted = flow.flags & ACCEPTED != 0;
    let seconds = |jiffies: u64| Duration::from_millis(jiffies * 1000 / u64::from(hz.max(1)));
    FlowView {
        protocol: flow.protocol,
        local: socket(flow.local, flow.local_port),
        remote: (flow.flags & BINDING == 0).then(|| socket(flow.remote, flow.remote_port)),
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
