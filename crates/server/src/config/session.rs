//! `[session]`: limits and timeouts of PostgreSQL connections.

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, TimeSpan};

/// `[session]`: what a client may use. A timeout of `0s` is off, as in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Most connections at a time to this node; default 200, range 1 to 100000. One more is refused with 53300.
    pub max_connections: usize,
    /// Largest message taken from a client that is logged in; default 64MiB, range 64KiB to 1GiB. A larger one
    /// ends the connection with 08P01.
    pub max_message_size: ByteSize,
    /// Longest time from connecting to being logged in; default 30s, range 1s to 10min.
    pub authentication_timeout: TimeSpan,
    /// Time after which a session that does nothing outside a transaction is ended; default 0s.
    pub idle_session_timeout: TimeSpan,
    /// Time after which a session that does nothing inside a transaction is ended; default 0s.
    pub idle_in_transaction_session_timeout: TimeSpan,
    /// Time after which a statement is cancelled; default 0s.
    pub statement_timeout: TimeSpan,
    /// Time after which waiting for a lock ends with 55P03; default 0s.
    pub lock_timeout: TimeSpan,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            max_connections: 200,
            max_message_size: ByteSize::from_mib(64),
            authentication_timeout: TimeSpan::from_secs(30),
            idle_session_timeout: TimeSpan::default(),
            idle_in_transaction_session_timeout: TimeSpan::default(),
            statement_timeout: TimeSpan::default(),
            lock_timeout: TimeSpan::default(),
        }
    }
}
