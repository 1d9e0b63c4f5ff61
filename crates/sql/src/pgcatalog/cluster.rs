//! Relations about databases and roles, which the whole cluster shares.

use rustydb_types::value::Value;

use super::classes::{oid, text};
use super::relation::Rows;
use crate::catalog::snapshot::{self, BOOTSTRAP_ROLE};
use crate::catalog::virtual_table::VirtualContext;
use crate::system::{DatabaseState, RoleRecord};

/// The number of the encoding UTF8, the only one.
const UTF8: i32 = 6;
/// `pg_tablespace.oid` of `pg_default`.
const PG_DEFAULT: u32 = 1663;
/// Strings are ordered by their bytes.
const LOCALE: &str = "C";

/// `pg_database`
pub(super) fn pg_database(context: &VirtualContext<'_>) -> Rows {
    (context.system.databases.values())
        .map(|database| {
            vec![
                oid(database.id.get()),
                text(&database.name),
                oid(database.owner),
                Value::Int4(UTF8),
                text("c"),          // datlocprovider
                Value::Bool(false), // datistemplate
                Value::Bool(database.state == DatabaseState::Ready),
                Value::Int4(-1), // datconnlimit
                Value::Oid(0),   // datfrozenxid
                Value::Oid(0),   // datminmxid
                Value::Oid(PG_DEFAULT),
                text(LOCALE),
                text(LOCALE),
                Value::Null, // daticulocale
                Value::Null, // datcollversion
                super::privileges::acl(context, database.acl.as_ref()),
            ]
        })
        .collect()
}

/// Whether the session may do everything.
pub(super) fn is_superuser(context: &VirtualContext<'_>) -> bool {
    context.system.role_named(context.user).is_some_and(|role| role.superuser)
}

/// The first role has the attributes that cannot be given to others.
fn is_first(role: &RoleRecord) -> Value {
    Value::Bool(role.oid == BOOTSTRAP_ROLE)
}

/// The verifier of the role's password, for those who may see it.
fn verifier(context: &VirtualContext<'_>, role: &RoleRecord) -> Value {
    match &role.verifier {
        Some(verifier) if is_superuser(context) => text(verifier),
        _ => Value::Null,
    }
}

/// The roles that were created, and the one that owns the schema `public`: nobody can log in with it.
fn all_roles(context: &VirtualContext<'_>) -> Vec<RoleRecord> {
    let owner = RoleRecord {
        oid: snapshot::DATABASE_OWNER_ROLE,
        name: snapshot::DATABASE_OWNER_NAME.to_owned(),
        superuser: false,
        login: false,
        create_database: false,
        create_role: false,
        verifier: None,
        connection_limit: -1,
        inherit: true,
        member_of: Vec::new(),
    };
    context.system.roles.values().cloned().chain([owner]).collect()
}

/// `pg_authid`
pub(super) fn pg_authid(context: &VirtualContext<'_>) -> Rows {
    (all_roles(context).iter())
        .map(|role| {
            vec![
                oid(role.oid),
                text(&role.name),
                Value::Bool(role.superuser),
                Value::Bool(role.inherit),
                Value::Bool(role.create_role),
                Value::Bool(role.create_database),
                Value::Bool(role.login),
                is_first(role), // rolreplication
                is_first(role), // rolbypassrls
                Value::Int4(role.connection_limit),
                verifier(context, role),
                Value::Null, // rolvaliduntil
            ]
        })
        .collect()
}

/// `pg_roles`: as `pg_authid`, without passwords.
pub(super) fn pg_roles(context: &VirtualContext<'_>) -> Rows {
    (all_roles(context).iter())
        .map(|role| {
            vec![
                text(&role.name),
                Value::Bool(role.superuser),
                Value::Bool(role.inherit),
                Value::Bool(role.create_role),
                Value::Bool(role.create_database),
                Value::Bool(role.login),
                is_first(role), // rolreplication
                Value::Int4(role.connection_limit),
                text("********"),
                Value::Null,    // rolvaliduntil
                is_first(role), // rolbypassrls
                Value::Null,    // rolconfig
                oid(role.oid),
            ]
        })
        .collect()
}

/// `pg_shadow` and `pg_user`: roles that may connect.
pub(super) fn pg_shadow(context: &VirtualContext<'_>) -> Rows {
    (context.system.roles.values().filter(|role| role.login))
        .map(|role| {
            vec![
                text(&role.name),
                oid(role.oid),
                Value::Bool(role.create_database),
                Value::Bool(role.superuser),
                is_first(role),
                is_first(role),
                text("********"),
                Value::Null, // valuntil
                Value::Null, // useconfig
            ]
        })
        .collect()
}
