//! Finds the foreign keys that a statement has to keep, and the tables that it locks for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::{ColumnId, Oid};

use super::context::{Binder, TableUse};
use super::from::column_type;
use crate::catalog::{ForeignKeyDescriptor, ReferentialAction, TableDescriptor};
use crate::error::SqlError;
use crate::plan::references::{Link, LinkColumn, References, Target};

/// What a statement, or the action of a foreign key, does with the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Insert,
    Update,
    Delete,
}

/// Whether values of the two types have one key encoding, or are integers of which each has at most one of the other
/// type: then rows can be looked up from either side.
pub(crate) fn is_symmetric(a: DataType, b: DataType) -> bool {
    let text = |ty: DataType| matches!(ty.base, BaseType::Text | BaseType::Varchar);
    let integer = |ty: DataType| matches!(ty.base, BaseType::Int2 | BaseType::Int4 | BaseType::Int8);
    a.base == b.base || (text(a) && text(b)) || (integer(a) && integer(b))
}

struct Collector<'b, 'a> {
    binder: &'b Binder<'a>,
    found: References,
    seen: BTreeSet<(Oid, Change)>,
}

impl Binder<'_> {
    /// What an INSERT has to keep; `None` when it is nothing.
    pub(crate) fn references_of_insert(
        &self,
        table: &Arc<TableDescriptor>,
    ) -> Result<Option<Arc<References>>, SqlError> {
        self.references(table, Change::Insert, None)
    }

    /// What an INSERT that may update instead has to keep.
    pub(crate) fn references_of_upsert(
        &self,
        table: &Arc<TableDescriptor>,
    ) -> Result<Option<Arc<References>>, SqlError> {
        self.references(table, Change::Update, None)
    }

    /// What an UPDATE of these columns has to keep.
    pub(crate) fn references_of_update(
        &self,
        table: &Arc<TableDescriptor>,
        assigned: &[ColumnId],
    ) -> Result<Option<Arc<References>>, SqlError> {
        self.references(table, Change::Update, Some(assigned))
    }

    /// What a DELETE has to keep.
    pub(crate) fn references_of_delete(
        &self,
        table: &Arc<TableDescriptor>,
    ) -> Result<Option<Arc<References>>, SqlError> {
        self.references(table, Change::Delete, None)
    }

    fn references(
        &self,
        table: &Arc<TableDescriptor>,
        change: Change,
        assigned: Option<&[ColumnId]>,
    ) -> Result<Option<Arc<References>>, SqlError> {
        let mut collector = Collector { binder: self, found: References::default(), seen: BTreeSet::new() };
        collector.visit(table, change, assigned)?;
        let found = collector.found;
        Ok((!found.links.is_empty()).then(|| Arc::new(found)))
    }
}

impl Collector<'_, '_> {
    /// Notes the foreign keys that a change of a table touches, and those that their actions touch.
    fn visit(
        &mut self,
        table: &Arc<TableDescriptor>,
        change: Change,
        assigned: Option<&[ColumnId]>,
    ) -> Result<(), SqlError> {
        // What is assigned is told of the statement's own table alone, which comes first.
        if assigned.is_none() && !self.seen.insert((table.oid, change)) {
            return Ok(());
        }
        let touches = |columns: &[ColumnId]| {
            assigned.is_none_or(|assigned| columns.iter().any(|column| assigned.contains(column)))
        };
        if change != Change::Delete {
            for key in table.foreign_keys.iter().filter(|key| touches(&key.columns)) {
                let Some(parent) = self.binder.context.catalog.table(key.table).cloned() else { continue };
                self.binder.note_table(parent.oid, TableUse::LockRows);
                if let Some(place) = self.link(key, table, &parent) {
                    note(self.found.outgoing.entry(table.oid).or_default(), place);
                }
            }
        }
        if change == Change::Insert {
            return Ok(());
        }
        let catalog = Arc::clone(&self.binder.context.catalog);
        for (child, key) in catalog.referencing(table.oid) {
            if change == Change::Update && !touches(&key.referenced) {
                continue;
            }
            let Some(place) = self.link(key, child, table) else { continue };
            note(self.found.incoming.entry(table.oid).or_default(), place);
            let action = if change == Change::Delete { key.on_delete } else { key.on_update };
            if !action.writes() {
                self.binder.note_table(child.oid, TableUse::LockRows);
                continue;
            }
            self.binder.note_table(child.oid, TableUse::Write);
            self.target(child)?;
            let next = match (change, action) {
                (Change::Delete, ReferentialAction::Cascade) => Change::Delete,
                _ => Change::Update,
            };
            self.visit(child, next, None)?;
        }
        Ok(())
    }

    /// The place of a foreign key among those that were found.
    fn link(
        &mut self,
        key: &ForeignKeyDescriptor,
        child: &Arc<TableDescriptor>,
        parent: &Arc<TableDescriptor>,
    ) -> Option<usize> {
        if let Some(place) = self.found.links.iter().position(|link| link.key.oid == key.oid) {
            return Some(place);
        }
        let columns: Vec<LinkColumn> = (key.columns.iter().zip(&key.referenced))
            .map(|(own, other)| {
                let (own, other) = (child.column_index_of(*own)?, parent.column_index_of(*other)?);
                Some(LinkColumn {
                    child: own,
                    child_type: column_type(child.columns.get(own)?.data_type),
                    parent: other,
                    parent_type: column_type(parent.columns.get(other)?.data_type),
                })
            })
            .collect::<Option<_>>()?;
        let leads = |index: &crate::catalog::IndexDescriptor| {
            let first = index.key.get(..key.columns.len()).unwrap_or_default();
            !first.is_empty() && key.columns.iter().all(|own| first.iter().any(|part| part.column == *own))
        };
        let can_look_up = columns.iter().all(|column| is_symmetric(column.child_type, column.parent_type));
        let schema = self.binder.context.catalog.schema(child.schema);
        self.found.links.push(Link {
            key: key.clone(),
            child_index: if can_look_up { child.indexes.iter().position(leads) } else { None },
            parent_index: parent.indexes.iter().position(|index| index.oid == key.index)?,
            child: Arc::clone(child),
            child_schema: schema.map(|schema| schema.name.clone()).unwrap_or_default(),
            parent: Arc::clone(parent),
            columns,
        });
        Some(self.found.links.len() - 1)
    }

    fn target(&mut self, table: &Arc<TableDescriptor>) -> Result<(), SqlError> {
        if self.found.targets.contains_key(&table.oid) {
            return Ok(());
        }
        let schema = self.binder.context.catalog.schema(table.schema);
        let target = Target {
            table: Arc::clone(table),
            schema: schema.map(|schema| schema.name.clone()).unwrap_or_default(),
            rules: self.binder.bind_rules(table)?,
            defaults: self.binder.bind_defaults(table)?,
        };
        self.found.targets.insert(table.oid, target);
        Ok(())
    }
}

fn note(places: &mut Vec<usize>, place: usize) {
    if !places.contains(&place) {
        places.push(place);
    }
}
