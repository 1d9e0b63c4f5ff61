//! A whole statement, ready to be executed any number of times.

use std::sync::Arc;

use rustydb_txn::RowLock;
use rustydb_types::datatype::DataType;
use rustydb_types::ids::Oid;
use sqlparser::ast;

use super::node::{ColumnInfo, Node};
use super::references::References;
use crate::bind::context::TableUse;
use crate::bind::kept::RowRules;
use crate::bind::privilege::Need;
use crate::catalog::TableDescriptor;
use crate::scalar::Expr;

/// New values of columns, and which rows are updated.
pub type ConflictUpdate = (Vec<(usize, Expr)>, Option<Expr>);

/// What an INSERT does with a row whose key is taken.
#[derive(Clone, Debug)]
pub struct ConflictAction {
    /// Places of the unique indexes that are asked.
    pub among: Vec<usize>,
    /// New values of columns, over the row that is there followed by the row that was to be inserted, and which rows
    /// are updated; absent for DO NOTHING.
    pub update: Option<ConflictUpdate>,
}

/// An INSERT.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    /// Where to.
    pub table: Arc<TableDescriptor>,
    /// The rows, as wide as the table.
    pub input: Node,
    /// What is computed of each new row.
    pub rules: Arc<RowRules>,
    /// The foreign keys that are to be kept.
    pub references: Option<Arc<References>>,
    /// ON CONFLICT.
    pub on_conflict: Option<ConflictAction>,
    /// RETURNING, over the new row.
    pub returning: Option<Vec<Expr>>,
}

/// An UPDATE.
#[derive(Clone, Debug)]
pub struct UpdatePlan {
    /// Which table.
    pub table: Arc<TableDescriptor>,
    /// Rows of the table with their locators, followed by rows of other relations.
    pub input: Node,
    /// The whole condition over such a row, to be asked again when the row changed meanwhile.
    pub predicate: Option<Expr>,
    /// New values of columns over such a row.
    pub assignments: Vec<(usize, Expr)>,
    /// What is computed of each new row.
    pub rules: Arc<RowRules>,
    /// The foreign keys that are to be kept.
    pub references: Option<Arc<References>>,
    /// RETURNING, over such a row with the table's columns replaced.
    pub returning: Option<Vec<Expr>>,
}

/// A DELETE.
#[derive(Clone, Debug)]
pub struct DeletePlan {
    /// Which table.
    pub table: Arc<TableDescriptor>,
    /// As in [`UpdatePlan::input`].
    pub input: Node,
    /// As in [`UpdatePlan::predicate`].
    pub predicate: Option<Expr>,
    /// What is computed of each row that goes.
    pub rules: Arc<RowRules>,
    /// The foreign keys that are to be kept.
    pub references: Option<Arc<References>>,
    /// RETURNING, over such a row.
    pub returning: Option<Vec<Expr>>,
}

/// What to do when a row is locked by another transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowWait {
    /// Wait.
    Wait,
    /// Fail.
    NoWait,
    /// Pass over the row.
    SkipLocked,
}

/// A table whose rows a query locks.
#[derive(Clone, Debug)]
pub struct LockedTable {
    /// The table.
    pub table: Arc<TableDescriptor>,
    /// Where its columns begin in the row; its locator follows them.
    pub base: usize,
    /// How its rows are locked.
    pub lock: Option<(RowLock, RowWait)>,
}

/// A query that locks the rows it returns.
#[derive(Clone, Debug)]
pub struct LockPlan {
    /// Combined rows with locators, in order.
    pub input: Node,
    /// The whole condition over such a row.
    pub predicate: Option<Expr>,
    /// What is locked.
    pub tables: Vec<LockedTable>,
    /// The select list over such a row.
    pub exprs: Vec<Expr>,
    /// How many rows at most.
    pub limit: Option<Expr>,
    /// How many rows are passed over first.
    pub offset: Option<Expr>,
}

/// The options of EXPLAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Whether the statement is executed, and what its parts do is shown.
    pub analyze: bool,
    /// Whether estimated costs are shown.
    pub costs: bool,
    /// Whether times are.
    pub timing: bool,
    /// Whether the time of the whole is.
    pub summary: bool,
    /// Whether it is a JSON document.
    pub is_json: bool,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Returns rows.
    Query(Node),
    /// Returns rows and locks them.
    Lock(Box<LockPlan>),
    /// Inserts rows.
    Insert(Box<InsertPlan>),
    /// Updates rows.
    Update(Box<UpdatePlan>),
    /// Deletes rows.
    Delete(Box<DeletePlan>),
    /// Says how another statement would be executed.
    Explain {
        /// The statement.
        plan: Arc<Plan>,
        /// How.
        options: ExplainOptions,
    },
    /// Changes the schema, or maintains tables; bound when it is executed, under its locks.
    Utility(Box<ast::Statement>),
}

/// A statement, ready to be executed any number of times while the catalog stays as it is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it does.
    pub action: Action,
    /// What it returns; empty when it returns no rows.
    pub columns: Vec<ColumnInfo>,
    /// The types of its parameters.
    pub param_types: Vec<DataType>,
    /// The tables it uses and how.
    pub tables: Vec<(Oid, TableUse)>,
    /// The version of the catalog it was made under.
    pub catalog_version: Vec<u8>,
    /// Whether it reads relations that are computed.
    pub uses_virtual: bool,
    /// The function by which it moves a sequence on, if it does.
    pub advances: Option<&'static str>,
    /// What is run before it, in this order: subqueries that lock rows, and WITH queries that change rows; each with the
    /// number of the shared rows that it gives.
    pub before: Vec<(usize, Action)>,
    /// The privileges that it needs, and the schemas that it names.
    pub needs: (Vec<Need>, Vec<Oid>),
}

impl Plan {
    /// The columns it returns; empty when it returns no rows.
    #[must_use]
    pub fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    /// The types of its parameters.
    #[must_use]
    pub fn param_types(&self) -> &[DataType] {
        &self.param_types
    }

    /// Whether something that is run before it changes rows.
    #[must_use]
    pub fn changes_before(&self) -> bool {
        self.before.iter().any(|(_, action)| !matches!(action, Action::Lock(_)))
    }

    /// Whether it neither changes nor locks rows nor changes the schema.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match &self.action {
            Action::Query(_) if self.advances.is_some() => false,
            Action::Query(_) => self.before.is_empty(),
            Action::Explain { plan, options } => !options.analyze || plan.is_read_only(),
            // Readers hold this lock on whatever they read.
            Action::Utility(statement) => matches!(
                statement.as_ref(),
                ast::Statement::Lock(ast::Lock { lock_mode: Some(ast::LockTableMode::AccessShare), .. })
            ),
            _ => false,
        }
    }
}
