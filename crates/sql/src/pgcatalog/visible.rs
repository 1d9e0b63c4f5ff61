//! What the information schema shows to whom: a role sees what it owns or may use, as the standard asks.

use rustydb_types::ids::Oid;
use rustydb_types::value::Value;

use super::privileges::current;
use super::relation::Rows;
use crate::bind::privilege::Authority;
use crate::catalog::acl::{AclKind, Privileges};
use crate::catalog::virtual_table::VirtualContext;
use crate::catalog::{ColumnDescriptor, TableDescriptor};

const WRITE: Privileges = Privileges::INSERT
    .with(Privileges::UPDATE)
    .with(Privileges::DELETE)
    .with(Privileges::TRUNCATE)
    .with(Privileges::REFERENCES)
    .with(Privileges::TRIGGER);
const COLUMN: Privileges =
    Privileges::SELECT.with(Privileges::INSERT).with(Privileges::UPDATE).with(Privileges::REFERENCES);

/// By what a row of a view is shown; the numbers are the places of the object's schema, and of its name behind that.
#[derive(Clone, Copy)]
enum Rule {
    /// A relation that is the role's own, or that it has a privilege on.
    Relation(usize),
    /// The same, and reading is no such privilege.
    Written(usize),
    /// A column of a relation that is its own, or that it has a privilege on; the name is the third.
    Column(usize),
    /// A relation of its own.
    Owned(usize),
    /// A schema, whose name is there.
    Schema(usize),
    /// A constraint of a table of its own, or of its own domain.
    OwnedConstraint(usize),
    /// A constraint of a table that it writes to.
    WrittenConstraint(usize),
    /// A type.
    Type(usize),
}

fn rule_of(view: &str) -> Option<Rule> {
    Some(match view {
        "tables" | "views" | "sequences" => Rule::Relation(1),
        "columns" => Rule::Column(1),
        "key_column_usage" => Rule::Column(4),
        "table_constraints" => Rule::Written(4),
        "constraint_column_usage" | "constraint_table_usage" => Rule::Owned(1),
        "check_constraints" => Rule::OwnedConstraint(1),
        "referential_constraints" => Rule::WrittenConstraint(1),
        "schemata" => Rule::Schema(1),
        "domains" | "domain_constraints" => Rule::Type(if view == "domains" { 1 } else { 4 }),
        _ => return None,
    })
}

/// Who looks at what.
pub(super) struct Viewer<'a> {
    context: VirtualContext<'a>,
    authority: Authority,
}

impl<'a> Viewer<'a> {
    /// The current role; absent where it sees everything.
    pub(super) fn of(context: &VirtualContext<'a>) -> Option<Self> {
        let authority = current(context)?;
        (!authority.is_superuser).then_some(Self { context: *context, authority })
    }

    fn may(&self, wanted: Privileges, table: &TableDescriptor) -> bool {
        let may = |one: &str| {
            Privileges::named(one)
                .is_some_and(|one| self.authority.may(one, AclKind::Table, table.owner, table.acl.as_ref()))
        };
        self.authority.owns(table.owner) || wanted.names().any(may)
    }

    /// Whether it has one of some privileges on a column.
    pub(super) fn may_column(
        &self,
        wanted: Privileges,
        table: &TableDescriptor,
        column: &ColumnDescriptor,
    ) -> bool {
        let held = column.acl.as_ref().map(|acl| acl.held(&self.authority.roles));
        self.may(wanted, table) || held.is_some_and(|held| !held.of(wanted).is_empty())
    }

    fn may_any(&self, wanted: Privileges, table: &TableDescriptor) -> bool {
        table.columns.iter().any(|column| self.may_column(wanted, table, column)) || self.may(wanted, table)
    }

    fn table(&self, schema: Oid, name: &str) -> Option<&'a TableDescriptor> {
        self.context.catalog.table_named(schema, name).map(AsRef::as_ref)
    }

    /// Whether a relation that is no table is its own, or may be used.
    fn other(&self, wanted: Privileges, schema: Oid, name: &str) -> bool {
        let catalog = self.context.catalog;
        let any = |kind, owner, acl: Option<&_>| {
            let may = |one: &str| {
                Privileges::named(one).is_some_and(|one| self.authority.may(one, kind, owner, acl))
            };
            self.authority.owns(owner) || wanted.names().any(may)
        };
        if let Some(view) = catalog.view_named(schema, name) {
            return any(AclKind::Table, view.owner, view.acl.as_ref());
        }
        let wanted_of_sequence = !wanted.is_empty();
        catalog.sequence_named(schema, name).is_some_and(|sequence| {
            let held =
                |one| self.authority.may(one, AclKind::Sequence, sequence.owner, sequence.acl.as_ref());
            self.authority.owns(sequence.owner)
                || wanted_of_sequence
                    && [Privileges::SELECT, Privileges::UPDATE, Privileges::USAGE].into_iter().any(held)
        })
    }

    fn sees(&self, rule: Rule, row: &[Value]) -> bool {
        let at = |place: usize| row.get(place).and_then(Value::as_str).unwrap_or_default();
        let (Rule::Relation(place)
        | Rule::Written(place)
        | Rule::Column(place)
        | Rule::Owned(place)
        | Rule::Schema(place)
        | Rule::OwnedConstraint(place)
        | Rule::WrittenConstraint(place)
        | Rule::Type(place)) = rule;
        // What the server computes is in schemas that are not stored.
        let Some(schema) = self.context.catalog.schema_named(at(place)) else { return true };
        let name = at(place + 1);
        if matches!(schema.name.as_str(), "pg_catalog" | "information_schema") {
            return !matches!(rule, Rule::Owned(_));
        }
        let table = self.table(schema.oid, name);
        match (rule, table) {
            (Rule::Relation(_), Some(table)) => {
                self.may(WRITE.with(Privileges::SELECT), table) || self.may_any(COLUMN, table)
            }
            (Rule::Written(_), Some(table)) => {
                self.may(WRITE, table) || self.may_any(COLUMN.without(Privileges::SELECT), table)
            }
            (Rule::Column(_), Some(table)) => {
                let column = at(place + 2);
                let column = table.columns.iter().find(|own| own.name == column);
                column.is_some_and(|column| self.may_column(COLUMN, table, column))
            }
            (Rule::Owned(_), Some(table)) => self.authority.owns(table.owner),
            (Rule::Relation(_), None) => self.other(WRITE.with(Privileges::SELECT), schema.oid, name),
            (Rule::Written(_) | Rule::Column(_), None) => self.other(COLUMN, schema.oid, name),
            (Rule::Owned(_), None) => self.other(Privileges::NONE, schema.oid, name),
            (Rule::Schema(_), _) => {
                self.authority.owns(schema.owner)
                    || self.authority.may_in(schema, Privileges::USAGE)
                    || self.authority.may_in(schema, Privileges::CREATE)
            }
            (Rule::OwnedConstraint(_), _) => {
                let mut tables = self.context.catalog.tables().filter(|table| table.schema == schema.oid);
                let mut types = self.context.catalog.types().filter(|own| own.schema == schema.oid);
                let of_type = |own: &crate::catalog::TypeDescriptor| {
                    matches!(&own.kind, crate::catalog::TypeKind::Domain { checks, .. }
                        if checks.iter().any(|check| check.name == name))
                };
                tables.any(|table| self.authority.owns(table.owner) && has_check(table, name))
                    || types.any(|own| self.authority.owns(own.owner) && of_type(own))
            }
            (Rule::WrittenConstraint(_), _) => {
                let mut tables = self.context.catalog.tables().filter(|table| table.schema == schema.oid);
                let writes = COLUMN.without(Privileges::SELECT);
                tables.any(|table| {
                    table.foreign_keys.iter().any(|key| key.name == name)
                        && (self.may(WRITE, table) || self.may_any(writes, table))
                })
            }
            (Rule::Type(_), _) => self.context.catalog.type_named(schema.oid, name).is_some_and(|own| {
                self.authority.owns(own.owner)
                    || self.authority.may(Privileges::USAGE, AclKind::Type, own.owner, own.acl.as_ref())
            }),
        }
    }
}

fn has_check(table: &TableDescriptor, name: &str) -> bool {
    table.checks.iter().any(|check| check.name == name)
        || name.ends_with("_not_null") && name.contains(&format!("_{}_", table.oid))
}

/// The rows of a view of the information schema that the current role is shown.
pub(super) fn visible(view: &str, context: &VirtualContext<'_>, mut rows: Rows) -> Rows {
    if let Some((viewer, rule)) = Viewer::of(context).zip(rule_of(view)) {
        rows.retain(|row| viewer.sees(rule, row));
        if view == "views" {
            hide_definitions(&viewer, &mut rows);
        }
    }
    rows
}

/// What a view is made of is for who owns it.
fn hide_definitions(viewer: &Viewer<'_>, rows: &mut Rows) {
    let catalog = viewer.context.catalog;
    for row in rows {
        let at = |place: usize| row.get(place).and_then(Value::as_str).unwrap_or_default();
        let view = catalog.schema_named(at(1)).and_then(|schema| catalog.view_named(schema.oid, at(2)));
        if view.is_some_and(|view| !viewer.authority.owns(view.owner))
            && let Some(definition) = row.get_mut(3)
        {
            *definition = Value::Null;
        }
    }
}
