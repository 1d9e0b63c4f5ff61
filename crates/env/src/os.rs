//! The operating system as the outside world: tokio, threads and `std::fs`.

mod dedicated;
mod disk;
mod turns;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::Rng as _;
use rustix::time::{ClockId, clock_gettime};

pub use disk::OsDisk;
pub(crate) use turns::{compute, share as share_turn};

use crate::disk::Disk;
use crate::runtime::{Backend, BoxTask};
use crate::task::Abort;
use crate::time::{Instant, WallTime};
use crate::timer::Sleep;

/// The origin of the monotonic clock, in nanoseconds since the machine was started. One for the whole process, so that
/// moments taken through different handles compare; this is why it is a global.
static ORIGIN: LazyLock<u64> = LazyLock::new(nanos_since_boot);

/// The longest sleep, which is as good as for ever: tokio takes no moment beyond what the system's clock can represent.
const SLEEP_MAX: Duration = Duration::from_secs(31_536_000);

/// Counts while the machine is suspended, too, other than the clock of [`std::time::Instant`]: a leader that wakes up must
/// see that its lease has run out.
fn nanos_since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

/// All handles share one disk: it has no state.
static DISK: LazyLock<Arc<dyn Disk>> = LazyLock::new(|| Arc::new(OsDisk));

pub(crate) struct OsBackend {
    runtime: Option<tokio::runtime::Handle>,
}

impl OsBackend {
    pub(crate) const fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { runtime }
    }
}

impl Abort for tokio::task::AbortHandle {
    fn abort(&self) {
        Self::abort(self);
    }
}

/// A thread cannot be aborted.
struct NoAbort;

impl Abort for NoAbort {
    fn abort(&self) {}
}

impl Backend for OsBackend {
    fn now(&self) -> Instant {
        // The origin first: it must not be later.
        let origin = *ORIGIN;
        Instant::ORIGIN + Duration::from_nanos(nanos_since_boot().saturating_sub(origin))
    }

    fn wall_now(&self) -> WallTime {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => WallTime::from_unix_micros(micros(since)),
            Err(before) => WallTime::from_unix_micros(-micros(before.duration())),
        }
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &DISK
    }

    fn random_u64(&self) -> u64 {
        rand::rng().next_u64()
    }

    fn spawn(&self, _name: &'static str, task: BoxTask) -> Arc<dyn Abort> {
        let handle = match &self.runtime {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        };
        Arc::new(handle.abort_handle())
    }

    fn spawn_dedicated(&self, name: &'static str, task: BoxTask) -> Arc<dyn Abort> {
        let started =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || dedicated::block_on(task));
        match started {
            Ok(_detached) => Arc::new(NoAbort),
            Err(error) => panic!("cannot start thread {name}: {error}"),
        }
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn_blocking(work)),
            None => drop(tokio::task::spawn_blocking(work)),
        }
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let now = self.now();
        let left = if deadline > now { deadline - now } else { Duration::ZERO };
        let until = std::time::Instant::now() + left.min(SLEEP_MAX);
        dedicated::sleep_until(until).unwrap_or_else(|| {
            let _entered = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
            Sleep::new(tokio::time::sleep_until(until.into()))
        })
    }

    fn io_pause(&self) -> Option<Sleep> {
        None
    }

    fn trace(&self, _bytes: &[u8]) {}

    fn is_simulated(&self) -> bool {
        false
    }

    #[cfg(feature = "planted_bugs")]
    fn has_bug(&self, _: crate::bug::Bug) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::runtime::Env;
    use crate::timer::Elapsed;

    #[tokio::test]
    async fn tasks_threads_and_blocking_work_give_their_results() {
        let env = Env::os();
        assert_eq!(env.spawn("task", async { 1 }).await, Ok(1));
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let thread = env.spawn_dedicated("thread", async move { receiver.recv().await });
        sender.send(2).await.unwrap();
        assert_eq!(thread.await, Ok(Some(2)));
        assert_eq!(env.blocking(|| 3).await, 3);
    }

    #[tokio::test]
    async fn a_timeout_ends_the_wait_and_a_ready_future_wins() {
        let env = Env::os();
        let before = env.now();
        assert_eq!(env.timeout(Duration::from_millis(5), std::future::pending::<()>()).await, Err(Elapsed));
        assert!(env.now() - before >= Duration::from_millis(5));
        assert_eq!(env.timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(env.timeout(Duration::MAX, async { 8 }).await, Ok(8));
    }
}
