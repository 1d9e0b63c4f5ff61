//! Which portals, bound in earlier batches, end transactions or change the cluster when they are executed.

use std::collections::BTreeMap;

use crate::session::response::TransactionStatus;
use crate::session::statement::Statement;

/// Most such portals that are told apart; beyond, any portal may be one.
const COUNT_MAX: usize = 1024;

/// The portals of a session, as far as that matters.
#[derive(Debug, Default)]
pub(super) struct Portals {
    decisive: BTreeMap<String, Statement>,
    /// There were too many.
    is_unclear: bool,
}

/// A portal, and its statement if that is decisive.
pub(super) type Bound = (String, Option<Statement>);

impl Portals {
    /// Notes what a batch has bound, which left the session so. `is_over`: it left no portals.
    pub(super) fn note(&mut self, bound: Vec<Bound>, status: TransactionStatus, is_over: bool) {
        if is_over {
            *self = Self::default();
            return;
        }
        for (portal, statement) in bound {
            match statement {
                // In a batch that failed it may not have been bound anew.
                None if status == TransactionStatus::Failed => {}
                None => drop(self.decisive.remove(&portal)),
                Some(statement) if self.decisive.len() < COUNT_MAX => {
                    self.decisive.insert(portal, statement);
                }
                Some(_) => self.is_unclear = true,
            }
        }
    }

    /// What executing a portal of an earlier batch runs: `Some(None)` when it may be anything, [`None`] when it neither
    /// ends a transaction nor changes the cluster.
    pub(super) fn get(&self, portal: &str) -> Option<Option<&Statement>> {
        match self.decisive.get(portal) {
            Some(statement) => Some(Some(statement)),
            None if self.is_unclear => Some(None),
            None => None,
        }
    }
}

/// Whether a statement ends a transaction or changes the cluster.
pub(super) const fn is_decisive(statement: &Statement) -> bool {
    matches!(statement, Statement::Commit(_) | Statement::Rollback(_) | Statement::System(_))
}

/// Whether the text of a statement begins like one that is not decisive. Only to save parsing it.
pub(super) fn is_plain(sql: &str) -> bool {
    const PLAIN: [&str; 6] = ["select", "insert", "update", "delete", "with", "values"];
    let sql = sql.trim_start();
    let end = sql.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(sql.len());
    PLAIN.iter().any(|word| word.eq_ignore_ascii_case(&sql[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::statement::Chain;

    #[test]
    fn portals_that_decide_are_remembered_until_they_are_gone() {
        let commit = || Some(Statement::Commit(Chain::NoChain));
        let mut portals = Portals::default();
        let block = TransactionStatus::InBlock;
        portals.note(vec![("c".to_owned(), commit()), ("s".to_owned(), None)], block, false);
        assert_eq!(portals.get("c"), Some(commit().as_ref()));
        assert_eq!(portals.get("s"), None);
        portals.note(vec![("c".to_owned(), None)], TransactionStatus::Failed, false);
        assert_eq!(portals.get("c"), Some(commit().as_ref()), "it may not have been bound anew");
        portals.note(vec![("c".to_owned(), None)], block, false);
        assert_eq!(portals.get("c"), None, "it was bound anew");
        for number in 0..=COUNT_MAX {
            portals.note(vec![(number.to_string(), commit())], block, false);
        }
        assert_eq!(portals.get("s"), Some(None), "too many: it may be anything");
        portals.note(vec![("c".to_owned(), commit())], TransactionStatus::Idle, true);
        assert_eq!(portals.get("c"), None, "the transaction has ended");
        assert_eq!(portals.get("s"), None);
    }

    #[test]
    fn what_begins_with_a_comment_or_another_word_is_parsed() {
        for plain in ["SELECT 1", " insert into t", "with a as (select 1) select 2", "VALUES(1)"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in
            ["COMMIT", "/* x */ select", "-- c\ncommit", "create role r", "selects", "(select 1)", ""]
        {
            assert!(!is_plain(other), "{other}");
        }
    }
}
