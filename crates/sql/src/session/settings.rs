//! Settings of a session: what SET changes and SHOW shows.
//!
//! ```text
//! value = local (SET LOCAL, until the transaction ends), else session (SET), else start (by the client), else default
//! ```
//!
//! SET inside a transaction that rolls back is undone, and so is SET after a savepoint that is rolled back to.
//! Settings that PostgreSQL has and that mean nothing here are taken and shown, so that drivers and dumps run; a
//! setting that would promise something that is not kept is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use rustydb_types::datetime;

use super::statement::Isolation;
use crate::error::{SqlError, SqlState};

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// `on` or `off`.
    Bool,
    /// An integer in this range.
    Int(i64, i64),
    /// A real number.
    Real,
    /// Milliseconds, or a number with a unit.
    Time,
    /// Kilobytes, or a number with a unit.
    Memory,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// A list of names.
    List,
    /// Time zone.
    Zone,
    /// Cannot be changed.
    Fixed,
}

/// Whether the client is told of a setting, as PostgreSQL 15 tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporting {
    /// In a ParameterStatus, at the start and at each change.
    Reported,
    /// Only when it asks.
    Quiet,
}

/// A setting that exists.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The name as SHOW ALL spells it.
    pub name: &'static str,
    /// The value without any SET.
    pub default: &'static str,
    /// What it takes.
    pub kind: SettingKind,
    /// Whether the client is told.
    pub reporting: Reporting,
    /// One line for SHOW ALL.
    pub description: &'static str,
}

const ISOLATION: &[&str] = &["serializable", "repeatable read", "read committed", "read uncommitted"];
const MESSAGES: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "info", "notice", "warning", "error"];

macro_rules! definitions {
    ($($reporting:ident $name:literal $kind:expr, $default:literal, $description:literal;)*) => {
        /// All settings, in order of their names without regard to case.
        pub const DEFINITIONS: &[Definition] = &[$(Definition {
            name: $name, default: $default, kind: $kind, reporting: Reporting::$reporting, description: $description,
        }),*];
    };
}

use SettingKind::{Bool, Fixed, Int, List, Memory, Real, Text, Time, Word, Zone};

definitions! {
    Reported "application_name" Text, "", "Sets the application name to be reported in statistics and logs.";
    Quiet "array_nulls" Bool, "on", "Enable input of NULL elements in arrays.";
    Quiet "backslash_quote" Word(&["safe_encoding", "on", "off"]), "safe_encoding", "Sets whether \"\\'\" is allowed in string literals.";
    Quiet "block_size" Fixed, "8192", "Shows the size of a disk block.";
    Quiet "bytea_output" Word(&["hex"]), "hex", "Sets the output format for bytea.";
    Quiet "check_function_bodies" Bool, "on", "Check routine bodies during CREATE FUNCTION and CREATE PROCEDURE.";
    Reported "client_encoding" Word(&["UTF8"]), "UTF8", "Sets the client's character set encoding.";
    Quiet "client_min_messages" Word(MESSAGES), "notice", "Sets the message levels that are sent to the client.";
    Quiet "constraint_exclusion" Word(&["partition", "on", "off"]), "partition", "Enables the planner to use constraints to optimize queries.";
    Reported "DateStyle" Text, "ISO, MDY", "Sets the display format for date and time values.";
    Quiet "deadlock_timeout" Time, "1s", "Sets the time to wait on a lock before checking for deadlock.";
    Quiet "debug_pretty_print" Bool, "on", "Indents parse and plan tree displays.";
    Quiet "default_statistics_target" Int(1, 10_000), "100", "Sets the default statistics target.";
    Quiet "default_table_access_method" Word(&["heap"]), "heap", "Sets the default table access method for new tables.";
    Quiet "default_tablespace" Text, "", "Sets the default tablespace to create tables and indexes in.";
    Quiet "default_toast_compression" Word(&["pglz", "lz4"]), "pglz", "Sets the default compression method for compressible values.";
    Quiet "default_transaction_deferrable" Bool, "off", "Sets the default deferrable status of new transactions.";
    Quiet "default_transaction_isolation" Word(ISOLATION), "read committed", "Sets the transaction isolation level of each new transaction.";
    Reported "default_transaction_read_only" Bool, "off", "Sets the default read-only status of new transactions.";
    Quiet "effective_cache_size" Memory, "4GB", "Sets the planner's assumption about the total size of the data caches.";
    Quiet "enable_async_append" Bool, "on", "Enables the planner's use of async append plans.";
    Quiet "enable_bitmapscan" Bool, "on", "Enables the planner's use of bitmap-scan plans.";
    Quiet "enable_gathermerge" Bool, "on", "Enables the planner's use of gather merge plans.";
    Quiet "enable_hashagg" Bool, "on", "Enables the planner's use of hashed aggregation plans.";
    Quiet "enable_hashjoin" Bool, "on", "Enables the planner's use of hash join plans.";
    Quiet "enable_incremental_sort" Bool, "on", "Enables the planner's use of incremental sort steps.";
    Quiet "enable_indexonlyscan" Bool, "on", "Enables the planner's use of index-only-scan plans.";
    Quiet "enable_indexscan" Bool, "on", "Enables the planner's use of index-scan plans.";
    Quiet "enable_material" Bool, "on", "Enables the planner's use of materialization.";
    Quiet "enable_memoize" Bool, "on", "Enables the planner's use of memoization.";
    Quiet "enable_mergejoin" Bool, "on", "Enables the planner's use of merge join plans.";
    Quiet "enable_nestloop" Bool, "on", "Enables the planner's use of nested-loop join plans.";
    Quiet "enable_parallel_append" Bool, "on", "Enables the planner's use of parallel append plans.";
    Quiet "enable_parallel_hash" Bool, "on", "Enables the planner's use of parallel hash plans.";
    Quiet "enable_partition_pruning" Bool, "on", "Enables plan-time and execution-time partition pruning.";
    Quiet "enable_partitionwise_aggregate" Bool, "off", "Enables partitionwise aggregation and grouping.";
    Quiet "enable_partitionwise_join" Bool, "off", "Enables partitionwise join.";
    Quiet "enable_seqscan" Bool, "on", "Enables the planner's use of sequential-scan plans.";
    Quiet "enable_sort" Bool, "on", "Enables the planner's use of explicit sort steps.";
    Quiet "enable_tidscan" Bool, "on", "Enables the planner's use of TID scan plans.";
    Quiet "escape_string_warning" Bool, "on", "Warn about backslash escapes in ordinary string literals.";
    Quiet "extra_float_digits" Int(-15, 3), "1", "Sets the number of digits displayed for floating-point values.";
    Quiet "force_parallel_mode" Word(&["off", "on", "regress"]), "off", "Forces use of parallel query facilities.";
    Quiet "from_collapse_limit" Int(1, 2_147_483_647), "8", "Sets the FROM-list size beyond which subqueries are not collapsed.";
    Quiet "geqo" Bool, "on", "Enables genetic query optimization.";
    Quiet "geqo_effort" Int(1, 10), "5", "GEQO: effort is used to set the default for other GEQO parameters.";
    Quiet "geqo_threshold" Int(2, 2_147_483_647), "12", "Sets the threshold of FROM items beyond which GEQO is used.";
    Quiet "gin_fuzzy_search_limit" Int(0, 2_147_483_647), "0", "Sets the maximum allowed result for exact search by GIN.";
    Quiet "idle_in_transaction_session_timeout" Time, "0", "Sets the maximum allowed idle time between queries, when in a transaction.";
    Quiet "idle_session_timeout" Time, "0", "Sets the maximum allowed idle time between queries, when not in a transaction.";
    Reported "in_hot_standby" Fixed, "off", "Shows whether hot standby is currently active.";
    Reported "integer_datetimes" Fixed, "on", "Shows whether datetimes are integer based.";
    Reported "IntervalStyle" Word(&["postgres"]), "postgres", "Sets the display format for interval values.";
    Reported "is_superuser" Fixed, "off", "Shows whether the current user is a superuser.";
    Quiet "jit" Bool, "off", "Allow JIT compilation.";
    Quiet "join_collapse_limit" Int(1, 2_147_483_647), "8", "Sets the FROM-list size beyond which JOIN constructs are not flattened.";
    Quiet "lc_collate" Fixed, "C", "Shows the collation order locale.";
    Quiet "lc_ctype" Fixed, "C", "Shows the character classification and case conversion locale.";
    Quiet "lc_messages" Word(&["C", "C.UTF-8", "en_US.UTF-8"]), "C", "Sets the language in which messages are displayed.";
    Quiet "lc_monetary" Word(&["C", "C.UTF-8", "en_US.UTF-8"]), "C", "Sets the locale for formatting monetary amounts.";
    Quiet "lc_numeric" Word(&["C", "C.UTF-8", "en_US.UTF-8"]), "C", "Sets the locale for formatting numbers.";
    Quiet "lc_time" Word(&["C", "C.UTF-8", "en_US.UTF-8"]), "C", "Sets the locale for formatting date and time values.";
    Quiet "lock_timeout" Time, "0", "Sets the maximum allowed duration of any wait for a lock.";
    Quiet "log_min_duration_statement" Time, "-1", "Sets the minimum execution time above which statements are logged.";
    Quiet "log_statement" Word(&["none", "ddl", "mod", "all"]), "none", "Sets the type of statements logged.";
    Quiet "maintenance_work_mem" Memory, "64MB", "Sets the maximum memory to be used for maintenance operations.";
    Quiet "max_connections" Fixed, "200", "Sets the maximum number of concurrent connections.";
    Quiet "max_function_args" Fixed, "100", "Shows the maximum number of function arguments.";
    Quiet "max_identifier_length" Fixed, "63", "Shows the maximum identifier length.";
    Quiet "max_index_keys" Fixed, "32", "Shows the maximum number of index keys.";
    Quiet "max_parallel_maintenance_workers" Int(0, 1_024), "2", "Sets the maximum number of parallel processes per maintenance operation.";
    Quiet "max_parallel_workers" Int(0, 1_024), "8", "Sets the maximum number of parallel workers that can be active at one time.";
    Quiet "max_parallel_workers_per_gather" Int(0, 1024), "0", "Sets the maximum number of parallel processes per executor node.";
    Quiet "max_prepared_transactions" Fixed, "0", "Sets the maximum number of simultaneously prepared transactions.";
    Quiet "parallel_leader_participation" Bool, "on", "Controls whether Gather and Gather Merge also run subplans.";
    Quiet "password_encryption" Word(&["scram-sha-256"]), "scram-sha-256", "Chooses the algorithm for encrypting passwords.";
    Quiet "plan_cache_mode" Word(&["auto", "force_generic_plan", "force_custom_plan"]), "auto", "Controls the planner's selection of custom or generic plan.";
    Quiet "quote_all_identifiers" Bool, "off", "When generating SQL fragments, quote all identifiers.";
    Quiet "random_page_cost" Real, "4", "Sets the planner's estimate of the cost of a nonsequentially fetched disk page.";
    Quiet "role" Text, "none", "Sets the current role.";
    Quiet "row_security" Bool, "on", "Enable row security.";
    Quiet "search_path" List, "\"$user\", public", "Sets the schema search order for names that are not schema-qualified.";
    Quiet "seq_page_cost" Real, "1", "Sets the planner's estimate of the cost of a sequentially fetched disk page.";
    Reported "server_encoding" Fixed, "UTF8", "Shows the server (database) character set encoding.";
    Reported "server_version" Fixed, "15.0", "Shows the server version.";
    Quiet "server_version_num" Fixed, "150000", "Shows the server version as an integer.";
    Reported "session_authorization" Fixed, "", "Sets the session user name.";
    Quiet "session_replication_role" Word(&["origin", "local"]), "origin", "Sets the session's behavior for triggers and rewrite rules.";
    Reported "standard_conforming_strings" Bool, "on", "Causes '...' strings to treat backslashes literally.";
    Quiet "statement_timeout" Time, "0", "Sets the maximum allowed duration of any statement.";
    Quiet "synchronize_seqscans" Bool, "on", "Enable synchronized sequential scans.";
    Quiet "synchronous_commit" Word(&["on", "off", "remote_apply", "remote_write", "local"]), "on", "Sets the current transaction's synchronization level.";
    Quiet "temp_buffers" Memory, "8MB", "Sets the maximum number of temporary buffers used by each session.";
    Reported "TimeZone" Zone, "UTC", "Sets the time zone for displaying and interpreting time stamps.";
    Quiet "transaction_deferrable" Bool, "off", "Whether to defer a read-only serializable transaction until it can be executed with no possible serialization failures.";
    Quiet "transaction_isolation" Word(ISOLATION), "read committed", "Sets the current transaction's isolation level.";
    Quiet "transaction_read_only" Bool, "off", "Sets the current transaction's read-only status.";
    Quiet "transform_null_equals" Word(&["off"]), "off", "Treats \"expr=NULL\" as \"expr IS NULL\".";
    Quiet "vacuum_cost_delay" Real, "0", "Vacuum cost delay in milliseconds.";
    Quiet "wal_level" Fixed, "replica", "Sets the level of information written to the WAL.";
    Quiet "work_mem" Memory, "4MB", "Sets the maximum memory to be used for query workspaces.";
    Quiet "xmloption" Word(&["content", "document"]), "content", "Sets whether XML data is to be considered as documents or content fragments.";
}

/// A setting by name, without regard to case.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name.eq_ignore_ascii_case(name))
}

/// How long a SET lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// As long as the session.
    Session,
    /// Until the transaction ends.
    Local,
}

/// Values that were set, by the spelling of [`DEFINITIONS`] (or in lower case, for names with a dot).
type Values = BTreeMap<String, String>;

/// What every statement asks for, worked out once for each change.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    /// The session's time zone.
    pub zone: datetime::Zone,
    /// `work_mem` in bytes.
    pub work_mem_bytes: usize,
    /// `statement_timeout`; `None` when it is off.
    pub statement_timeout: Option<Duration>,
    /// `lock_timeout`; `None` when it is off.
    pub lock_timeout: Option<Duration>,
    /// `idle_session_timeout`; `None` when it is off.
    pub idle_session_timeout: Option<Duration>,
    /// `idle_in_transaction_session_timeout`; `None` when it is off.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// `default_transaction_read_only`.
    pub default_read_only: bool,
    /// `default_transaction_isolation`.
    pub default_isolation: Isolation,
}

impl Derived {
    fn of(settings: &Settings) -> Self {
        Self {
            zone: datetime::Zone::by_name(settings.get("TimeZone")).unwrap_or(datetime::Zone::UTC),
            work_mem_bytes: kilobytes(settings.get("work_mem")).saturating_mul(1024),
            statement_timeout: settings.timeout("statement_timeout"),
            lock_timeout: settings.timeout("lock_timeout"),
            idle_session_timeout: settings.timeout("idle_session_timeout"),
            idle_in_transaction_timeout: settings.timeout("idle_in_transaction_session_timeout"),
            default_read_only: settings.is_on("default_transaction_read_only"),
            default_isolation: Isolation::from_name(settings.get("default_transaction_isolation")),
        }
    }
}

/// A size in kilobytes as it is kept: digits and a unit.
fn kilobytes(value: &str) -> usize {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(end);
    let digits: usize = digits.parse().unwrap_or_default();
    match unit.trim() {
        "TB" => digits << 30,
        "GB" => digits << 20,
        "MB" => digits << 10,
        _ => digits,
    }
}

/// The settings of one session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the client asked for when it connected: what RESET goes back to.
    start: Values,
    session: Values,
    local: Values,
    /// The session's values before the transaction, when it changed any.
    before: Option<Values>,
    /// Session and local values at each savepoint, outermost first.
    savepoints: Vec<(Values, Values)>,
    /// Counts changes, so that what is derived from settings knows when to look again.
    version: u64,
    derived: Derived,
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Self {
            start: Values::new(),
            session: Values::new(),
            local: Values::new(),
            before: None,
            savepoints: Vec::new(),
            version: 0,
            derived: Derived {
                zone: datetime::Zone::UTC,
                work_mem_bytes: 0,
                statement_timeout: None,
                lock_timeout: None,
                idle_session_timeout: None,
                idle_in_transaction_timeout: None,
                default_read_only: false,
                default_isolation: Isolation::ReadCommitted,
            },
        };
        settings.derived = Derived::of(&settings);
        settings
    }
}

impl Settings {
    /// The settings of a session of a role that begins with these values.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn of_session(user: &str, is_superuser: bool, values: &[(String, String)]) -> Result<Self, SqlError> {
        let mut settings = Self::default();
        settings.fix("session_authorization", user);
        settings.fix("is_superuser", if is_superuser { "on" } else { "off" });
        for (name, value) in values {
            if !matches!(name.as_str(), "session_authorization" | "is_superuser") {
                settings.set_at_start(name, value)?;
            }
        }
        Ok(settings)
    }

    /// The settings of a session that began elsewhere with the values `start` and has `values` by now: what differs
    /// was set since, and goes back to its start when it is reset.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn of_moved_session(
        user: &str,
        is_superuser: bool,
        start: &[(String, String)],
        values: &[(String, String)],
    ) -> Result<Self, SqlError> {
        let mut settings = Self::of_session(user, is_superuser, start)?;
        for (name, value) in values {
            let (name, value) = match name.as_str() {
                "session_authorization" | "is_superuser" => (name.clone(), value.clone()),
                _ => checked(name, value)?,
            };
            // A name may come twice: first as configured, then as the client wants it. The last counts.
            if settings.start.get(&name) == Some(&value) {
                settings.session.remove(&name);
            } else {
                settings.session.insert(name, value);
            }
        }
        settings.changed();
        Ok(settings)
    }

    /// Sets a fixed value, which the client cannot: who it is.
    pub fn fix(&mut self, name: &'static str, value: &str) {
        self.start.insert(name.to_owned(), value.to_owned());
    }

    /// Takes a setting of the start-up packet.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let (name, value) = checked(name, value)?;
        self.start.insert(name, value);
        self.changed();
        Ok(())
    }

    /// Sets a value.
    ///
    /// # Errors
    /// 42704 for an unknown name, 22023 for a bad value, 55P02 for what cannot be changed.
    pub fn set(&mut self, name: &str, value: &str, scope: Scope) -> Result<(), SqlError> {
        let (name, value) = checked(name, value)?;
        self.put(name, Some(value), scope);
        Ok(())
    }

    /// Goes back to the value at the start of the session.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn reset(&mut self, name: &str, scope: Scope) -> Result<(), SqlError> {
        let name = canonical(name)?;
        if definition(&name).is_some_and(|definition| definition.kind == Fixed) {
            return Err(cannot_change(&name));
        }
        self.put(name, None, scope);
        Ok(())
    }

    /// Sets or resets a value that was checked and that a client may not set by name alone.
    pub(super) fn put_fixed(&mut self, name: &'static str, value: Option<&str>, scope: Scope) {
        self.put(name.to_owned(), value.map(str::to_owned), scope);
    }

    /// Whether the role that logged in was a superuser then.
    #[must_use]
    pub fn began_as_superuser(&self) -> bool {
        self.start.get("is_superuser").is_some_and(|value| value == "on")
    }

    /// RESET ALL, which leaves alone as whom the session runs.
    pub fn reset_all(&mut self) {
        self.remember();
        let is_kept = |name: &String, _: &mut String| super::roles::SETTINGS.contains(&name.as_str());
        self.session.retain(is_kept);
        self.local.retain(is_kept);
        self.changed();
    }

    /// To be called after each change of a value.
    fn changed(&mut self) {
        self.version += 1;
        self.derived = Derived::of(self);
    }

    /// What every statement asks for.
    #[must_use]
    pub const fn derived(&self) -> &Derived {
        &self.derived
    }

    fn remember(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.session.clone());
        }
    }

    fn put(&mut self, name: String, value: Option<String>, scope: Scope) {
        self.remember();
        let values = match scope {
            Scope::Session => {
                self.local.remove(&name);
                &mut self.session
            }
            Scope::Local => &mut self.local,
        };
        match value.or_else(|| (scope == Scope::Local).then(|| start_value(&self.start, &name))) {
            Some(value) => {
                values.insert(name, value);
            }
            None => {
                values.remove(&name);
            }
        }
        self.changed();
    }

    /// The value of a setting that is known to exist; empty for another.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        [&self.local, &self.session, &self.start]
            .into_iter()
            .find_map(|values| values.get(name))
            .map(String::as_str)
            .or_else(|| definition(name).map(|definition| definition.default))
            .unwrap_or_default()
    }

    /// Whether a value may be set, without setting it: the name as it is kept and the value as SHOW prints it.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn checked(&self, name: &str, value: Option<&str>) -> Result<(String, String), SqlError> {
        match value {
            Some(value) => checked(name, value),
            None => {
                let name = canonical(name)?;
                let value = start_value(&self.start, &name);
                Ok((name, value))
            }
        }
    }

    /// What SHOW prints.
    ///
    /// # Errors
    /// 42704 for an unknown name.
    pub fn show(&self, name: &str) -> Result<(String, String), SqlError> {
        let name = canonical(name)?;
        if definition(&name).is_none()
            && ![&self.local, &self.session, &self.start].into_iter().any(|values| values.contains_key(&name))
        {
            return Err(unknown(&name));
        }
        let value = self.get(&name).to_owned();
        Ok((name, value))
    }

    /// Counts changes.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// A timeout; `None` when it is off.
    #[must_use]
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        let millis = parse_time(self.get(name)).unwrap_or(0);
        u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)
    }

    /// Whether a setting is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == "on"
    }

    /// Values that a new session elsewhere must be given to be like this one.
    pub fn exported(&self) -> impl Iterator<Item = (&str, &str)> {
        let names: std::collections::BTreeSet<&String> =
            self.start.keys().chain(self.session.keys()).collect();
        names.into_iter().filter_map(|name| {
            let value = self.session.get(name).or_else(|| self.start.get(name))?;
            Some((name.as_str(), value.as_str()))
        })
    }

    /// Names and present values of all settings, those with a dot that were set included.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let custom: std::collections::BTreeSet<&String> =
            [&self.start, &self.session, &self.local].into_iter().flat_map(|values| values.keys()).collect();
        let custom = custom.into_iter().map(String::as_str).filter(|name| definition(name).is_none());
        let defined = DEFINITIONS.iter().map(|definition| definition.name);
        defined.chain(custom).map(|name| (name, self.get(name)))
    }

    /// Names and values of what clients are told of.
    pub fn reported(&self) -> impl Iterator<Item = (&'static str, &str)> {
        DEFINITIONS
            .iter()
            .filter(|definition| definition.reporting == Reporting::Reported)
            .map(|definition| (definition.name, self.get(definition.name)))
    }

    /// The transaction is committed: local values end.
    pub fn commit(&mut self) {
        self.end_transaction();
    }

    /// The transaction is rolled back: what it set is undone.
    pub fn roll_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.session = before;
            self.changed();
        }
        self.end_transaction();
    }

    fn end_transaction(&mut self) {
        self.before = None;
        self.savepoints.clear();
        if !self.local.is_empty() {
            self.local.clear();
            self.changed();
        }
    }

    /// A savepoint is made.
    pub fn savepoint(&mut self) {
        self.savepoints.push((self.session.clone(), self.local.clone()));
    }

    /// The innermost savepoints, down to and including number `depth` from 0, are released.
    pub fn release_to(&mut self, depth: usize) {
        self.savepoints.truncate(depth);
    }

    /// Goes back to savepoint number `depth`, which stays.
    pub fn roll_back_to(&mut self, depth: usize) {
        self.savepoints.truncate(depth + 1);
        if let Some((session, local)) = self.savepoints.last() {
            self.session.clone_from(session);
            self.local.clone_from(local);
            self.changed();
        }
    }
}

fn start_value(start: &Values, name: &str) -> String {
    start
        .get(name)
        .cloned()
        .or_else(|| definition(name).map(|definition| definition.default.to_owned()))
        .unwrap_or_default()
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

fn cannot_change(name: &str) -> SqlError {
    SqlError::new(SqlState::from_code("55P02"), format!("parameter \"{name}\" cannot be changed"))
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
}

/// The spelling under which a setting is kept.
fn canonical(name: &str) -> Result<String, SqlError> {
    match definition(name) {
        Some(definition) => Ok(definition.name.to_owned()),
        None if is_custom(name) => Ok(name.to_ascii_lowercase()),
        None => Err(unknown(name)),
    }
}

/// A name with a dot belongs to an extension or application and holds any text, as in PostgreSQL.
fn is_custom(name: &str) -> bool {
    name.split('.').count() >= 2
        && name.split('.').all(|part| {
            part.starts_with(|first: char| first.is_alphabetic() || first == '_')
                && part.chars().all(|character| character.is_alphanumeric() || "_$".contains(character))
        })
}

/// Checks a value and brings it into the form in which SHOW prints it.
fn checked(name: &str, value: &str) -> Result<(String, String), SqlError> {
    let name = canonical(name)?;
    let Some(definition) = definition(&name) else { return Ok((name, value.to_owned())) };
    let bad = || invalid(&name, value);
    let shown = match definition.kind {
        Fixed => return Err(cannot_change(&name)),
        Text if name == "DateStyle" => date_style(value).ok_or_else(bad)?,
        Text | List => value.to_owned(),
        Zone => zone(value).ok_or_else(bad)?,
        Bool => match parse_bool(value) {
            Some(true) if name == "quote_all_identifiers" => "on".to_owned(),
            // Strings without standard quoting would need a second lexer; nobody has written them for fifteen years.
            Some(false) if name == "standard_conforming_strings" => {
                return Err(SqlError::not_supported("standard_conforming_strings cannot be turned off"));
            }
            Some(true) => "on".to_owned(),
            Some(false) => "off".to_owned(),
            None => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("parameter \"{name}\" requires a Boolean value"),
                ));
            }
        },
        Int(low, high) => {
            let number: i64 = value.trim().parse().map_err(|_| bad())?;
            if !(low..=high).contains(&number) {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("{number} is outside the valid range for parameter \"{name}\" ({low} .. {high})"),
                ));
            }
            number.to_string()
        }
        Real => {
            value.trim().parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(bad)?.to_string()
        }
        Time => show_time(parse_time(value).ok_or_else(bad)?),
        Memory => show_memory(parse_memory(value).ok_or_else(bad)?),
        Word(words) => word(&name, value, words).ok_or_else(bad)?.to_owned(),
    };
    Ok((name, shown))
}

fn word(name: &str, value: &str, words: &[&'static str]) -> Option<&'static str> {
    if name == "client_encoding" {
        let plain: String =
            value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        return matches!(plain.as_str(), "utf8" | "unicode" | "sqlascii").then_some("UTF8");
    }
    if let Some(found) = words.iter().find(|word| word.eq_ignore_ascii_case(value)) {
        return Some(found);
    }
    // `on` and `off` have other spellings wherever they stand among words.
    let switch = if parse_bool(value)? { "on" } else { "off" };
    words.iter().find(|word| **word == switch).copied()
}

/// PostgreSQL's spellings of truth: any unique prefix of them.
#[must_use]
pub fn parse_bool(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let is_prefix = |word: &str| !value.is_empty() && word.starts_with(&value);
    match value.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        "o" => None,
        _ if is_prefix("true") || is_prefix("yes") || value == "on" => Some(true),
        _ if is_prefix("false") || is_prefix("no") || is_prefix("off") => Some(false),
        _ => None,
    }
}

/// Splits a number from its unit.
fn number_and_unit(value: &str) -> Option<(f64, &str)> {
    let value = value.trim();
    let end = value
        .char_indices()
        .find(|(_, character)| !(character.is_ascii_digit() || "+-.".contains(*character)))
        .map_or(value.len(), |(end, _)| end);
    let (number, unit) = value.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

fn scaled(number: f64, factor: f64) -> Option<i64> {
    let scaled = (number * factor).round();
    // Beyond PostgreSQL's integers a value is refused, so the conversion is exact.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (scaled.abs() <= 2_147_483_647.0).then_some(scaled as i64)
}

/// Milliseconds.
fn parse_time(value: &str) -> Option<i64> {
    let (number, unit) = number_and_unit(value)?;
    let factor = match unit {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    scaled(number, factor).filter(|millis| *millis >= -1)
}

fn show_time(millis: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    match units.into_iter().find(|(size, _)| millis > 0 && millis % size == 0) {
        Some((size, unit)) => format!("{}{unit}", millis / size),
        None if millis > 0 => format!("{millis}ms"),
        None => millis.to_string(),
    }
}

/// Kilobytes.
fn parse_memory(value: &str) -> Option<i64> {
    let (number, unit) = number_and_unit(value)?;
    let factor = match unit {
        "B" => 1.0 / 1024.0,
        "" | "kB" => 1.0,
        "MB" => 1024.0,
        "GB" => 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    scaled(number, factor).filter(|size| *size >= 0)
}

fn show_memory(kilobytes: i64) -> String {
    let units = [(1 << 30, "TB"), (1 << 20, "GB"), (1 << 10, "MB")];
    match units.into_iter().find(|(size, _)| kilobytes > 0 && kilobytes % size == 0) {
        Some((size, unit)) => format!("{}{unit}", kilobytes / size),
        None if kilobytes > 0 => format!("{kilobytes}kB"),
        None => kilobytes.to_string(),
    }
}

/// Dates are always written in ISO form; the order in which ambiguous input is read can be asked for, and only the
/// one that is implemented is granted.
fn date_style(value: &str) -> Option<String> {
    for part in value.split(',') {
        let part = part.trim().to_ascii_lowercase();
        if !matches!(part.as_str(), "iso" | "mdy" | "us" | "noneuro" | "noneuropean" | "default") {
            return None;
        }
    }
    Some("ISO, MDY".to_owned())
}

fn zone(value: &str) -> Option<String> {
    let trimmed = value.trim();
    if ["local", "default"].iter().any(|word| trimmed.eq_ignore_ascii_case(word)) {
        return Some("UTC".to_owned());
    }
    if let Ok(hours) = trimmed.parse::<f64>() {
        // A bare number is hours east of UTC; it is shown as a POSIX zone, whose sign is the other way round.
        let minutes = scaled(hours, 60.0).filter(|minutes| minutes.abs() <= 18 * 60)?;
        let (sign, posix) = if minutes < 0 { ('-', '+') } else { ('+', '-') };
        let clock = match minutes.abs() % 60 {
            0 => format!("{:02}", minutes.abs() / 60),
            rest => format!("{:02}:{rest:02}", minutes.abs() / 60),
        };
        return Some(format!("<{sign}{clock}>{posix}{clock}"));
    }
    chrono_tz::TZ_VARIANTS
        .iter()
        .map(|zone| zone.name())
        .find(|name| name.eq_ignore_ascii_case(trimmed))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, SqlError>) -> String {
        result.unwrap_err().state().to_string()
    }

    #[test]
    fn names_are_in_order_and_defaults_are_valid() {
        for pair in DEFINITIONS.windows(2) {
            assert!(pair[0].name.to_lowercase() < pair[1].name.to_lowercase(), "{}", pair[1].name);
        }
        for definition in DEFINITIONS.iter().filter(|definition| definition.kind != Fixed) {
            assert_eq!(checked(definition.name, definition.default).unwrap().1, definition.default);
        }
    }

    #[test]
    fn values_are_checked_and_shown_as_postgresql_shows_them() {
        let mut settings = Settings::default();
        for (name, value, shown) in [
            ("statement_timeout", "60000", "1min"),
            ("STATEMENT_TIMEOUT", "1500", "1500ms"),
            ("work_mem", "65536", "64MB"),
            ("timezone", "europe/berlin", "Europe/Berlin"),
            ("TimeZone", "2", "<+02>-02"),
            ("client_encoding", "utf-8", "UTF8"),
            ("synchronous_commit", "true", "on"),
            ("jit", "of", "off"),
            ("datestyle", "ISO", "ISO, MDY"),
            ("my.thing", "x y", "x y"),
        ] {
            settings.set(name, value, Scope::Session).unwrap();
            assert_eq!(settings.show(name).unwrap().1, shown, "{name}");
        }
        assert_eq!(code(settings.set("nonsense", "1", Scope::Session)), "42704");
        assert_eq!(code(settings.set("server_version", "1", Scope::Session)), "55P02");
        assert_eq!(code(settings.set("work_mem", "lots", Scope::Session)), "22023");
        assert_eq!(code(settings.set("timezone", "Mars/Olympus", Scope::Session)), "22023");
        assert_eq!(code(settings.set("standard_conforming_strings", "off", Scope::Session)), "0A000");
        assert_eq!(code(settings.show("never.set")), "42704");
    }

    #[test]
    fn local_values_end_with_the_transaction_and_rollback_undoes() {
        let mut settings = Settings::default();
        settings.set_at_start("application_name", "start").unwrap();
        settings.set("application_name", "local", Scope::Local).unwrap();
        assert_eq!(settings.get("application_name"), "local");
        settings.commit();
        assert_eq!(settings.get("application_name"), "start");
        settings.set("application_name", "a", Scope::Session).unwrap();
        settings.commit();
        settings.set("application_name", "b", Scope::Session).unwrap();
        settings.roll_back();
        assert_eq!(settings.get("application_name"), "a");
        settings.savepoint();
        settings.set("application_name", "c", Scope::Session).unwrap();
        settings.savepoint();
        settings.set("application_name", "d", Scope::Local).unwrap();
        settings.roll_back_to(1);
        assert_eq!(settings.get("application_name"), "c");
        settings.roll_back_to(0);
        assert_eq!(settings.get("application_name"), "a");
        settings.commit();
        settings.reset("application_name", Scope::Session).unwrap();
        assert_eq!(settings.get("application_name"), "start");
    }

    #[test]
    fn what_is_exported_makes_an_equal_session() {
        let mut settings = Settings::default();
        settings.set_at_start("application_name", "x").unwrap();
        settings.set("TimeZone", "Asia/Tokyo", Scope::Session).unwrap();
        let mut other = Settings::default();
        for (name, value) in settings.exported() {
            other.set_at_start(name, value).unwrap();
        }
        assert!(settings.reported().eq(other.reported()));
    }

    #[test]
    fn what_is_derived_follows_every_change() {
        let timeout =
            |settings: &Settings| settings.derived().lock_timeout.map(|timeout| timeout.as_millis());
        let mut settings = Settings::default();
        assert_eq!(*settings.derived(), Derived::of(&settings));
        assert_eq!(settings.derived().work_mem_bytes, 4 << 20);
        settings.set("lock_timeout", "1s", Scope::Session).unwrap();
        assert_eq!(timeout(&settings), Some(1000));
        settings.roll_back();
        assert_eq!(timeout(&settings), None);
        settings.set("lock_timeout", "2s", Scope::Local).unwrap();
        settings.savepoint();
        settings.set("lock_timeout", "3s", Scope::Local).unwrap();
        settings.roll_back_to(0);
        assert_eq!(timeout(&settings), Some(2000));
        settings.commit();
        assert_eq!(timeout(&settings), None);
        settings.set("lock_timeout", "4s", Scope::Session).unwrap();
        let values: Vec<_> =
            settings.exported().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let moved = Settings::of_moved_session("someone", false, &[], &values).unwrap();
        assert_eq!(timeout(&moved), Some(4000));
        assert_eq!(timeout(&Settings::of_session("someone", false, &values).unwrap()), Some(4000));
        settings.reset_all();
        assert_eq!(timeout(&settings), None);
    }

    #[test]
    fn what_a_client_asks_for_when_it_connects_comes_after_what_is_configured() {
        let twice =
            [("lock_timeout", "0"), ("lock_timeout", "4s")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let settings = Settings::of_session("someone", false, &twice).unwrap();
        assert_eq!(settings.derived().lock_timeout, Some(Duration::from_secs(4)));
        let moved = Settings::of_moved_session("someone", false, &twice, &twice).unwrap();
        assert_eq!(moved.derived().lock_timeout, Some(Duration::from_secs(4)));
    }
}
