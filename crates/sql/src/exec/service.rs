//! What sessions run their statements with: planning, locks, cursors and COPY over one database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use rustydb_env::Env;
use rustydb_txn::{AdvisoryId, Fate, KvStore, Transaction, TxnError};
use rustydb_types::binary;
use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::datetime::Zone;
use rustydb_types::ids::{Incarnation, Oid, RequestId, SessionId};
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::Value;
use sqlparser::ast;

use super::copy::{self, CopyFrom, CopyTarget};
use super::cursor::{self, Cursor};
use super::database::{Database, ExecContext, analyze};
use super::run::{RunState, WORK_MEM_FACTOR};
use crate::bind::AnalyzeContext;
use crate::bind::errors::unpack;
use crate::bind::privilege::{self, Authority};
use crate::catalog::CatalogSnapshot;
use crate::catalog::acl::Privileges;
use crate::catalog::virtual_table::{Live, VirtualContext};
use crate::copy::{CopyFormat, CopyOptions, CopyWriter, binary as copy_binary};
use crate::error::{SqlError, SqlState};
use crate::memory::HeldMemory;
use crate::pgcatalog::lookup::SystemLookup;
use crate::plan::Row;
use crate::plan::statement::{Action, Plan};
use crate::scalar::{EvalContext, SessionView};
use crate::session::advisory::{self, Advisory, AdvisoryLock};
use crate::session::executor::{Column, Context, Dialogue, Executor, Fetched, ResultFormats, Shape};
use crate::session::failure::store_error;
use crate::session::random::RandomSeries;
use crate::session::request::Bind;
use crate::session::response::{self, Format, RowWriter};
use crate::session::roles;
use crate::session::settings::Scope;
use crate::session::sink::OUTPUT_SIZE_HIGH;
use crate::session::token::{Questions, TransactionToken};
use crate::system::SystemSnapshot;

/// How long an outcome is asked for, and the pause between two questions.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);
const OUTCOME_PAUSE: Duration = Duration::from_millis(20);
/// Transactions that one query may ask for.
const QUESTIONS_MAX: usize = 256;
/// Microseconds from the Unix epoch to 2000-01-01.
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Gives the present content of the system group.
pub type SystemSource = Arc<dyn Fn() -> Arc<SystemSnapshot> + Send + Sync>;

/// Plans and runs statements over one database.
#[derive(Clone)]
pub struct SqlExecutor {
    database: Database,
    system: SystemSource,
    env: Env,
}

impl std::fmt::Debug for SqlExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlExecutor").finish_non_exhaustive()
    }
}

/// A plan with what a session must know of it.
#[derive(Debug)]
pub struct Planned {
    plan: Arc<Plan>,
    shape: Shape,
    analyze: Arc<AnalyzeContext>,
    /// The search path that names were looked up in.
    search_path: String,
    /// What COPY copies.
    copy: Option<CopyTarget>,
}

/// A run of a plan.
#[derive(Debug)]
pub struct Running {
    planned: Arc<Planned>,
    cursor: Cursor,
    rows: Vec<Row>,
    text: String,
    bytes: Vec<u8>,
    copied: u64,
}

/// A COPY that takes data.
pub struct Copying {
    copy: CopyFrom,
    planned: Arc<Planned>,
}

/// A session as expressions see it.
struct View<'a> {
    context: &'a Context,
    analyze: &'a AnalyzeContext,
    env: &'a Env,
    store: &'a KvStore,
    system: &'a SystemSnapshot,
}

impl View<'_> {
    fn with_advisory<T>(
        &self,
        take: impl FnOnce(&mut Advisory, Option<u64>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let mut advisory = self.context.advisory.lock();
        let taken = take(&mut advisory, self.context.activity.transaction());
        self.context.activity.hold(advisory.id());
        taken
    }
}

impl SessionView for View<'_> {
    fn current_user(&self) -> &str {
        self.context.current_user()
    }
    fn session_user(&self) -> &str {
        self.context.session_user()
    }
    fn database(&self) -> &str {
        &self.context.database
    }
    fn search_path(&self) -> Vec<String> {
        let catalog = &self.analyze.catalog;
        let mut path = effective_path(self.context, &self.analyze.authority, catalog);
        path.retain(|name| catalog.schema_named(name).is_some());
        path
    }
    fn timezone(&self) -> Zone {
        zone(self.context)
    }
    fn setting(&self, name: &str) -> Option<String> {
        self.context.settings.show(name).ok().map(|(_, value)| value)
    }
    fn change_setting(&self, name: &str, value: Option<&str>, is_local: bool) -> Result<String, SqlError> {
        let (name, shown) = match (roles::setting_named(name), value) {
            (Some(name @ "role"), _) => {
                let (name, role) = self.context.settings.checked(name, value)?;
                roles::check_role(self.context.session_user(), &role, self.system)?;
                (name, role)
            }
            (Some(name), _) => {
                let role = value.unwrap_or(&self.context.user);
                roles::check_authorization(&self.context.user, role, self.system)?;
                (name.to_owned(), role.to_owned())
            }
            (None, _) => self.context.settings.checked(name, value)?,
        };
        let scope = if is_local { Scope::Local } else { Scope::Session };
        self.context.changes.lock().push((scope, name, value.map(str::to_owned)));
        Ok(shown)
    }
    fn notice(&self, notice: SqlError) {
        self.context.notices.lock().push(notice);
    }
    fn backend_pid(&self) -> i32 {
        self.context.activity.pid()
    }
    fn note_temporary(&self) {
        self.context.temporary.note();
    }
    fn transaction_token(&self) -> Option<String> {
        let token = self.context.token?;
        self.context.is_token_given.store(true, Ordering::Relaxed);
        Some(self.context.token_key.text(&token))
    }
    fn transaction_outcome(&self, token: &str) -> Result<&'static str, SqlError> {
        let token = self.context.token_key.read(token).map_err(|error| {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, error.to_string()).with_hint(
                "Give the text that rustydb_transaction_token() returned, in the database in which it did.",
            )
        })?;
        let mut questions = self.context.questions.lock();
        if let Some((_, answer)) = questions.answers.iter().find(|(asked, _)| *asked == token) {
            return Ok(answer);
        }
        questions.open = Some(token);
        Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "the outcome of a transaction can be asked for in a query that changes nothing, in its first rows",
        ))
    }
    fn sequence_value(&self, sequence: u32) -> Option<i64> {
        self.context.sequences.lock().value(sequence)
    }
    fn last_sequence(&self) -> Option<u32> {
        self.context.sequences.lock().last()
    }
    fn note_sequence(&self, sequence: u32, value: i64, is_next: bool) {
        self.context.sequences.lock().note(sequence, value, is_next);
    }
    fn sleep(&self, micros: i64) {
        let add = |asked: i64| Some(asked.saturating_add(micros.max(0)));
        let _ = self.context.sleep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
    fn advisory_lock(&self, lock: AdvisoryLock) -> Result<(), SqlError> {
        self.with_advisory(|advisory, transaction| advisory.take(lock, self.store, transaction))
    }
    fn advisory_try(&self, lock: AdvisoryLock) -> Result<bool, SqlError> {
        self.with_advisory(|advisory, transaction| advisory.try_take(lock, self.store, transaction))
    }
    fn advisory_unlock(&self, on: AdvisoryId, is_shared: bool) -> bool {
        self.context.advisory.lock().release(on, is_shared)
    }
    fn notify(&self, channel: &str, payload: &str) -> Result<(), SqlError> {
        self.context.notify.lock().send(channel, payload)
    }
    fn listening_channels(&self) -> Vec<String> {
        self.context.notify.lock().channels()
    }
    fn advisory_unlock_all(&self) {
        self.context.advisory.lock().release_all();
    }
    fn clock(&self) -> i64 {
        self.env.wall_now().unix_micros().saturating_sub(POSTGRES_EPOCH_UNIX_MICROS)
    }
    fn random(&self) -> u64 {
        self.env.rng().u64()
    }
    fn random_float(&self) -> f64 {
        match self.context.random.lock().as_mut() {
            Some(series) => series.next_float(),
            None => (self.random() >> 12) as f64 / (1u64 << 52) as f64,
        }
    }
    fn set_seed(&self, seed: f64) {
        *self.context.random.lock() = Some(RandomSeries::new(seed));
    }
}

fn zone(context: &Context) -> Zone {
    context.settings.derived().zone
}

/// The schemas in which names without one are looked up. What is in a schema that the role may not use is not found.
fn effective_path(context: &Context, authority: &Authority, catalog: &CatalogSnapshot) -> Vec<String> {
    let named = search_path(context.settings.get("search_path")).into_iter();
    let named = named.map(|name| if name == "$user" { context.current_user().to_owned() } else { name });
    let may_use = |name: &str| {
        let schema = catalog.schema_named(name);
        schema.is_none_or(|schema| authority.may_in(schema, Privileges::USAGE))
    };
    let known = |name: String| match catalog.temporary_schema() {
        Some(own) if name == "pg_temp" => own.name.clone(),
        _ => name,
    };
    named.filter(|name| may_use(name)).map(known).collect()
}

/// The schemas of a `search_path` as it is set.
fn search_path(setting: &str) -> Vec<String> {
    setting
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => name.to_lowercase(),
        })
        .collect()
}

impl SqlExecutor {
    /// An executor over a database.
    #[must_use]
    pub fn new(database: Database, system: SystemSource, env: Env) -> Self {
        Self { database, system, env }
    }

    /// Runs `work` with what an execution of a plan is given.
    async fn with_context<T>(
        &self,
        context: &Context,
        planned: &Planned,
        work: impl AsyncFnOnce(&ExecContext<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.with_analysis(context, &planned.analyze, planned.plan.uses_virtual, work).await
    }

    /// Runs `work` with what an execution is given.
    async fn with_analysis<T>(
        &self,
        context: &Context,
        analyze: &AnalyzeContext,
        uses_virtual: bool,
        work: impl AsyncFnOnce(&ExecContext<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let system = (self.system)();
        let settings: Vec<(String, String)> = if uses_virtual {
            context.settings.all().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        } else {
            Vec::new()
        };
        let live = Some(Live { activities: context.activity.activities(), store: self.database.kv() });
        let virtuals = VirtualContext {
            live,
            catalog: &analyze.catalog,
            system: &system,
            registry: &analyze.virtuals,
            database: &context.database,
            user: context.current_user(),
            settings: &settings,
        };
        let lookup = SystemLookup {
            context: virtuals,
            search_path: &analyze.search_path,
            authority: Some(&analyze.authority),
        };
        let view = View { context, analyze, env: &self.env, store: self.database.kv(), system: &system };
        let exec = ExecContext {
            live,
            database: &self.database,
            analyze,
            system: &system,
            session: &view,
            lookup: &lookup,
            transaction_time: context.transaction_time,
            statement_time: context.statement_time,
            settings: &settings,
            work_mem: work_mem(context),
            lock_wait: context.lock_wait,
            interrupts: Arc::clone(&context.interrupts),
            deferred: &context.deferred,
        };
        let done = work(&exec).await;
        if done.is_ok() && advisory::take_wanted(&context.advisory, context.lock_wait).await? {
            // While it waited another may have become the leader, who gives the same locks to others.
            self.database.kv().confirm().await.map_err(store_error)?;
        }
        let micros = context.sleep.swap(0, Ordering::Relaxed);
        if let Ok(micros @ 1..) = u64::try_from(micros)
            && done.is_ok()
        {
            self.env.sleep(Duration::from_micros(micros)).await;
        }
        done
    }

    /// Runs on, as [`Executor::fetch`], without answering what the statement asks of other transactions.
    async fn fetch_once(
        &self,
        txn: &mut Transaction,
        context: &Context,
        cursor: &mut Running,
        rows_max: usize,
        formats: &ResultFormats,
        out: &mut BytesMut,
    ) -> Result<Fetched, SqlError> {
        let writing = TextContext { zone: zone(context), now: context.transaction_time };
        let planned = Arc::clone(&cursor.planned);
        let writer = CopyOutput::new(&planned);
        if cursor.copied == 0
            && let Some(writer) = &writer
        {
            cursor.bytes.clear();
            writer.writer.write_header(&writer.names, &mut cursor.bytes);
            if !cursor.bytes.is_empty() {
                response::copy_data(out, &cursor.bytes);
            }
        }
        // As in PostgreSQL, what begins a binary COPY comes with the row, or the end, that follows.
        let mut is_first = cursor.copied == 0 && writer.as_ref().is_some_and(|writer| writer.is_binary);
        let mut prefix = |bytes: &mut Vec<u8>| {
            bytes.clear();
            if std::mem::take(&mut is_first) {
                copy_binary::write_header(bytes);
            }
        };
        self.with_context(context, &planned, async |exec| {
            let printer = Printer { writing, eval: exec.eval(&[]) };
            let mut given = 0;
            while given < rows_max && out.len() < OUTPUT_SIZE_HIGH {
                cursor.rows.clear();
                let wanted = (rows_max - given).min(super::operator::BATCH_ROWS);
                let fetched = cursor.cursor.fetch(txn, exec, wanted, &mut cursor.rows).await?;
                given += cursor.rows.len();
                cursor.copied += cursor.rows.len() as u64;
                for row in &cursor.rows {
                    match &writer {
                        Some(writer) => {
                            prefix(&mut cursor.bytes);
                            writer.write(row, &planned, &printer, &mut cursor.bytes);
                            response::copy_data(out, &cursor.bytes);
                        }
                        None => write_row(
                            row,
                            &planned,
                            formats,
                            &printer,
                            (&mut cursor.text, &mut cursor.bytes),
                            out,
                        )?,
                    }
                }
                if fetched == cursor::Fetched::Done {
                    if writer.as_ref().is_some_and(|writer| writer.is_binary) {
                        prefix(&mut cursor.bytes);
                        copy_binary::write_trailer(&mut cursor.bytes);
                        response::copy_data(out, &cursor.bytes);
                    }
                    return Ok(Fetched { rows: given, is_done: true });
                }
            }
            Ok(Fetched { rows: given, is_done: false })
        })
        .await
    }

    /// What became of a transaction. The answer waits for nothing but a commit of the database's log.
    async fn outcome(&self, context: &Context, token: TransactionToken) -> Result<&'static str, SqlError> {
        if context.token.is_some_and(|own| own.request == token.request) {
            return Ok("in progress");
        }
        let deadline = self.env.now() + OUTCOME_WAIT;
        loop {
            match self.database.kv().fate(token.request, token.since).await {
                Ok(Fate::Committed(_)) => return Ok("committed"),
                Ok(Fate::Aborted) => return Ok("aborted"),
                Ok(Fate::Forgotten) => return Ok("forgotten"),
                // The fence itself got lost; asking again changes nothing.
                Err(TxnError::UnknownOutcome) if self.env.now() < deadline => {
                    self.env.sleep(OUTCOME_PAUSE).await;
                }
                Err(TxnError::UnknownOutcome) => {
                    return Err(SqlError::new(
                        SqlState::CANNOT_CONNECT_NOW,
                        "the outcome of the transaction cannot be learnt now",
                    ));
                }
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    /// Asks what was put off of some constraints, or of all.
    async fn ask_deferred(
        &self,
        txn: &mut Transaction,
        context: &Context,
        constraints: Option<&[Oid]>,
    ) -> Result<(), SqlError> {
        let waiting = context.deferred.lock().waiting(constraints);
        if waiting.is_empty() {
            return Ok(());
        }
        txn.begin_statement();
        let analyze = self.analyze_context(txn, context)?;
        self.with_analysis(context, &analyze, false, async |exec| {
            super::reference::ask_waiting(waiting, txn, exec).await
        })
        .await?;
        context.deferred.lock().pass(constraints);
        Ok(())
    }

    async fn end_temporary_tables(&self, txn: &mut Transaction, context: &Context) -> Result<(), SqlError> {
        txn.begin_statement();
        let analyze = self.analyze_context(txn, context)?;
        self.with_analysis(context, &analyze, false, async |exec| {
            crate::ddl::temporary::end_transaction(txn, exec).await
        })
        .await
    }

    fn run_state(&self, context: &Context) -> RunState {
        let pool = Arc::clone(self.database.work_memory());
        RunState::new(work_mem(context), pool, Arc::clone(&context.interrupts))
    }

    /// The object that a parameter names, such as `pg_catalog.pg_class` of `regclass`.
    fn named_object(
        &self,
        context: &Context,
        planned: &Planned,
        name: &str,
        base: BaseType,
    ) -> Result<Value, SqlError> {
        let found = self.with_context(context, planned, async |exec| {
            crate::scalar::cast::read(name, base.into(), &exec.eval(&[]))
        });
        // Nothing is waited for: the catalog is at hand.
        found.now_or_never().unwrap_or_else(|| Err(SqlError::internal("the catalog is not at hand")))
    }

    fn analyze_context(&self, txn: &Transaction, context: &Context) -> Result<AnalyzeContext, SqlError> {
        let authority = Arc::new(self.authority(context)?);
        let catalog = self.database.catalog(txn)?;
        Ok(AnalyzeContext {
            search_path: effective_path(context, &authority, &catalog),
            catalog,
            virtuals: Arc::clone(self.database.virtuals()),
            database: context.database.clone(),
            user: context.current_user().to_owned(),
            user_oid: authority.role,
            authority,
        })
    }

    /// What the role may do under which the session's statements run.
    fn authority(&self, context: &Context) -> Result<Authority, SqlError> {
        let system = (self.system)();
        let found = |name: &str| {
            system.role_named(name).map(|role| role.oid).ok_or_else(|| {
                SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))
            })
        };
        let own = found(context.session_user())?;
        if context.session_user() != context.user && !system.is_superuser(found(&context.user)?) {
            let message = "permission denied to set session authorization";
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        let current = context.current_user();
        let role = if current == context.session_user() { own } else { found(current)? };
        if role != own && !system.is_superuser(own) && !system.roles_of(own, None, false).contains(&role) {
            let message = format!("permission denied to set role \"{current}\"");
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        Ok(Authority::of(role, &system, Some(context.database_id)))
    }

    fn planned(
        &self,
        txn: &Transaction,
        context: &Context,
        statement: &ast::Statement,
        param_types: &[u32],
    ) -> Result<Planned, SqlError> {
        let bound = self.analyze_context(txn, context)?;
        let params: Vec<Option<DataType>> =
            param_types.iter().map(|oid| bound.catalog.data_type(*oid, -1)).collect();
        let (plan, copy, dialogue) = match statement {
            ast::Statement::Copy { .. } => {
                let (plan, target) = copy::plan(&bound, statement)?;
                let dialogue = match &target {
                    CopyTarget::From { places, options, .. } => {
                        Dialogue::CopyIn(places.len(), wire_format(options))
                    }
                    CopyTarget::To { options } => {
                        Dialogue::CopyOut(plan.columns().len(), wire_format(options))
                    }
                };
                (plan, Some(target), dialogue)
            }
            _ => (analyze(&bound, statement, &params)?, None, Dialogue::Rows),
        };
        let columns = if copy.is_some() { Vec::new() } else { plan.columns().iter().map(column).collect() };
        let shape = Shape {
            columns,
            param_types: plan.param_types().iter().map(|ty| ty.base.oid()).collect(),
            dialogue,
            has_rows: copy.is_none()
                && (!plan.columns().is_empty() || matches!(plan.action, Action::Query(_) | Action::Lock(_))),
            is_read_only: plan.is_read_only() && !matches!(dialogue, Dialogue::CopyIn(..)),
            name: name(&plan, copy.as_ref()),
        };
        let search_path = context.settings.get("search_path").to_owned();
        Ok(Planned { plan, shape, analyze: Arc::new(bound), search_path, copy })
    }
}

fn work_mem(context: &Context) -> usize {
    context.settings.derived().work_mem_bytes.saturating_mul(WORK_MEM_FACTOR)
}

fn column(info: &crate::plan::ColumnInfo) -> Column {
    let (table, number) = info.origin.unwrap_or_default();
    Column {
        name: info.name.clone(),
        table,
        number: i16::try_from(number).unwrap_or_default(),
        type_oid: info.data_type.base.oid(),
        type_size: info.data_type.base.type_len(),
        modifier: info.data_type.modifier,
    }
}

fn name(plan: &Plan, copy: Option<&CopyTarget>) -> &'static str {
    match (&plan.action, copy) {
        (Action::Query(_), None) if plan.advances.is_some() => plan.advances.unwrap_or("SELECT"),
        (_, Some(CopyTarget::From { .. })) => "COPY FROM",
        (_, Some(CopyTarget::To { .. })) => "COPY",
        (Action::Query(_), _) => "SELECT",
        (Action::Lock(_), _) => "SELECT FOR UPDATE",
        (Action::Insert(_), _) => "INSERT",
        (Action::Update(_), _) => "UPDATE",
        (Action::Delete(_), _) => "DELETE",
        (Action::Explain { .. }, _) => "EXPLAIN",
        (Action::Utility(statement), _) => match statement.as_ref() {
            ast::Statement::CreateTable(_) => "CREATE TABLE",
            ast::Statement::CreateIndex(_) => "CREATE INDEX",
            ast::Statement::CreateSchema { .. } => "CREATE SCHEMA",
            ast::Statement::CreateSequence { .. } => "CREATE SEQUENCE",
            ast::Statement::CreateView(_) => "CREATE VIEW",
            ast::Statement::AlterTable(alter) if alter.table_type == Some(ast::AlterTableType::External) => {
                "ALTER VIEW"
            }
            ast::Statement::AlterTable(alter) if alter.table_type == Some(ast::AlterTableType::Iceberg) => {
                if alter.if_exists {
                    "ALTER TYPE"
                } else {
                    "ALTER DOMAIN"
                }
            }
            ast::Statement::AlterTable(alter) if alter.table_type.is_some() => "ALTER SEQUENCE",
            ast::Statement::AlterType(_) => "ALTER TYPE",
            ast::Statement::CreateType { .. } => "CREATE TYPE",
            ast::Statement::CreateDomain(_) => "CREATE DOMAIN",
            ast::Statement::AlterTable(_) => "ALTER TABLE",
            ast::Statement::AlterSchema(_) => "ALTER SCHEMA",
            ast::Statement::AlterIndex { .. } => "ALTER INDEX",
            ast::Statement::Drop { .. } => "DROP",
            ast::Statement::Truncate(_) => "TRUNCATE TABLE",
            ast::Statement::Lock(_) => "LOCK TABLE",
            ast::Statement::Analyze(_) => "ANALYZE",
            ast::Statement::Vacuum(_) => "VACUUM",
            ast::Statement::Comment { .. } => "COMMENT",
            _ => "this statement",
        },
    }
}

impl Executor for SqlExecutor {
    type Plan = Planned;
    type Cursor = Running;
    type CopyIn = Copying;

    fn hold(&self, size_bytes: usize) -> Result<HeldMemory, SqlError> {
        self.database.work_memory().texts().hold(size_bytes)
    }

    async fn objects_of(&self, role: Oid) -> Result<Vec<String>, SqlError> {
        // It writes nothing, so no request is to be told from others.
        let request = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
        let (isolation, access) = (rustydb_txn::Isolation::ReadCommitted, rustydb_txn::Access::ReadOnly);
        let options = rustydb_txn::TxnOptions { isolation, access, request };
        let mut txn = self.database.kv().begin(options).await.map_err(store_error)?;
        txn.begin_statement();
        Ok(crate::ddl::owned::objects_of(role, self.database.catalog(&txn)?.as_ref()))
    }

    async fn plan(
        &self,
        txn: &mut Transaction,
        context: &Context,
        statement: &ast::Statement,
        param_types: &[u32],
    ) -> Result<Arc<Planned>, SqlError> {
        self.planned(txn, context, statement, param_types).map(Arc::new).map_err(unpack)
    }

    async fn lock(&self, txn: &mut Transaction, context: &Context, plan: &Planned) -> Result<bool, SqlError> {
        if plan.search_path != context.settings.get("search_path") {
            return Ok(false);
        }
        let authority = self.authority(context)?;
        if plan.analyze.authority.role != authority.role || plan.analyze.authority.roles != authority.roles {
            return Ok(false);
        }
        let is_good = self.database.lock(&plan.plan, txn, context.lock_wait).await?;
        let (needs, schemas) = &plan.plan.needs;
        if is_good && !(needs.is_empty() && schemas.is_empty()) {
            let registry = &plan.analyze.virtuals;
            let system_name = |oid: Oid| {
                let found = registry.iter().find(|relation| relation.oid() == oid.get())?;
                let what = if found.name() == "pg_authid" { "table" } else { "view" };
                Some((what, found.name().to_owned()))
            };
            let system = (self.system)();
            let system = (system.as_ref(), Some(context.database_id));
            privilege::check((needs, schemas), &authority, &plan.analyze.catalog, system, system_name)?;
        }
        Ok(is_good)
    }

    fn shape<'p>(&self, plan: &'p Planned) -> &'p Shape {
        &plan.shape
    }

    fn open(&self, context: &Context, plan: &Arc<Planned>, bind: &Bind<'_>) -> Result<Running, SqlError> {
        let types = plan.plan.param_types();
        if bind.params.len() != types.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    bind.params.len(),
                    bind.statement,
                    types.len()
                ),
            ));
        }
        let mut params = Vec::with_capacity(types.len());
        for (index, (raw, ty)) in bind.params.iter().zip(types).enumerate() {
            let value = match (raw, bind.param_formats.get(index)) {
                (None, _) => Value::Null,
                (Some(raw), Format::Binary) => binary::binary_in(raw, ty.base)?,
                (Some(raw), Format::Text) => {
                    let raw = std::str::from_utf8(raw).map_err(|_| {
                        SqlError::new(
                            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                            "invalid byte sequence for encoding \"UTF8\"",
                        )
                    })?;
                    if ty.base.is_reg() {
                        self.named_object(context, plan, raw, ty.base)?
                    } else {
                        let reading = TextContext { zone: zone(context), now: context.transaction_time };
                        text::text_in(raw, ty.base, &reading)?
                    }
                }
            };
            params.push(value);
        }
        Ok(Running {
            cursor: Cursor::open(Arc::clone(&plan.plan), params, self.run_state(context)),
            planned: Arc::clone(plan),
            rows: Vec::new(),
            text: String::new(),
            bytes: Vec::new(),
            copied: 0,
        })
    }

    async fn fetch(
        &self,
        txn: &mut Transaction,
        context: &Context,
        cursor: &mut Running,
        rows_max: usize,
        formats: &ResultFormats,
        out: &mut BytesMut,
    ) -> Result<Fetched, SqlError> {
        let (start, is_fresh) = (out.len(), cursor.copied == 0);
        if is_fresh {
            *context.questions.lock() = Questions::default();
        }
        loop {
            let fetched = self.fetch_once(txn, context, cursor, rows_max, formats, out).await;
            let asked = context.questions.lock().open.take();
            match (fetched, asked) {
                (Err(error), Some(token)) => {
                    let answered = context.questions.lock().answers.len();
                    if !is_fresh || !cursor.planned.shape.is_read_only || answered >= QUESTIONS_MAX {
                        return Err(error);
                    }
                    let answer = self.outcome(context, token).await?;
                    context.questions.lock().answers.push((token, answer));
                    // Nothing of it has left, and nothing was changed.
                    out.truncate(start);
                    cursor.copied = 0;
                    cursor.cursor.reopen(self.run_state(context));
                }
                (fetched, _) => return fetched,
            }
        }
    }

    fn has_changed(&self, cursor: &Running) -> bool {
        cursor.cursor.has_changed()
    }

    fn complete(&self, cursor: &Running, out: &mut BytesMut) {
        let tag = match &cursor.planned.copy {
            Some(_) => format!("COPY {}", cursor.copied),
            None => cursor.cursor.tag(),
        };
        response::command_complete(out, &tag);
    }

    async fn keep(
        &self,
        txn: &mut Transaction,
        context: &Context,
        cursor: &mut Running,
    ) -> Result<(), SqlError> {
        let planned = Arc::clone(&cursor.planned);
        self.with_context(context, &planned, async |exec| cursor.cursor.keep(txn, exec).await).await
    }

    fn kept_count(&self, cursor: &Running) -> Option<usize> {
        cursor.cursor.kept_count()
    }

    fn seek(&self, cursor: &mut Running, row: usize) {
        cursor.cursor.seek(row);
    }

    async fn end_temporary(&self, txn: &mut Transaction, context: &Context) -> Result<(), SqlError> {
        self.end_temporary_tables(txn, context).await.map_err(unpack)
    }

    async fn discard_temporary(&self, txn: &mut Transaction, context: &Context) -> Result<(), SqlError> {
        crate::ddl::temporary::discard(txn, context.lock_wait).await.map_err(unpack)
    }

    async fn check_deferred(&self, txn: &mut Transaction, context: &Context) -> Result<(), SqlError> {
        self.ask_deferred(txn, context, None).await
    }

    async fn set_constraints(
        &self,
        txn: &mut Transaction,
        context: &Context,
        names: Option<&[(Option<String>, String)]>,
        deferred: bool,
    ) -> Result<(), SqlError> {
        let analyze = self.analyze_context(txn, context)?;
        let constraints = match names {
            None => None,
            Some(names) => Some(crate::ddl::deferrable_constraints(&analyze, names, deferred)?),
        };
        if !deferred {
            // Before the change: when one is violated, all stays as it was.
            self.ask_deferred(txn, context, constraints.as_deref()).await?;
        }
        context.deferred.lock().set(constraints.as_deref(), deferred);
        Ok(())
    }

    async fn copy_begin(
        &self,
        txn: &mut Transaction,
        context: &Context,
        plan: &Arc<Planned>,
    ) -> Result<Copying, SqlError> {
        let Some(target) = &plan.copy else {
            return Err(SqlError::internal("only COPY takes data"));
        };
        let copy = self.with_context(context, plan, async |exec| CopyFrom::begin(target, txn, exec)).await?;
        Ok(Copying { copy, planned: Arc::clone(plan) })
    }

    async fn copy_data(
        &self,
        txn: &mut Transaction,
        context: &Context,
        copy: &mut Copying,
        data: &[u8],
    ) -> Result<(), SqlError> {
        let reading = TextContext { zone: zone(context), now: context.transaction_time };
        let planned = Arc::clone(&copy.planned);
        self.with_context(context, &planned, async |exec| {
            copy.copy.push(data)?;
            copy.copy.insert(txn, exec, &reading).await
        })
        .await
    }

    async fn copy_end(
        &self,
        txn: &mut Transaction,
        context: &Context,
        mut copy: Copying,
    ) -> Result<u64, SqlError> {
        let reading = TextContext { zone: zone(context), now: context.transaction_time };
        let planned = Arc::clone(&copy.planned);
        self.with_context(context, &planned, async |exec| {
            copy.copy.finish();
            copy.copy.insert(txn, exec, &reading).await?;
            copy.copy.end(txn, exec).await?;
            Ok(copy.copy.count())
        })
        .await
    }
}

/// Prints values as the session's settings ask.
struct Printer<'a> {
    writing: TextContext,
    eval: EvalContext<'a>,
}

impl Printer<'_> {
    fn print(&self, out: &mut String, value: &Value, data_type: DataType) {
        match value {
            // The name of an object is known to the catalog alone.
            Value::Oid(oid) if data_type.base.is_reg() => {
                out.push_str(&crate::scalar::cast::object_text(*oid, data_type.base, &self.eval));
            }
            _ => text::write_text(out, value, data_type, &self.writing),
        }
    }
}

/// Writes one DataRow.
fn write_row(
    row: &[Value],
    planned: &Planned,
    formats: &ResultFormats,
    printer: &Printer<'_>,
    (scratch, bytes): (&mut String, &mut Vec<u8>),
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    let columns = planned.plan.columns();
    let mut writer = RowWriter::begin(out, columns.len());
    for (index, (value, column)) in row.iter().zip(columns).enumerate() {
        if value.is_null() {
            writer.null();
            continue;
        }
        let written: Result<(), SqlError> = match formats.get(index) {
            Format::Text => {
                scratch.clear();
                printer.print(scratch, value, column.data_type);
                writer.value(|out| {
                    out.put_slice(scratch.as_bytes());
                    Ok(())
                })
            }
            Format::Binary => {
                bytes.clear();
                binary::binary_out(bytes, value);
                writer.value(|out| {
                    out.put_slice(bytes);
                    Ok(())
                })
            }
        };
        written?;
    }
    writer.finish();
    Ok(())
}

fn wire_format(options: &CopyOptions) -> Format {
    if options.format == CopyFormat::Binary { Format::Binary } else { Format::Text }
}

/// Writes the rows of COPY TO.
struct CopyOutput {
    writer: CopyWriter,
    names: Vec<String>,
    is_binary: bool,
}

impl CopyOutput {
    fn new(planned: &Planned) -> Option<Self> {
        let Some(CopyTarget::To { options }) = &planned.copy else { return None };
        let names: Vec<String> = planned.plan.columns().iter().map(|column| column.name.clone()).collect();
        let is_binary = options.format == CopyFormat::Binary;
        Some(Self { writer: CopyWriter::new(options.clone(), &names), names, is_binary })
    }

    fn write(&self, row: &[Value], planned: &Planned, printer: &Printer<'_>, out: &mut Vec<u8>) {
        let columns = planned.plan.columns();
        if self.is_binary {
            copy_binary::write_count(columns.len(), out);
            for (value, _) in row.iter().zip(columns) {
                let write = (!value.is_null()).then_some(|out: &mut Vec<u8>| binary::binary_out(out, value));
                copy_binary::write_field(write, out);
            }
            return;
        }
        let fields: Vec<Option<String>> = row
            .iter()
            .zip(columns)
            .map(|(value, column)| {
                (!value.is_null()).then(|| {
                    let mut field = String::new();
                    printer.print(&mut field, value, column.data_type);
                    field
                })
            })
            .collect();
        self.writer.write_row(fields.iter().map(|field| field.as_deref()), out);
    }
}
