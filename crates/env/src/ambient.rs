//! The world that runs the current task, without a handle to it.
//!
//! openraft reaches its runtime through static functions, so the world must be found from the thread: the
//! simulator sets it around every poll; outside the simulator it is the operating system and the tokio runtime
//! of the calling thread. Code that has an [`Env`] uses that instead.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use crate::bug::Bug;
use crate::rng::Rng;
use crate::runtime::Env;
use crate::task::TaskHandle;
use crate::time::Instant;
use crate::timer::{Sleep, Timeout};

thread_local! {
    /// The simulated node whose task this thread is polling or dropping.
    static CURRENT: RefCell<Option<Env>> = const { RefCell::new(None) };
}

/// Puts the former world back when dropped.
pub(crate) struct Entered {
    former: Option<Env>,
}

/// Makes `env` the world of this thread until the guard is dropped.
pub(crate) fn enter(env: Env) -> Entered {
    Entered { former: CURRENT.with(|current| current.borrow_mut().replace(env)) }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let former = self.former.take();
        CURRENT.with(|current| *current.borrow_mut() = former);
    }
}

/// The world that runs the current task: the simulated node whose task is being polled, else the operating
/// system with the tokio runtime of this thread.
#[must_use]
pub fn env() -> Env {
    CURRENT.with(|current| current.borrow().clone()).unwrap_or_else(Env::os_of_thread)
}

/// Now, on the monotonic clock.
#[must_use]
pub fn now() -> Instant {
    env().now()
}

/// Starts a task; see [`Env::spawn`].
pub fn spawn<F>(name: &'static str, future: F) -> TaskHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    env().spawn(name, future)
}

/// Waits for a duration; see [`Env::sleep`].
pub fn sleep(duration: Duration) -> Sleep {
    env().sleep(duration)
}

/// Waits until a moment; see [`Env::sleep_until`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    env().sleep_until(deadline)
}

/// Bounds a wait; see [`Env::timeout`].
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    env().timeout(duration, future)
}

/// Bounds a wait by a moment; see [`Env::timeout_at`].
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    env().timeout_at(deadline, future)
}

/// Does work that may take long without keeping others waiting; see [`Env::in_place`].
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    env().in_place(work)
}

/// Within [`in_place`], between two parts of the work: lets others compute when it has had its turn.
pub fn share_turn() {
    crate::os::share_turn();
}

/// Lets other tasks run.
pub async fn yield_now() {
    crate::timer::YieldNow::default().await;
}

/// Random numbers of the current world.
#[must_use]
pub fn rng() -> Rng {
    env().rng()
}

/// Whether this bug was planted; see [`Env::has_bug`].
#[must_use]
#[inline]
pub fn has_bug(bug: Bug) -> bool {
    cfg!(feature = "planted_bugs") && env().has_bug(bug)
}

/// Mixes bytes into the trace hash of the simulation; nothing outside it.
pub fn trace(bytes: &[u8]) {
    CURRENT.with(|current| {
        if let Some(env) = &*current.borrow() {
            env.backend().trace(bytes);
        }
    });
}
