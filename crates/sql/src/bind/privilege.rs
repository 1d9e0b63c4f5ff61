//! Privileges that a statement needs: what binding it finds out, and whether a role has them.
//!
//! What is read or written through a view is asked of the view's owner; of the role itself, whether it may use the
//! view.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rustydb_types::ids::{DatabaseId, Oid};

use super::context::{Binder, Relation};
use super::errors::fail;
use crate::catalog::acl::{Acl, AclKind, Privileges};
use crate::catalog::{CatalogSnapshot, ColumnDescriptor, SchemaDescriptor, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::system::SystemSnapshot;

/// Numbers of the columns of a relation that are read; one set for each place at which it is named.
pub type ReadColumns = Arc<Mutex<BTreeSet<u32>>>;

/// Who runs a statement.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The role.
    pub role: Oid,
    /// Whether nothing is asked of it.
    pub is_superuser: bool,
    /// The role and those whose privileges it has.
    pub roles: BTreeSet<Oid>,
    /// What it may do with the database.
    pub database: Privileges,
}

impl Authority {
    /// A role that may do everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            role: crate::catalog::snapshot::BOOTSTRAP_ROLE,
            is_superuser: true,
            roles: BTreeSet::new(),
            database: AclKind::Database.all(),
        }
    }

    /// What a role may do in a database.
    #[must_use]
    pub fn of(role: Oid, system: &SystemSnapshot, database: Option<DatabaseId>) -> Self {
        if system.is_superuser(role) {
            return Self { role, ..Self::all() };
        }
        let roles = system.roles_of(role, database, true);
        let record = database.and_then(|database| system.databases.get(&database));
        let initial = |owner| Acl::initial(AclKind::Database, owner);
        let held = record.map_or(Privileges::NONE, |record| {
            record.acl.clone().unwrap_or_else(|| initial(record.owner)).held(&roles)
        });
        Self { role, is_superuser: false, roles, database: held }
    }

    /// Whether it has privileges on an object.
    #[must_use]
    pub fn may(&self, wanted: Privileges, kind: AclKind, owner: Oid, acl: Option<&Acl>) -> bool {
        self.is_superuser
            || match acl {
                Some(acl) => acl.held(&self.roles).has(wanted),
                None => Acl::initial(kind, owner).held(&self.roles).has(wanted),
            }
    }

    /// Whether it may do with an object what its owner may.
    #[must_use]
    pub fn owns(&self, owner: Oid) -> bool {
        self.is_superuser || self.roles.contains(&owner)
    }

    /// Whether it has privileges on a schema.
    #[must_use]
    pub fn may_in(&self, schema: &SchemaDescriptor, wanted: Privileges) -> bool {
        // Nobody sees that of another session.
        schema.oid.is_temporary() || self.may(wanted, AclKind::Schema, schema.owner, schema.acl.as_ref())
    }

    /// The places of the columns of a table whose values it may see; absent for all of them.
    #[must_use]
    pub fn readable(&self, table: &TableDescriptor) -> Option<Vec<usize>> {
        if self.may(Privileges::SELECT, AclKind::Table, table.owner, table.acl.as_ref()) {
            return None;
        }
        let may = |column: &ColumnDescriptor| {
            column.acl.as_ref().is_some_and(|acl| acl.held(&self.roles).has(Privileges::SELECT))
        };
        let columns = table.columns.iter().enumerate();
        Some(columns.filter(|(_, column)| may(column)).map(|(place, _)| place).collect())
    }

    /// Refuses what only the owner may do.
    ///
    /// # Errors
    /// 42501.
    pub fn require_owner(&self, owner: Oid, what: &str, name: &str) -> Result<(), SqlError> {
        if self.owns(owner) {
            return Ok(());
        }
        Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of {what} {name}")))
    }
}

/// 42501 for an object.
pub fn denied(what: &str, name: &str) -> SqlError {
    fail(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for {what} {name}"))
}

/// A privilege that a statement needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// On which relation.
    pub relation: Oid,
    /// Any one of these; none of a system relation that is for superusers.
    pub privileges: Privileges,
    /// On these columns, if not on the whole; where there are none, on any column.
    pub columns: Vec<u32>,
    /// The owner of the view through which it is needed, whose privilege counts.
    pub as_role: Option<Oid>,
}

/// What binding finds out of the privileges that a statement needs.
#[derive(Debug, Default)]
pub struct Needs {
    found: Vec<Need>,
    /// With whether a privilege is needed even where no column is read.
    read: Vec<(Need, ReadColumns, bool)>,
    /// Schemas that are named.
    schemas: BTreeSet<Oid>,
}

impl Needs {
    /// All of them, when the statement is bound.
    #[must_use]
    pub fn all(&self) -> (Vec<Need>, Vec<Oid>) {
        let is_read =
            |(_, columns, always): &&(Need, ReadColumns, bool)| *always || !columns.lock().is_empty();
        let read = self.read.iter().filter(is_read).map(|(need, columns, _)| Need {
            columns: columns.lock().iter().copied().collect(),
            ..need.clone()
        });
        let mut needs: Vec<Need> = Vec::new();
        for need in read.chain(self.found.iter().cloned()) {
            if !needs.contains(&need) {
                needs.push(need);
            }
        }
        (needs, self.schemas.iter().copied().collect())
    }
}

impl Binder<'_> {
    /// The owner of the view that is bound here.
    fn view_owner(&self) -> Option<Oid> {
        let view = self.within_views.borrow().last().copied()?;
        self.context.catalog.view(view).map(|view| view.owner)
    }

    /// Notes that a privilege is needed.
    pub(crate) fn need(&self, relation: Oid, privileges: Privileges, columns: Vec<u32>) {
        let need = Need { relation, privileges, columns, as_role: self.view_owner() };
        self.needs.borrow_mut().found.push(need);
    }

    /// Notes that a relation is read; the columns that are will be in the set.
    pub(crate) fn need_read(&self, relation: Oid) -> ReadColumns {
        self.note_reads(relation, true)
    }

    /// The same of what a statement writes to: where no column is read, nothing is needed.
    pub(crate) fn need_read_back(&self, relation: Oid) -> ReadColumns {
        self.note_reads(relation, false)
    }

    fn note_reads(&self, relation: Oid, always: bool) -> ReadColumns {
        let columns = ReadColumns::default();
        let as_role = self.view_owner();
        let need = Need { relation, privileges: Privileges::SELECT, columns: Vec::new(), as_role };
        self.needs.borrow_mut().read.push((need, Arc::clone(&columns), always));
        columns
    }

    /// Notes that a schema is named, and refuses it to a role that may not use it. What a view or a kept expression names
    /// was found when it was made.
    ///
    /// # Errors
    /// 42501.
    pub(crate) fn need_schema(&self, schema: &SchemaDescriptor) -> Result<(), SqlError> {
        if !self.within_views.borrow().is_empty() || self.kept.is_some() {
            return Ok(());
        }
        self.needs.borrow_mut().schemas.insert(schema.oid);
        if self.context.authority.may_in(schema, Privileges::USAGE) {
            Ok(())
        } else {
            Err(denied("schema", &schema.name))
        }
    }
}

/// Refuses a statement whose needs a role does not have.
///
/// # Errors
/// 42501.
pub fn check(
    (needs, schemas): (&[Need], &[Oid]),
    authority: &Authority,
    catalog: &CatalogSnapshot,
    (system, database): (&SystemSnapshot, Option<DatabaseId>),
    system_name: impl Fn(Oid) -> Option<(&'static str, String)>,
) -> Result<(), SqlError> {
    if !authority.is_superuser {
        for schema in schemas {
            if let Some(schema) = catalog.schema(*schema)
                && !authority.may_in(schema, Privileges::USAGE)
            {
                return Err(denied("schema", &schema.name));
            }
        }
    }
    for need in needs {
        let through;
        let authority = match need.as_role {
            Some(role) if role != authority.role => {
                through = Authority::of(role, system, database);
                &through
            }
            _ => authority,
        };
        if authority.is_superuser {
            continue;
        }
        if need.privileges.is_empty() {
            if let Some((what, name)) = system_name(need.relation) {
                return Err(denied(what, &name));
            }
            continue;
        }
        check_relation(need, authority, catalog)?;
    }
    Ok(())
}

fn check_relation(need: &Need, authority: &Authority, catalog: &CatalogSnapshot) -> Result<(), SqlError> {
    let allows = |kind, owner, acl: Option<&Acl>| {
        let one =
            |name: &str| Privileges::named(name).is_some_and(|one| authority.may(one, kind, owner, acl));
        need.privileges.names().any(one)
    };
    if let Some(table) = catalog.table(need.relation) {
        if allows(AclKind::Table, table.owner, table.acl.as_ref()) {
            return Ok(());
        }
        let held = |column: &ColumnDescriptor| {
            column.acl.as_ref().is_some_and(|acl| !acl.held(&authority.roles).of(need.privileges).is_empty())
        };
        let by_columns = !need.privileges.of(AclKind::Column.all()).is_empty()
            && match need.columns.as_slice() {
                [] => table.columns.iter().any(held),
                columns => columns.iter().all(|number| {
                    table.columns.iter().any(|column| column.id.get() == *number && held(column))
                }),
            };
        return if by_columns { Ok(()) } else { Err(denied("table", &table.name)) };
    }
    if let Some(view) = catalog.view(need.relation) {
        let is_allowed = allows(AclKind::Table, view.owner, view.acl.as_ref());
        return if is_allowed { Ok(()) } else { Err(denied("view", &view.name)) };
    }
    if let Some(sequence) = catalog.sequence(need.relation) {
        let is_allowed = allows(AclKind::Sequence, sequence.owner, sequence.acl.as_ref());
        return if is_allowed { Ok(()) } else { Err(denied("sequence", &sequence.name)) };
    }
    Ok(())
}

/// Notes that a relation is named, and that it is read.
pub(crate) fn read_of(binder: &Binder<'_>, relation: &Relation) -> Option<ReadColumns> {
    match relation {
        Relation::Table(table) => Some(binder.need_read(table.oid)),
        Relation::View(view) => Some(binder.need_read(view.oid)),
        Relation::Sequence(sequence) => Some(binder.need_read(sequence.oid)),
        Relation::Virtual(system) => {
            if matches!(system.name(), "pg_authid" | "pg_shadow") && system.schema() == "pg_catalog" {
                binder.need(Oid::new(system.oid()), Privileges::NONE, Vec::new());
            }
            None
        }
    }
}
