//! Ends flows on the daemon's behalf. Run by BPF_PROG_TEST_RUN, so that one that was refreshed meanwhile is never ended:
//! whoever judges a flow and whoever refreshes it use the same atomic word.

use core::mem::offset_of;

use aya_ebpf::programs::TcContext;
use netd_common::{event::Sweep, limits};

use crate::{
    conntrack, expiry,
    family::{Family, V4, V6},
    fib, loops,
    packet::Packet,
    rewrite,
};

/// What the loop's body is handed.
struct Walk {
    request: Sweep,
    ended: u32,
}

/// Returns how many flows were ended. The "packet" is a [`Sweep`], the order to carry out; the time is written into it.
#[inline(always)]
pub fn run(ctx: &TcContext) -> u32 {
    let packet = Packet::of(ctx);
    let Ok(request) = packet.load::<Sweep>(0) else { return 0 };
    let mut walk = Walk { request, ended: 0 };
    let count = if request.count < limits::SWEEP_BATCH { request.count } else { limits::SWEEP_BATCH };
    if request.family == V4::AF {
        loops::repeat(count, &mut walk, step::<V4>);
    } else {
        loops::repeat(count, &mut walk, step::<V6>);
    }
    let now = conntrack::now();
    let _ = rewrite::store(&packet, offset_of!(Sweep, now), &now);
    walk.ended
}

extern "C" fn step<F: Family>(offset: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `repeat` passes the pointer that it was given.
    let walk = unsafe { &mut *walk };
    let Some(globals) = fib::globals() else { return 1 };
    let index = walk.request.first.wrapping_add(offset as u32);
    let ended = match walk.request.endpoint {
        Sweep::ANY => expiry::end_if_expired::<F>(index, globals),
        Sweep::UNBOUND => expiry::end_if_unbound::<F>(index),
        Sweep::UNPUBLISHED => expiry::end_if_unpublished::<F>(index),
        endpoint => expiry::end_of::<F>(index, endpoint),
    };
    walk.ended += u32::from(ended);
    0
}
