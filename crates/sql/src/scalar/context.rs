//! What an expression may look at besides its row: parameters, clocks, the session, the catalog.

use std::fmt;

use rustydb_txn::AdvisoryId;
use rustydb_types::datetime::Zone;
use rustydb_types::value::Value;

use crate::error::{SqlError, SqlState};
use crate::session::advisory::AdvisoryLock;

/// Where an expression is evaluated.
#[derive(Clone, Copy)]
pub struct EvalContext<'a> {
    /// Values of the statement's parameters.
    pub params: &'a [Value],
    /// Values of the enclosing query's row, for [`Expr::Outer`](super::Expr::Outer).
    pub outer: &'a [Value],
    /// When the transaction began: `now()`; microseconds since 2000-01-01 UTC.
    pub transaction_time: i64,
    /// When the statement began; microseconds since 2000-01-01 UTC.
    pub statement_time: i64,
    /// The session's user, database, settings, clock and randomness.
    pub session: &'a dyn SessionView,
    /// Names and descriptions of catalog objects.
    pub catalog: &'a dyn CatalogLookup,
    /// The transaction, where numbers of sequences may be asked for.
    pub txn: Option<&'a rustydb_txn::Transaction>,
    /// The sequences of the database, where they may.
    pub sequences: Option<&'a crate::exec::sequence::Sequences>,
    /// The execution that subqueries are part of; absent where none may occur.
    pub run: Option<&'a crate::exec::run::Run<'a>>,
}

impl fmt::Debug for EvalContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvalContext")
            .field("params", &self.params)
            .field("outer", &self.outer)
            .finish_non_exhaustive()
    }
}

impl<'a> EvalContext<'a> {
    /// A context in which only constants, immutable functions and parameters work.
    pub fn constant(params: &'a [Value]) -> EvalContext<'a> {
        EvalContext {
            params,
            outer: &[],
            transaction_time: 0,
            statement_time: 0,
            session: &NoSession,
            catalog: &NoCatalog,
            txn: None,
            sequences: None,
            run: None,
        }
    }
}

/// The session as expressions see it.
pub trait SessionView: Send + Sync {
    /// `current_user`
    fn current_user(&self) -> &str;
    /// `session_user`
    fn session_user(&self) -> &str;
    /// `current_database()`
    fn database(&self) -> &str;
    /// Schemas of the search path that exist, first to last, without the implicit ones.
    fn search_path(&self) -> Vec<String>;
    /// The zone by name, for `timestamptz`; `UTC` unless set.
    fn timezone(&self) -> Zone;
    /// A setting's text, by lower-case name.
    fn setting(&self, name: &str) -> Option<String>;
    /// `set_config()`: changes a setting when the statement's rows are computed; `None` brings the default back.
    /// Answers the value as it will be shown.
    ///
    /// # Errors
    /// Those of SET.
    fn change_setting(&self, name: &str, value: Option<&str>, is_local: bool) -> Result<String, SqlError>;
    /// Tells the client something beside the statement's answer, with the error's severity.
    fn notice(&self, notice: SqlError);
    /// `pg_backend_pid()`
    fn backend_pid(&self) -> i32;
    /// The session makes temporary objects: they are to go when it ends.
    fn note_temporary(&self) {}
    /// `rustydb_transaction_token()`; `None` when no transaction is open that may write.
    fn transaction_token(&self) -> Option<String> {
        None
    }
    /// `rustydb_transaction_outcome()`
    ///
    /// # Errors
    /// 22023 for a text that is no token of the database, 0A000 where nobody can be asked. Any error when the answer is still to be got: the statement is then run anew.
    fn transaction_outcome(&self, _token: &str) -> Result<&'static str, SqlError> {
        Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "the outcome of a transaction cannot be asked for here",
        ))
    }
    /// The number that the session was given last of a sequence: `currval()`.
    fn sequence_value(&self, _sequence: u32) -> Option<i64> {
        None
    }
    /// The sequence that the session was given a number of last: `lastval()`.
    fn last_sequence(&self) -> Option<u32> {
        None
    }
    /// The session was given a number of a sequence, by `nextval()` or else by `setval()`, which is not counted by
    /// `lastval()`.
    fn note_sequence(&self, _sequence: u32, _value: i64, _is_next: bool) {}
    /// The rows that are being computed are to be given out so many microseconds later.
    fn sleep(&self, _micros: i64) {}
    /// `pg_advisory_lock()` and its kin: a lock that is not free is waited for when the rows have been computed.
    ///
    /// # Errors
    /// 53200 at the bound of locks; 0A000 where no session is.
    fn advisory_lock(&self, _lock: AdvisoryLock) -> Result<(), SqlError> {
        Err(SqlError::not_supported("advisory locks cannot be taken here"))
    }
    /// `pg_try_advisory_lock()` and its kin: whether the lock is held now.
    ///
    /// # Errors
    /// As [`SessionView::advisory_lock`].
    fn advisory_try(&self, _lock: AdvisoryLock) -> Result<bool, SqlError> {
        Err(SqlError::not_supported("advisory locks cannot be taken here"))
    }
    /// `pg_advisory_unlock()`: whether the lock was held.
    fn advisory_unlock(&self, _on: AdvisoryId, _is_shared: bool) -> bool {
        false
    }
    /// `pg_advisory_unlock_all()`
    fn advisory_unlock_all(&self) {}
    /// `pg_notify()`: sends a notification at the commit.
    ///
    /// # Errors
    /// 22023 for a name or a payload that is too long; 54000 for too much in one transaction.
    fn notify(&self, _channel: &str, _payload: &str) -> Result<(), SqlError> {
        Err(SqlError::not_supported("notifications cannot be sent here"))
    }
    /// `pg_listening_channels()`
    fn listening_channels(&self) -> Vec<String> {
        Vec::new()
    }
    /// `clock_timestamp()`; microseconds since 2000-01-01 UTC.
    fn clock(&self) -> i64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// `random()`: from 0 up to 1, the same series after the same [`SessionView::set_seed`].
    fn random_float(&self) -> f64 {
        (self.random() >> 12) as f64 / (1u64 << 52) as f64
    }
    /// `setseed()`
    fn set_seed(&self, _seed: f64) {}
}

/// A session of nobody, with a stopped clock: for folding constants.
#[derive(Clone, Copy, Debug)]
pub struct NoSession;

impl SessionView for NoSession {
    fn current_user(&self) -> &str {
        ""
    }
    fn session_user(&self) -> &str {
        ""
    }
    fn database(&self) -> &str {
        ""
    }
    fn search_path(&self) -> Vec<String> {
        Vec::new()
    }
    fn timezone(&self) -> Zone {
        Zone::UTC
    }
    fn setting(&self, _name: &str) -> Option<String> {
        None
    }
    fn change_setting(&self, _name: &str, _value: Option<&str>, _is_local: bool) -> Result<String, SqlError> {
        Err(SqlError::internal("settings are a session's"))
    }
    fn notice(&self, _: SqlError) {}
    fn backend_pid(&self) -> i32 {
        0
    }
    fn clock(&self) -> i64 {
        0
    }
    fn random(&self) -> u64 {
        0
    }
}

/// The kinds of objects that have an object id and a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Tables, indexes, sequences, views: `regclass`.
    Relation,
    /// `regtype`
    Type,
    /// `regproc`, `regprocedure`
    Function,
    /// `regoper`, `regoperator`
    Operator,
    /// `regnamespace`
    Schema,
    /// `regrole`
    Role,
    /// `regcollation`
    Collation,
    /// Databases.
    Database,
}

/// The name of a catalog object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Its schema; `None` for objects outside schemas.
    pub schema: Option<String>,
    /// Its own name.
    pub name: String,
    /// It is found without its schema.
    pub visible: bool,
}

/// Which part of a relation `pg_relation_size` and its kin count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeOf {
    /// The rows.
    Main,
    /// The indexes.
    Indexes,
    /// All.
    Total,
}

/// What functions such as `pg_get_indexdef` ask of the catalog.
/// `None` means that the object does not exist; the functions then answer NULL (or the bare number).
pub trait CatalogLookup: Send + Sync {
    /// Whether the role that asks may use a schema, if there is one of this name.
    fn may_use(&self, _schema: &str) -> bool {
        true
    }
    /// The schema of the session's temporary objects, if it has some: its object id and its name.
    fn temporary_schema(&self) -> Option<(u32, String)> {
        None
    }
    /// The object id behind a name; `schema` as given, else by the search path.
    fn object_by_name(&self, _kind: ObjectKind, _schema: Option<&str>, _name: &str) -> Option<u32> {
        None
    }
    /// The name behind an object id.
    fn object_name(&self, _kind: ObjectKind, _oid: u32) -> Option<ObjectName> {
        None
    }
    /// A type that a user made, as it is written: with its schema where the search path does not find it.
    fn type_text(&self, _oid: u32) -> Option<String> {
        None
    }
    /// `pg_get_indexdef(oid, column, pretty)`; column 0 means the whole definition.
    fn index_definition(&self, _oid: u32, _column: i32, _pretty: bool) -> Option<String> {
        None
    }
    /// `pg_get_constraintdef(oid, pretty)`, points in time in the zone.
    fn constraint_definition(&self, _oid: u32, _pretty: bool, _zone: Zone) -> Option<String> {
        None
    }
    /// `pg_get_expr(text, relation, pretty)`, where that is not the text itself.
    fn expression(&self, _text: &str, _relation: u32, _pretty: bool, _zone: Zone) -> Option<String> {
        None
    }
    /// `pg_get_serial_sequence(table, column)`
    fn serial_sequence(&self, _table: &str, _column: &str) -> Result<Option<String>, SqlError> {
        Ok(None)
    }
    /// A sequence.
    fn sequence(&self, _oid: u32) -> Option<std::sync::Arc<crate::catalog::SequenceDescriptor>> {
        None
    }
    /// A comment: the object's id, its catalog's name, and the column (0 for the object itself).
    fn description(&self, _oid: u32, _catalog: &str, _column: i32) -> Option<String> {
        None
    }
    /// Bytes that a relation takes.
    fn relation_size(&self, _oid: u32, _part: SizeOf) -> Option<i64> {
        None
    }
    /// Bytes that a database takes.
    fn database_size(&self, _oid: u32) -> Option<i64> {
        None
    }
    /// Whether a role (`None`: the current user; 0: everybody) holds one of the privileges of a list such as
    /// `select, update with grant option` on an object; none when there is no such object.
    fn has_privilege(
        &self,
        _kind: ObjectKind,
        _role: Option<u32>,
        _object: u32,
        _list: &str,
    ) -> Option<bool> {
        Some(true)
    }
    /// The same of a column of a relation; of any column without one.
    fn has_column_privilege(
        &self,
        _role: Option<u32>,
        _relation: u32,
        _column: Option<&str>,
        _list: &str,
    ) -> Option<bool> {
        Some(true)
    }
    /// Whether a role is a member of another one.
    fn has_role(&self, _role: Option<u32>, _of: u32, _list: &str) -> Option<bool> {
        Some(true)
    }
    /// The name of a column by its number.
    fn column_name(&self, _relation: u32, _number: i16) -> Option<String> {
        None
    }
    /// Any other catalog function by name, such as `has_table_privilege` or `pg_get_viewdef`. The
    /// arguments have the types of one of its overloads and are not null when it is strict.
    ///
    /// # Errors
    /// The function's own.
    fn call(&self, _function: &str, _args: &[Value]) -> Result<Value, SqlError> {
        Ok(Value::Null)
    }
}

/// A catalog with nothing in it.
#[derive(Clone, Copy, Debug)]
pub struct NoCatalog;

impl CatalogLookup for NoCatalog {}
