//! Counters of the front end, exported by the server.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only this module's users add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes `amount` away, for counters of what is there now.
    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the front end counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted.
    pub connections_total: Counter,
    /// Connections refused because there were too many.
    pub connections_refused_total: Counter,
    /// Connections that are open now.
    pub connections: Counter,
    /// Logins that failed.
    pub authentication_failures_total: Counter,
    /// Connections ended because the client broke the protocol.
    pub protocol_violations_total: Counter,
    /// Cancel requests with the right secret.
    pub cancel_requests_total: Counter,
    /// Messages received.
    pub messages_total: Counter,
    /// Bytes received.
    pub received_bytes_total: Counter,
    /// Bytes sent.
    pub sent_bytes_total: Counter,
}
