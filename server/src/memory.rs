//! How much memory this process uses, where the system tells (Linux).

pub use seedling_core::memory::peak_mb;

/// Lets the peak start again from what is resident now.
pub fn reset_peak() {
    // Where this is not allowed the peak is that of the whole process: larger, never wrong.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Gives freed blocks back to the system at once. glibc keeps them from the first large one on, for
/// blocks that may never come again: a third of a run's memory. Other systems' allocators do not.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number in the allocator; called before there are threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
