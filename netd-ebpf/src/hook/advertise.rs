//! Says an endpoint's addresses to its neighbours on the daemon's behalf. Run by BPF_PROG_TEST_RUN: the packet is the frame, and
//! its interface is the endpoint's port.
//!
//! A packet socket in the endpoint's namespace could send the frame as well, but to close one takes an RCU grace period
//! (`packet_release` in net/packet/af_packet.c), and whoever attaches or detaches a program meanwhile waits for it too.

use aya_ebpf::programs::TcContext;

use crate::{packet::Packet, redirect};

/// Returns 0, or the kernel's error.
#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    redirect::copy_in(&Packet::of(ctx))
}
