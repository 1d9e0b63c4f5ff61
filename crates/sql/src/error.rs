//! What a SQL client is told when something fails: PostgreSQL's SQLSTATEs, messages and fields.
//!
//! One error type serves the whole crate, because everything below ends at the same wire message.
//! Its kind is the [`SqlState`].

use std::fmt;

use rustydb_txn::TxnError;
use rustydb_types::value_error::ValueError;
use thiserror::Error;

/// A five-character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

macro_rules! states {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = $doc] pub const $name: SqlState = SqlState(*$code);)*
        }
    };
}

states! {
    SUCCESSFUL_COMPLETION = b"00000", "successful_completion";
    WARNING = b"01000", "warning";
    NO_DATA = b"02000", "no_data";
    CONNECTION_EXCEPTION = b"08000", "connection_exception";
    CONNECTION_FAILURE = b"08006", "connection_failure";
    SQLCLIENT_UNABLE_TO_ESTABLISH = b"08001", "sqlclient_unable_to_establish_sqlconnection";
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007", "transaction_resolution_unknown";
    PROTOCOL_VIOLATION = b"08P01", "protocol_violation";
    FEATURE_NOT_SUPPORTED = b"0A000", "feature_not_supported";
    CARDINALITY_VIOLATION = b"21000", "cardinality_violation";
    DATA_EXCEPTION = b"22000", "data_exception";
    STRING_DATA_RIGHT_TRUNCATION = b"22001", "string_data_right_truncation";
    NUMERIC_VALUE_OUT_OF_RANGE = b"22003", "numeric_value_out_of_range";
    NULL_VALUE_NOT_ALLOWED = b"22004", "null_value_not_allowed";
    INVALID_DATETIME_FORMAT = b"22007", "invalid_datetime_format";
    DATETIME_FIELD_OVERFLOW = b"22008", "datetime_field_overflow";
    SUBSTRING_ERROR = b"22011", "substring_error";
    DIVISION_BY_ZERO = b"22012", "division_by_zero";
    INVALID_PRECEDING_OR_FOLLOWING_SIZE = b"22013", "invalid_preceding_or_following_size";
    INVALID_ARGUMENT_FOR_NTILE = b"22014", "invalid_argument_for_ntile_function";
    INVALID_ARGUMENT_FOR_NTH_VALUE = b"22016", "invalid_argument_for_nth_value_function";
    INTERVAL_FIELD_OVERFLOW = b"22015", "interval_field_overflow";
    INVALID_ESCAPE_CHARACTER = b"22019", "invalid_escape_character";
    CHARACTER_NOT_IN_REPERTOIRE = b"22021", "character_not_in_repertoire";
    INVALID_PARAMETER_VALUE = b"22023", "invalid_parameter_value";
    SEQUENCE_GENERATOR_LIMIT_EXCEEDED = b"2200H", "sequence_generator_limit_exceeded";
    INVALID_ESCAPE_SEQUENCE = b"22025", "invalid_escape_sequence";
    ARRAY_SUBSCRIPT_ERROR = b"2202E", "array_subscript_error";
    INVALID_REGULAR_EXPRESSION = b"2201B", "invalid_regular_expression";
    INVALID_ARGUMENT_FOR_LOG = b"2201E", "invalid_argument_for_logarithm";
    INVALID_ARGUMENT_FOR_POWER = b"2201F", "invalid_argument_for_power_function";
    INVALID_ARGUMENT_FOR_WIDTH_BUCKET = b"2201G", "invalid_argument_for_width_bucket_function";
    INVALID_ROW_COUNT_IN_LIMIT = b"2201W", "invalid_row_count_in_limit_clause";
    INVALID_ROW_COUNT_IN_OFFSET = b"2201X", "invalid_row_count_in_result_offset_clause";
    INVALID_TEXT_REPRESENTATION = b"22P02", "invalid_text_representation";
    INVALID_BINARY_REPRESENTATION = b"22P03", "invalid_binary_representation";
    BAD_COPY_FILE_FORMAT = b"22P04", "bad_copy_file_format";
    UNTRANSLATABLE_CHARACTER = b"22P05", "untranslatable_character";
    INTEGRITY_CONSTRAINT_VIOLATION = b"23000", "integrity_constraint_violation";
    NOT_NULL_VIOLATION = b"23502", "not_null_violation";
    FOREIGN_KEY_VIOLATION = b"23503", "foreign_key_violation";
    UNIQUE_VIOLATION = b"23505", "unique_violation";
    CHECK_VIOLATION = b"23514", "check_violation";
    WITH_CHECK_OPTION_VIOLATION = b"44000", "with_check_option_violation";
    INVALID_CURSOR_STATE = b"24000", "invalid_cursor_state";
    INVALID_TRANSACTION_STATE = b"25000", "invalid_transaction_state";
    ACTIVE_SQL_TRANSACTION = b"25001", "active_sql_transaction";
    READ_ONLY_SQL_TRANSACTION = b"25006", "read_only_sql_transaction";
    NO_ACTIVE_SQL_TRANSACTION = b"25P01", "no_active_sql_transaction";
    IN_FAILED_SQL_TRANSACTION = b"25P02", "in_failed_sql_transaction";
    IDLE_IN_TRANSACTION_TIMEOUT = b"25P03", "idle_in_transaction_session_timeout";
    INVALID_SQL_STATEMENT_NAME = b"26000", "invalid_sql_statement_name";
    INVALID_AUTHORIZATION = b"28000", "invalid_authorization_specification";
    INVALID_PASSWORD = b"28P01", "invalid_password";
    DEPENDENT_OBJECTS_STILL_EXIST = b"2BP01", "dependent_objects_still_exist";
    INVALID_TRANSACTION_TERMINATION = b"2D000", "invalid_transaction_termination";
    INVALID_CURSOR_NAME = b"34000", "invalid_cursor_name";
    INVALID_SAVEPOINT_SPECIFICATION = b"3B001", "invalid_savepoint_specification";
    INVALID_CATALOG_NAME = b"3D000", "invalid_catalog_name";
    INVALID_GRANT_OPERATION = b"0LP01", "invalid_grant_operation";
    INVALID_SCHEMA_NAME = b"3F000", "invalid_schema_name";
    TRANSACTION_ROLLBACK = b"40000", "transaction_rollback";
    SERIALIZATION_FAILURE = b"40001", "serialization_failure";
    DEADLOCK_DETECTED = b"40P01", "deadlock_detected";
    SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION = b"42000", "syntax_error_or_access_rule_violation";
    SYNTAX_ERROR = b"42601", "syntax_error";
    INSUFFICIENT_PRIVILEGE = b"42501", "insufficient_privilege";
    CANNOT_COERCE = b"42846", "cannot_coerce";
    GROUPING_ERROR = b"42803", "grouping_error";
    WINDOWING_ERROR = b"42P20", "windowing_error";
    INVALID_FOREIGN_KEY = b"42830", "invalid_foreign_key";
    INVALID_NAME = b"42602", "invalid_name";
    NAME_TOO_LONG = b"42622", "name_too_long";
    INVALID_RECURSION = b"42P19", "invalid_recursion";
    RESERVED_NAME = b"42939", "reserved_name";
    DATATYPE_MISMATCH = b"42804", "datatype_mismatch";
    INDETERMINATE_DATATYPE = b"42P18", "indeterminate_datatype";
    WRONG_OBJECT_TYPE = b"42809", "wrong_object_type";
    UNDEFINED_COLUMN = b"42703", "undefined_column";
    UNDEFINED_FUNCTION = b"42883", "undefined_function";
    UNDEFINED_TABLE = b"42P01", "undefined_table";
    UNDEFINED_PARAMETER = b"42P02", "undefined_parameter";
    UNDEFINED_OBJECT = b"42704", "undefined_object";
    DUPLICATE_COLUMN = b"42701", "duplicate_column";
    DUPLICATE_CURSOR = b"42P03", "duplicate_cursor";
    INVALID_CURSOR_DEFINITION = b"42P11", "invalid_cursor_definition";
    DUPLICATE_DATABASE = b"42P04", "duplicate_database";
    DUPLICATE_PREPARED_STATEMENT = b"42P05", "duplicate_prepared_statement";
    DUPLICATE_SCHEMA = b"42P06", "duplicate_schema";
    DUPLICATE_TABLE = b"42P07", "duplicate_table";
    DUPLICATE_ALIAS = b"42712", "duplicate_alias";
    DUPLICATE_OBJECT = b"42710", "duplicate_object";
    AMBIGUOUS_COLUMN = b"42702", "ambiguous_column";
    AMBIGUOUS_FUNCTION = b"42725", "ambiguous_function";
    AMBIGUOUS_PARAMETER = b"42P08", "ambiguous_parameter";
    INVALID_COLUMN_REFERENCE = b"42P10", "invalid_column_reference";
    INVALID_COLUMN_DEFINITION = b"42611", "invalid_column_definition";
    INVALID_DATABASE_DEFINITION = b"42P12", "invalid_database_definition";
    INVALID_TABLE_DEFINITION = b"42P16", "invalid_table_definition";
    INVALID_OBJECT_DEFINITION = b"42P17", "invalid_object_definition";
    INVALID_FUNCTION_DEFINITION = b"42P13", "invalid_function_definition";
    INSUFFICIENT_RESOURCES = b"53000", "insufficient_resources";
    DISK_FULL = b"53100", "disk_full";
    OUT_OF_MEMORY = b"53200", "out_of_memory";
    TOO_MANY_CONNECTIONS = b"53300", "too_many_connections";
    CONFIGURATION_LIMIT_EXCEEDED = b"53400", "configuration_limit_exceeded";
    PROGRAM_LIMIT_EXCEEDED = b"54000", "program_limit_exceeded";
    STATEMENT_TOO_COMPLEX = b"54001", "statement_too_complex";
    TOO_MANY_COLUMNS = b"54011", "too_many_columns";
    TOO_MANY_ARGUMENTS = b"54023", "too_many_arguments";
    GENERATED_ALWAYS = b"428C9", "generated_always";
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000", "object_not_in_prerequisite_state";
    OBJECT_IN_USE = b"55006", "object_in_use";
    LOCK_NOT_AVAILABLE = b"55P03", "lock_not_available";
    QUERY_CANCELED = b"57014", "query_canceled";
    ADMIN_SHUTDOWN = b"57P01", "admin_shutdown";
    CRASH_SHUTDOWN = b"57P02", "crash_shutdown";
    CANNOT_CONNECT_NOW = b"57P03", "cannot_connect_now";
    DATABASE_DROPPED = b"57P04", "database_dropped";
    IDLE_SESSION_TIMEOUT = b"57P05", "idle_session_timeout";
    SYSTEM_ERROR = b"58000", "system_error";
    IO_ERROR = b"58030", "io_error";
    SNAPSHOT_TOO_OLD = b"72000", "snapshot_too_old";
    INTERNAL_ERROR = b"XX000", "internal_error";
    DATA_CORRUPTED = b"XX001", "data_corrupted";
}

impl SqlState {
    /// A SQLSTATE from its five characters; anything else becomes `XX000`.
    pub fn from_code(code: &str) -> SqlState {
        <[u8; 5]>::try_from(code.as_bytes()).map_or(SqlState::INTERNAL_ERROR, SqlState)
    }

    /// The five characters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The first two characters.
    pub fn class(&self) -> &str {
        self.code().get(..2).unwrap_or("XX")
    }

    /// Whether an error of this state can depend on the data that was read. The others tell of the request's form, of
    /// the session, of resources, locks and conflicts, and of what ended it from outside.
    pub fn may_come_of_reads(&self) -> bool {
        !matches!(self.class(), "08" | "25" | "26" | "34" | "40" | "53" | "54" | "57")
            && ![SqlState::SYNTAX_ERROR, SqlState::LOCK_NOT_AVAILABLE].contains(self)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How bad it is: what the client's `severity` field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement fails.
    Error,
    /// The connection ends.
    Fatal,
    /// The server ends.
    Panic,
    /// Something deserves attention.
    Warning,
    /// Something may interest the client.
    Notice,
    /// Detail for debugging.
    Debug,
    /// Answers a request of the user.
    Info,
    /// Meant for the server's log.
    Log,
}

impl Severity {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Panic => "PANIC",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Log => "LOG",
        }
    }
}

/// An error (or notice) as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.message)]
pub struct SqlError(Box<SqlErrorFields>);

/// The fields of a [`SqlError`], as the wire protocol names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlErrorFields {
    /// SQLSTATE.
    pub state: SqlState,
    /// How bad it is.
    pub severity: Severity,
    /// Primary message.
    pub message: String,
    /// Secondary message.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Position in the statement, in characters from 1.
    pub position: Option<u32>,
    /// Where it happened, such as a line of COPY.
    pub context: Option<String>,
    /// Schema of the object concerned.
    pub schema: Option<String>,
    /// Table concerned.
    pub table: Option<String>,
    /// Column concerned.
    pub column: Option<String>,
    /// Data type concerned.
    pub data_type: Option<String>,
    /// Constraint concerned.
    pub constraint: Option<String>,
    /// Whether the transaction only fell with the leadership of its node, and certainly committed nothing: run again
    /// where the database is led by now, it may succeed. Not on the wire.
    pub is_fallen: bool,
}

impl SqlError {
    /// An error with a SQLSTATE and a primary message.
    pub fn new(state: SqlState, message: impl Into<String>) -> SqlError {
        SqlError(Box::new(SqlErrorFields {
            state,
            severity: Severity::Error,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            data_type: None,
            constraint: None,
            is_fallen: false,
        }))
    }

    /// XX000: something that cannot happen did.
    pub fn internal(message: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::INTERNAL_ERROR, message)
    }

    /// 0A000.
    pub fn not_supported(message: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// The SQLSTATE.
    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// All fields.
    pub fn fields(&self) -> &SqlErrorFields {
        &self.0
    }

    /// All fields, for the rare ones.
    pub fn fields_mut(&mut self) -> &mut SqlErrorFields {
        &mut self.0
    }

    /// Changes the severity.
    #[must_use]
    pub fn with_severity(mut self, severity: Severity) -> SqlError {
        self.0.severity = severity;
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a detail, if there is one.
    #[must_use]
    pub fn with_details(mut self, detail: Option<String>) -> SqlError {
        self.0.detail = detail.or(self.0.detail);
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the position in the statement unless one is known already.
    #[must_use]
    pub fn at(mut self, position: u32) -> SqlError {
        self.0.position.get_or_insert(position);
        self
    }

    /// Adds where it happened.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> SqlError {
        self.0.context = Some(context.into());
        self
    }

    /// Says that the transaction fell with the leadership, see [`SqlErrorFields::is_fallen`].
    #[must_use]
    pub fn fallen(mut self) -> SqlError {
        self.0.is_fallen = true;
        self
    }

    /// Names the table concerned.
    #[must_use]
    pub fn with_table(mut self, schema: impl Into<String>, table: impl Into<String>) -> SqlError {
        self.0.schema = Some(schema.into());
        self.0.table = Some(table.into());
        self
    }

    /// Names the column concerned.
    #[must_use]
    pub fn with_column(mut self, column: impl Into<String>) -> SqlError {
        self.0.column = Some(column.into());
        self
    }

    /// Names the type concerned.
    #[must_use]
    pub fn with_data_type(mut self, schema: impl Into<String>, name: impl Into<String>) -> SqlError {
        self.0.schema = Some(schema.into());
        self.0.data_type = Some(name.into());
        self
    }

    /// Names the constraint concerned.
    #[must_use]
    pub fn with_constraint(mut self, constraint: impl Into<String>) -> SqlError {
        self.0.constraint = Some(constraint.into());
        self
    }
}

impl From<ValueError> for SqlError {
    fn from(error: ValueError) -> SqlError {
        let mut sql = SqlError::new(SqlState::from_code(error.state), error.message);
        sql.0.detail = error.detail;
        sql.0.hint = error.hint;
        sql
    }
}

impl From<TxnError> for SqlError {
    fn from(error: TxnError) -> SqlError {
        let state = match &error {
            TxnError::NotLeader { .. } | TxnError::Fallen { .. } | TxnError::Serialization { .. } => {
                SqlState::SERIALIZATION_FAILURE
            }
            TxnError::Deadlock => SqlState::DEADLOCK_DETECTED,
            TxnError::LockTimeout | TxnError::LockNotAvailable => SqlState::LOCK_NOT_AVAILABLE,
            TxnError::SnapshotTooOld => SqlState::SNAPSHOT_TOO_OLD,
            TxnError::UnknownOutcome => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            TxnError::Overloaded { .. } => SqlState::INSUFFICIENT_RESOURCES,
            TxnError::DiskFull => SqlState::DISK_FULL,
            TxnError::ReadOnly => SqlState::READ_ONLY_SQL_TRANSACTION,
            TxnError::TooLarge { .. } | TxnError::TooManyChanges { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
            TxnError::NoSuchSavepoint => SqlState::INVALID_SAVEPOINT_SPECIFICATION,
            TxnError::Storage(_) => SqlState::IO_ERROR,
            TxnError::Stopped => SqlState::ADMIN_SHUTDOWN,
            _ => SqlState::INTERNAL_ERROR,
        };
        let message = match &error {
            // PostgreSQL's words, which some clients look for.
            TxnError::Serialization { .. } => {
                "could not serialize access due to concurrent update".to_owned()
            }
            TxnError::NotLeader { .. } | TxnError::Fallen { .. } => {
                "could not serialize access because the leader changed".to_owned()
            }
            TxnError::LockTimeout => "canceling statement due to lock timeout".to_owned(),
            TxnError::LockNotAvailable => "could not obtain lock on row or relation".to_owned(),
            TxnError::DiskFull => "could not extend the log: no space left on device".to_owned(),
            TxnError::ReadOnly => "cannot write in a read-only transaction".to_owned(),
            other => other.to_string(),
        };
        let sql = SqlError::new(state, message);
        match error {
            TxnError::Serialization { reason } => sql.with_detail(format!("Reason: {reason}.")),
            TxnError::Fallen { reason } => sql.with_detail(format!("Reason: {reason}.")).fallen(),
            TxnError::NotLeader { .. } | TxnError::Stopped => sql.fallen(),
            TxnError::Storage(source) => sql.with_detail(source.to_string()),
            TxnError::DiskFull => {
                sql.with_hint("Free disk space on the leader; writes go on by themselves then.")
            }
            TxnError::UnknownOutcome => {
                sql.with_hint("The commit may or may not have taken effect; ask again before repeating it.")
            }
            TxnError::TooManyChanges { .. } => sql.with_hint(TOO_MANY_CHANGES),
            _ => sql,
        }
    }
}

/// What to do about changes that do not fit in memory.
pub(crate) const TOO_MANY_CHANGES: &str = "Changes stay in memory while a savepoint is open, and where a statement \
     changes rows that its own transaction has changed before; release the savepoint, or commit in smaller parts.";
