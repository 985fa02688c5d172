//! How fast an endpoint may send. A policer, which holds for those whose own end of the veth has no queue: who has one that
//! keeps to the rate never meets it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use netd_common::drop::DropReason;

use crate::{
    atomic::Word,
    maps::{BUCKETS, RATES},
};

/// Times a lost race for the bucket is run again; then the packet passes without paying.
const RETRIES: u32 = 4;

/// Takes a packet's bytes out of the endpoint's bucket.
#[inline(always)]
pub fn pay(slot: u32, bytes: u32) -> Result<(), DropReason> {
    if pay_at(slot, bytes) == 0 { Ok(()) } else { Err(DropReason::Rate) }
}

/// A global function, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pay_at(slot: u32, bytes: u32) -> i64 {
    let (Some(rate), Some(bucket)) = (RATES.get(slot), BUCKETS.get_ptr_mut(slot)) else { return 0 };
    // SAFETY: an aligned word of an array map.
    let bucket = unsafe { Word::new(bucket) };
    // SAFETY: a plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    for _ in 0..RETRIES {
        let full = bucket.load();
        let Some(next) = rate.pass(full, now, bytes) else { return 1 };
        if bucket.exchange(full, next) {
            return 0;
        }
    }
    0
}
