//! Ending flows: whose time is up, which nobody may have any more, and to make room.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use netd_common::{
    addr::Address,
    binding::{is_expired, is_over as is_over_by},
    bridge::{INDEPENDENT_FILTERING, INDEPENDENT_MAPPING},
    conntrack::{Clock, State},
    event::Sweep,
    globals::Globals,
    limits,
    nat::{ACCEPTED, BINDING, BOUND, Flow, OPEN},
    stats::Path,
};

use crate::{
    binding, conntrack, endpoint, external,
    family::{Family, V4, V6},
    flow_table, loops,
    maps::{ENDPOINTS, GLOBALS, NETWORKS},
    publish, stats,
};

/// Ends a flow, if it still is as it was `seen`.
#[inline(always)]
pub fn end<F: Family>(index: u32, seen: Clock) -> bool {
    F::end(index, seen.0) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end4(index: u32, seen: u64) -> i64 {
    i64::from(take_apart::<V4>(index, seen))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end6(index: u32, seen: u64) -> i64 {
    i64::from(take_apart::<V6>(index, seen))
}

#[inline(always)]
fn take_apart<F: Family>(index: u32, seen: u64) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    if !conntrack::clock_word(flow).exchange(seen, Clock::default().0) {
        return false;
    }
    // SAFETY: as in `conntrack::clock_word`; whoever won the exchange alone may take the record apart.
    let flow = unsafe { &*flow };
    // One key at a time in one place: the frame is at the end of long call chains.
    let mut key = flow.outbound_key();
    let _ = F::flow_keys().remove(&key);
    key = flow.inbound_key();
    let _ = F::flow_keys().remove(&key);
    let path = if flow.flags & BINDING != 0 { Path::BindingEnded } else { Path::FlowEnded };
    binding::let_go::<F>(flow, key);
    flow_table::give_back::<F>(index, flow.endpoint);
    stats::took(path);
    true
}

/// Ends a flow whose opener's key could not be inserted.
#[inline(always)]
pub fn end_unkeyed<F: Family>(index: u32, flow: *mut Flow<F::Address>) {
    // SAFETY: as in `conntrack::clock_word`; only the answer's key leads here yet, and ends nothing.
    let (answer, endpoint) = unsafe { ((*flow).answer_key(), (*flow).endpoint) };
    conntrack::clock_word(flow).store(Clock::default().0);
    let _ = F::flow_keys().remove(&answer);
    // SAFETY: as above.
    binding::let_go::<F>(unsafe { &*flow }, answer);
    flow_table::give_back::<F>(index, endpoint);
}

/// Whether another may take the record's place.
#[inline(always)]
pub fn is_over<A: Address>(flow: *mut Flow<A>, seen: Clock, globals: &Globals) -> bool {
    // SAFETY: as in `conntrack::clock_word`.
    let (protocol, holds) = unsafe { ((*flow).protocol, (*flow).holds) };
    is_over_by(seen, protocol, holds, conntrack::now(), globals.hz)
}

/// Ends a flow whose time is up, or that both sides have closed.
#[inline(always)]
pub fn end_if_over<F: Family>(index: u32, globals: &Globals) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = conntrack::clock(flow);
    seen.state() != State::DEAD && is_over(flow, seen, globals) && end::<F>(index, seen)
}

/// Ends a flow whose time is up.
#[inline(always)]
pub fn end_if_expired<F: Family>(index: u32, globals: &Globals) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = conntrack::clock(flow);
    // SAFETY: as in `conntrack::clock_word`.
    let (protocol, holds) = unsafe { ((*flow).protocol, (*flow).holds) };
    seen.state() != State::DEAD
        && is_expired(seen, protocol, holds, conntrack::now(), globals.hz)
        && end::<F>(index, seen)
}

/// Ends a flow of this endpoint, or to it, whatever its state.
#[inline(always)]
pub fn end_of<F: Family>(index: u32, endpoint: u32) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = conntrack::clock(flow);
    // SAFETY: as in `conntrack::clock_word`.
    let of_endpoint = unsafe { (*flow).endpoint == endpoint || (*flow).peer == endpoint };
    seen.state() != State::DEAD && of_endpoint && end::<F>(index, seen)
}

/// Ends a binding whose network has no endpoint-independent mapping any more, or a flow that the network's would not let begin now.
#[inline(always)]
pub fn end_if_unbound<F: Family>(index: u32) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = conntrack::clock(flow);
    // SAFETY: as in `conntrack::clock_word`.
    let (flags, endpoint) = unsafe { ((*flow).flags, (*flow).endpoint) };
    if seen.state() == State::DEAD || flags & (BINDING | BOUND) == 0 {
        return false;
    }
    let network = ENDPOINTS.get(endpoint).and_then(|endpoint| NETWORKS.get(endpoint.network));
    // Who came unasked needs both.
    let needed =
        if flags & ACCEPTED == 0 { INDEPENDENT_MAPPING } else { INDEPENDENT_MAPPING | INDEPENDENT_FILTERING };
    let has_all = network.is_some_and(|network| network.flags & needed == needed);
    !has_all && end::<F>(index, seen)
}

/// Ends a flow that came to a port which does not lead to its end any more, or whose external address is a container's own by now.
#[inline(always)]
pub fn end_if_unpublished<F: Family>(index: u32) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = conntrack::clock(flow);
    // SAFETY: as in `conntrack::clock_word`.
    let flow = unsafe { &*flow };
    if seen.state() == State::DEAD {
        return false;
    }
    // The host may keep an address within an external prefix.
    if external::is_external::<F>(flow.external) && !F::is_local(flow.external) {
        return end::<F>(index, seen);
    }
    if flow.flags & (ACCEPTED | OPEN | BOUND) != ACCEPTED {
        return false;
    }
    let publication = publish::find::<F>(flow.external, flow.protocol, flow.external_port);
    let leads_there = publication.is_some_and(|publication| {
        publication.endpoint == flow.endpoint
            && publication.container_port(flow.external_port) == flow.local_port
    });
    !leads_there && end::<F>(index, seen)
}

/// A search for records that are over.
struct Room<'a> {
    endpoint: u32,
    globals: &'a Globals,
    ended: bool,
}

/// Makes room: looks at random records, and ends those that are over; only those of the endpoint's container, unless it is
/// [`Sweep::ANY`].
#[inline(always)]
fn make_room<F: Family>(endpoint: u32) -> i64 {
    let Some(globals) = GLOBALS.get(0) else { return 0 };
    let mut room = Room { endpoint, globals, ended: false };
    loops::repeat(limits::PORT_DRAWS, &mut room, end_some::<F>);
    i64::from(room.ended)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_room4(endpoint: u32) -> i64 {
    make_room::<V4>(endpoint)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_room6(endpoint: u32) -> i64 {
    make_room::<V6>(endpoint)
}

extern "C" fn end_some<F: Family>(_: u64, room: *mut Room) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let room = unsafe { &mut *room };
    // SAFETY: a plain helper call.
    let random = unsafe { bpf_get_prandom_u32() };
    let index = ((u64::from(random) * u64::from(F::FLOWS)) >> 32) as u32;
    let Some(flow) = F::flows().get_ptr_mut(index) else { return 0 };
    // SAFETY: as in `conntrack::clock_word`.
    let slot = unsafe { (*flow).endpoint };
    if room.endpoint == Sweep::ANY || endpoint::is_of_one_container(room.endpoint, slot) {
        room.ended |= end_if_over::<F>(index, room.globals);
    }
    0
}
