//! Fragments: the first one leaves a note, the later ones follow it. One that comes before the first is held (RFC 4787
//! REQ-14); when the first has come, all go the same way again, in order.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_NOEXIST},
    helpers::generated::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use netd_common::{
    addr::Address,
    drop::DropReason,
    frag::{BY_STACK, FragmentKey, HELD_BYTES, HELD_PARTS, HELD_SECONDS, Held, HeldKey},
    stats::Path,
    tuple::{INBOUND, OUTBOUND},
};
use network_types::eth::EthHdr;

use crate::{
    conntrack::{self, Found},
    family::{Family, V4, V6},
    fib, loops,
    maps::{HELD, HOLDING},
    packet::Packet,
    parse::Ip,
    redirect::REPLAYED,
    stats,
    verdict::{Outcome, Verdict},
};

#[inline(always)]
fn key<A: Copy>(ip: &Ip<A>, direction: u8) -> FragmentKey<A> {
    FragmentKey {
        source: ip.source,
        destination: ip.destination,
        identification: ip.fragment.identification,
        protocol: ip.protocol,
        direction,
        pad: [0; 2],
    }
}

/// The first fragment belongs to the flow at `index`: so will the others.
#[inline(always)]
pub fn note<F: Family>(ip: &Ip<F::Address>, direction: u8, index: u32) {
    let _ = F::fragments().insert(key(ip, direction), index, 0);
}

/// The flow of a later fragment. Its record may serve another by now: hence the comparison.
#[inline(always)]
pub fn find<F: Family>(ip: &Ip<F::Address>, direction: u8) -> Option<Found<F::Address>> {
    // SAFETY: the value is copied at once.
    let index = unsafe { F::fragments().get(key(ip, direction)) }.copied()?;
    let found = conntrack::at::<F>(index)?;
    // SAFETY: `found.flow` points into an array map.
    let flow = unsafe { &*found.flow };
    let same = if direction == OUTBOUND {
        flow.local == ip.source && flow.seen == ip.destination
    } else {
        flow.remote == ip.source && flow.external == ip.destination
    };
    if same && flow.protocol == ip.protocol { Some(found) } else { None }
}

#[inline(always)]
fn held_key<F: Family>(ip: &Ip<F::Address>, direction: u8) -> HeldKey {
    HeldKey {
        source: ip.source.words(),
        destination: ip.destination.words(),
        identification: ip.fragment.identification,
        protocol: ip.protocol,
        direction,
        part: 0,
        version: if F::AF == V4::AF { 4 } else { 6 },
    }
}

/// What became of a fragment that was to be held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Too large, or too many.
    Lost,
    Kept,
    /// The first has come meanwhile, and this one follows it by now.
    Replayed,
}

impl Hold {
    /// For a fragment that nobody gets but by its copy.
    #[inline(always)]
    pub fn outcome(self) -> Outcome {
        if self == Hold::Lost { Err(DropReason::Fragment) } else { Ok(Verdict::CONSUMED) }
    }
}

/// Keeps a copy of a later fragment that has no note to follow. `direction` as in [`HeldKey`].
#[inline(always)]
pub fn hold<F: Fragments>(packet: &Packet, direction: u8) -> Hold {
    match F::hold(packet, direction) {
        LOST => Hold::Lost,
        KEPT => Hold::Kept,
        _ => Hold::Replayed,
    }
}

/// The first fragment has left its note: sends it and those that wait for it on the same way again. `false` if none waits.
#[inline(always)]
pub fn replay<F: Fragments>(packet: &Packet, direction: u8) -> bool {
    F::replay(packet, direction) != 0
}

// One register back from a subprogram.
const LOST: i64 = 0;
const KEPT: i64 = 1;
const REPLAYED_WITH_IT: i64 = 2;

/// The subprograms of this file, by family: global functions, see [`crate::open::Open`].
pub trait Fragments: Family {
    fn hold(packet: &Packet, direction: u8) -> i64;
    fn replay(packet: &Packet, direction: u8) -> i64;
    /// Leaves the note of a first fragment from the outside that has begun the flow at `index`. 0 if it is a whole datagram.
    fn note_first(packet: &Packet, index: u32) -> i64;
}

impl Fragments for V4 {
    #[inline(always)]
    fn hold(packet: &Packet, direction: u8) -> i64 {
        hold4(packet.skb(), u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn replay(packet: &Packet, direction: u8) -> i64 {
        replay4(packet.skb(), u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn note_first(packet: &Packet, index: u32) -> i64 {
        note_first4(packet.skb(), index, packet.l3 as u32)
    }
}

impl Fragments for V6 {
    #[inline(always)]
    fn hold(packet: &Packet, direction: u8) -> i64 {
        hold6(packet.skb(), u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn replay(packet: &Packet, direction: u8) -> i64 {
        replay6(packet.skb(), u32::from(direction), packet.l3 as u32)
    }
    #[inline(always)]
    fn note_first(packet: &Packet, index: u32) -> i64 {
        note_first6(packet.skb(), index, packet.l3 as u32)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hold4(skb: *mut __sk_buff, direction: u32, l3: u32) -> i64 {
    hold_one::<V4>(skb, direction as u8, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hold6(skb: *mut __sk_buff, direction: u32, l3: u32) -> i64 {
    hold_one::<V6>(skb, direction as u8, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replay4(skb: *mut __sk_buff, direction: u32, l3: u32) -> i64 {
    replay_all::<V4>(skb, direction as u8, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replay6(skb: *mut __sk_buff, direction: u32, l3: u32) -> i64 {
    replay_all::<V6>(skb, direction as u8, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_first4(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    note_inbound::<V4>(skb, index, l3)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_first6(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    note_inbound::<V6>(skb, index, l3)
}

#[inline(always)]
fn note_inbound<F: Family>(skb: *mut __sk_buff, index: u32, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let Ok(ip) = F::parse(&Packet::with_l3(&context, l3)) else { return 0 };
    if ip.fragment.more {
        note::<F>(&ip, INBOUND, index);
    }
    i64::from(ip.fragment.more)
}

#[inline(always)]
fn hold_one<F: Family>(skb: *mut __sk_buff, direction: u8, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = Packet::with_l3(&context, l3);
    let Ok(ip) = F::parse(&packet) else { return LOST };
    let mut key = held_key::<F>(&ip, direction);
    if !keep(&packet, &mut key) {
        return LOST;
    }
    stats::took(Path::Held);
    // The first may have come on another CPU meanwhile, and not have seen this one. A container's may be an answer or not.
    let has_come =
        find::<F>(&ip, INBOUND).is_some() || direction != INBOUND && find::<F>(&ip, OUTBOUND).is_some();
    if has_come && send_held(&packet, &mut key, false) != 0 { REPLAYED_WITH_IT } else { KEPT }
}

#[inline(always)]
fn replay_all<F: Family>(skb: *mut __sk_buff, direction: u8, l3: u32) -> i64 {
    let context = TcContext::new(skb);
    let packet = Packet::with_l3(&context, l3);
    let Ok(ip) = F::parse(&packet) else { return 0 };
    send_held(&packet, &mut held_key::<F>(&ip, direction), true)
}

#[inline(always)]
fn is_fresh(held: &Held) -> bool {
    fib::globals().is_some_and(|globals| {
        conntrack::now().wrapping_sub(held.since) <= u64::from(HELD_SECONDS) * u64::from(globals.hz)
    })
}

/// The length as the verifier wants it, within bounds that the compiler cannot reason away; `None` if it is out of them.
#[inline(always)]
fn bounded(length: u64) -> Option<u32> {
    let least = EthHdr::LEN as u64;
    if length < least || length > HELD_BYTES as u64 {
        return None;
    }
    let mut more = length - least;
    // SAFETY: changes its operand alone, and by the condition above not even that.
    unsafe { asm!("{0} &= {mask}", inout(reg) more, mask = const HELD_BYTES - EthHdr::LEN) };
    Some((more + least) as u32)
}

/// Copies the packet into the first free place of its datagram, or one whose packet is too old.
#[inline(always)]
fn keep(packet: &Packet, key: &mut HeldKey) -> bool {
    let (Some(length), Some(holding)) = (bounded(u64::from(packet.len())), HOLDING.get_ptr_mut(0)) else {
        return false;
    };
    // SAFETY: this CPU's own value; the helper writes `length` bytes, which the frame has room for.
    unsafe {
        (*holding).since = conntrack::now();
        (*holding).length = u64::from(length);
        if bpf_skb_load_bytes(packet.skb().cast(), 0, (&raw mut (*holding).frame).cast(), length) != 0 {
            return false;
        }
    }
    let mut place = Place { key, holding, found: false };
    loops::repeat(HELD_PARTS, &mut place, take_place);
    place.found
}

/// A search for a free place.
struct Place<'a> {
    key: &'a mut HeldKey,
    holding: *mut Held,
    found: bool,
}

extern "C" fn take_place(part: u64, place: *mut Place) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let place = unsafe { &mut *place };
    place.key.part = part as u8;
    // SAFETY: one word is read, of a value that may be replaced meanwhile; either is a time.
    let is_stale = unsafe { HELD.get(&*place.key) }.is_some_and(|held| !is_fresh(held));
    let flags = if is_stale { 0 } else { u64::from(BPF_NOEXIST) };
    // SAFETY: this CPU's own value.
    place.found = HELD.insert(&*place.key, unsafe { &*place.holding }, flags).is_ok();
    i64::from(place.found)
}

/// Sends held fragments into the ingress of the interface that the packet came by, or out by the one that it leaves by, behind
/// the packet itself if `with_it`.
/// The packet serves as their vehicle, and is of no use afterwards. Returns how many were sent.
#[inline(always)]
fn send_held(packet: &Packet, key: &mut HeldKey, with_it: bool) -> i64 {
    let flags = if key.direction == BY_STACK { 0 } else { u64::from(BPF_F_INGRESS) };
    let mut train = Train { skb: packet.skb(), interface: packet.ifindex(), flags, key, with_it, sent: 0 };
    loops::repeat(HELD_PARTS, &mut train, send_one);
    train.sent
}

/// Fragments that are being sent behind each other.
struct Train<'a> {
    skb: *mut __sk_buff,
    interface: u32,
    flags: u64,
    key: &'a mut HeldKey,
    with_it: bool,
    sent: i64,
}

extern "C" fn send_one(part: u64, train: *mut Train) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let train = unsafe { &mut *train };
    train.key.part = part as u8;
    // SAFETY: a value that only whoever removes it lets go; it is copied into the packet at once.
    let Some(held) = (unsafe { HELD.get(&*train.key) }) else { return 0 };
    if is_fresh(held)
        && let Some(length) = bounded(held.length)
    {
        let (skb, interface, flags) = (train.skb, train.interface, train.flags);
        // SAFETY: plain helper calls; `length` bytes are there.
        unsafe {
            (*skb).mark = REPLAYED;
            if train.sent == 0 && train.with_it {
                bpf_clone_redirect(skb, interface, flags);
            }
            if bpf_skb_change_tail(skb, length, 0) == 0
                && bpf_skb_store_bytes(skb, 0, held.frame.as_ptr().cast(), length, 0) == 0
            {
                bpf_clone_redirect(skb, interface, flags);
            }
        }
        train.sent += 1;
        stats::took(Path::Replayed);
    }
    let _ = HELD.remove(&*train.key);
    0
}
