//! Tasks: who spawns, joins.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::runtime::Env;
use crate::sync::Signal;

/// Ends a task at its next suspension.
pub(crate) trait Abort: Send + Sync {
    fn abort(&self);
}

/// A task gave no result: it was cancelled, it panicked, or its node crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {name} was cancelled or panicked")]
pub struct JoinError {
    name: &'static str,
}

impl JoinError {
    /// The name given at `spawn`.
    #[must_use]
    pub const fn task(self) -> &'static str {
        self.name
    }
}

/// A running task; awaiting it gives its result. Dropping the handle leaves the task running, so keep it in a
/// [`TaskGroup`] or await it.
pub struct TaskHandle<T> {
    name: &'static str,
    result: oneshot::Receiver<T>,
    abort: Arc<dyn Abort>,
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(name: &'static str, result: oneshot::Receiver<T>, abort: Arc<dyn Abort>) -> Self {
        Self { name, result, abort }
    }

    /// The name given at `spawn`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Ends the task at its next suspension. A dedicated thread is not ended this way; it must be told.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.result.is_empty() || self.result.is_terminated()
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.result).poll(cx).map(|result| result.map_err(|_| JoinError { name }))
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a shutdown had to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Tasks that did not end in time and were aborted.
    pub aborted: Vec<&'static str>,
}

/// The tasks of one owner. They are told to stop by a [`Signal`], joined, and aborted if they take too long.
///
/// Dropping the group aborts what is still running.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<GroupInner>,
}

struct GroupInner {
    env: Env,
    stopping: Signal,
    tasks: Mutex<Vec<TaskHandle<()>>>,
}

impl Drop for GroupInner {
    fn drop(&mut self) {
        self.stopping.set();
        for task in self.tasks.get_mut().drain(..) {
            task.abort();
        }
    }
}

impl fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup").field("tasks", &self.inner.tasks.lock().len()).finish_non_exhaustive()
    }
}

impl TaskGroup {
    /// An empty group whose tasks run in `env`.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        let inner =
            GroupInner { env: env.clone(), stopping: Signal::default(), tasks: Mutex::new(Vec::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// Set when the group is shutting down: long-lived tasks wait for it beside their work. A task must hold
    /// this signal and not the group itself, or the group would never be dropped.
    #[must_use]
    pub fn stopping(&self) -> Signal {
        self.inner.stopping.clone()
    }

    /// Starts a task of the group. In a group that is shutting down nothing is started.
    ///
    /// The number of tasks is bounded by what spawns them (connections, groups, peers), not here.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.inner.stopping.is_set() {
            return;
        }
        let handle = self.inner.env.spawn(name, future);
        let mut tasks = self.inner.tasks.lock();
        if tasks.len() >= 16 && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(handle);
    }

    /// Tells all tasks to stop, waits for them until `deadline` has passed, aborts the rest and waits for those.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.inner.stopping.set();
        let until = self.inner.env.now() + deadline;
        let mut report = ShutdownReport::default();
        loop {
            let tasks = std::mem::take(&mut *self.inner.tasks.lock());
            if tasks.is_empty() {
                return report;
            }
            for mut task in tasks {
                if self.inner.env.timeout_at(until, &mut task).await.is_err() {
                    report.aborted.push(task.name());
                    task.abort();
                    // An aborted task ends at its next suspension; a second without one is a blocked thread.
                    let _ended = self.inner.env.timeout(Duration::from_secs(1), task).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_joins_the_willing_and_aborts_the_rest() {
        let env = Env::os();
        let group = TaskGroup::new(&env);
        let stopping = group.stopping();
        group.spawn("willing", async move { stopping.wait().await });
        group.spawn("stubborn", std::future::pending());
        let report = group.shutdown(Duration::from_millis(20)).await;
        assert_eq!(report.aborted, vec!["stubborn"]);
        group.spawn("late", std::future::pending());
        assert!(group.inner.tasks.lock().is_empty());
    }

    #[tokio::test]
    async fn a_cancelled_task_is_a_join_error() {
        let handle = Env::os().spawn("endless", std::future::pending::<()>());
        handle.abort();
        assert_eq!(handle.await, Err(JoinError { name: "endless" }));
    }
}
