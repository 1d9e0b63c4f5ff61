//! One node's door to the simulated world.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::core::Core;
use super::disk::{NodeDisk, SimDisk};
use crate::disk::Disk;
use crate::rng::below;
use crate::runtime::{Backend, BoxTask};
use crate::task::Abort;
use crate::time::{Instant, WallTime};
use crate::timer::Sleep;

/// Longest time that one disk operation is taken to last.
const IO_NANOS_MAX: u64 = 400_000;

/// One incarnation of one node.
pub(super) struct SimBackend {
    core: Arc<Core>,
    node: usize,
    epoch: u64,
    disk: Arc<dyn Disk>,
}

impl SimBackend {
    pub(super) fn new(core: &Arc<Core>, node: usize) -> SimBackend {
        SimBackend::of_epoch(core, core.disk(node), node, core.epoch(node))
    }

    pub(super) fn of_epoch(core: &Arc<Core>, disk: SimDisk, node: usize, epoch: u64) -> SimBackend {
        let disk = Arc::new(NodeDisk::new(disk, epoch));
        SimBackend { core: Arc::clone(core), node, epoch, disk }
    }
}

impl Backend for SimBackend {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.core.node_now_nanos(self.node))
    }

    fn wall_now(&self) -> WallTime {
        WallTime::from_unix_micros(self.core.wall_micros(self.node))
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    fn random_u64(&self) -> u64 {
        self.core.random_u64()
    }

    fn spawn(&self, _name: &'static str, task: BoxTask) -> Arc<dyn Abort> {
        self.core.spawn(self.node, self.epoch, task)
    }

    fn spawn_dedicated(&self, _name: &'static str, task: BoxTask) -> Arc<dyn Abort> {
        self.core.spawn(self.node, self.epoch, task)
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let at_nanos = self.core.true_nanos(self.node, deadline.as_nanos());
        Sleep::new(SimSleep { core: Arc::clone(&self.core), at_nanos, timer: None })
    }

    fn io_pause(&self) -> Option<Sleep> {
        let pause = below(self.core.random_u64(), IO_NANOS_MAX) * self.core.disk_slowness(self.node);
        Some(self.sleep_until(self.now() + Duration::from_nanos(1 + pause)))
    }

    fn trace(&self, bytes: &[u8]) {
        self.core.trace(self.node, bytes);
    }

    fn is_simulated(&self) -> bool {
        true
    }

    #[cfg(feature = "planted_bugs")]
    fn has_bug(&self, bug: crate::bug::Bug) -> bool {
        self.core.has_bug(bug)
    }
}

/// A wait for a moment of virtual time.
struct SimSleep {
    core: Arc<Core>,
    at_nanos: u64,
    timer: Option<(u64, u64)>,
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.core.now_nanos() >= this.at_nanos {
            return Poll::Ready(());
        }
        match this.timer {
            Some(key) => this.core.renew_timer(key, cx.waker()),
            None => this.timer = Some(this.core.add_timer(this.at_nanos, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer.take() {
            self.core.remove_timer(key);
        }
    }
}
