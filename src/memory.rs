//! The allocator, and the last line of a process that has no memory left.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CStr;
use std::io::Write;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use tikv_jemallocator::Jemalloc;

use crate::log;

/// jemalloc. Where it finds no memory the process says so and ends: the next allocation of another
/// shard would fail as well.
pub struct Allocator;

// SAFETY: jemalloc keeps the contract, and what it returns is passed on as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        found(unsafe { Jemalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        found(unsafe { Jemalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        found(unsafe { Jemalloc.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }
}

/// Gives what is free, and kept for a while otherwise, back to the kernel.
pub fn give_back() {
    const ALL_ARENAS: &CStr = c"arena.4096.purge";
    // SAFETY: a name that ends with a zero, and nothing to read or to write.
    unsafe {
        tikv_jemalloc_sys::mallctl(ALL_ARENAS.as_ptr(), null_mut(), null_mut(), null_mut(), 0);
    }
}

#[inline]
fn found(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        end(bytes);
    }
    memory
}

/// Allocates nothing.
#[cold]
fn end(bytes: usize) -> ! {
    static IS_ENDING: AtomicBool = AtomicBool::new(false);
    if IS_ENDING.swap(true, Ordering::Relaxed) {
        // Another thread says it and ends the process.
        loop {
            // SAFETY: no preconditions.
            unsafe { libc::pause() };
        }
    }
    let mut line = [0; 256];
    let mut rest = &mut line[..];
    let _ = writeln!(
        rest,
        "{}shardcast: no memory for {bytes} bytes more: lower --cache-capacity, or raise the limit of \
         this process (MemoryMax=, LimitAS=, `ulimit -v`)",
        log::priority(tracing::Level::ERROR)
    );
    let unused = rest.len();
    log::last_line(&line[..line.len() - unused]);
    // SAFETY: ends the process without running anything of ours, which would need memory.
    unsafe { libc::_exit(1) }
}
