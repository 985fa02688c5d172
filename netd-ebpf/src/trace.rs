//! The log of drops, for whoever debugs the datapath itself. The loader sets AYA_LOG_LEVEL; at 0 the verifier never even
//! sees this code. What users are to know is counted (`stats`) or told through the ring (`event`).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use aya_log_ebpf::debug;
use netd_common::drop::DropReason;

use crate::packet::Packet;

#[inline(always)]
pub fn dropped(ctx: &TcContext, reason: DropReason) {
    log_drop(Packet::of(ctx).skb(), reason as u32);
}

/// A global function: formatting costs instructions by the thousand, which are walked once here and not at each exit.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn log_drop(skb: *mut __sk_buff, reason: u32) -> i64 {
    let ctx = TcContext::new(skb);
    let packet = Packet::of(&ctx);
    debug!(ctx, "interface {}: dropped {} bytes, reason {}", packet.ifindex(), packet.len(), reason);
    0
}
