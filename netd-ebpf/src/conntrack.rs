//! The flow table: finding flows, and what each packet does to them.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_jiffies64};
use netd_common::{
    addr::{Address, Ipv4, Ipv6},
    conntrack::{Clock, Silence, State},
    globals::Globals,
    nat::{self, ACCEPTED, BINDING, Flow, UNFILTERED},
    stats::Traffic,
    tuple::{INBOUND, Tuple},
};

use crate::{
    atomic::Word,
    family::{Family, V4, V6},
    maps::GLOBALS,
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
