//! The daemon's own memory.

/// What is as large as this has pages of its own, which go back to the kernel with it. glibc's default, which glibc itself would
/// raise with whatever larger is freed, up to 32 MiB: the request that publishes ten thousand ports would leave 15 MB behind.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Has all threads use one heap, and large things none. glibc would give each thread its own, and what one leaves unused between
/// things that live on, no other can have. To be called before there is a second thread.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own; it takes any number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives back to the kernel what the heap holds and nobody uses: to load the programs, or to publish ten thousand ports, takes more
/// than the daemon lives on afterwards, in small things too.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own, which takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}
