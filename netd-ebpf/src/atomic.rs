//! Atomic words in map values.
//!
//! The target has no atomics in `core`, although the kernel's machine has had them since 5.12: one instruction each.
//! <https://docs.kernel.org/bpf/standardization/instruction-set.html#atomic-operations>

use core::arch::asm;

/// A word in a map value that several CPUs change.
#[derive(Clone, Copy)]
pub struct Word(*mut u64);

impl Word {
    /// # Safety
    ///
    /// `word` is an 8-byte aligned word of a map value, and lives as long as the program.
    #[inline(always)]
    pub unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub fn load(self) -> u64 {
        // SAFETY: by `new`; volatile, for others write.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    pub fn store(self, value: u64) {
        // SAFETY: by `new`.
        unsafe { self.0.write_volatile(value) }
    }

    #[inline(always)]
    pub fn add(self, value: u64) {
        // SAFETY: by `new`; one BPF_ATOMIC instruction.
        unsafe { asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) self.0, value = in(reg) value) }
    }

    /// Adds, and returns what there was before.
    #[inline(always)]
    pub fn fetch_add(self, value: u64) -> u64 {
        let mut before = value;
        // SAFETY: by `new`; one BPF_ATOMIC instruction.
        unsafe {
            asm!("{value} = atomic_fetch_add((u64 *)({word} + 0), {value})", word = in(reg) self.0, value = inout(reg) before);
        }
        before
    }

    /// Puts `new` in the place of `old`, or returns `false` if there was something else.
    #[inline(always)]
    pub fn exchange(self, old: u64, new: u64) -> bool {
        let seen: u64;
        // SAFETY: by `new`; one BPF_ATOMIC instruction, which compares with r0 and leaves there what it saw.
        unsafe {
            asm!("r0 = cmpxchg_64({word} + 0, r0, {new})", word = in(reg) self.0, new = in(reg) new, inlateout("r0") old => seen);
        }
        seen == old
    }
}
