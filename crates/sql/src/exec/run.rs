//! One execution of a plan: what it reads with, and what it may keep in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustydb_txn::Transaction;
use rustydb_types::value::Value;

use super::spill::SpillArea;
use super::subquery::KeptSubquery;
use crate::catalog::virtual_table::VirtualContext;
use crate::error::{SqlError, SqlState};
use crate::memory::WorkMemory;
use crate::plan::Row;
use crate::scalar::EvalContext;
use crate::session::interrupt::Interrupts;

/// How many times `work_mem` one statement may keep in memory: sorts, hash joins, groups and DISTINCT keep as much as
/// `work_mem` says and write the rest to files; everything else has to fit, and beyond this fails with 53200.
pub(crate) const WORK_MEM_FACTOR: usize = 32;

/// What one execution keeps between its parts.
#[derive(Debug)]
pub struct RunState {
    /// Bytes kept by sorts, hash tables and materialisations.
    used: AtomicUsize,
    /// How many they may be.
    work_mem: usize,
    /// How many of them an operator keeps that can write rows to files.
    spill_bytes: usize,
    /// Those of them that are kept to the end: what was computed once.
    lasting: AtomicUsize,
    /// Where they are taken from.
    pool: Arc<WorkMemory>,
    /// Rows of common table expressions, by number.
    shared: Mutex<HashMap<usize, Arc<Vec<Row>>>>,
    /// Recursive queries, by number.
    recursions: Mutex<HashMap<usize, super::recursive::Shared>>,
    /// Rows that a recursive query gave last, by number of the query.
    working: Mutex<HashMap<usize, Arc<Vec<Row>>>>,
    /// Rows of computed relations, by number.
    computed: Mutex<HashMap<u32, Arc<Vec<Row>>>>,
    /// Subqueries that do not depend on a row, by number.
    subqueries: Mutex<HashMap<usize, Arc<KeptSubquery>>>,
    /// Asked between batches whether to go on.
    interrupts: Arc<Interrupts>,
    /// What each node does, for EXPLAIN ANALYZE.
    pub(crate) meter: Option<super::meter::Meter>,
}

impl Drop for RunState {
    fn drop(&mut self) {
        self.pool.give_back(self.used.load(Ordering::Relaxed));
    }
}

impl RunState {
    /// The state of a new execution that may keep `work_mem` bytes out of `pool`.
    #[must_use]
    pub fn new(work_mem: usize, pool: Arc<WorkMemory>, interrupts: Arc<Interrupts>) -> Self {
        Self {
            used: AtomicUsize::new(0),
            lasting: AtomicUsize::new(0),
            work_mem,
            spill_bytes: pool.spill_bytes().unwrap_or(work_mem / WORK_MEM_FACTOR),
            pool,
            shared: Mutex::default(),
            recursions: Mutex::default(),
            working: Mutex::default(),
            computed: Mutex::default(),
            subqueries: Mutex::default(),
            interrupts,
            meter: None,
        }
    }

    /// Where rows go that an operator cannot keep, and how many bytes of them it may keep.
    pub(crate) fn spill(&self) -> Option<(&Arc<SpillArea>, usize)> {
        self.pool.spill().map(|area| (area, self.spill_bytes))
    }

    /// Counts bytes that are kept.
    ///
    /// # Errors
    /// 53200 at the bound.
    pub fn charge(&self, bytes: usize) -> Result<(), SqlError> {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.work_mem);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            return self.pool.take(bytes).inspect_err(|_| {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            });
        }
        Err(SqlError::new(SqlState::OUT_OF_MEMORY, "out of memory")
            .with_detail(format!(
                "The statement needs to keep more than {} kB in memory, which work_mem allows.",
                self.work_mem >> 10
            ))
            .with_hint("Raise work_mem, or make the statement sort, group or join fewer rows."))
    }

    /// Counts a row that is kept.
    ///
    /// # Errors
    /// 53200 at the bound.
    pub fn charge_row(&self, row: &[Value]) -> Result<(), SqlError> {
        self.charge(row_size(row))
    }

    /// Counts bytes that are kept no longer.
    pub fn release(&self, bytes: usize) {
        let left = |used: usize| Some(used.saturating_sub(bytes));
        let used = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).unwrap_or_default();
        debug_assert!(bytes <= used, "{bytes} bytes are released of {used} that were charged");
        self.pool.give_back(bytes.min(used));
    }

    /// Does work, and answers how many bytes more, or fewer, are kept after it that end with whatever did it.
    pub(crate) fn measured<T>(&self, work: impl FnOnce() -> T) -> (T, i64) {
        let now = || {
            let count =
                |bytes: &AtomicUsize| i64::try_from(bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            count(&self.used) - count(&self.lasting)
        };
        let before = now();
        let out = work();
        (out, now() - before)
    }

    /// Counts that so many bytes which were measured are kept no longer.
    pub(crate) fn release_measured(&self, bytes: i64) {
        self.release(usize::try_from(bytes).unwrap_or(0));
    }

    /// Does work whose result is kept to the end of the execution.
    pub(crate) fn lasting<T>(&self, work: impl FnOnce() -> T) -> T {
        let (out, bytes) = self.measured(work);
        self.lasting.fetch_add(usize::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        out
    }

    /// The rows of a common table expression, computed at the first call.
    pub(crate) fn shared(
        &self,
        id: usize,
        compute: impl FnOnce() -> Result<Vec<Row>, SqlError>,
    ) -> Result<Arc<Vec<Row>>, SqlError> {
        if let Some(rows) = self.shared.lock().get(&id) {
            return Ok(Arc::clone(rows));
        }
        // Not computed under the lock: the computation may need another one.
        let rows = Arc::new(self.lasting(compute)?);
        self.shared.lock().insert(id, Arc::clone(&rows));
        Ok(rows)
    }

    /// A recursive query that all its readers share.
    pub(crate) fn recursion(&self, id: usize, all: bool) -> super::recursive::Shared {
        let new = || Arc::new(Mutex::new(super::recursive::Recursion::new(all)));
        Arc::clone(self.recursions.lock().entry(id).or_insert_with(new))
    }

    /// Sets the rows that a recursive query gave last.
    pub(crate) fn set_working(&self, id: usize, rows: &Arc<Vec<Row>>) {
        self.working.lock().insert(id, Arc::clone(rows));
    }

    /// The rows that a recursive query gave last.
    pub(crate) fn working(&self, id: usize) -> Arc<Vec<Row>> {
        self.working.lock().get(&id).cloned().unwrap_or_default()
    }

    /// The rows of a computed relation, computed at the first call.
    pub(crate) fn computed(
        &self,
        oid: u32,
        compute: impl FnOnce() -> Result<Vec<Row>, SqlError>,
    ) -> Result<Arc<Vec<Row>>, SqlError> {
        if let Some(rows) = self.computed.lock().get(&oid) {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(self.lasting(compute)?);
        self.computed.lock().insert(oid, Arc::clone(&rows));
        Ok(rows)
    }

    /// A subquery's rows, computed at the first call.
    pub(crate) fn subquery(
        &self,
        id: usize,
        compute: impl FnOnce() -> Result<KeptSubquery, SqlError>,
    ) -> Result<Arc<KeptSubquery>, SqlError> {
        if let Some(kept) = self.subqueries.lock().get(&id) {
            return Ok(Arc::clone(kept));
        }
        let kept = Arc::new(self.lasting(compute)?);
        self.subqueries.lock().insert(id, Arc::clone(&kept));
        Ok(kept)
    }

    /// Ends the execution if somebody asked for it, or its time is over.
    ///
    /// # Errors
    /// 57014.
    pub fn check_cancel(&self) -> Result<(), SqlError> {
        self.interrupts.check_running()
    }
}

/// Bytes that a kept row takes.
#[must_use]
pub fn row_size(row: &[Value]) -> usize {
    24 + row.iter().map(|value| std::mem::size_of::<Value>() + value.heap_size()).sum::<usize>()
}

/// What the operators of one execution read with.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The transaction.
    pub txn: &'a Transaction,
    /// What the execution keeps.
    pub state: &'a RunState,
    /// What virtual relations are computed from.
    pub virtuals: VirtualContext<'a>,
    /// Parameters, clock and session, without the row around.
    pub eval: &'a EvalContext<'a>,
    /// Values of the row around a subquery.
    pub outer: &'a [Value],
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("outer", &self.outer).finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    /// The execution that an expression is evaluated in.
    ///
    /// # Errors
    /// XX000 when it is evaluated outside one, where the binder allows no subquery.
    pub fn of<'b>(context: &'b EvalContext<'_>) -> Result<&'b Run<'b>, SqlError> {
        context.run.ok_or_else(|| SqlError::internal("a subquery stands where no statement is executed"))
    }

    /// The same execution around a subquery's plan.
    #[must_use]
    pub fn with_outer<'b>(&'b self, outer: &'b [Value]) -> Run<'b> {
        Run { txn: self.txn, state: self.state, virtuals: self.virtuals, eval: self.eval, outer }
    }

    /// The context in which expressions of this execution are evaluated.
    #[must_use]
    pub fn context(&self) -> EvalContext<'_> {
        EvalContext { outer: self.outer, run: Some(self), txn: Some(self.txn), ..*self.eval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_share_one_pool_and_each_has_its_own_bound() {
        let pool = Arc::new(WorkMemory::new(1_000));
        let state = |work_mem| RunState::new(work_mem, Arc::clone(&pool), Arc::default());
        let (first, second) = (state(800), state(800));
        assert!(first.charge(600).is_ok());
        let beyond_own = first.charge(300).unwrap_err();
        assert!(beyond_own.fields().detail.as_deref().is_some_and(|detail| detail.contains("work_mem")));
        let beyond_all = second.charge(500).unwrap_err();
        assert!(beyond_all.fields().detail.as_deref().is_some_and(|detail| detail.contains("together")));
        assert!(second.charge(400).is_ok());
        second.release(100);
        assert_eq!(pool.used_bytes(), 900);
        drop(first);
        assert_eq!(pool.used_bytes(), 300);
        assert!(second.charge(500).is_ok());
        assert!(second.charge(usize::MAX).is_err());
        drop(second);
        assert_eq!(pool.used_bytes(), 0);
    }
}
