//! GRANT, REVOKE and ALTER DEFAULT PRIVILEGES as the planner gets them.
//!
//! The parser's tree knows other databases' forms and not all of PostgreSQL's, so in the tree such a statement stands as
//! PRAGMA, a statement of yet another database, with what is meant as its value.

use serde::{Deserialize, Serialize};
use sqlparser::ast::{Ident, ObjectName, Statement, Value};

use crate::catalog::acl::AclKind;

/// The name under which it stands in the tree; no PRAGMA has it.
const NAME: &str = "rustydb privileges";

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

impl PrivilegeChange {
    /// The change as it stands in the tree; none when it cannot be written down, which it always can.
    #[must_use]
    pub fn to_statement(&self) -> Option<Statement> {
        let text = serde_json::to_string(self).ok()?;
        Some(Statement::Pragma {
            name: ObjectName::from(vec![Ident::with_quote('"', NAME)]),
            value: Some(Value::SingleQuotedString(text).with_empty_span()),
            is_eq: true,
        })
    }

    /// The change that a statement stands for.
    #[must_use]
    pub fn of_statement(statement: &Statement) -> Option<Self> {
        let Statement::Pragma { name, value: Some(value), .. } = statement else { return None };
        let [part] = name.0.as_slice() else { return None };
        if part.as_ident().is_none_or(|ident| ident.value != NAME || ident.quote_style.is_none()) {
            return None;
        }
        match &value.value {
            Value::SingleQuotedString(text) => serde_json::from_str(text).ok(),
            _ => None,
        }
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
