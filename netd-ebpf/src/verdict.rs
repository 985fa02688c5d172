//! What becomes of a packet, or of a call on a socket. Only this file knows the kernel's numbers for it.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_set_retval,
    programs::TcContext,
};
use netd_common::drop::DropReason;

use crate::{stats, trace};

/// The end of a stage that did not drop the packet: a return value for the kernel.
///
/// One number and no enum: with variants of different sizes the compiler leaves a register unset that the verifier sees read.
#[derive(Clone, Copy)]
pub struct Verdict(i32);

impl Verdict {
    /// To whoever is next: other programs, then the kernel's bridge or stack. UNSPEC and not OK, for OK would end the chain.
    pub const NEXT: Self = Self(TC_ACT_UNSPEC);

    /// Used up: what was in it goes on as other packets.
    pub const CONSUMED: Self = Self(TC_ACT_SHOT);

    /// The kernel's number, for a subprogram to return.
    #[inline(always)]
    pub fn number(self) -> i64 {
        i64::from(self.0)
    }

    /// Gone elsewhere, as the redirect helper answered.
    #[inline(always)]
    pub fn redirected(answer: i64) -> Self {
        Self(answer as i32)
    }
}

pub type Outcome = Result<Verdict, DropReason>;

/// The program's return value.
#[inline(always)]
pub fn action(ctx: &TcContext, outcome: Outcome) -> i32 {
    match outcome {
        Ok(verdict) => verdict.0,
        Err(reason) => {
            stats::dropped(reason);
            trace::dropped(ctx, reason);
            TC_ACT_SHOT
        }
    }
}

/// What a program says of a call on a socket, for the kernel.
pub type Answer = i32;

/// The call goes on.
pub const ALLOW: Answer = 1;

/// The call ends: its address is in use.
#[inline(always)]
pub fn in_use() -> Answer {
    const REFUSE: Answer = 0;
    const EADDRINUSE: i32 = 98;
    // SAFETY: a plain helper call.
    unsafe { bpf_set_retval(-EADDRINUSE) };
    REFUSE
}
