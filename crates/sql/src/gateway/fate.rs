//! What became of a batch whose node was lost, and whether it can be run again.

use rustydb_types::ids::{RequestId, Version};

use super::session::GatewaySession;
use crate::error::{SqlError, SqlState};
use crate::session::executor::Executor;
use crate::session::request::Request;
use crate::session::response::{Messages, TransactionStatus};
use crate::session::statement::Statement;
use crate::session::syntax;
use crate::session::token::TransactionToken;

impl<E: Executor> GatewaySession<E> {
    /// Whether a commit of the lost batch took place; `None` when that cannot be learnt. `may_be_open`: a transaction
    /// was open when it began. Request ids that the batch can have used are used up then, so that whatever still runs
    /// of it where it was lost is never taken for something that comes later.
    pub(super) async fn fate(&mut self, batch: &[u8], held: Option<u64>, may_be_open: bool) -> Option<bool> {
        let last = self.context.counter;
        // No statement takes less than a byte, and no transaction less than a statement.
        let reach = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.context.counter = last.saturating_add(reach).saturating_add(1);
        let asked = candidates(last, held, may_be_open);
        if held.is_none() && self.transaction_count_max(batch) > asked.iter().flatten().count() {
            // Only a session's last commit can be asked for, and which one that would be is not known.
            return None;
        }
        let mut committed = false;
        for counter in asked.into_iter().flatten() {
            let key = self.key;
            let request = RequestId { incarnation: key.incarnation, session: key.session, counter };
            committed |= self.gateway.outcome(&self.record, request).await?;
        }
        // A later transaction of the batch than its first: the earlier ones are done.
        let is_first = held.is_none_or(|counter| counter <= last + 1);
        (committed || is_first).then_some(committed)
    }

    /// The names of what the batch may have committed, for the client to ask; `since` is a version from before it.
    pub(super) fn tokens(
        &self,
        held: Option<u64>,
        may_be_open: bool,
        since: Version,
    ) -> Vec<TransactionToken> {
        let token = |counter| TransactionToken {
            database: self.record.id,
            request: RequestId { incarnation: self.key.incarnation, session: self.key.session, counter },
            since,
        };
        candidates(self.context.counter, held, may_be_open).into_iter().flatten().map(token).collect()
    }

    /// Whether the batch, the first of a request, may have committed something: outside of a block anything may, and
    /// in one a COMMIT, or what comes after the block's end.
    pub(super) fn may_commit(&self, batch: &[u8]) -> bool {
        self.status == TransactionStatus::Idle || self.has_statement(batch, ends_transaction)
    }

    /// Most transactions that the batch can have a part in.
    fn transaction_count_max(&self, batch: &[u8]) -> usize {
        let mut ends = 0;
        let mut is_last = false;
        let visited = self.visit(batch, |statement| {
            is_last = statement.is_none_or(ends_transaction);
            ends += usize::from(is_last);
        });
        if !visited {
            return usize::MAX;
        }
        // What ends the last transaction begins none.
        1 + ends - usize::from(is_last)
    }

    /// Whether running the batch a second time does the same as running it once, given that nothing of it committed.
    /// Statements of the system group commit elsewhere.
    pub(super) fn can_repeat(&self, batch: &[u8]) -> bool {
        !self.has_statement(batch, |statement| matches!(statement, Statement::System(_)))
    }

    /// Whether the batch runs such a statement, or something that cannot be read.
    pub(super) fn has_statement(&self, batch: &[u8], is_such: impl Fn(&Statement) -> bool) -> bool {
        let mut has = false;
        let visited = self.visit(batch, |statement| has |= statement.is_some_and(&is_such));
        has || !visited
    }

    /// Shows every statement that the batch runs, in its order; nothing in place of one that was bound before. Answers
    /// whether all messages could be read; text that is no SQL runs nothing.
    fn visit<'b>(&'b self, batch: &'b [u8], mut visitor: impl FnMut(Option<&Statement>)) -> bool {
        let mut parsed: Vec<(&'b str, &'b str)> = Vec::new();
        let mut bound: Vec<&'b str> = Vec::new();
        let show = |sql: &str, visitor: &mut dyn FnMut(Option<&Statement>)| {
            for statement in syntax::parse(sql).unwrap_or_default() {
                visitor(Some(&statement));
            }
        };
        for (tag, body) in Messages::new(batch) {
            match Request::decode(tag, body) {
                Ok(Request::Query { sql }) => show(sql, &mut visitor),
                Ok(Request::Parse { name, sql, .. }) => parsed.push((name, sql)),
                Ok(Request::Bind(bind)) => {
                    bound.push(bind.portal);
                    let here = parsed.iter().rev().find(|(name, _)| *name == bind.statement);
                    if let Some((_, sql)) = here {
                        show(sql, &mut visitor);
                    } else if bind.statement.is_empty() {
                        if let Ok(Request::Parse { sql, .. }) = Request::decode(b'P', &self.unnamed) {
                            show(sql, &mut visitor);
                        }
                    } else if let Some(prepared) =
                        self.context.prepared.iter().find(|prepared| prepared.name == bind.statement)
                    {
                        show(&prepared.sql, &mut visitor);
                    }
                }
                Ok(Request::Execute { portal, .. }) if !bound.contains(&portal) => visitor(None),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// The commits of a session that a lost batch may have taken part in, after `last`: the one that it told about, or
/// the one that was open and the next.
fn candidates(last: u64, held: Option<u64>, may_be_open: bool) -> [Option<u64>; 2] {
    match held {
        Some(counter) => [None, Some(counter)],
        None => [(may_be_open && last > 0).then_some(last), Some(last + 1)],
    }
}

fn ends_transaction(statement: &Statement) -> bool {
    matches!(statement, Statement::Commit(_) | Statement::Rollback(_))
}

pub(super) fn moved() -> SqlError {
    SqlError::new(
        SqlState::SERIALIZATION_FAILURE,
        "the transaction was not committed because the leader of the database changed",
    )
    .with_hint("The transaction might succeed if retried.")
}

pub(super) fn in_doubt() -> SqlError {
    SqlError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "the node that ran the statements was lost, and with it the answer to what may have been committed",
    )
}
