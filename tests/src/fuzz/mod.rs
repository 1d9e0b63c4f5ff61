//! Malformed input for everything that decodes: what comes from clients, from peers, from the disk and from people.
//!
//! ```text
//!   corpus (valid messages) ──► mutator (seeded, knows lengths and tags) ──► target: must return, whatever it is given
//! ```
//!
//! A target is a plain function of bytes. Two drivers call the same targets: the program `fuzz`, which is stable, has
//! a time budget and replays from its seed, and the libFuzzer targets in `fuzz/` at the root of the repository, which
//! need a nightly compiler. [`live`] talks to a server process instead, and [`attack`] takes its resources.

pub mod attack;
pub mod desk;
pub mod http2;
pub mod live;
pub mod memory;
pub mod mutate;
pub mod parts;
pub mod peers;
pub mod stored;
pub mod targets;
pub mod wire;
