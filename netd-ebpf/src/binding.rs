//! Endpoint-independent mapping: see [`netd_common::binding`]. What comes to a binding unasked is the business of [`crate::filtering`].

use netd_common::{
    addr::{Address, Be16},
    binding::taking,
    conntrack::{Clock, State},
    drop::DropReason,
    nat::{BINDING, BOUND, CHOSEN, Flow, OUTSIDE, SEEN_BOUND, UNFILTERED},
    tuple::{ANY_REMOTE, INBOUND, OUTBOUND, Tuple},
};

use crate::{
    atomic::Word,
    conntrack::{self, Found},
    expiry,
    family::{Family, V4, V6},
    fib, flow_table, mapping,
    open::{Open, Opened, or_drop},
    packet::Packet,
    port_usage,
};

/// Times a lost race is run again before others are trusted to have written the time.
const RETRIES: u32 = 4;

/// The subprograms of this file, by family: global functions, see [`Open`].
pub trait Bind: Open {
    /// Gives a flow the port of the binding of its own end, and takes hold of that. The flow's index, or [`UNBOUND`].
    fn join(index: u32) -> i64;
    /// A record for the binding of a flow's own end, without its port. Its index, or no flow.
    fn draw_binding(index: u32) -> i64;
    /// A flow that was admitted is not to be.
    fn forgo(index: u32) -> i64;
    /// A flow that is not live yet is on its own, without the binding.
    fn leave(index: u32) -> i64;
}

impl Bind for V4 {
    #[inline(always)]
    fn join(index: u32) -> i64 {
        join4(index)
    }
    #[inline(always)]
    fn draw_binding(index: u32) -> i64 {
        draw_binding4(index)
    }
    #[inline(always)]
    fn forgo(index: u32) -> i64 {
        forgo4(index)
    }
    #[inline(always)]
    fn leave(index: u32) -> i64 {
        leave_binding4(index)
    }
}

impl Bind for V6 {
    #[inline(always)]
    fn join(index: u32) -> i64 {
        join6(index)
    }
    #[inline(always)]
    fn draw_binding(index: u32) -> i64 {
        draw_binding6(index)
    }
    #[inline(always)]
    fn forgo(index: u32) -> i64 {
        forgo6(index)
    }
    #[inline(always)]
    fn leave(index: u32) -> i64 {
        leave_binding6(index)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn join4(index: u32) -> i64 {
    join::<V4>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn join6(index: u32) -> i64 {
    join::<V6>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn draw_binding4(index: u32) -> i64 {
    or_drop(draw::<V4>(index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn draw_binding6(index: u32) -> i64 {
    or_drop(draw::<V6>(index))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forgo4(index: u32) -> i64 {
    forgo::<V4>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_binding4(index: u32) -> i64 {
    leave_one::<V4>(index);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forgo6(index: u32) -> i64 {
    forgo::<V6>(index)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_binding6(index: u32) -> i64 {
    leave_one::<V6>(index);
    0
}

/// There is no binding yet.
const UNBOUND: i64 = i64::MIN;

/// Gives an admitted flow the port of its end's binding, which is made if there is none. The flow's index, or no flow.
///
/// Whoever makes a binding at the same time on another CPU has it in the table before the end of this one's `go_live`.
#[inline(always)]
pub fn bind<F: Bind>(packet: &Packet, index: u32) -> i64 {
    let mut bound = F::join(index);
    if bound != UNBOUND {
        return bound;
    }
    bound = F::draw_binding(index);
    if bound >= 0 {
        bound = mapping::take::<F>(packet, bound as u32);
    }
    if bound >= 0 {
        bound = F::go_live(bound as u32);
    }
    if bound >= 0 {
        bound = F::join(index);
    }
    if bound == UNBOUND {
        bound = Opened::Drop(DropReason::PortsExhausted).encode();
    }
    if bound < 0 {
        F::forgo(index);
    }
    bound
}

/// Which end of a flow is bound that is not live yet: the container's; or the remote's, where that is one of this host's.
struct BoundEnd<A> {
    address: A,
    port: Be16,
    external: A,
    endpoint: u32,
}

impl<A: Address> BoundEnd<A> {
    #[inline(always)]
    fn of(flow: &Flow<A>) -> Self {
        if flow.flags & SEEN_BOUND != 0 {
            Self { address: flow.remote, port: flow.remote_port, external: flow.seen, endpoint: flow.peer }
        } else {
            Self {
                address: flow.local,
                port: flow.local_port,
                external: flow.external,
                endpoint: flow.endpoint,
            }
        }
    }
}

#[inline(always)]
fn join<F: Family>(index: u32) -> i64 {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return UNBOUND };
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    let flow = unsafe { &mut *flow };
    let end = BoundEnd::of(flow);
    let key = Tuple {
        source: end.address,
        destination: end.external,
        source_port: end.port,
        destination_port: Be16(0),
        protocol: flow.protocol,
        direction: OUTBOUND | ANY_REMOTE,
        pad: [0; 2],
    };
    let Some(found) = conntrack::find::<F>(&key) else { return UNBOUND };
    // SAFETY: the flow points into an array map.
    let (endpoint, port) = unsafe { ((*found.flow).endpoint, (*found.flow).external_port) };
    if endpoint != end.endpoint {
        // Of who had the address before, and has left it this moment.
        expiry::end::<F>(found.index, conntrack::clock(found.flow));
        return UNBOUND;
    }
    // Who comes to a container's port holds nothing before he is answered.
    let is_seen = flow.flags & SEEN_BOUND != 0;
    if !(if is_seen { set_time::<F>(found.flow) } else { hold::<F>(&found) }) {
        return UNBOUND;
    }
    if is_seen {
        flow.seen_port = port;
    } else {
        flow.external_port = port;
        flow.holds = 1;
    }
    Opened::Flow(index).encode()
}

/// The time first, see [`netd_common::binding::is_over`]. `false` if the binding has been ended.
#[inline(always)]
pub fn hold<F: Family>(found: &Found<F::Address>) -> bool {
    if !set_time::<F>(found.flow) {
        return false;
    }
    holds::<F>(found.flow).add(1);
    true
}

/// A flow that held the binding has ended, and the binding's own time begins.
#[inline(always)]
pub fn release<F: Family>(found: &Found<F::Address>) {
    set_time::<F>(found.flow);
    let holds = holds::<F>(found.flow);
    if holds.load() > 0 {
        holds.add(u64::MAX);
    }
}

#[inline(always)]
fn set_time<F: Family>(binding: *mut Flow<F::Address>) -> bool {
    let clock = conntrack::clock_word(binding);
    let next = Clock::new(State::BOUND, conntrack::now());
    for _ in 0..RETRIES {
        let seen = Clock(clock.load());
        if seen.state() != State::BOUND {
            return false;
        }
        if seen == next || clock.exchange(seen.0, next.0) {
            break;
        }
    }
    true
}

#[inline(always)]
pub fn holds<F: Family>(record: *mut Flow<F::Address>) -> Word {
    // SAFETY: `record` points into an array map; the word is 8-byte aligned.
    unsafe { Word::new(&raw mut (*record).holds) }
}

/// The binding that has this external port. `key` is any, to be written to: the programs' stack is short.
#[inline(always)]
pub fn at<F: Family>(
    address: F::Address,
    protocol: u8,
    port: Be16,
    key: &mut Tuple<F::Address>,
) -> Option<Found<F::Address>> {
    key.source = address;
    key.source_port = Be16(0);
    key.destination = address;
    key.destination_port = port;
    key.protocol = protocol;
    key.direction = INBOUND | ANY_REMOTE;
    // What it leads to is compared.
    let index = F::flow_of(key)?;
    let found = conntrack::at::<F>(index)?;
    // SAFETY: the flow points into an array map.
    let binding = unsafe { &*found.flow };
    let same = binding.flags & BINDING != 0
        && binding.external == address
        && binding.external_port == port
        && binding.protocol == protocol;
    if same { Some(found) } else { None }
}

/// The binding that a flow's external port is of.
#[inline(always)]
pub fn of<F: Family>(flow: &Flow<F::Address>, key: &mut Tuple<F::Address>) -> Option<Found<F::Address>> {
    at::<F>(flow.external, flow.protocol, flow.external_port, key)
}

/// The binding that the port is of by which its container knows a flow's remote.
#[inline(always)]
pub fn of_seen<F: Family>(flow: &Flow<F::Address>, key: &mut Tuple<F::Address>) -> Option<Found<F::Address>> {
    if flow.flags & SEEN_BOUND == 0 { None } else { at::<F>(flow.seen, flow.protocol, flow.seen_port, key) }
}

/// Lets go of what a record that is being ended had: its external port, or its hold on the binding that has it. `key` as in [`at`].
#[inline(always)]
pub fn let_go<F: Family>(flow: &Flow<F::Address>, mut key: Tuple<F::Address>) {
    if flow.flags & BOUND == 0 {
        let taking = taking(flow.flags, flow.endpoint);
        port_usage::Ports::of::<F>(flow.external, flow.protocol).give_back::<F>(flow.external_port, taking);
    } else if flow.holds != 0 {
        release_all::<F>(flow, &mut key);
    }
}

#[inline(always)]
fn release_all<F: Family>(flow: &Flow<F::Address>, key: &mut Tuple<F::Address>) {
    if let Some(found) = of::<F>(flow, key) {
        release::<F>(&found);
    }
    if let Some(found) = of_seen::<F>(flow, key) {
        release::<F>(&found);
    }
}

#[inline(always)]
fn draw<F: Family>(index: u32) -> Result<i64, DropReason> {
    let globals = fib::globals().ok_or(DropReason::FlowTableFull)?;
    let flow = F::flows().get_ptr_mut(index).ok_or(DropReason::FlowTableFull)?;
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    let flow = unsafe { &*flow };
    let end = BoundEnd::of(flow);
    let drawn = flow_table::draw::<F>(end.endpoint, globals)?;
    let binding = flow_table::blank::<F>(drawn)?;
    // SAFETY: as above.
    unsafe {
        (*binding).next_hop = flow.next_hop;
        (*binding).local = end.address;
        (*binding).remote = end.external;
        (*binding).external = end.external;
        (*binding).seen = end.external;
        (*binding).local_port = end.port;
        (*binding).remote_port = Be16(0);
        (*binding).seen_port = Be16(0);
        (*binding).protocol = flow.protocol;
        (*binding).endpoint = end.endpoint;
        (*binding).peer = OUTSIDE;
        (*binding).flags = BINDING | flow.flags & CHOSEN;
    }
    Ok(i64::from(drawn))
}

#[inline(always)]
fn forgo<F: Family>(index: u32) -> i64 {
    leave_one::<F>(index);
    if let Some(flow) = F::flows().get_ptr_mut(index) {
        // SAFETY: a drawn record is nobody else's until its keys are in the table.
        flow_table::give_back::<F>(index, unsafe { (*flow).endpoint });
    }
    0
}

#[inline(always)]
fn leave_one<F: Family>(index: u32) {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return };
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    let flow = unsafe { &mut *flow };
    if flow.holds != 0 && flow.flags & BOUND != 0 {
        release_all::<F>(flow, &mut Tuple::default());
    }
    flow.holds = 0;
    flow.flags &= !(BOUND | UNFILTERED);
}
