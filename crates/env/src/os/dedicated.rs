//! A task with a thread of its own, which sleeps by itself: it needs no runtime, and outlives the one that it was begun in.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use crate::runtime::BoxTask;
use crate::timer::Sleep;

thread_local! {
    /// On such a thread: when its task is to be polled again at the latest.
    static WAKES_AT: Cell<Option<Option<Instant>>> = const { Cell::new(None) };
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs one future on this thread, which sleeps while the future waits.
pub(super) fn block_on(mut task: BoxTask) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        // A moment that is to come stays: whoever waits for it may not be polled each time.
        let to_come = WAKES_AT.get().flatten().filter(|at| *at > Instant::now());
        WAKES_AT.set(Some(to_come));
        if task.as_mut().poll(&mut cx).is_ready() {
            return WAKES_AT.set(None);
        }
        // `unpark` before `park` makes the next `park` return at once, so no wake-up is lost.
        match WAKES_AT.get().flatten() {
            Some(at) => std::thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => std::thread::park(),
        }
    }
}

/// A wait until then on a thread of this kind; [`None`] on any other.
pub(super) fn sleep_until(until: Instant) -> Option<Sleep> {
    WAKES_AT.get().map(|_| Sleep::new(OwnSleep(until)))
}

struct OwnSleep(Instant);

impl Future for OwnSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.0 {
            return Poll::Ready(());
        }
        match WAKES_AT.get() {
            Some(at) => WAKES_AT.set(Some(Some(at.map_or(self.0, |at| at.min(self.0))))),
            // It was handed to another thread.
            None => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::runtime::Env;
    use crate::timer::Elapsed;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_thread_of_its_own_goes_on_sleeping_when_the_runtime_is_gone() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let begun = runtime.block_on(async {
            let env = Env::os();
            let (begins, begun) = tokio::sync::oneshot::channel();
            let sleeper = env.clone();
            drop(env.spawn_dedicated("sleeper", async move {
                begins.send(()).unwrap();
                for number in 0..3 {
                    let long = Duration::from_millis(30);
                    assert_eq!(sleeper.timeout(long, std::future::pending::<()>()).await, Err(Elapsed));
                    sleeper.sleep(long).await;
                    sender.send(number).unwrap();
                }
            }));
            begun.await
        });
        begun.unwrap();
        drop(runtime);
        let woken: Vec<_> = (0..3).map(|_| receiver.recv_timeout(PATIENCE)).collect();
        assert_eq!(woken, [Ok(0), Ok(1), Ok(2)]);
    }

    #[test]
    fn the_first_of_two_moments_wakes_and_the_other_does_so_later() {
        let env = Env::os();
        let (sender, receiver) = std::sync::mpsc::channel();
        let sleeper = env.clone();
        drop(env.spawn_dedicated("sleeper", async move {
            let (mut short, mut long) =
                (sleeper.sleep(Duration::from_millis(5)), sleeper.sleep(Duration::from_millis(40)));
            tokio::select! {
                // On a busy machine both may have passed.
                biased;
                () = &mut short => sender.send("short").unwrap(),
                () = &mut long => sender.send("long").unwrap(),
            }
            long.await;
            sender.send("long").unwrap();
        }));
        let woken: Vec<_> = (0..2).map(|_| receiver.recv_timeout(PATIENCE)).collect();
        assert_eq!(woken, [Ok("short"), Ok("long")]);
    }
}
