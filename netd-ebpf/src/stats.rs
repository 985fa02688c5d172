//! Counters: plain additions, for each CPU has its own.

use netd_common::{drop::DropReason, stats::Path};

use crate::{
    atomic::Word,
    maps::{DRAWS, DROPS, PATHS, TRAFFIC},
};

#[inline(always)]
pub fn dropped(reason: DropReason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value; programs of one CPU do not preempt each other between load and store.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
pub fn took(path: Path) {
    if let Some(count) = PATHS.get_ptr_mut(path as u32) {
        // SAFETY: as in `dropped`.
        unsafe { *count += 1 };
    }
}

/// As `took`, by a program that runs for a task: others may come in between.
#[inline(always)]
pub fn took_by_task(path: Path) {
    if let Some(count) = PATHS.get_ptr_mut(path as u32) {
        // SAFETY: an aligned word of a map value.
        unsafe { Word::new(count) }.add(1);
    }
}

/// The container behind `slot` sent a frame.
#[inline(always)]
pub fn sent(slot: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: as in `dropped`.
        unsafe {
            (*traffic).sent.packets += 1;
            (*traffic).sent.bytes += u64::from(bytes);
        }
    }
}

/// A frame was put into the container behind `slot`.
#[inline(always)]
pub fn delivered(slot: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: as in `dropped`.
        unsafe {
            (*traffic).delivered.packets += 1;
            (*traffic).delivered.bytes += u64::from(bytes);
        }
    }
}

/// A new flow took `draws` ports to find a free one.
#[inline(always)]
pub fn drew(draws: u32) {
    if let Some(count) = DRAWS.get_ptr_mut(draws) {
        // SAFETY: as in `dropped`.
        unsafe { *count += 1 };
    }
}
