//! INSERT, UPDATE, DELETE and row-locking SELECT: batches are read, then rows are locked and written one by one.

use std::collections::HashSet;

use bytes::Bytes;
use rustydb_txn::{LockWait, RowLock, Transaction};
use rustydb_types::value::Value;

use super::cursor::Execution;
use super::database::ExecContext;
use super::operator::{Batch, eval_all};
use super::reference::Referee;
use super::write::{Inserted, Locked, TableWriter};
use crate::bind::kept::RowRules;
use crate::error::{SqlError, SqlState};
use crate::plan::Row;
use crate::plan::statement::{
    Action, ConflictAction, DeletePlan, InsertPlan, LockPlan, Plan, RowWait, UpdatePlan,
};
use crate::scalar::Expr;

/// What a statement that changes rows did.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// How many rows it changed.
    pub count: u64,
    /// What RETURNING asks for.
    pub returned: Batch,
}

fn writer(
    table: &std::sync::Arc<crate::catalog::TableDescriptor>,
    rules: &std::sync::Arc<RowRules>,
    context: &ExecContext<'_>,
) -> Result<TableWriter, SqlError> {
    let schema =
        context.analyze.catalog.schema(table.schema).map(|schema| schema.name.clone()).unwrap_or_default();
    TableWriter::new(
        std::sync::Arc::clone(table),
        schema,
        std::sync::Arc::clone(context.database.row_numbers()),
        context.lock_wait,
        rules,
        &context.analyze.authority,
    )
}

/// A writer that only locks.
fn locker(
    table: &std::sync::Arc<crate::catalog::TableDescriptor>,
    context: &ExecContext<'_>,
) -> Result<TableWriter, SqlError> {
    let computed = crate::bind::kept::computed_of(table)?.to_vec();
    writer(table, &std::sync::Arc::new(RowRules { computed, ..RowRules::default() }), context)
}

/// Lets other tasks run between two batches.
async fn give_way(is_first: &mut bool, context: &ExecContext<'_>) -> Result<(), SqlError> {
    if std::mem::replace(is_first, false) { Ok(()) } else { context.breathe().await }
}

/// Runs an INSERT.
pub(crate) async fn insert(
    plan: &InsertPlan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Changed, SqlError> {
    let writer = writer(&plan.table, &plan.rules, context)?;
    let mut referee = Referee::new(plan.references.as_ref(), context);
    let mut changed = Changed::default();
    let mut updated: HashSet<Bytes> = HashSet::new();
    let mut is_first = true;
    while let Some(batch) = execution.next(&plan.input, txn, context)? {
        give_way(&mut is_first, context).await?;
        for mut row in batch {
            writer.generate(&mut row, context)?;
            let stored = match &plan.on_conflict {
                None => match writer.insert(txn, &row, context).await? {
                    Inserted::Yes(stored) => {
                        if let Some(referee) = &mut referee {
                            referee.inserted(&plan.table, &row, &stored, txn, context).await?;
                        }
                        Some(row)
                    }
                    Inserted::Conflict(place, _) => return Err(writer.duplicate(place, &row)),
                },
                Some(action) => {
                    let state = (&mut updated, &mut referee);
                    upsert(&writer, action, row, execution, txn, context, state).await?
                }
            };
            if let Some(row) = stored {
                changed.count += 1;
                if let Some(returning) = &plan.returning {
                    let row = execution.eval(returning, &row, txn, context)?;
                    execution.state.charge_row(&row)?;
                    changed.returned.push(row);
                }
            }
            // After each, so that wide rows do not pile up.
            txn.flush_if_large().await?;
        }
    }
    end(referee, txn, context).await?;
    Ok(changed)
}

/// The end of a statement: what its foreign keys ask for.
async fn end(
    referee: Option<Referee>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    match referee {
        Some(mut referee) => referee.finish(txn, context).await,
        None => Ok(()),
    }
}

/// Inserts a row or does what ON CONFLICT says; the row as it is stored, if it was.
async fn upsert(
    writer: &TableWriter,
    action: &ConflictAction,
    row: Row,
    execution: &Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
    (updated, referee): (&mut HashSet<Bytes>, &mut Option<Referee>),
) -> Result<Option<Row>, SqlError> {
    writer.check(&row, context)?;
    let Some(key) = writer.find_conflict(txn, &row, &action.among).await? else {
        return match writer.insert(txn, &row, context).await? {
            Inserted::Yes(stored) => {
                if let Some(referee) = referee {
                    referee.inserted(&writer.table, &row, &stored, txn, context).await?;
                }
                if action.update.is_some() {
                    let key = if writer.table.row_key.is_empty() {
                        // Its number is hidden: the row is found as the next one that meets it would find it.
                        writer.find_conflict(txn, &row, &action.among).await?
                    } else {
                        let key = super::rows::row_key(&writer.table, &row)?;
                        Some(super::rows::stored_key(&writer.table, &key))
                    };
                    updated.extend(key);
                }
                Ok(Some(row))
            }
            Inserted::Conflict(place, _) => Err(writer.duplicate(place, &row)),
        };
    };
    let Some((assignments, filter)) = &action.update else { return Ok(None) };
    if !updated.insert(key.clone()) {
        return Err(SqlError::new(
            SqlState::CARDINALITY_VIOLATION,
            "ON CONFLICT DO UPDATE command cannot affect row a second time",
        )
        .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
    }
    txn.lock_row(&key, RowLock::ForUpdate, context.lock_wait).await?;
    let Some(stored) = txn.get_latest(&key)? else { return Ok(None) };
    let old = writer.layout.decode_all(&stored)?;
    let both: Row = old.iter().cloned().chain(row).collect();
    if let Some(filter) = filter
        && !execution.holds(filter, &both, txn, context)?
    {
        return Ok(None);
    }
    let mut new = assigned(&old, &both, assignments, execution, txn, context)?;
    writer.generate(&mut new, context)?;
    let now = writer.update(txn, &key, &old, &new, context).await?;
    if let Some(referee) = referee {
        referee.updated(&writer.table, (&old, &new), &now, txn, context).await?;
    }
    Ok(Some(new))
}

/// The row with its assignments, computed over `source`.
fn assigned(
    old: &[Value],
    source: &[Value],
    assignments: &[(usize, Expr)],
    execution: &Execution,
    txn: &Transaction,
    context: &ExecContext<'_>,
) -> Result<Row, SqlError> {
    let mut new = old.to_vec();
    for (place, expr) in assignments {
        let value = execution.eval_one(expr, source, txn, context)?;
        if let Some(slot) = new.get_mut(*place) {
            *slot = value;
        }
    }
    Ok(new)
}

/// The storage key at the end of a table's columns in a combined row.
fn locator(row: &[Value], place: usize) -> Result<Bytes, SqlError> {
    match row.get(place) {
        Some(Value::Bytea(key)) => Ok(Bytes::copy_from_slice(key)),
        _ => Err(SqlError::internal("a row to be changed has no locator")),
    }
}

/// Locks the target row of a combined row; what the combined row is then, if it still satisfies the condition.
async fn lock_target(
    writer: &TableWriter,
    mut row: Row,
    predicate: Option<&Expr>,
    lock: RowLock,
    execution: &Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Option<(Bytes, Row)>, SqlError> {
    let width = writer.table.columns.len();
    let key = locator(&row, width)?;
    match writer.lock(txn, &key, lock, context.lock_wait).await? {
        Locked::Unchanged => Ok(Some((key, row))),
        Locked::Gone => Ok(None),
        Locked::Changed(now) => {
            for (slot, value) in row.iter_mut().zip(now) {
                *slot = value;
            }
            let holds = match predicate {
                Some(predicate) => execution.holds(predicate, &row, txn, context)?,
                None => true,
            };
            Ok(holds.then_some((key, row)))
        }
    }
}

/// Notes that a row changes; false when another part of the statement has changed it: then it stays as it is now.
fn touch(execution: &mut Execution, key: &Bytes) -> bool {
    execution.touched.as_mut().is_none_or(|touched| touched.insert(key.clone()))
}

/// Runs an UPDATE.
pub(crate) async fn update(
    plan: &UpdatePlan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Changed, SqlError> {
    let writer = writer(&plan.table, &plan.rules, context)?;
    let mut referee = Referee::new(plan.references.as_ref(), context);
    let width = plan.table.columns.len();
    // A join may bring the same row several times; it is updated once.
    let mut done = (plan.input.width() > width + 1).then(HashSet::new);
    // The key does not move unless one of its columns is assigned to.
    let is_moved = |index: &crate::catalog::IndexDescriptor| {
        let is_generated = |place| plan.rules.generated.iter().any(|(generated, _)| *generated == place);
        let is_assigned = |place| plan.assignments.iter().any(|(assigned, _)| *assigned == place);
        let mut places = index.key.iter().map(|part| plan.table.column_index_of(part.column));
        // What is computed may look at any column.
        places.any(|place| place.is_none_or(|place| is_assigned(place) || is_generated(place)))
    };
    let moves = plan.table.indexes.iter().any(|index| index.is_unique() && is_moved(index));
    let lock = if moves { RowLock::ForUpdate } else { RowLock::ForNoKeyUpdate };
    let mut changed = Changed::default();
    let mut is_first = true;
    while let Some(batch) = execution.next(&plan.input, txn, context)? {
        give_way(&mut is_first, context).await?;
        for row in batch {
            if let Some(done) = &mut done
                && !done.insert(locator(&row, width)?)
            {
                continue;
            }
            let found =
                lock_target(&writer, row, plan.predicate.as_ref(), lock, execution, txn, context).await?;
            let Some((key, mut row)) = found else { continue };
            if !touch(execution, &key) {
                continue;
            }
            let old: Row = row.iter().take(width).cloned().collect();
            let mut new = assigned(&old, &row, &plan.assignments, execution, txn, context)?;
            writer.generate(&mut new, context)?;
            let now = writer.update(txn, &key, &old, &new, context).await?;
            if let Some(referee) = &mut referee {
                referee.updated(&plan.table, (&old, &new), &now, txn, context).await?;
            }
            changed.count += 1;
            if let Some(returning) = &plan.returning {
                for (slot, value) in row.iter_mut().zip(new) {
                    *slot = value;
                }
                let row = execution.eval(returning, &row, txn, context)?;
                execution.state.charge_row(&row)?;
                changed.returned.push(row);
            }
            // After each, so that wide rows do not pile up.
            txn.flush_if_large().await?;
        }
    }
    end(referee, txn, context).await?;
    Ok(changed)
}

/// Runs a DELETE.
pub(crate) async fn delete(
    plan: &DeletePlan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Changed, SqlError> {
    let writer = writer(&plan.table, &plan.rules, context)?;
    let mut referee = Referee::new(plan.references.as_ref(), context);
    let width = plan.table.columns.len();
    let mut done = (plan.input.width() > width + 1).then(HashSet::new);
    let mut changed = Changed::default();
    let mut is_first = true;
    while let Some(batch) = execution.next(&plan.input, txn, context)? {
        give_way(&mut is_first, context).await?;
        for row in batch {
            if let Some(done) = &mut done
                && !done.insert(locator(&row, width)?)
            {
                continue;
            }
            let predicate = plan.predicate.as_ref();
            let found =
                lock_target(&writer, row, predicate, RowLock::ForUpdate, execution, txn, context).await?;
            let Some((key, row)) = found else { continue };
            if !touch(execution, &key) {
                continue;
            }
            writer.delete(txn, &key, &row).await?;
            if let Some(referee) = &mut referee {
                referee.deleted(&plan.table, &row, context)?;
            }
            changed.count += 1;
            if let Some(returning) = &plan.returning {
                let row = execution.eval(returning, &row, txn, context)?;
                execution.state.charge_row(&row)?;
                changed.returned.push(row);
            }
            // After each, so that wide rows do not pile up.
            txn.flush_if_large().await?;
        }
    }
    end(referee, txn, context).await?;
    Ok(changed)
}

/// Runs what is to be run before a statement, and keeps its rows for it.
pub(crate) async fn run_before(
    plan: &Plan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    if plan.changes_before() {
        execution.touched = Some(HashSet::new());
    }
    for (id, action) in &plan.before {
        let rows = match action {
            Action::Lock(plan) => lock_rows(plan, execution, txn, context).await?,
            Action::Insert(plan) => insert(plan, execution, txn, context).await?.returned,
            Action::Update(plan) => update(plan, execution, txn, context).await?.returned,
            Action::Delete(plan) => delete(plan, execution, txn, context).await?.returned,
            Action::Query(_) | Action::Explain { .. } | Action::Utility(_) => {
                return Err(SqlError::internal("this is not run before a statement"));
            }
        };
        execution.input = None;
        execution.state.shared(*id, || Ok(rows))?;
    }
    Ok(())
}

/// Runs a query that locks the rows it returns.
pub(crate) async fn lock_rows(
    plan: &LockPlan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Batch, SqlError> {
    let count =
        |expr: Option<&Expr>, execution: &Execution, txn: &Transaction| -> Result<Option<i64>, SqlError> {
            match expr {
                Some(expr) => Ok(execution.eval_one(expr, &[], txn, context)?.as_i64()),
                None => Ok(None),
            }
        };
    let limit = count(plan.limit.as_ref(), execution, txn)?.unwrap_or(i64::MAX);
    let mut skip = count(plan.offset.as_ref(), execution, txn)?.unwrap_or(0);
    if limit < 0 {
        return Err(SqlError::new(SqlState::INVALID_ROW_COUNT_IN_LIMIT, "LIMIT must not be negative"));
    }
    let writers =
        plan.tables.iter().map(|locked| locker(&locked.table, context)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Batch::new();
    let mut is_first = true;
    while let Some(batch) = execution.next(&plan.input, txn, context)? {
        give_way(&mut is_first, context).await?;
        for row in batch {
            if i64::try_from(rows.len()).unwrap_or(i64::MAX) >= limit {
                return Ok(rows);
            }
            let Some(row) = lock_all(plan, &writers, row, execution, txn, context).await? else { continue };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let row = eval_all(
                &plan.exprs,
                &row,
                &execution.run(txn, context, &context.eval(&execution.params)).context(),
            )?;
            execution.state.charge_row(&row)?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Locks the rows of all locked tables in a combined row; what it is then, if it still satisfies the condition.
async fn lock_all(
    plan: &LockPlan,
    writers: &[TableWriter],
    mut row: Row,
    execution: &Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Option<Row>, SqlError> {
    let mut recheck = false;
    for (locked, writer) in plan.tables.iter().zip(writers) {
        let Some((lock, wait)) = locked.lock else { continue };
        let wait = match wait {
            RowWait::Wait => context.lock_wait,
            RowWait::NoWait => LockWait::NoWait,
            RowWait::SkipLocked => LockWait::SkipLocked,
        };
        let key = locator(&row, locked.base + locked.table.columns.len())?;
        let outcome = writer.lock(txn, &key, lock, wait).await.map_err(|error| {
            if error.state() == SqlState::LOCK_NOT_AVAILABLE {
                let message = format!("could not obtain lock on row in relation \"{}\"", locked.table.name);
                SqlError::new(SqlState::LOCK_NOT_AVAILABLE, message)
            } else {
                error
            }
        })?;
        match outcome {
            Locked::Unchanged => {}
            Locked::Gone => return Ok(None),
            Locked::Changed(now) => {
                recheck = true;
                for (slot, value) in row.iter_mut().skip(locked.base).zip(now) {
                    *slot = value;
                }
            }
        }
    }
    if recheck
        && let Some(predicate) = &plan.predicate
        && !execution.holds(predicate, &row, txn, context)?
    {
        return Ok(None);
    }
    Ok(Some(row))
}
