//! Why a request was not carried out, and what the client is told of it.

use futures_util::future::BoxFuture;
use rustydb_txn::TxnError;
use rustydb_types::ids::RequestId;

use super::sink::SinkClosed;
use crate::error::{SqlError, SqlState};

/// Why a request was not carried out.
pub(super) enum Fault {
    /// The client is told.
    Sql(SqlError),
    /// Nobody is left to be told.
    Closed,
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<SinkClosed> for Fault {
    fn from(_: SinkClosed) -> Self {
        Self::Closed
    }
}

/// Translates what the store says.
pub(crate) fn store_error(error: TxnError) -> SqlError {
    let message = error.to_string();
    let retry = "The transaction might succeed if retried.";
    match error {
        TxnError::NotLeader { .. } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction ended because the leader of the database changed",
        )
        .with_hint(retry)
        .fallen(),
        TxnError::Fallen { reason } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction ended because the leader of the database changed",
        )
        .with_detail(reason)
        .with_hint(retry)
        .fallen(),
        TxnError::Serialization { reason } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to concurrent update",
        )
        .with_detail(reason)
        .with_hint(retry),
        TxnError::Deadlock => SqlError::new(SqlState::DEADLOCK_DETECTED, message).with_hint(retry),
        TxnError::LockTimeout => {
            SqlError::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        }
        TxnError::LockNotAvailable => SqlError::new(SqlState::LOCK_NOT_AVAILABLE, message),
        TxnError::SnapshotTooOld => SqlError::new(SqlState::SNAPSHOT_TOO_OLD, message),
        TxnError::UnknownOutcome => SqlError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message),
        TxnError::Overloaded { .. } => SqlError::new(SqlState::INSUFFICIENT_RESOURCES, message)
            .with_hint("Try again when the cluster has caught up."),
        TxnError::DiskFull => SqlError::new(SqlState::DISK_FULL, message),
        TxnError::ReadOnly => SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message),
        TxnError::TooLarge { .. } => SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
        TxnError::TooManyChanges { .. } => {
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message).with_hint(crate::error::TOO_MANY_CHANGES)
        }
        TxnError::NoSuchSavepoint => SqlError::new(SqlState::INVALID_SAVEPOINT_SPECIFICATION, message),
        TxnError::Stopped => SqlError::new(SqlState::ADMIN_SHUTDOWN, message).fallen(),
        _ => SqlError::new(SqlState::IO_ERROR, message),
    }
}

/// The result of a commit that was in doubt.
pub(super) async fn resolve(
    asked: BoxFuture<'static, Option<bool>>,
    token: Option<&str>,
    request: RequestId,
) -> Result<(), SqlError> {
    match asked.await {
        Some(true) => Ok(()),
        Some(false) => Err(SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction was not committed because the leader of the database changed",
        )
        .with_hint("The transaction might succeed if retried.")
        .fallen()),
        None => Err(ask_later(
            SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                format!("whether the transaction was committed is not known (request {request})"),
            ),
            token,
        )),
    }
}

/// Tells the client of a commit in doubt how it can ask for its outcome.
pub(crate) fn ask_later(error: SqlError, token: Option<&str>) -> SqlError {
    let Some(token) = token else {
        return error.with_hint("Check whether its effects are there before trying it again.");
    };
    error
        .with_detail(format!("transaction token: {token}"))
        .with_hint(format!("Reconnect and ask: SELECT rustydb_transaction_outcome('{token}')"))
}

pub(super) fn no_transaction() -> SqlError {
    SqlError::internal("no transaction is open")
}

pub(super) fn needs_block(what: &str) -> SqlError {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        format!("{what} can only be used in transaction blocks"),
    )
}

pub(super) fn no_such_statement(name: &str) -> SqlError {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

pub(super) fn no_such_cursor(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

pub(super) fn no_such_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use rustydb_types::ids::{Incarnation, SessionId};

    use super::*;

    #[tokio::test]
    async fn a_commit_in_doubt_is_told_with_the_token_to_ask_by() {
        let request = RequestId { incarnation: Incarnation::new(1), session: SessionId::new(2), counter: 3 };
        let token = "r1.4000.1.2.3.4.0123456789abcdef";
        let error = resolve(Box::pin(async { None }), Some(token), request).await.unwrap_err();
        assert_eq!(error.state(), SqlState::TRANSACTION_RESOLUTION_UNKNOWN);
        let shown = format!("{error:?}");
        assert!(shown.contains(&format!("transaction token: {token}")), "{shown}");
        assert!(shown.contains(&format!("SELECT rustydb_transaction_outcome('{token}')")), "{shown}");
        assert!(resolve(Box::pin(async { Some(true) }), Some(token), request).await.is_ok());
        let refused = resolve(Box::pin(async { Some(false) }), Some(token), request).await.unwrap_err();
        assert_eq!(refused.state(), SqlState::SERIALIZATION_FAILURE);
    }
}
