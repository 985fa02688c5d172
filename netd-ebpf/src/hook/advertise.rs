//! Says to neighbours who has an address, on the daemon's behalf. Run by BPF_PROG_TEST_RUN: the packet is the frame, and its interface
//! is an endpoint's port or an uplink.
//!
//! A packet socket in the endpoint's namespace could send the frame as well, but to close one takes an RCU grace period
//! (`packet_release` in net/packet/af_packet.c), and whoever attaches or detaches a program meanwhile waits for it too.

use aya_ebpf::programs::TcContext;
use netd_common::advertise::OUT;

use crate::{packet::Packet, redirect};

/// Returns 0, or the kernel's error.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let packet = Packet::of(ctx);
    redirect::copy(&packet, packet.take_mark(OUT))
}
