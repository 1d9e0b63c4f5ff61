//! Checks of foreign keys that a transaction has put off to its end, and what SET CONSTRAINTS has said.
//!
//! A check that SET CONSTRAINTS ... IMMEDIATE has passed under a savepoint stays, marked: going back to the savepoint may
//! undo what made it pass, so it is asked again at the commit. What a rollback to a savepoint has undone stays, too: the
//! rows that it is about are looked at again, and are as they were before.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use rustydb_types::ids::Oid;

use super::database::ExecContext;
use super::run::{RunState, row_size};
use crate::catalog::ForeignKeyDescriptor;
use crate::error::SqlError;
use crate::plan::Row;

/// What SET CONSTRAINTS has said: true is deferred.
#[derive(Clone, Debug, Default)]
struct Modes {
    /// Of all constraints.
    all: Option<bool>,
    /// Of some, after that.
    named: BTreeMap<Oid, bool>,
}

/// What is to be asked at the end of the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Whether the key that a row refers to is there; the row's stored key.
    Row(Bytes),
    /// Whether rows still refer to a key that went away; the key, encoded as that of the parent's index.
    Key(Vec<u8>),
}

/// A check that was put off.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The constraint.
    pub constraint: Oid,
    /// The table whose row it is about.
    pub table: Oid,
    /// What is asked.
    pub question: Question,
    /// Of a key, the columns that are referred to, as they were.
    pub old: Row,
    /// Whether it was passed already, under a savepoint.
    passed: bool,
}

/// The checks that a transaction has put off.
#[derive(Debug, Default)]
pub struct Deferred {
    modes: Modes,
    /// What SET CONSTRAINTS had said at each savepoint, outermost first.
    saved: Vec<Modes>,
    waiting: Vec<Waiting>,
    known: HashSet<(Oid, Question)>,
    memory: Option<RunState>,
}

impl Deferred {
    /// Whether a constraint is checked at the end of the transaction.
    pub(crate) fn is_deferred(&self, key: &ForeignKeyDescriptor) -> bool {
        key.deferrable.is_some_and(|initially| {
            self.modes.named.get(&key.oid).copied().or(self.modes.all).unwrap_or(initially)
        })
    }

    /// Puts off a check.
    ///
    /// # Errors
    /// 53200 when too many were put off.
    pub(crate) fn put_off(
        &mut self,
        (constraint, table): (Oid, Oid),
        question: Question,
        old: Row,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        if !self.known.insert((constraint, question.clone())) {
            if !self.saved.is_empty() {
                let same =
                    |known: &&mut Waiting| known.constraint == constraint && known.question == question;
                self.waiting.iter_mut().filter(same).for_each(|known| known.passed = false);
            }
            return Ok(());
        }
        let memory = self.memory.get_or_insert_with(|| {
            let pool = Arc::clone(context.database.work_memory());
            RunState::new(context.work_mem, pool, Arc::clone(&context.interrupts))
        });
        let key_size = match &question {
            Question::Row(key) => key.len(),
            Question::Key(key) => key.len(),
        };
        memory.charge(size_of::<Waiting>() + 2 * key_size + row_size(&old))?;
        self.waiting.push(Waiting { constraint, table, question, old, passed: false });
        Ok(())
    }

    /// Whether a table has checks that were not passed yet.
    pub(crate) fn is_pending(&self, table: Oid) -> bool {
        self.waiting.iter().any(|waiting| waiting.table == table && !waiting.passed)
    }

    /// The checks that were put off of some constraints, or of all.
    pub(crate) fn waiting(&self, constraints: Option<&[Oid]>) -> Vec<Waiting> {
        let asked = |waiting: &&Waiting| constraints.is_none_or(|asked| asked.contains(&waiting.constraint));
        self.waiting.iter().filter(asked).cloned().collect()
    }

    /// The checks of some constraints, or of all, were passed.
    pub(crate) fn pass(&mut self, constraints: Option<&[Oid]>) {
        let asked = |waiting: &Waiting| constraints.is_none_or(|asked| asked.contains(&waiting.constraint));
        if self.saved.is_empty() {
            self.known.retain(|(constraint, _)| !constraints.is_none_or(|asked| asked.contains(constraint)));
            self.waiting.retain(|waiting| !asked(waiting));
        } else {
            self.waiting
                .iter_mut()
                .filter(|waiting| asked(waiting))
                .for_each(|waiting| waiting.passed = true);
        }
    }

    /// SET CONSTRAINTS, of some or of all.
    pub(crate) fn set(&mut self, constraints: Option<&[Oid]>, deferred: bool) {
        match constraints {
            None => self.modes = Modes { all: Some(deferred), named: BTreeMap::new() },
            Some(some) => self.modes.named.extend(some.iter().map(|constraint| (*constraint, deferred))),
        }
    }

    /// A savepoint is made.
    pub fn savepoint(&mut self) {
        self.saved.push(self.modes.clone());
    }

    /// The innermost savepoints, down to and including number `depth` from 0, are released.
    pub fn release_to(&mut self, depth: usize) {
        self.saved.truncate(depth);
    }

    /// Goes back to savepoint number `depth`, which stays.
    pub fn roll_back_to(&mut self, depth: usize) {
        self.saved.truncate(depth + 1);
        if let Some(modes) = self.saved.last() {
            self.modes.clone_from(modes);
        }
        self.waiting.iter_mut().for_each(|waiting| waiting.passed = false);
    }

    /// The transaction has ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
