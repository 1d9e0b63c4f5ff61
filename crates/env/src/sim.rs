//! The simulated world: many nodes on one thread, under one virtual clock, from one seed.
//!
//! ```text
//!   Simulation ── node 0 (the test's own, never crashes)
//!             └── node 1..n: tasks, a disk, a clock with drift and a movable wall clock
//!   loop: a ready task, chosen by the seed, is polled once → time moves by a microsecond or so
//!         no task ready → time jumps to the next timer
//! ```
//!
//! Invariants:
//! * one seed gives one run: every choice is drawn from the seed, every poll is mixed into the trace hash;
//! * a node's tasks end with its crash, and handles of a crashed incarnation can no longer touch its disk;
//! * what was not synced is lost, torn or kept at a crash, as the seed decides (see [`SimDisk`]).
//!
//! Deliberately absent: the network. It enters at ports of its consumers, which simulate it with this world's
//! clock and randomness.

mod backend;
mod core;
mod disk;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::disk::{DiskFailure, DiskFaults, SimDisk};

use self::backend::SimBackend;
use self::core::{Core, HARNESS};
use crate::runtime::Env;
use crate::time::Instant;

/// A node of the simulation; the number is its index, counted from 1 in the order of [`Simulation::add_node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimNode(usize);

impl SimNode {
    /// The index given at creation.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// Why a run ended before its future did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The virtual time limit passed.
    #[error("the simulation reached its time limit of {limit:?}")]
    Deadline {
        /// The limit given.
        limit: Duration,
    },
    /// No task can run and no timer is set: everything waits for ever.
    #[error("every task of the simulation waits for ever")]
    Stalled,
}

/// A whole simulated world. Dropping it drops all tasks.
pub struct Simulation {
    core: Arc<Core>,
}

impl Simulation {
    /// An empty world whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Simulation {
        Simulation { core: Core::new(seed) }
    }

    /// Plants a bug in all nodes.
    #[cfg(feature = "planted_bugs")]
    pub fn plant(&self, bug: crate::bug::Bug) {
        self.core.plant(bug);
    }

    /// Adds a node with an empty disk, up and running.
    pub fn add_node(&self) -> SimNode {
        SimNode(self.core.add_node())
    }

    /// The world of `node` in its present incarnation. After a crash ask again: an older handle starts no task
    /// and its disk answers with errors.
    #[must_use]
    pub fn env(&self, node: SimNode) -> Env {
        Env::from_backend(Arc::new(SimBackend::new(&self.core, node.0)))
    }

    /// The world of the test itself, which never crashes: for clients, nemeses and checkers.
    #[must_use]
    pub fn harness(&self) -> Env {
        Env::from_backend(Arc::new(SimBackend::new(&self.core, HARNESS)))
    }

    /// The disk of `node`, for faults and inspection.
    #[must_use]
    pub fn disk(&self, node: SimNode) -> SimDisk {
        self.core.disk(node.0)
    }

    /// Kills `node` as a power cut would: its tasks are gone at once, unsynced data is lost, torn or kept. A new
    /// incarnation may be started at once through [`Simulation::env`].
    pub fn crash(&self, node: SimNode) {
        self.core.crash(node.0, SimDisk::crash);
    }

    /// Kills the process of `node`, as SIGKILL does: its tasks are gone, and what it had written to its disk is there,
    /// synced or not.
    pub fn kill(&self, node: SimNode) {
        self.core.crash(node.0, SimDisk::kill);
    }

    /// Stops `node` in its tracks, as SIGSTOP does: its tasks run no more until [`Simulation::resume`]; time goes on.
    pub fn pause(&self, node: SimNode) {
        self.core.set_paused(node.0, true);
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: SimNode) {
        self.core.set_paused(node.0, false);
    }

    /// Moves the wall clock of `node` by `micros` from the true time; the monotonic clock is untouched.
    pub fn set_wall_offset(&self, node: SimNode, micros: i64) {
        self.core.set_wall_offset(node.0, micros);
    }

    /// Makes each operation of the disk of `node` take `factor` times as long as usual.
    pub fn set_disk_slowness(&self, node: SimNode, factor: u64) {
        self.core.set_disk_slowness(node.0, factor);
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.core.now_nanos())
    }

    /// Fingerprint of everything that has happened so far.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.core.trace_hash()
    }

    /// How many polls there were.
    #[must_use]
    pub fn step_count(&self) -> u64 {
        self.core.step_count()
    }

    /// Runs the world until `future`, a task of the harness, ends.
    ///
    /// # Errors
    /// [`SimError::Deadline`] when `limit` of virtual time passes first, [`SimError::Stalled`] when nothing can
    /// ever happen again.
    pub fn block_on<F>(&self, limit: Duration, future: F) -> Result<F::Output, SimError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let _task = self.harness().spawn("harness", async move {
            let output = future.await;
            *slot.lock() = Some(output);
        });
        let until = self.core.now_nanos().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        loop {
            if let Some(output) = result.lock().take() {
                return Ok(output);
            }
            if self.core.now_nanos() > until {
                return Err(SimError::Deadline { limit });
            }
            if !self.core.step() {
                return Err(SimError::Stalled);
            }
        }
    }

    /// Runs the world for `duration` of virtual time.
    pub fn run_for(&self, duration: Duration) {
        let env = self.harness();
        let sleep = env.sleep(duration);
        let _ended = self.block_on(duration + Duration::from_secs(1), sleep);
    }
}

impl Simulation {
    /// Ends all tasks. What a task holds on to is let go of; a task that holds on to the simulation keeps it from being
    /// dropped otherwise.
    pub fn end(&self) {
        self.core.end();
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
