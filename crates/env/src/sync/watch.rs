//! One value, many watchers: each learns that it changed, not how often. Watchers are woken in the order in
//! which they began to wait.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::{Waiters, wake_all};

/// The other side is gone: no sender is left, or no receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the watch is gone")]
pub struct Closed;

struct Shared<T> {
    value: RwLock<T>,
    control: Mutex<Control>,
}

struct Control {
    /// Counts the changes; a receiver remembers the count it has seen.
    changes: u64,
    senders: usize,
    receivers: usize,
    waiters: Waiters,
}

impl<T> Shared<T> {
    fn announce(&self) {
        let wakers = {
            let mut control = self.control.lock();
            control.changes += 1;
            control.waiters.take()
        };
        wake_all(wakers);
    }
}

/// Changes the value.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Watches the value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value. Holds a read lock: keep it short and never across an await.
pub struct Ref<'a, T> {
    guard: RwLockReadGuard<'a, T>,
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}

/// A watch with its first value, which counts as seen.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let control = Control { changes: 0, senders: 1, receivers: 1, waiters: Waiters::default() };
    let shared = Arc::new(Shared { value: RwLock::new(value), control: Mutex::new(control) });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, seen: 0 })
}

impl<T> Sender<T> {
    /// Replaces the value and wakes the watchers.
    ///
    /// # Errors
    /// [`Closed`] when nobody watches; the value is then unchanged.
    pub fn send(&self, value: T) -> Result<(), Closed> {
        if self.shared.control.lock().receivers == 0 {
            return Err(Closed);
        }
        self.send_replace(value);
        Ok(())
    }

    /// Replaces the value, watched or not, and returns the former one.
    pub fn send_replace(&self, value: T) -> T {
        let former = std::mem::replace(&mut *self.shared.value.write(), value);
        self.shared.announce();
        former
    }

    /// Changes the value in place; watchers are woken only if `modify` says that it changed. Returns that.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = modify(&mut self.shared.value.write());
        if modified {
            self.shared.announce();
        }
        modified
    }

    /// Changes the value in place and wakes the watchers.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.shared.control.lock().receivers > 0
    }

    /// Looks at the value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { guard: self.shared.value.read() }
    }

    /// A new watcher that has seen the present value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = {
            let mut control = self.shared.control.lock();
            control.receivers += 1;
            control.changes
        };
        Receiver { shared: Arc::clone(&self.shared), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.control.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut control = self.shared.control.lock();
            control.senders -= 1;
            if control.senders > 0 {
                return;
            }
            control.waiters.take()
        };
        wake_all(wakers);
    }
}

impl<T> Receiver<T> {
    /// Looks at the value without marking it as seen.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { guard: self.shared.value.read() }
    }

    /// Looks at the value and marks it as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let guard = self.shared.value.read();
        self.seen = self.shared.control.lock().changes;
        Ref { guard }
    }

    /// Whether the value changed since it was last seen.
    ///
    /// # Errors
    /// [`Closed`] when it did not and no sender is left.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let control = self.shared.control.lock();
        if control.changes == self.seen && control.senders == 0 {
            return Err(Closed);
        }
        Ok(control.changes != self.seen)
    }

    /// Makes the present value count as unseen, so that the next [`changed`](Self::changed) returns at once.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.control.lock().changes.wrapping_sub(1);
    }

    /// Waits until the value differs from the last one seen, and marks it as seen. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when it did not change and no sender is left.
    pub fn changed(&mut self) -> Changed<'_, T> {
        Changed { receiver: self, ticket: None }
    }

    /// Waits until the value fulfils a condition. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when it does not and no sender is left.
    pub async fn wait_for(&mut self, mut fulfils: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            if fulfils(&self.borrow_and_update()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.control.lock().receivers += 1;
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.control.lock().receivers -= 1;
    }
}

/// Made by [`Receiver::changed`].
pub struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    ticket: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut control = this.receiver.shared.control.lock();
        if control.changes != this.receiver.seen {
            this.receiver.seen = control.changes;
            return Poll::Ready(Ok(()));
        }
        if control.senders == 0 {
            return Poll::Ready(Err(Closed));
        }
        control.waiters.register(&mut this.ticket, cx.waker());
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        self.receiver.shared.control.lock().waiters.forget(&mut self.ticket);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch::Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch::Receiver")
    }
}

impl<T> fmt::Debug for Changed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watch::Changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_a_lost_sender_is_told() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), 3);
        assert_eq!(receiver.has_changed(), Ok(false));
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send_modify(|value| *value = 4);
        drop(sender);
        receiver.changed().await.unwrap();
        assert_eq!(receiver.changed().await, Err(Closed));
    }

    #[tokio::test]
    async fn sending_without_a_watcher_is_refused() {
        let (sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(2), Err(Closed));
        assert_eq!(*sender.borrow(), 1);
        let mut late = sender.subscribe();
        sender.send(5).unwrap();
        late.wait_for(|value| *value == 5).await.unwrap();
    }
}
