//! Telling the processor what is needed next.

/// Has a value brought into the caches while something else is done. A connection is 6 KiB, and a
/// shard has more of them than its caches hold: what a visit costs is mostly the wait for them.
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is within `value`, and a prefetch has no effect on any.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).byte_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
