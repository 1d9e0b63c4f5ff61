//! The client's end of LISTEN: notifications out of the commits that this node's replica applies.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustydb_env::sync::watch;
use rustydb_txn::{Authority, FeedEvent, FeedSubscriber, KvStore};
use rustydb_types::ids::Version;

use super::session::GatewaySession;
use crate::error::{Severity, SqlError, SqlState};
use crate::session::executor::Executor;
use crate::session::notify::{self, Notification};
use crate::session::response::{self, TransactionStatus};

/// Commits with notifications that wait for one session at most.
const WAITING_MAX: usize = 10_000;
/// How long an answer is held back so that what the session itself has sent comes before it.
const OWN_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a ReadyForQuery message.
const READY_SIZE: usize = 6;

/// What a session listens to at its node.
pub(super) struct Listening {
    subscriber: FeedSubscriber,
    /// What was committed up to here is none of the session's.
    after: Version,
    authority: watch::Receiver<Authority>,
    applied: watch::Receiver<Version>,
    /// Up to here the session itself has sent.
    own: Option<Version>,
}

impl Listening {
    fn new(store: &KvStore, after: Version) -> Self {
        Self {
            subscriber: store.attached(WAITING_MAX),
            after,
            authority: store.authority(),
            applied: store.applied_changes(),
            own: None,
        }
    }
}

fn lost() -> SqlError {
    let message = "terminating connection because notifications for it may have been lost";
    SqlError::new(SqlState::ADMIN_SHUTDOWN, message)
        .with_hint("Connect again, LISTEN again, and look at what the notifications would have told.")
        .with_severity(Severity::Fatal)
}

impl<E: Executor> GatewaySession<E> {
    /// The session listens on these channels from now on, or has sent something.
    pub(super) fn listens(&mut self, channels: Option<Vec<String>>, has_sent: bool) {
        if let Some(channels) = channels {
            if channels.is_empty() {
                self.listening = None;
            } else if self.listening.is_none()
                && let Some(store) = self.gateway.cluster().store(self.record.id)
            {
                // Only a node with a replica lets it come to this: see `SessionContext::has_replica`.
                self.listening = Some(Listening::new(&store, self.gateway.applied(&self.record)));
            }
            self.context.channels = channels;
        }
        if has_sent && let Some(listening) = &mut self.listening {
            listening.own = Some(self.gateway.applied(&self.record));
        }
    }

    /// Waits, but not long, until this node has what the session itself has sent.
    pub async fn catch_up(&mut self) {
        let env = self.gateway.env().clone();
        let Some(listening) = &mut self.listening else { return };
        let Some(own) = listening.own.take() else { return };
        let caught_up = listening.applied.wait_for(|applied| *applied >= own);
        // Else it comes later.
        let _late = env.timeout(OWN_WAIT, caught_up).await;
    }

    /// Ends when there is something for [`GatewaySession::deliver`].
    ///
    /// # Cancellation
    /// Safe.
    pub async fn notified(&mut self) {
        let status = self.status();
        match &mut self.listening {
            Some(listening) if status == TransactionStatus::Idle => {
                let (cluster, database) = (self.gateway.cluster(), self.record.id);
                let Listening { subscriber, authority, .. } = listening;
                tokio::select! {
                    biased;
                    () = subscriber.ready() => {}
                    // The replica may have gone from this node.
                    () = async {
                        while authority.changed().await.is_ok() && cluster.store(database).is_some() {}
                    } => {}
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// Writes the notifications that have come, before the ReadyForQuery with which the answer ends, if it does. None
    /// within a transaction.
    ///
    /// # Errors
    /// 57P01, which ends the connection, when some may have been lost.
    pub fn deliver(&mut self, out: &mut BytesMut) -> Result<(), SqlError> {
        if self.status() != TransactionStatus::Idle {
            return Ok(());
        }
        let Some(listening) = &mut self.listening else { return Ok(()) };
        let mut written = BytesMut::new();
        while let Some(event) = listening.subscriber.try_next() {
            let FeedEvent::Change(change) = event else { return Err(lost()) };
            if change.version <= listening.after {
                continue;
            }
            for notification in change.attachments.iter().flat_map(notify::read) {
                if self.context.channels.contains(&notification.channel) {
                    write(&mut written, &notification);
                }
            }
        }
        if self.gateway.cluster().store(self.record.id).is_none() {
            return Err(lost());
        }
        if written.is_empty() {
            return Ok(());
        }
        let ready = out
            .len()
            .checked_sub(READY_SIZE)
            .filter(|at| out.get(*at..).is_some_and(|end| end.starts_with(&[b'Z', 0, 0, 0, 5])));
        match ready {
            Some(at) => {
                let end = out.split_off(at);
                out.extend_from_slice(&written);
                out.extend_from_slice(&end);
            }
            None => out.extend_from_slice(&written),
        }
        Ok(())
    }
}

fn write(out: &mut BytesMut, notification: &Notification) {
    response::message(out, b'A', |out| {
        out.put_i32(notification.pid);
        response::put_string(out, &notification.channel);
        response::put_string(out, &notification.payload);
    });
}
