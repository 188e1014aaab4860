//! Memory for a program that lives for milliseconds: one block, one thread, and lists of what was given back.
//!
//! A general allocator is made for threads and for programs that run for days. The start of a container spends a fifth of its
//! instructions there (docs/performance.md), in code that is read from memory for the first time, too. When the block is full,
//! and in other threads, the system's allocator takes over, so a program that goes on for long is as well served as ever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// Several times what a `run` with docker's configuration takes. What is not touched costs nothing.
const SIZE: usize = 1 << 20;
/// Sizes and places are multiples of it.
const GRAIN: usize = 16;
/// Up to here pieces of each size have a list of their own; larger ones share that of their power of two.
const SMALL: usize = 1 << 10;
/// The largest piece.
const LARGE: usize = 64 << 10;
const LISTS: usize = SMALL / GRAIN + (LARGE / SMALL).ilog2() as usize;

thread_local! {
    /// The arena that is this thread's alone.
    static OWN: Cell<*const Arena> = const { Cell::new(std::ptr::null()) };
}

/// An allocator, to be a program's `#[global_allocator]`.
pub struct Arena {
    block: Block,
    claimed: AtomicBool,
    /// Bytes of the block that were ever handed out.
    used: Cell<usize>,
    /// The piece of each size that was given back last; it begins with the address of the one before.
    free: [Cell<*mut u8>; LISTS],
}

/// No piece is aligned to more than a page.
#[repr(C, align(4096))]
struct Block(UnsafeCell<[MaybeUninit<u8>; SIZE]>);

// SAFETY: all but `claimed` is used only by the one thread whose `OWN` it is; the bytes are whose piece they are in.
unsafe impl Sync for Arena {}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("claimed", &self.claimed).finish_non_exhaustive()
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

/// The list for a piece, and how large the piece is really; `None` for what is not from the block.
fn class(layout: Layout) -> Option<(usize, usize)> {
    // Aligned by its size, as whatever has a power of two that is no smaller.
    let size =
        if layout.align() > GRAIN { layout.size().max(layout.align()).next_power_of_two() } else { layout.size() };
    match size {
        0..=SMALL => {
            let grains = size.div_ceil(GRAIN).max(1);
            Some((grains - 1, grains * GRAIN))
        }
        _ if size <= LARGE => {
            let size = size.next_power_of_two();
            Some((SMALL / GRAIN + (size / SMALL).ilog2() as usize - 1, size))
        }
        _ => None,
    }
}

impl Arena {
    /// Nobody's yet: until it is, the system's allocator does the work.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            block: Block(UnsafeCell::new([MaybeUninit::uninit(); SIZE])),
            claimed: AtomicBool::new(false),
            used: Cell::new(0),
            free: [const { Cell::new(null_mut()) }; LISTS],
        }
    }

    /// Makes it the calling thread's, if it is nobody's yet.
    pub fn claim(&'static self) {
        if !self.claimed.swap(true, Ordering::Relaxed) {
            OWN.set(self);
        }
    }

    fn is_own(&self) -> bool {
        std::ptr::eq(OWN.get(), self)
    }

    fn start(&self) -> *mut u8 {
        self.block.0.get().cast()
    }

    fn has(&self, piece: *mut u8) -> bool {
        piece.addr().wrapping_sub(self.start().addr()) < SIZE
    }

    /// A piece that was given back, or a new one; null when there is no room.
    fn take(&self, list: usize, layout: Layout, size: usize) -> *mut u8 {
        let free = &self.free[list];
        let piece = free.get();
        // What is on the list may be of the size and not of the alignment.
        if !piece.is_null() && piece.addr().is_multiple_of(layout.align()) {
            // SAFETY: a piece on a list is nobody's, and begins with an address.
            free.set(unsafe { piece.cast::<*mut u8>().read() });
            return piece;
        }
        let start = self.used.get().next_multiple_of(layout.align().max(GRAIN));
        if layout.align() > align_of::<Block>() || start + size > SIZE {
            return null_mut();
        }
        self.used.set(start + size);
        // SAFETY: within the block.
        unsafe { self.start().add(start) }
    }
}

// SAFETY: a piece is as large and aligned as the layout says, or more; it lies within the block, and stays the caller's until the
// caller gives it back: new ones come from beyond `used`, others from the lists. The same layout leads to the same list again.
// What is not of the block is the system's allocator's, and goes back there.
unsafe impl GlobalAlloc for Arena {
    // Not inlined into each of thousands of places: code that is read for the first time costs more than a call.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some((list, size)) = class(layout).filter(|_| self.is_own()) {
            let piece = self.take(list, layout, size);
            if !piece.is_null() {
                return piece;
            }
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if !self.has(piece) {
            // SAFETY: it is not of the block, so it came from there; the caller's promises are the same.
            return unsafe { System.dealloc(piece, layout) };
        }
        // Another thread has no list to put it on.
        if let Some((list, _)) = class(layout).filter(|_| self.is_own()) {
            let free = &self.free[list];
            // SAFETY: the caller gives it back, and it has room for an address and is aligned for it.
            unsafe { piece.cast::<*mut u8>().write(free.get()) };
            free.set(piece);
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.has(piece) {
            // SAFETY: it is not of the block, so it came from there; the caller's promises are the same.
            return unsafe { System.realloc(piece, layout, size) };
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, fits an isize.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if class(wanted) == class(layout) {
            return piece;
        }
        // SAFETY: the caller promises that the size is not zero.
        let fresh = unsafe { self.alloc(wanted) };
        if !fresh.is_null() {
            // SAFETY: both are as long as the shorter of the two, and the new one is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(piece, fresh, size.min(layout.size())) };
            // SAFETY: the caller's promises are the same.
            unsafe { self.dealloc(piece, layout) };
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is filled when it is made, and read when it is dropped.
    struct Piece(&'static Arena, *mut u8, Layout, u8);

    impl Piece {
        fn new(arena: &'static Arena, size: usize, align: usize, byte: u8) -> Self {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: no test asks for nothing.
            let at = unsafe { arena.alloc(layout) };
            assert!(!at.is_null() && at.addr().is_multiple_of(align), "{size} at {align}");
            // SAFETY: as many bytes were asked for.
            unsafe { at.write_bytes(byte, size) };
            Self(arena, at, layout, byte)
        }

        fn resize(&mut self, size: usize) {
            let old = self.2.size();
            // SAFETY: it came from there with this layout, and no test asks for nothing.
            self.1 = unsafe { self.0.realloc(self.1, self.2, size) };
            self.2 = Layout::from_size_align(size, self.2.align()).unwrap();
            if size > old {
                // SAFETY: within the piece.
                let new = unsafe { self.1.add(old) };
                // SAFETY: as above.
                unsafe { new.write_bytes(self.3, size - old) };
            }
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            // SAFETY: the whole piece was written.
            let bytes = unsafe { std::slice::from_raw_parts(self.1, self.2.size()) };
            assert!(bytes.iter().all(|byte| *byte == self.3), "somebody wrote into a piece of {:?}", self.2);
            // SAFETY: it came from there with this layout.
            unsafe { self.0.dealloc(self.1, self.2) };
        }
    }

    #[test]
    fn pieces_keep_what_is_written_into_them() {
        static ARENA: Arena = Arena::new();
        ARENA.claim();
        let mut pieces: Vec<Piece> = Vec::new();
        for round in 0..40_000_usize {
            let byte = u8::try_from(round % 251).unwrap();
            match round % 7 {
                // In sum more than there is, in size and in alignment more than it gives.
                0 => pieces.push(Piece::new(&ARENA, 1 + round % 97, 1 << (round % 14), byte)),
                1 => pieces.push(Piece::new(&ARENA, 1 + round % 3000, 8, byte)),
                2 if round % 3 == 0 => drop(pieces.swap_remove(round % pieces.len())),
                3 => pieces[round % 2].resize(1 + round % 5000),
                4 => pieces.last_mut().unwrap().resize(1 + round % 500),
                5 if round % 1001 == 5 => pieces.push(Piece::new(&ARENA, LARGE - 500 + round, 16, byte)),
                _ if pieces.len() > 3000 => drop(pieces.pop()),
                _ => {}
            }
            pieces.extend((pieces.len()..3).map(|_| Piece::new(&ARENA, 10, 1, 7)));
        }
        assert_eq!(ARENA.used.get().next_multiple_of(LARGE), SIZE, "the block was never full");
    }

    #[test]
    fn what_was_given_back_is_handed_out_again() {
        static ARENA: Arena = Arena::new();
        ARENA.claim();
        let place = |size| Piece::new(&ARENA, size, 1, 1).1.addr();
        let first = place(100);
        assert_eq!([place(97), place(112)], [first, first]);
        assert_ne!(place(96), first);
        assert_eq!(place(3000), place(4096));
    }

    #[test]
    fn other_threads_use_the_systems() {
        static ARENA: Arena = Arena::new();
        ARENA.claim();
        let own = Piece::new(&ARENA, 100, 1, 1);
        assert!(ARENA.has(own.1));
        let at = own.1.addr();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ARENA.claim();
                let other = Piece::new(&ARENA, 100, 1, 2);
                assert!(!ARENA.has(other.1) && other.1.addr() != at);
            });
        });
    }
}
