//! Whether a session has temporary objects, which are to go when it ends.

use std::sync::atomic::{AtomicBool, Ordering};

/// What a session and its gateway know of that.
#[derive(Debug, Default)]
pub struct Temporary {
    is_there: AtomicBool,
    /// Whether the gateway knows.
    is_told: AtomicBool,
}

impl Temporary {
    /// Of a session that was elsewhere.
    #[must_use]
    pub fn of_moved_session(is_there: bool) -> Self {
        Self { is_there: AtomicBool::new(is_there), is_told: AtomicBool::new(is_there) }
    }

    /// There are some from here on, as far as the transaction commits that makes them.
    pub fn note(&self) {
        self.is_there.store(true, Ordering::Relaxed);
    }

    /// Whether there may be some.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// Whether the gateway is to be told that there are some.
    #[must_use]
    pub fn news(&self) -> bool {
        self.is_there() && !self.is_told.load(Ordering::Relaxed)
    }

    /// As [`Temporary::news`], once.
    pub fn take_news(&self) -> bool {
        self.is_there() && !self.is_told.swap(true, Ordering::Relaxed)
    }
}
