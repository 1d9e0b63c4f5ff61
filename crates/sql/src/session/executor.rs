//! The port through which a session runs what it does not run itself.
//!
//! A session knows the protocol, transactions and settings; an executor knows tables. Between them go syntax trees,
//! raw parameters and rows that are written straight into the client's buffer. Implemented over the planner, and by
//! a scripted executor with which the protocol is tested alone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use bytes::BytesMut;
use parking_lot::Mutex;
use rustydb_txn::{LockWait, Transaction};
use rustydb_types::ids::{DatabaseId, Oid};
/// The syntax trees that are planned; from here, so that the parser stays this crate's own affair.
pub use sqlparser::ast;

use super::activity::Registered;
use super::advisory::Advisory;
use super::interrupt::Interrupts;
use super::notify::Notify;
use super::random::RandomSeries;
use super::request::Bind;
use super::response::Format;
use super::sequences::SequenceValues;
use super::settings::{Scope, Settings};
use super::temporary::Temporary;
use super::token::{Questions, TokenKey, TransactionToken};
use crate::error::SqlError;
use crate::exec::deferred::Deferred;
use crate::memory::HeldMemory;

/// A change of a setting: how long it lasts, the name, and the value unless it is the default.
pub type SettingChange = (Scope, String, Option<String>);

impl Context {
    /// The role as which the session counts: the one that logged in, or the one of SET SESSION AUTHORIZATION.
    #[must_use]
    pub fn session_user(&self) -> &str {
        match self.settings.get("session_authorization") {
            "" => &self.user,
            role => role,
        }
    }

    /// The role whose privileges count: the one that logged in, or the one of SET ROLE.
    #[must_use]
    pub fn current_user(&self) -> &str {
        match self.settings.get("role") {
            "none" => self.session_user(),
            role => role,
        }
    }
}

/// What a statement may look at of the session that runs it.
#[derive(Debug)]
pub struct Context {
    /// The role that logged in.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// The database.
    pub database_id: DatabaseId,
    /// Signs the names of its transactions.
    pub token_key: TokenKey,
    /// Where the client connects from, for people.
    pub client_address: String,
    /// What others see of the session.
    pub activity: Registered,
    /// What SET changes.
    pub settings: Settings,
    /// Names the transaction that is open, if it may write.
    pub token: Option<TransactionToken>,
    /// Whether the client has been given that name: then there must be an outcome, whatever is written.
    pub is_token_given: AtomicBool,
    /// The random numbers that follow the session's last `setseed()`.
    pub random: Mutex<Option<RandomSeries>>,
    /// What the statement asks of other transactions.
    pub questions: Mutex<Questions>,
    /// What `set_config()` has asked for and the session has not yet done.
    pub changes: Mutex<Vec<SettingChange>>,
    /// The numbers that the session was given of sequences.
    pub sequences: Mutex<SequenceValues>,
    /// How long the statement has asked to sleep and has not yet slept; microseconds.
    pub sleep: AtomicI64,
    /// Whether it has temporary objects.
    pub temporary: Temporary,
    /// What it listens on and sends.
    pub notify: Mutex<Notify>,
    /// Its advisory locks.
    pub advisory: Mutex<Advisory>,
    /// Checks that the transaction has put off to its end.
    pub deferred: Mutex<Deferred>,
    /// What the statement has to tell the client beside its answer.
    pub notices: Mutex<Vec<SqlError>>,
    /// Cancel requests.
    pub interrupts: Arc<Interrupts>,
    /// When the transaction began; microseconds since 2000-01-01 UTC.
    pub transaction_time: i64,
    /// When the statement began.
    pub statement_time: i64,
    /// How long to wait for a lock.
    pub lock_wait: LockWait,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The table it comes from, 0 for none.
    pub table: u32,
    /// Its number in that table, 0 for none.
    pub number: i16,
    /// Its type.
    pub type_oid: u32,
    /// `pg_type.typlen` of the type.
    pub type_size: i16,
    /// The type's modifier, -1 for none.
    pub modifier: i32,
}

/// How a plan speaks with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialogue {
    /// It answers rows, or nothing but a tag.
    Rows,
    /// It takes COPY data of so many columns.
    CopyIn(usize, Format),
    /// It answers COPY data of so many columns.
    CopyOut(usize, Format),
}

/// What a session must know of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The columns of what it returns.
    pub columns: Vec<Column>,
    /// The types of its parameters.
    pub param_types: Vec<u32>,
    /// How it speaks with the client.
    pub dialogue: Dialogue,
    /// Whether it returns rows, be they without columns.
    pub has_rows: bool,
    /// Whether a read-only transaction can run it.
    pub is_read_only: bool,
    /// Its name, such as `INSERT`, for the message that refuses it in a read-only transaction.
    pub name: &'static str,
}

/// How the columns of a result are to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResultFormats {
    /// All in text.
    #[default]
    Text,
    /// All in binary.
    Binary,
    /// Each in its own; true is binary.
    Each(Box<[bool]>),
}

impl ResultFormats {
    /// The format of a column.
    #[must_use]
    pub fn get(&self, column: usize) -> Format {
        let is_binary = match self {
            Self::Text => false,
            Self::Binary => true,
            Self::Each(formats) => formats.get(column).copied().unwrap_or_default(),
        };
        if is_binary { Format::Binary } else { Format::Text }
    }
}

/// What a fetch has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// How many rows.
    pub rows: usize,
    /// Whether there are no more.
    pub is_done: bool,
}

/// Plans and runs statements in a transaction that the session holds.
pub trait Executor: Send + Sync + 'static {
    /// A statement, ready to be run any number of times while the catalog stays as it is.
    type Plan: Send + Sync + 'static;
    /// A run of a plan.
    type Cursor: Send + 'static;
    /// A COPY that takes data.
    type CopyIn: Send + 'static;

    /// Takes memory of the node for what is made of the text of a statement, as long as the answer is kept.
    ///
    /// # Errors
    /// 53200 when it is used up.
    fn hold(&self, size_bytes: usize) -> Result<HeldMemory, SqlError>;

    /// What of the database a role owns or has privileges on, as PostgreSQL tells it of a role that is to go.
    ///
    /// # Errors
    /// Storage errors.
    fn objects_of(&self, role: Oid) -> impl Future<Output = Result<Vec<String>, SqlError>> + Send;

    /// Plans a statement. Of `param_types` 0 means: to be inferred.
    ///
    /// # Errors
    /// As PostgreSQL's analysis.
    fn plan(
        &self,
        txn: &mut Transaction,
        context: &Context,
        statement: &ast::Statement,
        param_types: &[u32],
    ) -> impl Future<Output = Result<Arc<Self::Plan>, SqlError>> + Send;

    /// Takes the locks that the plan needs and says whether it is still good: false asks for a new plan.
    ///
    /// # Errors
    /// When a lock is not granted.
    fn lock(
        &self,
        txn: &mut Transaction,
        context: &Context,
        plan: &Self::Plan,
    ) -> impl Future<Output = Result<bool, SqlError>> + Send;

    /// What a session must know of a plan.
    fn shape<'p>(&self, plan: &'p Self::Plan) -> &'p Shape;

    /// Decodes parameters and opens a run; nothing is executed yet.
    ///
    /// # Errors
    /// When a parameter cannot be decoded.
    fn open(
        &self,
        context: &Context,
        plan: &Arc<Self::Plan>,
        bind: &Bind<'_>,
    ) -> Result<Self::Cursor, SqlError>;

    /// Runs on, appending at most `rows_max` rows as DataRow (or CopyData) messages. Returns when about
    /// [`super::sink::OUTPUT_SIZE_HIGH`] bytes are written, so that the session can send them.
    ///
    /// # Errors
    /// Whatever the execution raises; the transaction is to be rolled back then.
    fn fetch(
        &self,
        txn: &mut Transaction,
        context: &Context,
        cursor: &mut Self::Cursor,
        rows_max: usize,
        formats: &ResultFormats,
        out: &mut BytesMut,
    ) -> impl Future<Output = Result<Fetched, SqlError>> + Send;

    /// Computes what is left of a run and keeps it in memory: from then on it does not see what its transaction does,
    /// and may outlive it.
    ///
    /// # Errors
    /// Whatever the execution raises; 53200 when it is too much to keep.
    fn keep(
        &self,
        txn: &mut Transaction,
        context: &Context,
        cursor: &mut Self::Cursor,
    ) -> impl Future<Output = Result<(), SqlError>> + Send;

    /// How many rows a run keeps; `None` when it computes them as they are fetched.
    fn kept_count(&self, cursor: &Self::Cursor) -> Option<usize>;

    /// Goes to a row of a run that keeps its rows, by its number from 0: it is fetched next.
    fn seek(&self, cursor: &mut Self::Cursor, row: usize);

    /// Whether a run has changed rows so far.
    fn has_changed(&self, cursor: &Self::Cursor) -> bool;

    /// Appends the CommandComplete of a run that is done.
    fn complete(&self, cursor: &Self::Cursor, out: &mut BytesMut);

    /// Asks what the transaction has put off to its end, before it is committed.
    ///
    /// # Errors
    /// When a constraint is violated.
    fn check_deferred(
        &self,
        _txn: &mut Transaction,
        _context: &Context,
    ) -> impl Future<Output = Result<(), SqlError>> + Send {
        async { Ok(()) }
    }

    /// Does to temporary tables what they were made to have done to them at the end of each transaction.
    ///
    /// # Errors
    /// Those of the store.
    fn end_temporary(
        &self,
        _txn: &mut Transaction,
        _context: &Context,
    ) -> impl Future<Output = Result<(), SqlError>> + Send {
        async { Ok(()) }
    }

    /// DISCARD TEMP.
    ///
    /// # Errors
    /// Those of the store.
    fn discard_temporary(
        &self,
        _txn: &mut Transaction,
        _context: &Context,
    ) -> impl Future<Output = Result<(), SqlError>> + Send {
        async { Ok(()) }
    }

    /// SET CONSTRAINTS of some, each with its schema if that was written, or of all.
    ///
    /// # Errors
    /// When there is none of a name, it cannot be deferred, or is violated now.
    fn set_constraints(
        &self,
        _txn: &mut Transaction,
        _context: &Context,
        _names: Option<&[(Option<String>, String)]>,
        _deferred: bool,
    ) -> impl Future<Output = Result<(), SqlError>> + Send {
        async { Ok(()) }
    }

    /// Begins a COPY that takes data.
    ///
    /// # Errors
    /// When the table cannot be copied into.
    fn copy_begin(
        &self,
        txn: &mut Transaction,
        context: &Context,
        plan: &Arc<Self::Plan>,
    ) -> impl Future<Output = Result<Self::CopyIn, SqlError>> + Send;

    /// Takes data, cut anywhere.
    ///
    /// # Errors
    /// When a row is refused.
    fn copy_data(
        &self,
        txn: &mut Transaction,
        context: &Context,
        copy: &mut Self::CopyIn,
        data: &[u8],
    ) -> impl Future<Output = Result<(), SqlError>> + Send;

    /// Ends a COPY; answers how many rows it has put in.
    ///
    /// # Errors
    /// When a row is refused.
    fn copy_end(
        &self,
        txn: &mut Transaction,
        context: &Context,
        copy: Self::CopyIn,
    ) -> impl Future<Output = Result<u64, SqlError>> + Send;
}
