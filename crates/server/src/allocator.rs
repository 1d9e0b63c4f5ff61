//! The allocator of the process: mimalloc, which gives large objects back to the system at once.
//!
//! Memory that is freed stays with the process for a second or more, since what is given back must be faulted in anew:
//! without that delay `pgbench` loses a fifth. For objects of many mebibytes it is the other way about: they are rare, the
//! next one seldom fits where the last one was, and statements of 40 MiB left 250 MiB behind. So they come from the system
//! and go there, outside of mimalloc's arenas.
#![expect(unsafe_code, reason = "an option of mimalloc for which its crate has no function")]

use std::ffi::{c_int, c_long};

/// Objects that are larger, in KiB, are given back when they are freed.
const ARENA_OBJECT_KIB_MAX: c_long = 8 * 1024;

/// `mi_option_arena_max_object_size` of mimalloc 3.3. Were it another one in a later release, `fuzz` would find the
/// memory of a large statement still in use after it.
const ARENA_OBJECT_MAX: c_int = 45;

/// The system's allocator takes several times as long where threads hand buffers to each other, as they do here
/// between the network, the log and apply.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: this is the function's declaration in `mimalloc.h`, where an option is an enumeration without negative values.
unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Sets how it deals with large objects; those that are there already stay where they are. Called once, by `main`, before
/// there are other threads.
pub(crate) fn set_up() {
    // SAFETY: options are plain memory, which no other thread reads yet. Any number is taken: one that is no option is left
    // alone.
    unsafe { mi_option_set(ARENA_OBJECT_MAX, ARENA_OBJECT_KIB_MAX) }
}
