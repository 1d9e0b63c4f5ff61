//! An open statement: rows are fetched from it as the client asks for them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use rustydb_env::ambient;
use rustydb_txn::Transaction;
use rustydb_types::value::Value;

use super::database::ExecContext;
use super::operator::{self, Batch, State, eval_all};
use super::run::{Run, RunState, row_size};
use super::{explain, modify};
use crate::error::SqlError;
use crate::plan::statement::{Action, Plan};
use crate::plan::{Node, Row};
use crate::scalar::{EvalContext, Expr};

/// What one execution carries from batch to batch.
#[derive(Debug)]
pub(crate) struct Execution {
    /// Values of the parameters.
    pub params: Vec<Value>,
    /// What it keeps in memory.
    pub state: RunState,
    /// Where the input stands.
    pub input: Option<State>,
    /// Rows that the statement has changed, by their stored keys, where several parts of it change rows: none is changed
    /// twice.
    pub touched: Option<HashSet<Bytes>>,
}

impl Execution {
    /// What operators read with.
    pub(crate) fn run<'a>(
        &'a self,
        txn: &'a Transaction,
        context: &'a ExecContext<'_>,
        eval: &'a EvalContext<'a>,
    ) -> Run<'a> {
        Run { txn, state: &self.state, virtuals: context.virtuals(), eval, outer: &[] }
    }

    /// The next rows of the input. What may compute for long does so without holding up other tasks.
    pub(crate) fn next(
        &mut self,
        node: &Node,
        txn: &Transaction,
        context: &ExecContext<'_>,
    ) -> Result<Option<Batch>, SqlError> {
        let mut input = self.input.take().unwrap_or_else(|| State::open(node));
        let eval = context.eval(&self.params);
        let run = self.run(txn, context, &eval);
        let batch = ambient::in_place(|| operator::next(node, &mut input, &run));
        self.input = Some(input);
        batch
    }

    /// Evaluates expressions over a row.
    pub(crate) fn eval(
        &self,
        exprs: &[Expr],
        row: &[Value],
        txn: &Transaction,
        context: &ExecContext<'_>,
    ) -> Result<Row, SqlError> {
        let eval = context.eval(&self.params);
        let run = self.run(txn, context, &eval);
        eval_all(exprs, row, &run.context())
    }

    /// Evaluates an expression over a row.
    pub(crate) fn eval_one(
        &self,
        expr: &Expr,
        row: &[Value],
        txn: &Transaction,
        context: &ExecContext<'_>,
    ) -> Result<Value, SqlError> {
        let eval = context.eval(&self.params);
        let run = self.run(txn, context, &eval);
        expr.eval(row, &run.context())
    }

    /// Whether a row satisfies a condition.
    pub(crate) fn holds(
        &self,
        predicate: &Expr,
        row: &[Value],
        txn: &Transaction,
        context: &ExecContext<'_>,
    ) -> Result<bool, SqlError> {
        Ok(matches!(self.eval_one(predicate, row, txn, context)?, Value::Bool(true)))
    }
}

/// What a fetch answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// There may be more rows.
    More,
    /// There are no more rows.
    Done,
}

/// An open statement.
#[derive(Debug)]
pub struct Cursor {
    plan: Arc<Plan>,
    execution: Execution,
    /// Rows that were computed and not yet fetched.
    ready: std::vec::IntoIter<Row>,
    /// All rows that were left when they were to be kept, and which of them is next.
    kept: Option<(Vec<Row>, usize)>,
    /// Whether a statement that works as a whole has worked.
    executed: bool,
    /// Rows fetched or changed so far.
    count: u64,
    /// The tag of a utility statement.
    tag: Option<String>,
}

impl Cursor {
    /// Opens a plan; nothing is executed yet. The caller holds the locks of [`super::Database::lock`].
    #[must_use]
    pub fn open(plan: Arc<Plan>, params: Vec<Value>, state: RunState) -> Self {
        Self {
            plan,
            execution: Execution { params, state, input: None, touched: None },
            ready: Vec::new().into_iter(),
            kept: None,
            executed: false,
            count: 0,
            tag: None,
        }
    }

    /// Begins the run anew, with a state of its own. For a run that has changed nothing.
    pub(crate) fn reopen(&mut self, state: RunState) {
        let params = std::mem::take(&mut self.execution.params);
        *self = Self::open(Arc::clone(&self.plan), params, state);
    }

    /// Fetches at most `max_rows` rows, at least one unless there is none, and no more than about
    /// [`BATCH_SIZE_BYTES`](operator::BATCH_SIZE_BYTES) of them; `usize::MAX` streams batch by batch. The caller fetches
    /// until it hears [`Fetched::Done`] or has what it wants. A statement that changes rows does all its work at the first
    /// fetch, whatever is fetched of its RETURNING.
    ///
    /// # Errors
    /// Whatever the execution raises.
    ///
    /// # Cancellation
    /// Dropping the future leaves the transaction with some of the statement's writes: roll it back.
    pub async fn fetch(
        &mut self,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
        max_rows: usize,
        rows: &mut Vec<Row>,
    ) -> Result<Fetched, SqlError> {
        if let Some((kept, next)) = &mut self.kept {
            let left = kept.get(*next..).unwrap_or_default();
            let (mut given, mut size_bytes) = (0, 0);
            for row in left.iter().take(max_rows.min(operator::BATCH_ROWS)) {
                if size_bytes >= operator::BATCH_SIZE_BYTES {
                    break;
                }
                size_bytes += row_size(row);
                rows.push(row.clone());
                given += 1;
            }
            *next += given;
            self.count += given as u64;
            let is_done = given == left.len() && given < max_rows;
            return Ok(if is_done { Fetched::Done } else { Fetched::More });
        }
        let plan = Arc::clone(&self.plan);
        if !self.executed {
            self.execute(&plan, txn, context).await?;
        }
        let before = rows.len();
        let mut size_bytes = 0;
        while rows.len() - before < max_rows && size_bytes < operator::BATCH_SIZE_BYTES {
            while rows.len() - before < max_rows
                && size_bytes < operator::BATCH_SIZE_BYTES
                && let Some(row) = self.ready.next()
            {
                size_bytes += row_size(&row);
                rows.push(row);
            }
            if self.ready.len() > 0 {
                break;
            }
            let Action::Query(node) = &plan.action else { break };
            match self.execution.next(node, txn, context)? {
                Some(batch) => self.ready = batch.into_iter(),
                None => {
                    self.count += (rows.len() - before) as u64;
                    return Ok(Fetched::Done);
                }
            }
            if max_rows == usize::MAX && rows.len() > before {
                break;
            }
        }
        if matches!(plan.action, Action::Query(_) | Action::Lock(_)) {
            self.count += (rows.len() - before) as u64;
        }
        let more = self.ready.len() > 0 || matches!(plan.action, Action::Query(_));
        Ok(if more { Fetched::More } else { Fetched::Done })
    }

    /// Computes the rows that are left and keeps them.
    ///
    /// # Errors
    /// Whatever the execution raises; 53200 when they are too many.
    pub async fn keep(&mut self, txn: &mut Transaction, context: &ExecContext<'_>) -> Result<(), SqlError> {
        if self.kept.is_some() {
            return Ok(());
        }
        let (count, mut rows) = (self.count, Vec::new());
        loop {
            let before = rows.len();
            let fetched = self.fetch(txn, context, usize::MAX, &mut rows).await?;
            for row in rows.get(before..).unwrap_or_default() {
                self.execution.state.charge_row(row)?;
            }
            if fetched == Fetched::Done {
                break;
            }
            context.interrupts.check_running()?;
        }
        self.count = count;
        self.kept = Some((rows, 0));
        Ok(())
    }

    /// Whether it has changed rows so far.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.count > 0 && !matches!(self.plan.action, Action::Query(_) | Action::Lock(_))
    }

    /// How many rows are kept, if they are.
    #[must_use]
    pub fn kept_count(&self) -> Option<usize> {
        self.kept.as_ref().map(|(rows, _)| rows.len())
    }

    /// Goes to a kept row, by its number from 0.
    pub fn seek(&mut self, row: usize) {
        if let Some((_, next)) = &mut self.kept {
            *next = row;
        }
    }

    /// Does the work of a statement that works as a whole.
    async fn execute(
        &mut self,
        plan: &Plan,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        self.executed = true;
        let execution = &mut self.execution;
        modify::run_before(plan, execution, txn, context).await?;
        let changed = match &plan.action {
            Action::Query(_) => return Ok(()),
            Action::Lock(lock) => {
                self.ready = modify::lock_rows(lock, execution, txn, context).await?.into_iter();
                return Ok(());
            }
            Action::Explain { plan, options } => {
                self.ready = explain::rows(plan, *options, execution, txn, context).await?.into_iter();
                return Ok(());
            }
            Action::Utility(statement) => {
                let done = crate::ddl::execute(statement, txn, context).await;
                self.tag = Some(done.map_err(crate::bind::errors::unpack)?);
                return Ok(());
            }
            Action::Insert(insert) => modify::insert(insert, execution, txn, context).await?,
            Action::Update(update) => modify::update(update, execution, txn, context).await?,
            Action::Delete(delete) => modify::delete(delete, execution, txn, context).await?,
        };
        self.count = changed.count;
        self.ready = changed.returned.into_iter();
        Ok(())
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The tag of the completed statement, such as `INSERT 0 5`.
    #[must_use]
    pub fn tag(&self) -> String {
        let count = self.count;
        match &self.plan.action {
            Action::Query(_) | Action::Lock(_) => format!("SELECT {count}"),
            Action::Insert(_) => format!("INSERT 0 {count}"),
            Action::Update(_) => format!("UPDATE {count}"),
            Action::Delete(_) => format!("DELETE {count}"),
            Action::Explain { .. } => "EXPLAIN".into(),
            Action::Utility(_) => self.tag.clone().unwrap_or_default(),
        }
    }
}
