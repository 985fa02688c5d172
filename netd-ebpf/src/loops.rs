//! Loops that the verifier walks once.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop};

/// Calls `body` with `0..count` and `context` until it returns 1. A plain loop the verifier would walk `count` times.
#[inline(always)]
pub fn repeat<C>(count: u32, context: &mut C, body: extern "C" fn(u64, *mut C) -> i64) {
    // SAFETY: the helper calls `body` with what it is given here, and the context outlives the call.
    unsafe { bpf_loop(count, body as *mut c_void, (&raw mut *context).cast(), 0) };
}
