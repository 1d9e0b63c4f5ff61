//! GRANT and REVOKE on what a database has, ALTER DEFAULT PRIVILEGES, and changes of owners.

use std::collections::BTreeSet;

use rustydb_txn::Transaction;
use rustydb_types::ids::Oid;
use sqlparser::ast::{Ident, ObjectName, Owner};

use super::{change, current};
use crate::bind::context::Relation;
use crate::bind::errors::{fail, unsupported};
use crate::bind::privilege::{self, Authority, denied};
use crate::bind::{AnalyzeContext, Binder};
use crate::catalog::CatalogSnapshot;
use crate::catalog::acl::{Acl, AclKind, DefaultAcl, PUBLIC_ROLE, Privileges};
use crate::catalog::store::CatalogWriter;
use crate::error::{Severity, SqlError, SqlState};
use crate::exec::ExecContext;
use crate::parse::privilege::{GrantTarget, GranteeName, PrivilegeChange};
use crate::system::SystemSnapshot;

/// The privileges of a new object of a role, where ALTER DEFAULT PRIVILEGES says something of them.
pub(super) fn initial(catalog: &CatalogSnapshot, owner: Oid, kind: AclKind, schema: Oid) -> Option<Acl> {
    let said = |place: Option<Oid>| {
        let defaults = catalog.default_acls().iter();
        let mut own = defaults.filter(|own| own.role == owner && own.kind == kind && own.schema == place);
        own.next().map(|own| own.acl.clone())
    };
    let hardwired = Acl::initial(kind, owner);
    let mut acl = said(None).unwrap_or_else(|| hardwired.clone());
    for item in said(Some(schema)).unwrap_or_default().0 {
        acl.grant(item.grantor, item.grantee, item.granted, false);
        acl.grant(item.grantor, item.grantee, item.options, true);
    }
    (acl != hardwired).then_some(acl)
}

pub(crate) fn role_of(name: &GranteeName, current: Oid, system: &SystemSnapshot) -> Result<Oid, SqlError> {
    match name {
        GranteeName::Public => Ok(PUBLIC_ROLE),
        GranteeName::Current => Ok(current),
        GranteeName::Role(name) if name == crate::catalog::snapshot::DATABASE_OWNER_NAME => {
            Ok(crate::catalog::snapshot::DATABASE_OWNER_ROLE)
        }
        GranteeName::Role(name) => system
            .role_named(name)
            .map(|role| role.oid)
            .ok_or_else(|| fail(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))),
    }
}

/// The privileges that a statement names, on a whole object and on columns.
pub(crate) type Wanted = (Privileges, Vec<(Privileges, Vec<String>)>);

pub(crate) fn wanted(change: &PrivilegeChange, kind: AclKind) -> Result<Wanted, SqlError> {
    let (mut whole, mut columns) = (Privileges::NONE, Vec::new());
    for (name, named) in &change.privileges {
        let of = if named.is_empty() { kind } else { AclKind::Column };
        let privileges = match name.as_str() {
            "all" => of.all(),
            name => Privileges::named(name).ok_or_else(|| {
                fail(SqlState::SYNTAX_ERROR, format!("unrecognized privilege type \"{name}\""))
            })?,
        };
        if !of.all().has(privileges) {
            let name = privileges.names().next().unwrap_or_default();
            // A table's words may be said of a sequence, too.
            let message = format!(
                "invalid privilege type {name} for {}",
                match of {
                    AclKind::Table => "relation",
                    other => other.word(),
                }
            );
            return Err(fail(SqlState::INVALID_GRANT_OPERATION, message));
        }
        if named.is_empty() {
            whole = whole.with(privileges);
        } else {
            if kind != AclKind::Table {
                let message = "column privileges are only valid for relations";
                return Err(fail(SqlState::INVALID_GRANT_OPERATION, message));
            }
            columns.push((privileges, named.clone()));
        }
    }
    Ok((whole, columns))
}

/// What a change does to the privileges of one object.
pub(crate) struct Application<'a> {
    change: &'a PrivilegeChange,
    grantees: Vec<Oid>,
    /// Who asks.
    role: Oid,
    is_superuser: bool,
    roles: BTreeSet<Oid>,
}

impl<'a> Application<'a> {
    /// A change that the current role asks for.
    pub(crate) fn new(
        change: &'a PrivilegeChange,
        authority: &Authority,
        system: &SystemSnapshot,
    ) -> Result<Self, SqlError> {
        let grantees = change.grantees.iter().map(|name| role_of(name, authority.role, system));
        let grantees = grantees.collect::<Result<Vec<_>, _>>()?;
        if change.option && change.is_grant && grantees.contains(&PUBLIC_ROLE) {
            let message = "grant options can only be granted to roles";
            return Err(fail(SqlState::INVALID_GRANT_OPERATION, message));
        }
        let (is_superuser, roles) = (authority.is_superuser, authority.roles.clone());
        Ok(Self { change, grantees, role: authority.role, is_superuser, roles })
    }

    /// As whom it is done, and which privileges that one may give: the owner where that may be, else the first of the
    /// roles that may give all of them, else the one that may give the most. What may be given of a whole table may be
    /// given of its columns.
    fn grantor(
        &self,
        kind: AclKind,
        owner: Oid,
        acl: &Acl,
        above: Option<&Acl>,
        wanted: Privileges,
    ) -> (Oid, Privileges) {
        if self.is_superuser || self.roles.contains(&owner) {
            return (owner, kind.all());
        }
        let others = self.roles.iter().copied().filter(|role| *role != self.role);
        let mut best = (self.role, Privileges::NONE);
        for role in std::iter::once(self.role).chain(others) {
            let of_above = above.map_or(Privileges::NONE, |above| above.own_options(role, owner));
            let may = acl.own_options(role, owner).with(of_above).of(kind.all()).of(wanted);
            if may.count() > best.1.count() {
                best = (role, may);
            }
        }
        best
    }

    /// The privileges of an object after the change, and a warning where not all of it could be done. `above` are those
    /// of the table of a column.
    pub(crate) fn apply(
        &self,
        kind: AclKind,
        (what, name): (&str, &str),
        owner: Oid,
        (acl, above): (Option<&Acl>, Option<&Acl>),
        privileges: Privileges,
    ) -> Result<(Option<Acl>, Option<SqlError>), SqlError> {
        let hardwired = Acl::initial(kind, owner);
        let mut changed = acl.cloned().unwrap_or_else(|| hardwired.clone());
        let (grantor, may) = self.grantor(kind, owner, &changed, above, privileges);
        if may.of(privileges).is_empty() && !privileges.is_empty() {
            let of_above = above.map_or(Privileges::NONE, |above| above.held(&self.roles));
            if changed.held(&self.roles).with(of_above).is_empty() {
                return Err(denied(what, name));
            }
            let verb = if self.change.is_grant { "granted" } else { "could be revoked" };
            let message = match self.change.is_grant {
                true => format!("no privileges were {verb} for \"{name}\""),
                false => format!("no privileges {verb} for \"{name}\""),
            };
            let state = if self.change.is_grant { "01007" } else { "01006" };
            return Ok((acl.cloned(), Some(warning(state, message))));
        }
        let done = privileges.of(may);
        let partly = (done != privileges && self.change.privileges.iter().all(|(name, _)| name != "all"))
            .then(|| {
                let (state, message) = match self.change.is_grant {
                    true => ("01007", format!("not all privileges were granted for \"{name}\"")),
                    false => ("01006", format!("not all privileges could be revoked for \"{name}\"")),
                };
                warning(state, message)
            });
        for grantee in &self.grantees {
            if self.change.is_grant {
                if self.change.option && changed.is_circle(grantor, *grantee, done, owner) {
                    let message = "grant options cannot be granted back to your own grantor";
                    return Err(fail(SqlState::INVALID_GRANT_OPERATION, message));
                }
                changed.grant(grantor, *grantee, done, self.change.option);
            } else {
                let (option, cascade) = (self.change.option, self.change.cascade);
                changed.revoke(grantor, *grantee, done, option, cascade, owner).map_err(|_| {
                    fail(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, "dependent privileges exist")
                        .with_hint("Use CASCADE to revoke them too.")
                })?;
            }
        }
        Ok((if changed == hardwired && acl.is_none() { None } else { Some(changed) }, partly))
    }
}

fn warning(state: &str, message: String) -> SqlError {
    let state = SqlState::from_code(state);
    SqlError::new(state, message).with_severity(Severity::Warning)
}

/// Executes a change of privileges within a database.
pub(super) async fn execute(
    asked: &PrivilegeChange,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut catalog = change(txn, context).await?;
    let now = current(catalog.txn, context)?;
    let application = Application::new(asked, &now.authority, context.system)?;
    match &asked.target {
        GrantTarget::Defaults(kind, roles, schemas) => {
            let roles = roles.as_deref().unwrap_or(&[GranteeName::Current]);
            let places: Vec<Option<Oid>> = match schemas {
                None => vec![None],
                Some(names) => {
                    names.iter().map(|name| schema_of(name, &now).map(Some)).collect::<Result<_, _>>()?
                }
            };
            if *kind == AclKind::Schema && schemas.is_some() {
                let message = "cannot use IN SCHEMA clause when using GRANT/REVOKE ON SCHEMAS";
                return Err(fail(SqlState::INVALID_GRANT_OPERATION, message));
            }
            let (privileges, columns) = wanted(asked, *kind)?;
            if !columns.is_empty() {
                return Err(fail(
                    SqlState::INVALID_GRANT_OPERATION,
                    "default privileges cannot be set for columns",
                ));
            }
            for role in roles {
                let role = role_of(role, now.user_oid, context.system)?;
                if !now.authority.owns(role) {
                    let message = "permission denied to change default privileges";
                    return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
                }
                for place in &places {
                    let now = current(catalog.txn, context)?;
                    default_acl(&application, (role, *place, *kind), privileges, &now, &mut catalog).await?;
                }
            }
            Ok(())
        }
        GrantTarget::Objects(kind, names) => {
            for (schema, name) in names {
                let parts = schema.iter().chain([name]).map(|part| Ident::with_quote('"', part.clone()));
                let name = ObjectName::from(parts.collect::<Vec<_>>());
                object(&application, *kind, &name, &mut catalog, context).await?;
            }
            Ok(())
        }
        GrantTarget::AllIn(kind, schemas) => {
            for schema in schemas {
                let oid = schema_of(schema, &now)?;
                let tables =
                    now.catalog.tables().filter(|table| table.schema == oid).map(|table| &table.name);
                let views = now.catalog.views().filter(|view| view.schema == oid).map(|view| &view.name);
                let sequences = now.catalog.sequences().filter(|own| own.schema == oid).map(|own| &own.name);
                let names: Vec<String> = match kind {
                    AclKind::Table => tables.chain(views).cloned().collect(),
                    AclKind::Sequence => sequences.cloned().collect(),
                    // Nobody made one.
                    _ => Vec::new(),
                };
                for name in names {
                    let parts = vec![Ident::with_quote('"', schema.clone()), Ident::with_quote('"', name)];
                    object(&application, *kind, &ObjectName::from(parts), &mut catalog, context).await?;
                }
            }
            Ok(())
        }
    }
}

fn schema_of(name: &str, now: &AnalyzeContext) -> Result<Oid, SqlError> {
    now.catalog
        .schema_named(name)
        .map(|schema| schema.oid)
        .ok_or_else(|| fail(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))
}

async fn default_acl(
    application: &Application<'_>,
    (role, schema, kind): (Oid, Option<Oid>, AclKind),
    privileges: Privileges,
    now: &AnalyzeContext,
    catalog: &mut CatalogWriter<'_>,
) -> Result<(), SqlError> {
    let known = now
        .catalog
        .default_acls()
        .iter()
        .find(|own| own.role == role && own.schema == schema && own.kind == kind)
        .cloned();
    let hardwired = if schema.is_none() { Acl::initial(kind, role) } else { Acl::default() };
    let mut acl = known.as_ref().map_or_else(|| hardwired.clone(), |own| own.acl.clone());
    for grantee in &application.grantees {
        if application.change.is_grant {
            acl.grant(role, *grantee, privileges, application.change.option);
        } else {
            let revoked = acl.revoke(role, *grantee, privileges, application.change.option, true, role);
            revoked.map_err(|_| SqlError::internal("default privileges depend on each other"))?;
        }
    }
    let oid = match &known {
        Some(known) => known.oid,
        None => catalog.new_oid()?,
    };
    if acl.says_same(&hardwired) {
        return catalog.put_default_acl(oid, None).await;
    }
    catalog.put_default_acl(oid, Some(&DefaultAcl { oid, role, schema, kind, acl })).await
}

fn tell(warning: Option<SqlError>, context: &ExecContext<'_>) {
    if let Some(warning) = warning {
        context.session.notice(warning);
    }
}

/// Changes the privileges of one object.
async fn object(
    application: &Application<'_>,
    kind: AclKind,
    name: &ObjectName,
    catalog: &mut CatalogWriter<'_>,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let now = current(catalog.txn, context)?;
    let binder = Binder::new(&now, &[]);
    let own_name = binder.split_name(name)?.1.value.clone();
    match kind {
        AclKind::Schema => {
            let Some(schema) = now.catalog.schema_named(&own_name) else {
                return Err(fail(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{own_name}\" does not exist"),
                ));
            };
            let (privileges, _) = wanted(application.change, kind)?;
            let mut changed = schema.as_ref().clone();
            let (acl, warning) = application.apply(
                kind,
                ("schema", &own_name),
                schema.owner,
                (schema.acl.as_ref(), None),
                privileges,
            )?;
            changed.acl = acl;
            drop(binder);
            tell(warning, context);
            catalog.put_schema(changed.oid, Some(&changed)).await
        }
        AclKind::Type => {
            let Some(found) = binder.find_type(name)? else {
                return Err(super::types::missing(name));
            };
            let (privileges, _) = wanted(application.change, kind)?;
            let mut changed = found.as_ref().clone();
            let (acl, warning) = application.apply(
                kind,
                ("type", &own_name),
                found.owner,
                (found.acl.as_ref(), None),
                privileges,
            )?;
            changed.acl = acl;
            drop(binder);
            tell(warning, context);
            catalog.put_type(&changed).await
        }
        _ => {
            let relation = binder.relation(name)?;
            drop(binder);
            match relation {
                Relation::Virtual(_) => Err(unsupported("privileges on a system relation")),
                Relation::Sequence(sequence) => {
                    // A table's words may be said of a sequence, too.
                    let (privileges, columns) = match wanted(application.change, AclKind::Sequence) {
                        Err(error) if kind == AclKind::Table => {
                            let (asked, columns) = wanted(application.change, kind)?;
                            if asked.of(AclKind::Sequence.all()).is_empty() {
                                return Err(error);
                            }
                            (asked.of(AclKind::Sequence.all()), columns)
                        }
                        found => found?,
                    };
                    if !columns.is_empty() {
                        return Err(unsupported("privileges on columns of a sequence"));
                    }
                    let mut changed = sequence.as_ref().clone();
                    let (acl, warning) = application.apply(
                        AclKind::Sequence,
                        ("sequence", &own_name),
                        sequence.owner,
                        (sequence.acl.as_ref(), None),
                        privileges,
                    )?;
                    changed.acl = acl;
                    tell(warning, context);
                    catalog.put_sequence(&changed).await
                }
                _ if kind == AclKind::Sequence => {
                    let message = format!("\"{own_name}\" is not a sequence");
                    Err(fail(SqlState::WRONG_OBJECT_TYPE, message))
                }
                Relation::View(view) => {
                    let (privileges, columns) = wanted(application.change, kind)?;
                    if !columns.is_empty() {
                        return Err(unsupported("privileges on columns of a view"));
                    }
                    let mut changed = view.as_ref().clone();
                    let (acl, warning) = application.apply(
                        kind,
                        ("view", &own_name),
                        view.owner,
                        (view.acl.as_ref(), None),
                        privileges,
                    )?;
                    changed.acl = acl;
                    tell(warning, context);
                    catalog.put_view(&changed).await
                }
                Relation::Table(table) => {
                    let (privileges, columns) = wanted(application.change, kind)?;
                    let mut changed = table.as_ref().clone();
                    if !privileges.is_empty() {
                        let (acl, warning) = application.apply(
                            kind,
                            ("table", &own_name),
                            table.owner,
                            (table.acl.as_ref(), None),
                            privileges,
                        )?;
                        changed.acl = acl;
                        tell(warning, context);
                        // Who loses a privilege on the whole loses it on each column.
                        let of_columns = privileges.of(AclKind::Column.all());
                        if !application.change.is_grant && !of_columns.is_empty() {
                            for column in changed.columns.iter_mut().filter(|column| column.acl.is_some()) {
                                let (acl, _) = application.apply(
                                    AclKind::Column,
                                    ("table", &own_name),
                                    table.owner,
                                    (column.acl.as_ref(), table.acl.as_ref()),
                                    of_columns,
                                )?;
                                column.acl = acl.filter(|acl| !acl.0.is_empty());
                            }
                        }
                    }
                    for (privileges, names) in columns {
                        for column_name in names {
                            let Some(place) = changed.column_index(&column_name) else {
                                let message = format!(
                                    "column \"{column_name}\" of relation \"{own_name}\" does not exist"
                                );
                                return Err(fail(SqlState::UNDEFINED_COLUMN, message));
                            };
                            let Some(column) = changed.columns.get_mut(place) else { continue };
                            let (acl, warning) = application.apply(
                                AclKind::Column,
                                ("table", &own_name),
                                table.owner,
                                (column.acl.as_ref(), table.acl.as_ref()),
                                privileges,
                            )?;
                            column.acl = acl.filter(|acl| !acl.0.is_empty());
                            tell(warning, context);
                        }
                    }
                    catalog.put_table(&changed).await
                }
            }
        }
    }
}

/// Refuses a query that is bound for a statement of its own, and that the current role may not run.
///
/// # Errors
/// 42501.
pub(super) fn require(
    binder: &Binder<'_>,
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let (needs, schemas) = binder.needs.borrow().all();
    let database = context.system.database_named(&now.database).map(|database| database.id);
    privilege::check((&needs, &schemas), &now.authority, &now.catalog, (context.system, database), |oid| {
        let found = now.virtuals.iter().find(|relation| relation.oid() == oid.get())?;
        Some(("table", found.name().to_owned()))
    })
}

/// The role that is to own something of the current role.
///
/// # Errors
/// 42704 when it does not exist; 42501 when the current role may not give it away to that one.
pub(super) fn new_owner(
    written: &Owner,
    schema: Option<Oid>,
    now: &AnalyzeContext,
    context: &ExecContext<'_>,
) -> Result<Oid, SqlError> {
    let name = match written {
        Owner::Ident(name) => GranteeName::Role(name.value.clone()),
        Owner::CurrentRole | Owner::CurrentUser | Owner::SessionUser => GranteeName::Current,
    };
    let role = role_of(&name, now.user_oid, context.system)?;
    if now.authority.is_superuser {
        return Ok(role);
    }
    if !context.system.roles_of(now.user_oid, None, false).contains(&role) {
        let shown = context.system.roles.get(&role).map_or("", |role| role.name.as_str());
        let message = format!("must be member of role \"{shown}\"");
        return Err(fail(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    if let Some(schema) = schema.and_then(|schema| now.catalog.schema(schema)) {
        let database = context.system.database_named(&now.database).map(|database| database.id);
        let authority = Authority::of(role, context.system, database);
        if !authority.may_in(schema, Privileges::CREATE) {
            return Err(denied("schema", &schema.name));
        }
    }
    Ok(role)
}

/// Gives an object another owner.
pub(super) fn change_owner(owner: &mut Oid, acl: &mut Option<Acl>, new: Oid) {
    if let Some(acl) = acl {
        acl.change_owner(*owner, new);
    }
    *owner = new;
}
