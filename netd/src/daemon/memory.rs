//! The daemon's own memory.

/// Has all threads use one heap. glibc would give each its own, and what one leaves unused between things that live on, no other
/// can have. To be called before there is a second thread.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own; it takes any number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back to the kernel what the allocator holds and nobody uses: to load the programs, or to publish ten thousand ports, takes
/// many times what the daemon lives on afterwards.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own, which takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}
