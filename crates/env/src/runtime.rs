//! [`Env`]: one node's door to the outside world.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::bug::Bug;
use crate::disk::Disk;
use crate::os::OsBackend;
use crate::rng::Rng;
use crate::task::{Abort, TaskHandle};
use crate::time::{Instant, WallTime};
use crate::timer::{Sleep, Timeout, YieldNow};

/// A task without a result.
pub(crate) type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A world: the operating system or one node of the simulator.
pub(crate) trait Backend: Send + Sync {
    fn now(&self) -> Instant;
    fn wall_now(&self) -> WallTime;
    fn disk(&self) -> &Arc<dyn Disk>;
    fn random_u64(&self) -> u64;
    fn spawn(&self, name: &'static str, task: BoxTask) -> Arc<dyn Abort>;
    fn spawn_dedicated(&self, name: &'static str, task: BoxTask) -> Arc<dyn Abort>;
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);
    fn sleep_until(&self, deadline: Instant) -> Sleep;
    fn io_pause(&self) -> Option<Sleep>;
    fn trace(&self, bytes: &[u8]);
    fn is_simulated(&self) -> bool;
    #[cfg(feature = "planted_bugs")]
    fn has_bug(&self, bug: Bug) -> bool;
}

/// Clock, disk, randomness and tasks of one node. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    backend: Arc<dyn Backend>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_simulated() { "Env(simulated)" } else { "Env(os)" })
    }
}

impl Env {
    /// The operating system. Tasks run on the tokio runtime of the calling thread, or, if this is called outside
    /// one, on that of the thread that spawns.
    #[must_use]
    pub fn os() -> Self {
        Self::from_backend(Arc::new(OsBackend::new(tokio::runtime::Handle::try_current().ok())))
    }

    /// The operating system, with tasks on the given tokio runtime whatever thread spawns them.
    #[must_use]
    pub fn os_on(handle: tokio::runtime::Handle) -> Self {
        Self::from_backend(Arc::new(OsBackend::new(Some(handle))))
    }

    /// The operating system, with tasks on the tokio runtime of whatever thread spawns them. Made once, since it
    /// is asked for at every ambient call.
    pub(crate) fn os_of_thread() -> Self {
        static OS: LazyLock<Env> = LazyLock::new(|| Env::from_backend(Arc::new(OsBackend::new(None))));
        OS.clone()
    }

    pub(crate) fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The node's disk.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.backend.disk()
    }

    /// Now, on the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.backend.now()
    }

    /// Now, on the wall clock. For people and `now()` in SQL; never for order.
    #[must_use]
    pub fn wall_now(&self) -> WallTime {
        self.backend.wall_now()
    }

    /// Random numbers.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng::new(self.clone())
    }

    /// Whether this is a node of the simulator.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.backend.is_simulated()
    }

    /// Whether this bug was planted here: never outside of a simulation that is to be tested itself.
    #[must_use]
    #[inline]
    pub fn has_bug(&self, bug: Bug) -> bool {
        #[cfg(feature = "planted_bugs")]
        return self.backend.has_bug(bug);
        #[cfg(not(feature = "planted_bugs"))]
        {
            let _not_in_this_build = bug;
            false
        }
    }

    /// Starts a task.
    ///
    /// # Panics
    /// With the operating system, when neither this handle nor the calling thread has a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> TaskHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let abort = self.backend.spawn(name, deliver(future, sender));
        TaskHandle::new(name, receiver, abort)
    }

    /// Starts a future on a thread of its own that does nothing else, for work that blocks on the disk all day;
    /// in the simulator a task like any other. The future may wait for channels, not for timers or sockets.
    ///
    /// The thread ends with its future; it must be told to stop, since it cannot be aborted.
    ///
    /// # Panics
    /// When the operating system gives no thread.
    pub fn spawn_dedicated<F>(&self, name: &'static str, future: F) -> TaskHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let abort = self.backend.spawn_dedicated(name, deliver(future, sender));
        TaskHandle::new(name, receiver, abort)
    }

    /// Does work that may take long, on the calling thread. The work is that of the calling task, which is not polled
    /// meanwhile. When it has lasted for about a millisecond, whatever else waits for this thread is handed to another, and
    /// a few of them per core compute at once, in turns; both happen where the work says so, see
    /// [`ambient::share_turn`](crate::ambient::share_turn). In the simulator it takes no time.
    pub fn in_place<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_simulated() { work() } else { crate::os::compute(work) }
    }

    /// Runs work that blocks, away from the reactor threads; in the simulator at once, in place.
    ///
    /// The work starts at the call and ends whether or not the result is awaited. If the pool is shut down before
    /// the work began, or the work panics, this never returns: the process is ending.
    pub fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        self.backend.spawn_blocking(Box::new(move || {
            let _unawaited = sender.send(work());
        }));
        async move {
            match receiver.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Ends after `duration`.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Ends at `deadline`, at once if that has passed.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.backend.sleep_until(deadline)
    }

    /// Waits for `future`, but not longer than `duration`, counted from this call.
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> Timeout<F> {
        Timeout::new(future, self.sleep(duration))
    }

    /// Waits for `future`, but not beyond `deadline`.
    pub fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Timeout<F> {
        Timeout::new(future, self.sleep_until(deadline))
    }

    /// Lets other tasks run.
    pub async fn yield_now(&self) {
        YieldNow::default().await;
    }

    /// A place between two disk operations at which, in the simulator, time passes and a crash may strike; with
    /// the operating system, where time passes and crashes strike by themselves, nothing at all.
    pub async fn io_pause(&self) {
        if let Some(pause) = self.backend.io_pause() {
            pause.await;
        }
    }

    /// Mixes bytes into the trace hash of the simulation; nothing outside it.
    pub fn trace(&self, bytes: &[u8]) {
        self.backend.trace(bytes);
    }
}

/// Runs a future and sends its result to the handle, if that is still there.
fn deliver<F>(future: F, sender: oneshot::Sender<F::Output>) -> BoxTask
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Box::pin(async move {
        let _unawaited = sender.send(future.await);
    })
}
