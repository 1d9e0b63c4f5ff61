//! The change feed: committed changes in order, for subscribers in this process.
//!
//! Each subscriber has a queue of its own with a bound. One that does not keep up loses what does not fit and is
//! told so, and then reads the state anew: a feed never holds up a commit, and never holds memory without bound.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustydb_types::ids::Version;
use tokio::sync::Notify;

use crate::entry::{Attachment, Write};

/// One committed transaction.
#[derive(Debug)]
pub struct Change {
    /// The version at which it was committed.
    pub version: Version,
    /// The changed rows.
    pub writes: Vec<Write>,
    /// What the transaction attached.
    pub attachments: Vec<Attachment>,
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    /// The next committed transaction.
    Change(Arc<Change>),
    /// Something was left out: the subscriber did not keep up, a staged transaction was committed, or the state
    /// was replaced. Read the state as it is now and go on.
    Lagged,
}

struct Queue {
    events: Mutex<QueueState>,
    arrived: Notify,
    bound: usize,
}

#[derive(Default)]
struct QueueState {
    changes: VecDeque<Arc<Change>>,
    lagged: bool,
}

/// A subscription; it ends when dropped.
pub struct FeedSubscriber {
    queue: Arc<Queue>,
}

impl FeedSubscriber {
    /// The next event if there is one, in order of commit.
    pub fn try_next(&mut self) -> Option<FeedEvent> {
        let mut state = self.queue.events.lock();
        if std::mem::take(&mut state.lagged) {
            return Some(FeedEvent::Lagged);
        }
        state.changes.pop_front().map(FeedEvent::Change)
    }

    /// Waits until there is an event.
    ///
    /// # Cancellation
    /// Safe: nothing is taken.
    pub async fn ready(&self) {
        loop {
            {
                let state = self.queue.events.lock();
                if state.lagged || !state.changes.is_empty() {
                    return;
                }
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next event, in order of commit.
    ///
    /// # Cancellation
    /// Safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> FeedEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.queue.arrived.notified().await;
        }
    }
}

/// All subscriptions of one store.
#[derive(Default)]
pub(crate) struct Feed {
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Feed {
    pub(crate) fn subscribe(&self, bound: usize) -> FeedSubscriber {
        let queue = Arc::new(Queue { events: Mutex::default(), arrived: Notify::new(), bound });
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        drop(queues);
        FeedSubscriber { queue }
    }

    pub(crate) fn has_subscribers(&self) -> bool {
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        !queues.is_empty()
    }

    pub(crate) fn publish(&self, changes: Vec<Change>) {
        let changes: Vec<Arc<Change>> = changes.into_iter().map(Arc::new).collect();
        self.each(|queue, state| {
            for change in &changes {
                if state.lagged || state.changes.len() >= queue.bound {
                    state.changes.clear();
                    state.lagged = true;
                    return;
                }
                state.changes.push_back(Arc::clone(change));
            }
        });
    }

    /// Tells every subscriber to read the state anew.
    pub(crate) fn lag_all(&self) {
        self.each(|_, state| {
            state.changes.clear();
            state.lagged = true;
        });
    }

    fn each(&self, mut change: impl FnMut(&Queue, &mut QueueState)) {
        for queue in self.queues.lock().iter().filter_map(Weak::upgrade) {
            change(&queue, &mut queue.events.lock());
            queue.arrived.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u64) -> Change {
        Change { version: Version::new(version), writes: Vec::new(), attachments: Vec::new() }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_goes_on() {
        let feed = Feed::default();
        let mut subscriber = feed.subscribe(2);
        feed.publish(vec![change(1)]);
        assert!(matches!(subscriber.next().await, FeedEvent::Change(it) if it.version == Version::new(1)));
        feed.publish(vec![change(2), change(3), change(4)]);
        assert!(matches!(subscriber.next().await, FeedEvent::Lagged));
        feed.publish(vec![change(5)]);
        assert!(matches!(subscriber.next().await, FeedEvent::Change(it) if it.version == Version::new(5)));
        drop(subscriber);
        assert!(!feed.has_subscribers());
    }
}
