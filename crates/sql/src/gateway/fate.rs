//! What became of a batch whose node was lost, and whether it can be run again.

use std::ops::RangeInclusive;

use rustydb_env::Bug;
use rustydb_types::ids::RequestId;

use super::portals::{Bound, is_decisive, is_plain};
use super::session::GatewaySession;
use crate::error::{SqlError, SqlState};
use crate::session::executor::Executor;
use crate::session::request::Request;
use crate::session::response::{Messages, TransactionStatus};
use crate::session::statement::{Chain, Statement};
use crate::session::syntax;
use crate::session::token::TransactionToken;

/// How many of a session's last transactions can be asked for: its last commit, and what was told to be refused since.
const ASKED_MAX: u64 = 2;

/// The transactions that a lost batch may have committed, by the counters of their request ids, in their order; [`None`]
/// when there may be more than can be asked for.
pub(super) type Part = Option<RangeInclusive<u64>>;

impl<E: Executor> GatewaySession<E> {
    /// The part that the batch had. `held`: the commit that it told about.
    pub(super) fn part(&self, batch: &[u8], held: Option<u64>) -> Part {
        let count = if held.is_some() { 0 } else { self.transaction_count_max(batch) };
        let is_open = self.is_open || self.gateway.env().has_bug(Bug::OpenAssumed);
        part_of(self.context.counter, is_open, held, count)
    }

    /// Whether a commit of a lost batch took place; `None` when that cannot be learnt. With `held`, whether that one did,
    /// and `Some(false)` only when no other one did either.
    pub(super) async fn fate(&mut self, part: &Part, held: Option<u64>) -> Option<bool> {
        // What comes last is asked for first: each answer also makes sure that nothing before it takes place any more.
        if let Some(counter) = held
            && self.is_committed(counter).await?
        {
            return Some(true);
        }
        let Some(part) = part.clone() else {
            // What still runs of it ends before the client looks for its effects.
            self.is_committed(self.context.counter).await?;
            return None;
        };
        let mut is_any = false;
        for counter in part.rev().filter(|counter| Some(*counter) != held) {
            is_any |= self.is_committed(counter).await?;
        }
        match held {
            None => Some(is_any),
            // The answer that was held back is not the one to give.
            Some(_) => (!is_any).then_some(false),
        }
    }

    /// Uses up the request ids that a batch may have used, so that whatever still runs of it where it was lost is never
    /// taken for something that comes later.
    pub(super) fn use_up(&mut self, batch: &[u8]) {
        // No statement takes less than a byte, and no transaction less than a statement.
        let reach = batch.len().saturating_add(self.copying.len()).saturating_add(1);
        let reach = u64::try_from(reach).unwrap_or(u64::MAX);
        self.context.counter = self.context.counter.saturating_add(reach);
    }

    async fn is_committed(&mut self, counter: u64) -> Option<bool> {
        let request = self.request(counter);
        self.gateway.outcome(&self.record, request, self.since).await.is_committed()
    }

    const fn request(&self, counter: u64) -> RequestId {
        RequestId { incarnation: self.key.incarnation, session: self.key.session, counter }
    }

    /// The name of what the batch may have committed, for the client to ask; none when that may be more than one
    /// transaction: the client does not know which of those have request ids.
    pub(super) fn token(&self, part: &Part) -> Option<String> {
        let part = part.as_ref().filter(|part| part.start() == part.end())?;
        let (database, request) = (self.record.id, self.request(*part.end()));
        Some(self.record.token_key.text(&TransactionToken { database, request, since: self.since }))
    }

    /// Whether the batch may have committed something: outside of a block anything may, and in one a COMMIT, or what
    /// comes after the block was given up, unless it was for another one.
    pub(super) fn may_commit(&self, batch: &[u8]) -> bool {
        let mut may = self.status == TransactionStatus::Idle;
        let mut is_given_up = false;
        let visited = self.visit(batch, |statement| match statement {
            Some(Statement::Rollback(Chain::NoChain)) => is_given_up = true,
            Some(Statement::Commit(_)) | None => may = true,
            Some(_) => may |= is_given_up,
        });
        may || !visited
    }

    /// Most transactions that the batch can have a part in.
    fn transaction_count_max(&self, batch: &[u8]) -> u64 {
        let mut ends = 0;
        let mut is_last = false;
        let visited = self.visit(batch, |statement| {
            is_last = statement.is_none_or(ends_transaction);
            ends += u64::from(is_last);
        });
        if !visited {
            return u64::MAX;
        }
        // What ends the last transaction begins none.
        1 + ends - u64::from(is_last)
    }

    /// Whether the batch begins with the end of a block without a commit, and may be run again.
    pub(super) fn takes_back(&self, batch: &[u8]) -> bool {
        let mut begins = None;
        let mut may = true;
        let visited = self.visit(batch, |statement| {
            let rolls_back = matches!(statement, Some(Statement::Rollback(Chain::NoChain)));
            begins.get_or_insert(rolls_back);
            // Nobody remembers how the block began that the next one is to be like.
            may &= statement.is_some_and(|one| !matches!(one, Statement::Rollback(Chain::Chain)));
        });
        visited && may && begins == Some(true) && self.can_repeat(batch)
    }

    /// Whether running the batch a second time does the same as running it once, given that nothing of it committed.
    /// Statements of the system group commit elsewhere.
    pub(super) fn can_repeat(&self, batch: &[u8]) -> bool {
        !self.has_statement(batch, |statement| matches!(statement, Statement::System(_)))
    }

    /// Whether the batch runs such a statement, or something that cannot be read.
    pub(super) fn has_statement(&self, batch: &[u8], is_such: impl Fn(&Statement) -> bool) -> bool {
        let mut has = false;
        let visited = self.visit(batch, |statement| has |= statement.is_none_or(&is_such));
        has || !visited
    }

    /// Shows every statement that the batch runs, in its order; of those that were bound before only what matters,
    /// and nothing in place of one that may be anything. When it ends the data of a COPY, all of the Query is shown
    /// first that the COPY is of. Answers whether all messages could be read; text that is no SQL runs nothing.
    fn visit(&self, batch: &[u8], mut visitor: impl FnMut(Option<&Statement>)) -> bool {
        let takes_data = Messages::new(batch).any(|(tag, _)| matches!(tag, b'c' | b'f'));
        (!takes_data || self.visit_messages(&self.copying, &mut visitor))
            && self.visit_messages(batch, &mut visitor)
    }

    fn visit_messages<'b>(
        &'b self,
        batch: &'b [u8],
        mut visitor: &mut impl FnMut(Option<&Statement>),
    ) -> bool {
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
                    match self.sql_of(&parsed, bind.statement) {
                        Some(sql) => show(sql, &mut visitor),
                        // It may have been prepared by a statement of the batch.
                        None => visitor(None),
                    }
                }
                Ok(Request::Execute { portal, .. }) if !bound.contains(&portal) => {
                    if let Some(statement) = self.portals.get(portal) {
                        visitor(statement);
                    }
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The text of a prepared statement, given those that a batch has prepared so far.
    fn sql_of<'b>(&'b self, parsed: &[(&'b str, &'b str)], name: &str) -> Option<&'b str> {
        if let Some((_, sql)) = parsed.iter().rev().find(|(other, _)| *other == name) {
            return Some(sql);
        }
        if name.is_empty() {
            return match Request::decode(b'P', &self.unnamed) {
                Ok(Request::Parse { sql, .. }) => Some(sql),
                _ => None,
            };
        }
        let prepared = self.context.prepared.iter().find(|prepared| prepared.name == name)?;
        Some(&prepared.sql)
    }

    /// What a batch binds to portals, as far as that is decisive.
    pub(super) fn bound_by(&self, batch: &[u8]) -> Vec<Bound> {
        let mut parsed = Vec::new();
        let mut bound = Vec::new();
        for (tag, body) in Messages::new(batch) {
            if !matches!(tag, b'P' | b'B') {
                continue;
            }
            match Request::decode(tag, body) {
                Ok(Request::Parse { name, sql, .. }) => parsed.push((name, sql)),
                Ok(Request::Bind(bind)) => {
                    let sql = self.sql_of(&parsed, bind.statement).filter(|sql| !is_plain(sql));
                    let statement =
                        sql.and_then(|sql| syntax::parse(sql).ok()?.into_iter().find(is_decisive));
                    bound.push((bind.portal.to_owned(), statement));
                }
                _ => {}
            }
        }
        bound
    }
}

/// See [`GatewaySession::part`]: `last` is the last request id that was used before, `is_open` whether its transaction
/// was open then.
fn part_of(last: u64, is_open: bool, held: Option<u64>, count_max: u64) -> Part {
    let first = if is_open { last } else { last.saturating_add(1) };
    let end = held.unwrap_or(first.saturating_add(count_max).saturating_sub(1));
    (end >= first && end - first < ASKED_MAX).then_some(first..=end)
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

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn all_that_a_batch_may_have_committed_is_asked_for_or_nothing() {
        assert_eq!(part_of(4, false, None, 1), Some(5..=5));
        assert_eq!(part_of(4, true, None, 1), Some(4..=4), "the one that is open");
        assert_eq!(part_of(4, false, None, 2), Some(5..=6));
        assert_eq!(part_of(4, true, None, 2), Some(4..=5));
        assert_eq!(part_of(4, true, None, 3), None);
        assert_eq!(part_of(4, false, None, u64::MAX), None);
        assert_eq!(part_of(4, true, Some(4), 0), Some(4..=4), "its COMMIT was told about");
        assert_eq!(part_of(4, true, Some(5), 0), Some(4..=5), "it was ended before the one told about");
        assert_eq!(part_of(4, false, Some(5), 0), Some(5..=5));
        assert_eq!(part_of(4, false, Some(6), 0), Some(5..=6));
        assert_eq!(part_of(4, true, Some(6), 0), None, "others are between them");
        assert_eq!(part_of(4, false, Some(4), 0), None, "that is long over");
    }
}
