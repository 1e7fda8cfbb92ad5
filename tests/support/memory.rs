//! Counts the bytes that the relay holds in a simulated world: whatever is allocated while a shard
//! turns, until it is freed, by whomever.
//!
//! The world and its peers allocate in the same thread, so each allocation is marked with who made it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Room for the mark before each allocation, where that needs no more for its alignment.
const MARK_BYTES: usize = 16;

const MARK: u8 = 0x5c;

pub struct Counting;

thread_local! {
    static IN_RELAY: Cell<bool> = const { Cell::new(false) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// What this thread allocates from here on is the relay's, or not.
pub fn in_relay(is_in: bool) {
    IN_RELAY.set(is_in);
}

/// Bytes that the relays of this thread hold.
pub fn held() -> isize {
    HELD.get()
}

fn padded(layout: Layout) -> Option<(Layout, usize)> {
    let offset = MARK_BYTES.max(layout.align());
    let size = layout.size().checked_add(offset)?;
    Some((Layout::from_size_align(size, layout.align()).ok()?, offset))
}

// SAFETY: every block is one of the system's, `offset` bytes longer than asked for and as much aligned.
// What is handed out begins after those, the mark lies in the last of them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((padded, offset)) = padded(layout) else { return std::ptr::null_mut() };
        let block = unsafe { System.alloc(padded) };
        if block.is_null() {
            return block;
        }
        let is_relays = IN_RELAY.get();
        if is_relays {
            HELD.set(HELD.get() + layout.size() as isize);
        }
        unsafe {
            let given = block.add(offset);
            given.sub(1).write(if is_relays { MARK } else { 0 });
            given
        }
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        let Some((padded, offset)) = padded(layout) else { return };
        unsafe {
            if given.sub(1).read() == MARK {
                HELD.set(HELD.get() - layout.size() as isize);
            }
            System.dealloc(given.sub(offset), padded);
        }
    }
}
