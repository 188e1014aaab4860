//! `dhow-runtime`: runc's command line over the library. Parses, calls, prints, exits; everything else is the library's.
#![deny(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod commands;

use dhow_sys::arena::Arena;

/// See docs/performance.md.
#[global_allocator]
static MEMORY: Arena = Arena::new();

/// C's `main`: the standard library's would look for the stack's end in /proc/self/maps first, and take twenty system calls.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "an exported name is unsafe; there is nothing else of that kind here")]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    run().into()
}

#[cfg_attr(test, expect(dead_code, reason = "tests have a main of their own"))]
fn run() -> u8 {
    MEMORY.claim();
    dhow_sys::process::begin();
    commands::main(std::env::args_os().skip(1).collect())
}
