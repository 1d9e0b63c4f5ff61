//! What the catalogs, and functions such as `has_table_privilege`, tell of privileges.

use std::collections::BTreeSet;

use rustydb_types::datatype::BaseType;
use rustydb_types::ids::{DatabaseId, Oid};
use rustydb_types::value::Value;

use super::classes::{oid, text};
use super::relation::Rows;
use crate::bind::privilege::Authority;
use crate::catalog::acl::{Acl, AclKind, PUBLIC_ROLE, Privileges};
use crate::catalog::snapshot::{DATABASE_OWNER_NAME, DATABASE_OWNER_ROLE};
use crate::catalog::virtual_table::VirtualContext;
use crate::scalar::context::ObjectKind;

/// `pg_default_acl` has no name for schemas in general.
const EVERYWHERE: Oid = Oid::new(0);

fn role_name(context: &VirtualContext<'_>, role: Oid) -> String {
    if role == DATABASE_OWNER_ROLE {
        return DATABASE_OWNER_NAME.to_owned();
    }
    context.system.roles.get(&role).map_or_else(|| role.to_string(), |role| role.name.clone())
}

/// An ACL as a value; NULL where nothing was said.
pub(super) fn acl(context: &VirtualContext<'_>, acl: Option<&Acl>) -> Value {
    acl.map_or(Value::Null, |acl| {
        let texts = acl.texts(|role| role_name(context, role));
        Value::array(BaseType::AclItem, texts.into_iter().map(text).collect())
    })
}

/// `pg_auth_members`
pub(super) fn pg_auth_members(context: &VirtualContext<'_>) -> Rows {
    let mut rows = Rows::new();
    for member in context.system.roles.values() {
        for known in &member.member_of {
            rows.push(vec![oid(known.role), oid(member.oid), oid(known.grantor), Value::Bool(known.admin)]);
        }
    }
    rows
}

/// `pg_default_acl`
pub(super) fn pg_default_acl(context: &VirtualContext<'_>) -> Rows {
    let row = |own: &crate::catalog::acl::DefaultAcl| {
        Some(vec![
            oid(own.oid),
            oid(own.role),
            oid(own.schema.unwrap_or(EVERYWHERE)),
            text(own.kind.letter()?),
            acl(context, Some(&own.acl)),
        ])
    };
    context.catalog.default_acls().iter().filter_map(row).collect()
}

fn database(context: &VirtualContext<'_>) -> Option<DatabaseId> {
    context.system.database_named(context.database).map(|database| database.id)
}

/// What a role may do; the current one without one, and with [`PUBLIC_ROLE`] what everybody may.
fn authority(context: &VirtualContext<'_>, role: Option<u32>) -> Option<Authority> {
    let role = match role {
        Some(role) => Oid::new(role),
        None => context.system.role_named(context.user)?.oid,
    };
    if role == PUBLIC_ROLE {
        let roles = BTreeSet::new();
        return Some(Authority { role, is_superuser: false, roles, database: Privileges::NONE });
    }
    Some(Authority::of(role, context.system, database(context)))
}

/// What the current role may do.
pub(super) fn current(context: &VirtualContext<'_>) -> Option<Authority> {
    authority(context, None)
}

/// What a list such as `select, update with grant option` asks for: each privilege, and whether it may be given on.
fn asked(list: &str) -> impl Iterator<Item = (Privileges, bool)> + '_ {
    list.split(',').filter_map(|one| {
        let one = one.trim();
        let bare = one.strip_suffix(" with grant option");
        Some((Privileges::named(bare.unwrap_or(one).trim())?, bare.is_some()))
    })
}

fn allows(authority: &Authority, list: &str, kind: AclKind, owner: Oid, acl: Option<&Acl>) -> bool {
    let initial = Acl::initial(kind, owner);
    let acl = acl.unwrap_or(&initial);
    authority.is_superuser
        || asked(list).any(|(one, gives)| {
            if gives {
                acl.grantable(&authority.roles, owner, kind).has(one)
            } else {
                acl.held(&authority.roles).has(one)
            }
        })
}

/// `has_..._privilege` of a whole object; none when there is no such object.
pub(super) fn has_privilege(
    context: &VirtualContext<'_>,
    kind: ObjectKind,
    role: Option<u32>,
    number: u32,
    list: &str,
) -> Option<bool> {
    let authority = authority(context, role)?;
    let number = Oid::new(number);
    let catalog = context.catalog;
    let by = |kind, owner, acl: Option<&Acl>| Some(allows(&authority, list, kind, owner, acl));
    match kind {
        ObjectKind::Relation => {
            if let Some(table) = catalog.table(number) {
                return by(AclKind::Table, table.owner, table.acl.as_ref());
            }
            if let Some(view) = catalog.view(number) {
                return by(AclKind::Table, view.owner, view.acl.as_ref());
            }
            if let Some(sequence) = catalog.sequence(number) {
                return by(AclKind::Sequence, sequence.owner, sequence.acl.as_ref());
            }
            let system = context.registry.iter().find(|relation| relation.oid() == number.get());
            system.map(|relation| {
                let is_open = !matches!(relation.name(), "pg_authid" | "pg_shadow");
                authority.is_superuser
                    || is_open && asked(list).any(|(one, gives)| one == Privileges::SELECT && !gives)
            })
        }
        ObjectKind::Schema => {
            let schema = catalog.schema(number)?;
            by(AclKind::Schema, schema.owner, schema.acl.as_ref())
        }
        ObjectKind::Type => match catalog.type_descriptor(number) {
            Some(own) => by(AclKind::Type, own.owner, own.acl.as_ref()),
            None => Some(true),
        },
        ObjectKind::Database => {
            let record = context.system.databases.get(&DatabaseId::new(number))?;
            by(AclKind::Database, record.owner, record.acl.as_ref())
        }
        // What is built in may be called and used by everybody.
        _ => Some(true),
    }
}

/// `has_column_privilege`; with no column, `has_any_column_privilege`.
pub(super) fn has_column_privilege(
    context: &VirtualContext<'_>,
    role: Option<u32>,
    relation: u32,
    column: Option<&str>,
    list: &str,
) -> Option<bool> {
    if has_privilege(context, ObjectKind::Relation, role, relation, list)? {
        return Some(true);
    }
    let authority = authority(context, role)?;
    let Some(table) = context.catalog.table(Oid::new(relation)) else { return Some(false) };
    let by = |own: &crate::catalog::ColumnDescriptor| {
        own.acl.as_ref().is_some_and(|acl| allows(&authority, list, AclKind::Column, table.owner, Some(acl)))
    };
    Some(match column {
        Some(name) => table.columns.iter().any(|own| own.name == name && by(own)),
        None => table.columns.iter().any(by),
    })
}

/// `pg_has_role`
pub(super) fn has_role(context: &VirtualContext<'_>, role: Option<u32>, of: u32, list: &str) -> Option<bool> {
    let role = match role {
        Some(role) => Oid::new(role),
        None => context.system.role_named(context.user)?.oid,
    };
    let of = Oid::new(of);
    let one = |word: &str| {
        let word = word.trim();
        if word.contains(" with ") {
            let held = context.system.roles_of(role, None, false);
            let members = held.iter().filter_map(|role| context.system.roles.get(role));
            return members.flat_map(|role| &role.member_of).any(|known| known.role == of && known.admin);
        }
        context.system.roles_of(role, database(context), word == "usage").contains(&of)
    };
    Some(context.system.is_superuser(role) || list.split(',').any(one))
}

/// One privilege of somebody on a table, a view, or a column of one.
struct Grant<'a> {
    schema: Oid,
    table: &'a str,
    column: Option<&'a str>,
    owner: Oid,
    grantor: Oid,
    grantee: Oid,
    privilege: &'static str,
    is_grantable: bool,
}

/// The privileges on tables and views, or on their columns: those on the whole are on each column, too.
fn grants<'a>(context: &VirtualContext<'a>, of_columns: bool) -> Vec<Grant<'a>> {
    let mut all = Vec::new();
    let mut add =
        |schema, table: &'a str, owner, columns: Vec<(&'a str, Option<&Acl>)>, acl: Option<&Acl>| {
            let initial = Acl::initial(AclKind::Table, owner);
            let mut add_all = |acl: &Acl, column: Option<&'a str>| {
                for item in &acl.0 {
                    let granted =
                        if column.is_some() { item.granted.of(AclKind::Column.all()) } else { item.granted };
                    for privilege in granted.names() {
                        let (grantor, grantee) = (item.grantor, item.grantee);
                        let is_grantable =
                            Privileges::named(privilege).is_some_and(|one| item.options.has(one));
                        all.push(Grant {
                            schema,
                            table,
                            column,
                            owner,
                            grantor,
                            grantee,
                            privilege,
                            is_grantable,
                        });
                    }
                }
            };
            let acl = acl.unwrap_or(&initial);
            if !of_columns {
                return add_all(acl, None);
            }
            for (name, own) in columns {
                add_all(acl, Some(name));
                if let Some(own) = own {
                    add_all(own, Some(name));
                }
            }
        };
    for table in context.catalog.tables() {
        let columns = table.columns.iter().map(|column| (column.name.as_str(), column.acl.as_ref()));
        add(table.schema, table.name.as_str(), table.owner, columns.collect(), table.acl.as_ref());
    }
    for view in context.catalog.views() {
        let columns = view.columns.iter().map(|column| (column.name.as_str(), None));
        add(view.schema, view.name.as_str(), view.owner, columns.collect(), view.acl.as_ref());
    }
    all
}

fn grant_rows(context: &VirtualContext<'_>, of_columns: bool, to_public: bool) -> Rows {
    let Some(own) = current(context) else { return Rows::new() };
    let enabled = |role: Oid| own.is_superuser && role != PUBLIC_ROLE || own.roles.contains(&role);
    let name = |role: Oid| match role {
        PUBLIC_ROLE => text("PUBLIC"),
        role => text(role_name(context, role)),
    };
    let is_shown = |grant: &Grant<'_>| {
        enabled(grant.grantor) || enabled(grant.grantee) || to_public && grant.grantee == PUBLIC_ROLE
    };
    let yes_or_no = |yes: bool| text(if yes { "YES" } else { "NO" });
    let mut seen = BTreeSet::new();
    let mut rows = Rows::new();
    for grant in grants(context, of_columns) {
        let held = grant.grantee != PUBLIC_ROLE
            && context.system.roles_of(grant.grantee, database(context), true).contains(&grant.owner);
        let is_grantable = grant.is_grantable || held;
        let of = (grant.schema, grant.table, grant.column, grant.grantor, grant.grantee, grant.privilege);
        // The same may have been given on the whole and on a column.
        if !is_shown(&grant) || !seen.insert((of, is_grantable)) {
            continue;
        }
        let mut row = vec![
            name(grant.grantor),
            name(grant.grantee),
            text(context.database),
            text(super::classes::schema_name(context, grant.schema)),
            text(grant.table),
        ];
        row.extend(grant.column.map(text));
        row.extend([text(grant.privilege), yes_or_no(is_grantable)]);
        if !of_columns {
            row.push(yes_or_no(grant.privilege == "SELECT"));
        }
        rows.push(row);
    }
    rows
}

/// `information_schema.table_privileges`
pub(super) fn table_privileges(context: &VirtualContext<'_>) -> Rows {
    grant_rows(context, false, true)
}

/// `information_schema.role_table_grants`
pub(super) fn role_table_grants(context: &VirtualContext<'_>) -> Rows {
    grant_rows(context, false, false)
}

/// `information_schema.column_privileges`
pub(super) fn column_privileges(context: &VirtualContext<'_>) -> Rows {
    grant_rows(context, true, true)
}

/// `information_schema.role_column_grants`
pub(super) fn role_column_grants(context: &VirtualContext<'_>) -> Rows {
    grant_rows(context, true, false)
}

/// `information_schema.applicable_roles`: members that the current role may act as, and of what.
pub(super) fn applicable_roles(context: &VirtualContext<'_>) -> Rows {
    let Some(own) = current(context) else { return Rows::new() };
    let mut rows = Rows::new();
    for member in context.system.roles.values() {
        if !(own.is_superuser
            || context.system.roles_of(own.role, database(context), true).contains(&member.oid))
        {
            continue;
        }
        for known in &member.member_of {
            let is_grantable = if known.admin { "YES" } else { "NO" };
            rows.push(vec![text(&member.name), text(role_name(context, known.role)), text(is_grantable)]);
        }
    }
    rows
}
