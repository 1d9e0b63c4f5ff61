//! Primitives that wake their waiters in a fixed order.
//!
//! `tokio::sync::{mpsc, oneshot, Mutex, Semaphore, Notify}` are first come, first served and may be used in the
//! simulator as they are. `tokio::sync::watch` wakes many waiters in random order, so [`watch`] replaces it; and
//! `tokio::select!` must always be `biased`.

pub mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The wakers of those who wait, woken in the order in which they began to wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Puts a waiter in the queue, or renews the waker of one that has a `ticket` already.
    pub(crate) fn register(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let number = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.wakers.entry(number).or_insert_with(|| waker.clone()).clone_from(waker);
    }

    /// Forgets a waiter that gave up.
    pub(crate) fn forget(&mut self, ticket: &mut Option<u64>) {
        if let Some(number) = ticket.take() {
            self.wakers.remove(&number);
        }
    }

    /// Takes all, to be woken after the lock is released.
    pub(crate) fn take(&mut self) -> BTreeMap<u64, Waker> {
        std::mem::take(&mut self.wakers)
    }
}

/// Wakes in order.
pub(crate) fn wake_all(wakers: BTreeMap<u64, Waker>) {
    for (_, waker) in wakers {
        waker.wake();
    }
}

/// A flag that is set once and can be waited for by many.
#[derive(Clone, Debug, Default)]
pub struct Signal {
    inner: Arc<Mutex<SignalState>>,
}

#[derive(Debug, Default)]
struct SignalState {
    set: bool,
    waiters: Waiters,
}

impl Signal {
    /// Sets the flag and wakes all who wait. Setting it again does nothing.
    pub fn set(&self) {
        let wakers = {
            let mut state = self.inner.lock();
            state.set = true;
            state.waiters.take()
        };
        wake_all(wakers);
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.inner.lock().set
    }

    /// Ends when the flag is set. Cancel-safe.
    #[must_use]
    pub fn wait(&self) -> SignalWait {
        SignalWait { signal: self.clone(), ticket: None }
    }
}

/// Made by [`Signal::wait`].
#[derive(Debug)]
pub struct SignalWait {
    signal: Signal,
    ticket: Option<u64>,
}

impl Future for SignalWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.signal.inner.lock();
        if state.set {
            return Poll::Ready(());
        }
        state.waiters.register(&mut this.ticket, cx.waker());
        Poll::Pending
    }
}

impl Drop for SignalWait {
    fn drop(&mut self) {
        self.signal.inner.lock().waiters.forget(&mut self.ticket);
    }
}
