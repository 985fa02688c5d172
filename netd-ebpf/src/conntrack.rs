//! The flow table: finding, refreshing, making and ending flows.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    cty::c_void,
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_loop},
};
use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    binding::{is_expired, is_over as is_over_by},
    bridge::{INDEPENDENT_FILTERING, INDEPENDENT_MAPPING},
    conntrack::{Clock, Silence, State},
    drop::DropReason,
    event::Sweep,
    globals::Globals,
    limits,
    nat::{self, ACCEPTED, BINDING, BOUND, Flow, HOST, OPEN, UNFILTERED},
    stats::{Path, Traffic},
    tuple::{INBOUND, Tuple},
};

use crate::{
    atomic::Word,
    binding, external,
    family::{Family, V4, V6},
    maps::{ENDPOINT_FLOWS, ENDPOINTS, FLOWS_DRAWN, GLOBALS, NETWORKS},
    publish, stats,
};

/// Times a lost race is run again before the packet is let go without a refresh: others have just refreshed the flow.
const RETRIES: u32 = 4;

/// A flow in the table. A pointer and no reference: other CPUs write to it.
pub struct Found<A: Address> {
    pub index: u32,
    pub flow: *mut Flow<A>,
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
pub fn clock_word<A: Address>(flow: *mut Flow<A>) -> Word {
    // SAFETY: `flow` points into an array map, which lives as long as the program; the word is 8-byte aligned.
    unsafe { Word::new((&raw mut (*flow).clock).cast()) }
}

#[inline(always)]
pub fn clock<A: Address>(flow: *mut Flow<A>) -> Clock {
    Clock(clock_word(flow).load())
}

/// The live flow at `index`.
#[inline(always)]
pub fn at<F: Family>(index: u32) -> Option<Found<F::Address>> {
    let flow = F::flows().get_ptr_mut(index)?;
    if clock(flow).state() == State::DEAD { None } else { Some(Found { index, flow }) }
}

/// The live flow that a packet with this tuple belongs to, or the binding that its inner key is of.
#[inline(always)]
pub fn find<F: Family>(key: &Tuple<F::Address>) -> Option<Found<F::Address>> {
    // Its slot may meanwhile serve another key: hence the comparison below.
    let index = F::flow_of(key)?;
    let found = at::<F>(index)?;
    // SAFETY: as in `clock_word`.
    let flow = unsafe { &*found.flow };
    let (source, source_port, destination, destination_port) = if key.direction & INBOUND == 0 {
        (flow.local, flow.local_port, flow.seen, flow.seen_port)
    } else {
        (flow.remote, flow.remote_port, flow.external, flow.external_port)
    };
    let same = key.source == source
        && key.destination == destination
        && key.source_port == source_port
        && key.destination_port == destination_port;
    if same { Some(found) } else { None }
}

/// Before a packet of the flow refreshes it.
#[inline(always)]
pub fn silence<A: Address>(flow: *mut Flow<A>, globals: &Globals) -> Silence {
    // SAFETY: as in `clock_word`.
    let (heard, created) = unsafe { ((*flow).inbound.packets, (*flow).created) };
    if heard != 0 {
        return Silence::Short;
    }
    clock(flow).silence(created, now(), globals.hz)
}

/// The flow begins anew.
#[inline(always)]
pub fn begin_anew<A: Address>(flow: *mut Flow<A>) {
    // SAFETY: as in `clock_word`; other CPUs may write the same.
    unsafe { (*flow).created = now() };
}

/// A packet of the flow passes: its state and time. `false` if the flow has been ended since it was found, so that the packet
/// must not go by it: its port may be another's already.
#[inline(always)]
pub fn refresh<F: Family>(flow: *mut Flow<F::Address>, direction: u8, tcp: u8, globals: &Globals) -> bool {
    let word = clock_word(flow);
    let seen = Clock(word.load());
    if seen.state() == State::DEAD {
        return false;
    }
    if seen.state().is_steady(tcp) {
        let Some(next) = seen.after(seen.state(), now(), globals.hz) else { return true };
        // SAFETY: as in `clock_word`.
        if direction == INBOUND && unsafe { (*flow).flags } & UNFILTERED != 0 || word.exchange(seen.0, next.0)
        {
            return true;
        }
    }
    F::advance(flow, direction, tcp) != 0
}

// Packets that may change a state, or have lost a race, by a global function: the verifier walks their many ways once and not in
// each program's every place.

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advance4(flow: *mut Flow<Ipv4>, direction: u32, tcp: u32) -> i64 {
    i64::from(advance::<V4>(flow, direction as u8, tcp as u8))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advance6(flow: *mut Flow<Ipv6>, direction: u32, tcp: u32) -> i64 {
    i64::from(advance::<V6>(flow, direction as u8, tcp as u8))
}

/// [`State::after`], for its ways take registers, and those a stack that is short.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn state_after(state: u32, flow_flags: u32, direction: u32, tcp: u32) -> i64 {
    i64::from(State(state as u8).after(nat::side(flow_flags as u16, direction as u8), tcp as u8).0)
}

#[inline(always)]
fn advance<F: Family>(flow: *mut Flow<F::Address>, direction: u8, tcp: u8) -> bool {
    let Some(globals) = GLOBALS.get(0) else { return true };
    if flow.is_null() {
        return false;
    }
    let word = clock_word(flow);
    let now = now();
    // SAFETY: as in `clock_word`.
    let flags = unsafe { (*flow).flags };
    for _ in 0..RETRIES {
        let seen = Clock(word.load());
        if seen.state() == State::DEAD {
            return false;
        }
        let before = seen.state().0;
        let state = State(state_after(before.into(), flags.into(), direction.into(), tcp.into()) as u8);
        let Some(next) = seen.after(state, now, globals.hz) else { return true };
        if direction == INBOUND && flags & UNFILTERED != 0 && state == seen.state() {
            return true;
        }
        if word.exchange(seen.0, next.0) {
            return true;
        }
    }
    true
}

/// Counts a packet of the flow.
#[inline(always)]
pub fn tally<A: Address>(flow: *mut Flow<A>, direction: u8, bytes: u32) {
    // SAFETY: as in `clock_word`.
    let traffic =
        unsafe { if direction == INBOUND { &raw mut (*flow).inbound } else { &raw mut (*flow).outbound } };
    count(traffic, bytes);
}

#[inline(always)]
fn count(traffic: *mut Traffic, bytes: u32) {
    // SAFETY: both words are within a map value and 8-byte aligned.
    unsafe {
        Word::new(&raw mut (*traffic).packets).add(1);
        Word::new(&raw mut (*traffic).bytes).add(u64::from(bytes));
    }
}

/// Live flows of an endpoint.
#[inline(always)]
fn held<F: Family>(endpoint: u32) -> Option<Word> {
    if endpoint == HOST {
        return None;
    }
    let count = ENDPOINT_FLOWS.get_ptr_mut(endpoint.wrapping_mul(2).wrapping_add(F::INDEX))?;
    // SAFETY: a aligned word of an array map.
    Some(unsafe { Word::new(count) })
}

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
    if !clock_word(flow).exchange(seen, Clock::default().0) {
        return false;
    }
    // SAFETY: as in `clock_word`; whoever won the exchange alone may take the record apart.
    let flow = unsafe { &*flow };
    // One key at a time in one place: the frame is at the end of long call chains.
    let mut key = flow.outbound_key();
    let _ = F::flow_keys().remove(&key);
    key = flow.inbound_key();
    let _ = F::flow_keys().remove(&key);
    if let Some(held) = held::<F>(flow.endpoint) {
        held.add(u64::MAX);
    }
    let path = if flow.flags & BINDING != 0 { Path::BindingEnded } else { Path::FlowEnded };
    binding::let_go::<F>(flow, key);
    let _ = F::free_flows().push(index, 0);
    stats::took(path);
    true
}

/// Whether another may take the record's place.
#[inline(always)]
pub fn is_over<A: Address>(flow: *mut Flow<A>, seen: Clock, globals: &Globals) -> bool {
    // SAFETY: as in `clock_word`.
    let (protocol, holds) = unsafe { ((*flow).protocol, (*flow).holds) };
    is_over_by(seen, protocol, holds, now(), globals.hz)
}

/// Ends a flow whose time is up, or that both sides have closed.
#[inline(always)]
pub fn end_if_over<F: Family>(index: u32, globals: &Globals) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = clock(flow);
    seen.state() != State::DEAD && is_over(flow, seen, globals) && end::<F>(index, seen)
}

/// Ends a flow whose time is up.
#[inline(always)]
pub fn end_if_expired<F: Family>(index: u32, globals: &Globals) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = clock(flow);
    // SAFETY: as in `clock_word`.
    let (protocol, holds) = unsafe { ((*flow).protocol, (*flow).holds) };
    seen.state() != State::DEAD
        && is_expired(seen, protocol, holds, now(), globals.hz)
        && end::<F>(index, seen)
}

/// Ends a flow of this endpoint, or to it, whatever its state.
#[inline(always)]
pub fn end_of<F: Family>(index: u32, endpoint: u32) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = clock(flow);
    // SAFETY: as in `clock_word`.
    let of_endpoint = unsafe { (*flow).endpoint == endpoint || (*flow).peer == endpoint };
    seen.state() != State::DEAD && of_endpoint && end::<F>(index, seen)
}

/// Ends a binding whose network has no endpoint-independent mapping any more, or a flow that the network's would not let begin now.
#[inline(always)]
pub fn end_if_unbound<F: Family>(index: u32) -> bool {
    let Some(flow) = F::flows().get_ptr_mut(index) else { return false };
    let seen = clock(flow);
    // SAFETY: as in `clock_word`.
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
    let seen = clock(flow);
    // SAFETY: as in `clock_word`.
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

/// A free record's index, charged to the endpoint.
#[inline(always)]
pub fn draw<F: Family>(endpoint: u32, globals: &Globals) -> Result<u32, DropReason> {
    if let Some(held) = held::<F>(endpoint)
        && held.load() >= u64::from(globals.flows_per_endpoint)
    {
        return Err(DropReason::EndpointQuota);
    }
    let index = free_index::<F>().ok_or(DropReason::FlowTableFull)?;
    if let Some(held) = held::<F>(endpoint) {
        held.add(1);
    }
    Ok(index)
}

#[inline(always)]
fn free_index<F: Family>() -> Option<u32> {
    if let Ok(Some(index)) = F::free_flows().pop() {
        return Some(index);
    }
    let drawn = FLOWS_DRAWN.get_ptr_mut(F::INDEX)?;
    // SAFETY: a aligned word of an array map.
    let drawn = unsafe { Word::new(drawn) };
    if drawn.load() >= u64::from(F::FLOWS) {
        return None;
    }
    // The load keeps the count from running away, not from overshooting: CPUs may pass it together.
    let index = drawn.fetch_add(1);
    if index < u64::from(F::FLOWS) { Some(index as u32) } else { None }
}

/// A drawn record without a past.
#[inline(always)]
pub fn blank<F: Family>(index: u32) -> Result<*mut Flow<F::Address>, DropReason> {
    let flow = F::flows().get_ptr_mut(index).ok_or(DropReason::FlowTableFull)?;
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).created = now();
        (*flow).outbound = Default::default();
        (*flow).inbound = Default::default();
        (*flow).index = index;
        (*flow).holds = 0;
    }
    Ok(flow)
}

/// Gives a drawn index back.
#[inline(always)]
pub fn give_back<F: Family>(index: u32, endpoint: u32) {
    if let Some(held) = held::<F>(endpoint) {
        held.add(u64::MAX);
    }
    let _ = F::free_flows().push(index, 0);
}

/// Ends a flow whose opener's key could not be inserted.
#[inline(always)]
pub fn end_unkeyed<F: Family>(index: u32, flow: *mut Flow<F::Address>) {
    // SAFETY: as in `clock_word`; only the answer's key leads here yet, and ends nothing.
    let (answer, endpoint) = unsafe { ((*flow).answer_key(), (*flow).endpoint) };
    clock_word(flow).store(Clock::default().0);
    let _ = F::flow_keys().remove(&answer);
    // SAFETY: as above.
    binding::let_go::<F>(unsafe { &*flow }, answer);
    give_back::<F>(index, endpoint);
}

/// Takes the answer's tuple for `index`: the lock that makes a port belong to one flow.
#[inline(always)]
pub fn claim<F: Family>(key: &Tuple<F::Address>, index: u32) -> bool {
    F::flow_keys().insert(key, index, u64::from(BPF_NOEXIST)).is_ok()
}

/// Sets the clock going: from here on the flow is live.
#[inline(always)]
pub fn start<A: Address>(flow: *mut Flow<A>) {
    // SAFETY: as in `clock_word`.
    let (protocol, flags) = unsafe { ((*flow).protocol, (*flow).flags) };
    let state =
        if flags & BINDING != 0 { State::BOUND } else { State::first(protocol, flags & ACCEPTED != 0) };
    clock_word(flow).store(Clock::new(state, now()).0);
}

/// A search for records that are over.
struct Room<'a> {
    endpoint: u32,
    globals: &'a Globals,
    ended: bool,
}

/// Makes room: looks at random records, and ends those that are over; only those of `endpoint`, unless it is [`Sweep::ANY`].
#[inline(always)]
fn make_room<F: Family>(endpoint: u32) -> i64 {
    let Some(globals) = GLOBALS.get(0) else { return 0 };
    let mut room = Room { endpoint, globals, ended: false };
    repeat(limits::PORT_DRAWS, &mut room, end_some::<F>);
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
    // SAFETY: as in `clock_word`.
    if room.endpoint == Sweep::ANY || room.endpoint == unsafe { (*flow).endpoint } {
        room.ended |= end_if_over::<F>(index, room.globals);
    }
    0
}

/// Calls `body` with `0..count` and `context` until it returns 1. A loop that the verifier walks once, not `count` times.
#[inline(always)]
pub fn repeat<C>(count: u32, context: &mut C, body: extern "C" fn(u64, *mut C) -> i64) {
    // SAFETY: the helper calls `body` with what it is given here, and the context outlives the call.
    unsafe { bpf_loop(count, body as *mut c_void, (&raw mut *context).cast(), 0) };
}
