//! A database as sessions use it: its store, its catalog cache, and the way from a statement to a plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustydb_env::ambient;
use rustydb_txn::{Isolation, KvStore, LockWait, TableLockId, TableLockMode, Transaction};
use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;
use sqlparser::ast::{self, SetExpr, Statement};

use super::sequence::Sequences;
use super::write::RowNumbers;
use crate::bind::context::TableUse;
use crate::bind::errors::{fail, syntax, unsupported};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::CatalogSnapshot;
use crate::catalog::store::{CatalogCache, latest_version, seen_version};
use crate::catalog::virtual_table::{Live, VirtualContext, VirtualRegistry};
use crate::error::{SqlError, SqlState};
use crate::memory::WorkMemory;
use crate::plan::optimize::optimize;
use crate::plan::statement::{Action, ExplainOptions, Plan};
use crate::scalar::{CatalogLookup, EvalContext, SessionView};
use crate::session::interrupt::Interrupts;
use crate::system::SystemSnapshot;

/// Hidden row numbers: four bytes that differ between lives of the database at its leaders, eight that count.
#[derive(Debug)]
struct CountedNumbers {
    life: u32,
    next: AtomicU64,
}

impl RowNumbers for CountedNumbers {
    fn next(&self) -> [u8; 12] {
        let mut number = [0; 12];
        let (life, count) = number.split_at_mut(4);
        life.copy_from_slice(&self.life.to_be_bytes());
        count.copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        number
    }
}

/// One database at this node.
#[derive(Clone)]
pub struct Database {
    kv: KvStore,
    catalogs: Arc<CatalogCache>,
    virtuals: Arc<VirtualRegistry>,
    numbers: Arc<dyn RowNumbers>,
    work_memory: Arc<WorkMemory>,
    sequences: Arc<Sequences>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// A database over its store. `life` is 64 random bits, drawn anew at each opening: hidden row numbers begin
    /// with half of them and count from the other half, so that two lives give no number twice.
    /// Its statements take what they keep from `work_memory`.
    #[must_use]
    pub fn new(kv: KvStore, virtuals: Arc<VirtualRegistry>, life: u64, work_memory: Arc<WorkMemory>) -> Self {
        let [a, b, c, d, rest @ ..] = life.to_be_bytes();
        let start = u64::from(u32::from_be_bytes(rest)) << 32;
        let numbers = CountedNumbers { life: u32::from_be_bytes([a, b, c, d]), next: AtomicU64::new(start) };
        Self {
            kv,
            catalogs: Arc::default(),
            virtuals,
            numbers: Arc::new(numbers),
            work_memory,
            sequences: Arc::default(),
        }
    }

    /// What its statements take from what they keep in memory.
    pub(crate) const fn work_memory(&self) -> &Arc<WorkMemory> {
        &self.work_memory
    }

    /// The store.
    #[must_use]
    pub fn kv(&self) -> &KvStore {
        &self.kv
    }

    /// Relations whose rows are computed.
    #[must_use]
    pub fn virtuals(&self) -> &Arc<VirtualRegistry> {
        &self.virtuals
    }

    /// Where the sequences of this database stand, as far as this node gives out their numbers.
    #[must_use]
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Hidden row numbers of this database.
    #[must_use]
    pub fn row_numbers(&self) -> &Arc<dyn RowNumbers> {
        &self.numbers
    }

    /// The catalog as a transaction sees it.
    ///
    /// # Errors
    /// Storage errors.
    pub fn catalog(&self, txn: &Transaction) -> Result<Arc<CatalogSnapshot>, SqlError> {
        self.catalogs.get(txn)
    }

    /// Locks the tables of a plan and says whether the plan is still good: the catalog has not changed since it was
    /// made. What is locked cannot change until the transaction ends.
    ///
    /// # Errors
    /// Lock errors and storage errors.
    pub async fn lock(&self, plan: &Plan, txn: &mut Transaction, wait: LockWait) -> Result<bool, SqlError> {
        for (table, usage) in &plan.tables {
            let mode = match usage {
                TableUse::Read => TableLockMode::AccessShare,
                TableUse::LockRows => TableLockMode::RowShare,
                TableUse::Write => TableLockMode::RowExclusive,
            };
            txn.lock_table(TableLockId::new(table.get()), mode, wait).await?;
        }
        let version = latest_version(txn)?;
        if version == plan.catalog_version {
            return Ok(true);
        }
        // The plan to come is made from the snapshot, so the snapshot must reach the newest catalog.
        txn.begin_statement();
        if txn.options().isolation != Isolation::ReadCommitted && seen_version(txn)? != version {
            let message = "could not serialize access due to a concurrent change of the schema";
            return Err(SqlError::new(SqlState::SERIALIZATION_FAILURE, message));
        }
        Ok(false)
    }
}

/// What an execution of a statement is given.
#[derive(Clone)]
pub struct ExecContext<'a> {
    /// The database.
    pub database: &'a Database,
    /// Name resolution: search path, user, database, the catalog of the statement.
    pub analyze: &'a AnalyzeContext,
    /// Databases, roles and nodes.
    pub system: &'a SystemSnapshot,
    /// The session as expressions see it.
    pub session: &'a dyn SessionView,
    /// The catalog as expressions see it.
    pub lookup: &'a dyn CatalogLookup,
    /// When the transaction began; microseconds since 2000-01-01 UTC.
    pub transaction_time: i64,
    /// When the statement began.
    pub statement_time: i64,
    /// Settings by name, as `pg_settings` shows them.
    pub settings: &'a [(String, String)],
    /// What goes on at this node.
    pub live: Option<Live<'a>>,
    /// Bytes that sorts, hash tables and materialisations of one statement may keep.
    pub work_mem: usize,
    /// How long to wait for a lock.
    pub lock_wait: LockWait,
    /// Asked between batches whether to go on.
    pub interrupts: Arc<Interrupts>,
    /// Checks that the transaction has put off.
    pub(crate) deferred: &'a parking_lot::Mutex<super::deferred::Deferred>,
}

impl<'a> ExecContext<'a> {
    /// Between two batches of what works through a table: lets other tasks run.
    ///
    /// # Errors
    /// 57014 when the statement was cancelled or its time is over.
    pub async fn breathe(&self) -> Result<(), SqlError> {
        ambient::yield_now().await;
        self.interrupts.check_running()
    }

    /// What expressions are evaluated with.
    #[must_use]
    pub fn eval(&self, params: &'a [Value]) -> EvalContext<'a> {
        EvalContext {
            params,
            outer: &[],
            transaction_time: self.transaction_time,
            statement_time: self.statement_time,
            session: self.session,
            catalog: self.lookup,
            txn: None,
            sequences: Some(self.database.sequences()),
            run: None,
        }
    }

    /// What virtual relations are computed from.
    #[must_use]
    pub fn virtuals(&self) -> VirtualContext<'a> {
        VirtualContext {
            catalog: &self.analyze.catalog,
            system: self.system,
            registry: &self.analyze.virtuals,
            database: &self.analyze.database,
            user: &self.analyze.user,
            settings: self.settings,
            live: self.live,
        }
    }
}

/// Turns a statement into a plan.
///
/// # Errors
/// As PostgreSQL's analysis; positions are line and column packed by `bind::errors::at`.
pub fn analyze(
    context: &AnalyzeContext,
    statement: &Statement,
    params: &[Option<DataType>],
) -> Result<Arc<Plan>, SqlError> {
    let binder = Binder::new(context, params);
    let (action, columns) = match statement {
        Statement::Query(query) if into_of(query).is_some() => {
            let create = crate::parse::create_as::of_select_into(query)?;
            (Action::Utility(Box::new(create)), Vec::new())
        }
        Statement::Query(query) if changes_rows(query) => binder.bind_change(query)?,
        Statement::Query(query) => match (query.locks.is_empty(), crate::parse::lone_select(query)) {
            (false, Some(select)) => binder.bind_locking(query, select)?,
            _ => {
                let bound = binder.bind_query(query, &crate::bind::scope::Level::default())?;
                let (node, columns) = binder.settle_unknown(bound)?;
                (Action::Query(node), columns)
            }
        },
        Statement::Insert(insert) => binder.bind_insert(insert)?,
        Statement::Update(update) => binder.bind_update(update)?,
        Statement::Delete(delete) => binder.bind_delete(delete)?,
        Statement::Explain { analyze: run, statement, format, options, .. } => {
            let options = explain_options(*run, format.as_ref(), options.as_deref())?;
            let run = options.analyze;
            let plan = analyze(context, statement, params)?;
            let columns = vec![crate::plan::ColumnInfo {
                name: "QUERY PLAN".into(),
                data_type: if options.is_json { DataType::JSON } else { DataType::TEXT },
                origin: None,
            }];
            let mut tables = plan.tables.clone();
            if !run {
                // What is only explained only reads, and may stand in a read-only transaction.
                tables.iter_mut().for_each(|(_, table_use)| *table_use = TableUse::Read);
            }
            let param_types = plan.param_types.clone();
            let (uses_virtual, advances, needs) = (plan.uses_virtual, plan.advances, plan.needs.clone());
            return Ok(Arc::new(Plan {
                action: Action::Explain { plan, options },
                columns,
                param_types,
                tables,
                catalog_version: context.catalog.version().to_vec(),
                uses_virtual,
                advances,
                before: Vec::new(),
                needs,
            }));
        }
        other => (Action::Utility(Box::new(other.clone())), Vec::new()),
    };
    let before = binder.before.take().into_iter();
    let before = before.map(|(id, action)| (id, optimized(action, &context.catalog))).collect();
    Ok(Arc::new(Plan {
        action: optimized(action, &context.catalog),
        columns,
        param_types: binder.param_types(),
        uses_virtual: binder.uses_virtual.get(),
        advances: binder.advances.get(),
        before,
        needs: binder.needs.borrow().all(),
        tables: binder.tables.into_inner(),
        catalog_version: context.catalog.version().to_vec(),
    }))
}

/// The INTO of a SELECT.
fn into_of(query: &ast::Query) -> Option<&ast::SelectInto> {
    crate::parse::lone_select(query)?.into.as_ref()
}

/// Whether it is a statement that changes rows, with a WITH before it.
pub(crate) fn changes_rows(query: &ast::Query) -> bool {
    matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_))
}

fn explain_options(
    analyze: bool,
    format: Option<&ast::AnalyzeFormatKind>,
    options: Option<&[ast::UtilityOption]>,
) -> Result<ExplainOptions, SqlError> {
    if format.is_some() {
        return Err(unsupported("EXPLAIN with FORMAT outside of parentheses"));
    }
    let mut found = ExplainOptions { analyze, costs: true, timing: true, summary: true, is_json: false };
    let (mut timing, mut summary) = (None, None);
    for option in options.unwrap_or_default() {
        let value = option.arg.as_ref().map(|arg| arg.to_string().trim_matches('\'').to_ascii_lowercase());
        let name = option.name.value.as_str();
        if name == "format" {
            found.is_json = match value.as_deref() {
                Some("json") => true,
                Some("text") => false,
                Some("xml" | "yaml") => return Err(unsupported("EXPLAIN as XML or YAML")),
                other => {
                    let other = other.unwrap_or_default();
                    let message = format!("unrecognized value for EXPLAIN option \"format\": \"{other}\"");
                    return Err(fail(SqlState::INVALID_PARAMETER_VALUE, message));
                }
            };
            continue;
        }
        let on = match value.as_deref() {
            None | Some("true" | "on" | "1") => true,
            Some("false" | "off" | "0") => false,
            Some(_) => return Err(syntax(format!("{name} requires a Boolean value"))),
        };
        match name {
            "analyze" => found.analyze = on,
            "costs" => found.costs = on,
            "timing" => timing = Some(on),
            "summary" => summary = Some(on),
            // What they add is not there: blocks are not counted, and nobody set what changes plans.
            "verbose" | "buffers" | "settings" | "wal" => {}
            other => return Err(syntax(format!("unrecognized EXPLAIN option \"{other}\""))),
        }
    }
    if timing == Some(true) && !found.analyze {
        let message = "EXPLAIN option TIMING requires ANALYZE";
        return Err(fail(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    (found.timing, found.summary) = (timing.unwrap_or(true), summary.unwrap_or(found.analyze));
    Ok(found)
}

fn optimized(action: Action, catalog: &CatalogSnapshot) -> Action {
    match action {
        Action::Query(node) => Action::Query(optimize(node, catalog)),
        Action::Lock(mut plan) => {
            plan.input = optimize(plan.input, catalog);
            Action::Lock(plan)
        }
        Action::Insert(mut plan) => {
            plan.input = optimize(plan.input, catalog);
            Action::Insert(plan)
        }
        Action::Update(mut plan) => {
            plan.input = optimize(plan.input, catalog);
            Action::Update(plan)
        }
        Action::Delete(mut plan) => {
            plan.input = optimize(plan.input, catalog);
            Action::Delete(plan)
        }
        other => other,
    }
}
