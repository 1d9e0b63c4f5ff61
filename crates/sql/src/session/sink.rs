//! Where a session's answers go.

use std::future::Future;

use bytes::BytesMut;
use rustydb_types::ids::RequestId;

use super::response::TransactionStatus;
use crate::gateway::frame::StateChanges;

/// Bytes of answers beyond which a session sends before it goes on, so that a slow reader slows the statement and
/// the buffer stays within this and one row.
pub const OUTPUT_SIZE_HIGH: usize = 64 * 1024;

/// The reader is gone; the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct SinkClosed;

/// Takes backend messages: a client's socket, or the way to another node's gateway.
pub trait ResponseSink: Send {
    /// What was answered and not yet sent. A session appends whole messages.
    fn buffer(&mut self) -> &mut BytesMut;

    /// Sends what is in the buffer and waits until the way is free again. A session that must not yet show what is
    /// in the buffer does not call this.
    fn flush(&mut self) -> impl Future<Output = Result<(), SinkClosed>> + Send;

    /// The commit named `request` is about to be proposed, the last of the message. If it stands, the answer to the
    /// batch ends with what is in the buffer and `rest`, the session is at `status` and has changed by `changes`. A sink
    /// whose reader may lose this node passes that on, to be shown only when the commit is known to stand.
    fn before_commit(
        &mut self,
        request: RequestId,
        status: TransactionStatus,
        rest: &[u8],
        changes: StateChanges,
    ) -> impl Future<Output = Result<(), SinkClosed>> + Send;
}
