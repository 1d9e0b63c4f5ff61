//! GRANT, REVOKE and ALTER DEFAULT PRIVILEGES as the planner gets them.
//!
//! The parser's tree knows other databases' forms and not all of PostgreSQL's, so in the tree such a statement stands as
//! PRAGMA, a statement of yet another database, with what is meant as its value.

use serde::{Deserialize, Serialize};
use sqlparser::ast::{Ident, ObjectName, Statement, Value};

use crate::catalog::acl::AclKind;

/// The name under which it stands in the tree; no PRAGMA has it.
const NAME: &str = "rustydb privileges";
const OWNED_NAME: &str = "rustydb owned";

/// Who is to have privileges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GranteeName {
    /// PUBLIC.
    Public,
    /// CURRENT_USER, CURRENT_ROLE or SESSION_USER.
    Current,
    /// A role.
    Role(String),
}

/// What privileges are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantTarget {
    /// Objects by schema, where it is written, and name.
    Objects(AclKind, Vec<(Option<String>, String)>),
    /// ALL ... IN SCHEMA.
    AllIn(AclKind, Vec<String>),
    /// Objects that are still to be made; by roles, or the current one; in schemas, or everywhere.
    Defaults(AclKind, Option<Vec<GranteeName>>, Option<Vec<String>>),
}

/// A change of privileges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivilegeChange {
    /// Whether they are given, not taken away.
    pub is_grant: bool,
    /// Names of privileges with the columns that they are limited to; `ALL` for all.
    pub privileges: Vec<(String, Vec<String>)>,
    /// What they are about.
    pub target: GrantTarget,
    /// Who is to have them.
    pub grantees: Vec<GranteeName>,
    /// WITH GRANT OPTION; of REVOKE, GRANT OPTION FOR.
    pub option: bool,
    /// CASCADE.
    pub cascade: bool,
}

/// What is to become of all that some roles own in a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedChange {
    /// The roles.
    pub roles: Vec<GranteeName>,
    /// REASSIGN OWNED: who is to own it; DROP OWNED without.
    pub to: Option<GranteeName>,
    /// CASCADE.
    pub cascade: bool,
}

/// A value as it stands in the tree under a name; none when it cannot be written down, which it always can.
fn written<T: Serialize>(name: &str, value: &T) -> Option<Statement> {
    let text = serde_json::to_string(value).ok()?;
    Some(Statement::Pragma {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        value: Some(Value::SingleQuotedString(text).with_empty_span()),
        is_eq: true,
    })
}

/// The value that a statement stands for, if it has this name.
fn read<T: serde::de::DeserializeOwned>(wanted: &str, statement: &Statement) -> Option<T> {
    let Statement::Pragma { name, value: Some(value), .. } = statement else { return None };
    let [part] = name.0.as_slice() else { return None };
    if part.as_ident().is_none_or(|ident| ident.value != wanted || ident.quote_style.is_none()) {
        return None;
    }
    match &value.value {
        Value::SingleQuotedString(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

impl OwnedChange {
    /// The change as it stands in the tree.
    #[must_use]
    pub fn to_statement(&self) -> Option<Statement> {
        written(OWNED_NAME, self)
    }

    /// The change that a statement stands for.
    #[must_use]
    pub fn of_statement(statement: &Statement) -> Option<Self> {
        read(OWNED_NAME, statement)
    }

    /// The command tag.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        if self.to.is_some() { "REASSIGN OWNED" } else { "DROP OWNED" }
    }
}

impl PrivilegeChange {
    /// The change as it stands in the tree.
    #[must_use]
    pub fn to_statement(&self) -> Option<Statement> {
        written(NAME, self)
    }

    /// The change that a statement stands for.
    #[must_use]
    pub fn of_statement(statement: &Statement) -> Option<Self> {
        read(NAME, statement)
    }

    /// The command tag.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match (&self.target, self.is_grant) {
            (GrantTarget::Defaults(..), _) => "ALTER DEFAULT PRIVILEGES",
            (_, true) => "GRANT",
            (_, false) => "REVOKE",
        }
    }
}
