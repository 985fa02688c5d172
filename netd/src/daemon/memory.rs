//! The daemon's own memory.

/// Gives back to the kernel what the allocator holds and nobody uses: to load the programs, or to publish ten thousand ports, takes
/// many times what the daemon lives on afterwards.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own, which takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}
