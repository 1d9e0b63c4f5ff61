//! Statements as the session sees them: which of them it runs itself, and which the planner gets.

use std::sync::Arc;

use sqlparser::ast;

use super::notify::Listening;
use super::settings::Scope;
use crate::parse::privilege::{GranteeName, PrivilegeChange};
use crate::system::RoleChange;

/// How a transaction is isolated from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it; READ UNCOMMITTED is this too, as in PostgreSQL.
    ReadCommitted,
    /// All statements see the same snapshot.
    RepeatableRead,
    /// As if one transaction ran after the other.
    Serializable,
}

impl Isolation {
    /// As `transaction_isolation` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// Of a value of `transaction_isolation`.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "serializable" => Self::Serializable,
            "repeatable read" => Self::RepeatableRead,
            _ => Self::ReadCommitted,
        }
    }
}

/// What BEGIN or SET TRANSACTION says of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// Whether the next transaction begins at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// AND CHAIN.
    Chain,
    /// AND NO CHAIN, or nothing said.
    NoChain,
}

/// A statement of the cluster's system group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemStatement {
    /// CREATE DATABASE.
    CreateDatabase {
        /// Its name.
        name: String,
        /// OWNER.
        owner: Option<String>,
    },
    /// DROP DATABASE.
    DropDatabase {
        /// Its name.
        name: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// ALTER DATABASE .. RENAME TO.
    RenameDatabase {
        /// Its name.
        name: String,
        /// The new one.
        to: String,
    },
    /// CREATE ROLE or CREATE USER.
    CreateRole {
        /// Its name.
        name: String,
        /// Properties but the password.
        properties: RoleChange,
        /// PASSWORD.
        password: Password,
    },
    /// ALTER ROLE or ALTER USER.
    AlterRole {
        /// Its name.
        name: String,
        /// Changes but of the password.
        change: RoleChange,
        /// PASSWORD.
        password: Password,
    },
    /// GRANT of roles.
    GrantRoles {
        /// The roles that get members.
        roles: Vec<String>,
        /// Their members.
        members: Vec<GranteeName>,
        /// WITH ADMIN OPTION.
        admin: bool,
    },
    /// REVOKE of roles.
    RevokeRoles {
        /// The roles that lose members.
        roles: Vec<String>,
        /// Their members.
        members: Vec<GranteeName>,
        /// ADMIN OPTION FOR.
        admin_only: bool,
    },
    /// GRANT and REVOKE on databases.
    ChangeDatabaseAcl {
        /// What is asked for.
        change: PrivilegeChange,
    },
    /// ALTER DATABASE .. OWNER TO.
    ChangeDatabaseOwner {
        /// Its name.
        name: String,
        /// The new owner.
        owner: GranteeName,
    },
    /// DROP ROLE or DROP USER.
    DropRole {
        /// Their names.
        names: Vec<String>,
        /// IF EXISTS.
        if_exists: bool,
    },
}

impl SystemStatement {
    /// The command tag.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateDatabase { .. } => "CREATE DATABASE",
            Self::DropDatabase { .. } => "DROP DATABASE",
            Self::RenameDatabase { .. } => "ALTER DATABASE",
            Self::CreateRole { .. } => "CREATE ROLE",
            Self::AlterRole { .. } => "ALTER ROLE",
            Self::DropRole { .. } => "DROP ROLE",
            Self::GrantRoles { .. } => "GRANT ROLE",
            Self::RevokeRoles { .. } => "REVOKE ROLE",
            Self::ChangeDatabaseAcl { change } => change.tag(),
            Self::ChangeDatabaseOwner { .. } => "ALTER DATABASE",
        }
    }
}

/// What a statement says of a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Nothing.
    Unchanged,
    /// PASSWORD NULL.
    None,
    /// In clear, or a verifier already.
    Given(String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "Unchanged",
            Self::None => "None",
            Self::Given(_) => "Given(..)",
        })
    }
}

/// What DECLARE says of a cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// BINARY: FETCH answers in binary.
    pub is_binary: bool,
    /// SCROLL: it goes backwards too.
    pub is_scroll: bool,
    /// WITH HOLD: it outlives its transaction.
    pub is_holdable: bool,
    /// What it runs.
    pub query: Arc<ast::Statement>,
}

/// Where FETCH and MOVE go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// So many rows forward, backward when negative; 0 is the present row.
    Forward(i64),
    /// All rows that follow.
    ForwardAll,
    /// All rows before, the nearest first.
    BackwardAll,
    /// To the row with this number from 1, from the end when negative; 0 is before the first.
    Absolute(i64),
    /// To the row that is so many rows further.
    Relative(i64),
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// For the planner.
    Plan(Arc<ast::Statement>),
    /// BEGIN or START TRANSACTION (the flag says which, for the tag).
    Begin {
        /// Its modes.
        modes: Modes,
        /// `BEGIN` or `START TRANSACTION`.
        tag: &'static str,
    },
    /// COMMIT or END.
    Commit(Chain),
    /// ROLLBACK or ABORT.
    Rollback(Chain),
    /// SAVEPOINT.
    Savepoint(String),
    /// ROLLBACK TO.
    RollbackTo(String),
    /// RELEASE.
    Release(String),
    /// SET TRANSACTION.
    SetTransaction(Modes),
    /// SET CONSTRAINTS.
    SetConstraints {
        /// Names with their schemas, as far as those are written; all without names.
        names: Option<Vec<(Option<String>, String)>>,
        /// DEFERRED, or IMMEDIATE.
        deferred: bool,
    },
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetCharacteristics(Modes),
    /// SET; without a value, to the default.
    Set {
        /// How long it lasts.
        scope: Scope,
        /// Of which setting.
        name: String,
        /// The value.
        value: Option<String>,
    },
    /// RESET; without a name, of all.
    Reset(Option<String>),
    /// SHOW; without a name, of all.
    Show(Option<String>),
    /// DISCARD ALL.
    DiscardAll,
    /// LISTEN or UNLISTEN.
    Listen(Listening),
    /// NOTIFY.
    Notify {
        /// Its channel.
        channel: String,
        /// What it says.
        payload: String,
    },
    /// DISCARD PLANS, SEQUENCES or TEMP, with its tag: only of sequences there is something to be given up.
    Discard(&'static str),
    /// DEALLOCATE; without a name, of all.
    Deallocate(Option<String>),
    /// PREPARE.
    Prepare {
        /// Its name.
        name: String,
        /// Types given for its parameters.
        param_types: Vec<u32>,
        /// What is prepared.
        statement: Arc<ast::Statement>,
        /// Its text.
        sql: String,
    },
    /// EXECUTE, with parameters in text form.
    Execute {
        /// Its name.
        name: String,
        /// Its parameters; `None` is NULL.
        params: Vec<Option<String>>,
    },
    /// DECLARE CURSOR.
    Declare(Arc<Declaration>),
    /// FETCH or MOVE.
    Fetch {
        /// Of which cursor.
        name: String,
        /// How far.
        motion: Motion,
        /// MOVE: the rows are passed over.
        is_move: bool,
    },
    /// CLOSE; without a name, of all cursors.
    CloseCursor(Option<String>),
    /// Of the system group.
    System(SystemStatement),
}

impl Statement {
    /// Whether a failed transaction block accepts it.
    #[must_use]
    pub const fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit(_) | Self::Rollback(_) | Self::RollbackTo(_))
    }

    /// Whether, by its looks, it only reads: then it begins in a read-only transaction.
    #[must_use]
    pub fn looks_read_only(&self) -> bool {
        match self {
            Self::Plan(statement) => match &**statement {
                ast::Statement::Query(query) => query.locks.is_empty() && query.with.is_none(),
                ast::Statement::Explain { analyze, .. } => !analyze,
                ast::Statement::Copy { to, .. } => *to,
                _ => false,
            },
            Self::Declare(declaration) => {
                matches!(&*declaration.query, ast::Statement::Query(query) if query.locks.is_empty() && query.with.is_none())
            }
            Self::Notify { .. } => false,
            _ => true,
        }
    }

    /// What of it is planned.
    #[must_use]
    pub fn planned(&self) -> Option<&Arc<ast::Statement>> {
        match self {
            Self::Plan(statement) => Some(statement),
            Self::Declare(declaration) => Some(&declaration.query),
            _ => None,
        }
    }
}
