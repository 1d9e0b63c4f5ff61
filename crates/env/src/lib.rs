//! The door to the outside world: clock, disk, randomness and tasks, each with an operating-system and a
//! simulated implementation.
//!
//! ```text
//!   storage, txn, consensus, sql
//!            |  Env (a handle per node)  or  ambient::* (whatever world polls this task)
//!            v
//!   +--------------------+      +-----------------------------------------+
//!   | os: tokio, std::fs |      | sim: one thread, virtual time, one seed |
//!   +--------------------+      +-----------------------------------------+
//! ```
//!
//! Invariants:
//! - Code above this crate never names a wall clock, `std::fs`, a thread, `tokio::spawn`, `tokio::time` or a
//!   random generator of its own; so the same code runs on a real machine and in the simulator.
//! - In the simulator one seed gives one run: the same scheduling, the same faults, the same trace hash.
//! - Every task belongs to a node; when the node crashes, its tasks are gone with it.
//!
//! Deliberately absent: sockets. The network enters at ports that belong to their consumers.

pub mod ambient;
mod bug;
pub mod disk;
mod os;
pub mod rng;
mod runtime;
pub mod sim;
pub mod sync;
mod task;
mod time;
mod timer;

pub use ambient::trace;
pub use bug::Bug;
pub use disk::{Disk, DiskLock, File, OpenMode};
pub use os::OsDisk;
pub use rng::Rng;
pub use runtime::Env;
pub use task::{JoinError, ShutdownReport, TaskGroup, TaskHandle};
pub use time::{Instant, WallTime};
pub use timer::{Elapsed, Sleep, Timeout};
