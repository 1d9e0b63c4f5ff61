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
