//! Views: how one is bound where a query names it, and what is kept of a query that becomes one.

use std::sync::Arc;

use rustydb_types::ids::Oid;
use sqlparser::ast::{ObjectName, Query, TableAlias};

use super::context::{Binder, Relation, TableUse};
use super::errors::{fail, unsupported};
use super::from::own_name_start;
use super::query::BoundQuery;
use super::scope::{Level, ScopeColumn};
use crate::catalog::view::{KnownColumn, ViewDescriptor, ViewRelation};
use crate::error::{SqlError, SqlState};
use crate::pgcatalog::definition::quoted;

/// What stands for `*`, or for the name of a type, at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Star {
    /// Where it begins, in characters from 1.
    pub start: u32,
    /// Where it has ended.
    pub end: u32,
    /// The columns that it stands for, or the number.
    pub columns: String,
}

/// What is found out about a query that is to be a view's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The names of relations in it.
    pub relations: Vec<ViewRelation>,
    /// The wildcards in it.
    pub stars: Vec<Star>,
}

/// Whose names are bound.
#[derive(Debug, Default)]
pub(crate) enum Frame {
    /// Those of the statement.
    #[default]
    Plain,
    /// Those of a view's query: each is the relation that it was.
    Stored(Arc<ViewDescriptor>),
    /// Those of a query that is to be kept.
    Keeping(Found),
}

fn place(column: u64) -> u32 {
    u32::try_from(column).unwrap_or(u32::MAX)
}

impl Binder<'_> {
    /// Binds what has another frame than what is around it: it sees none of the WITH queries there.
    pub(crate) fn within<T>(
        &self,
        frame: Frame,
        bind: impl FnOnce() -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let ctes = self.ctes.take();
        let around = self.frame.replace(frame);
        let result = bind();
        self.frame.replace(around);
        self.ctes.replace(ctes);
        result
    }

    /// The relation that a view's query names at a place.
    pub(super) fn known_relation(&self, start: u64) -> Option<ViewRelation> {
        match &*self.frame.borrow() {
            Frame::Stored(view) => {
                view.relations.iter().find(|known| u64::from(known.start) == start).cloned()
            }
            Frame::Plain | Frame::Keeping(_) => None,
        }
    }

    /// A relation that a view's query knows, by its number.
    pub(super) fn relation_of(&self, known: &ViewRelation) -> Result<Relation, SqlError> {
        let (catalog, oid) = (&self.context.catalog, known.relation);
        let stored = (catalog.table(oid).map(|table| Relation::Table(Arc::clone(table))))
            .or_else(|| catalog.view(oid).map(|view| Relation::View(Arc::clone(view))))
            .or_else(|| catalog.sequence(oid).map(|own| Relation::Sequence(Arc::clone(own))));
        let system = || {
            self.uses_virtual.set(true);
            let found = self.context.virtuals.iter().find(|relation| relation.oid() == oid.get());
            found.map(|relation| Relation::Virtual(Arc::clone(relation)))
        };
        stored.or_else(system).ok_or_else(|| {
            fail(SqlState::INTERNAL_ERROR, format!("relation \"{}\" of a view is gone", known.visible))
        })
    }

    /// Notes which relation a name in a query that is to be kept means.
    pub(super) fn note_name(
        &self,
        name: &ObjectName,
        alias: Option<&TableAlias>,
        visible: &str,
        relation: Relation,
    ) -> Result<Relation, SqlError> {
        let Frame::Keeping(found) = &mut *self.frame.borrow_mut() else { return Ok(relation) };
        let start = place(own_name_start(name));
        if start == 0 {
            return Err(unsupported("this name of a relation in a view"));
        }
        if found.relations.iter().any(|known| known.start == start) {
            return Ok(relation);
        }
        let known = |(number, name): (u32, &str)| KnownColumn { number, name: name.to_owned() };
        let (oid, columns) = match &relation {
            Relation::Table(table) => {
                let columns = table.columns.iter().map(|column| (column.id.get(), column.name.as_str()));
                (table.oid, columns.map(known).collect())
            }
            Relation::View(view) => {
                let columns = (1..).zip(view.columns.iter().map(|column| column.name.as_str()));
                (view.oid, columns.map(known).collect())
            }
            Relation::Virtual(system) => {
                let columns = (1..).zip(system.columns().iter().map(|column| column.name));
                (Oid::new(system.oid()), columns.map(known).collect())
            }
            Relation::Sequence(sequence) => (sequence.oid, Vec::new()),
        };
        let end = name.0.last().and_then(|part| part.as_ident()).map_or(0, |ident| ident.span.end.column);
        found.relations.push(ViewRelation {
            start,
            end: place(end),
            relation: oid,
            visible: visible.to_owned(),
            alias_end: alias.map(|alias| place(alias.name.span.end.column)),
            names_columns: alias.is_some_and(|alias| !alias.columns.is_empty()),
            columns,
        });
        Ok(relation)
    }

    /// Notes that a name in a query that is to be kept is that of a type, which it has by number from then on.
    pub(super) fn note_type(&self, name: &ObjectName, oid: u32) {
        let Frame::Keeping(found) = &mut *self.frame.borrow_mut() else { return };
        let span = |part: &sqlparser::ast::ObjectNamePart| part.as_ident().map(|ident| ident.span);
        let (Some(first), Some(last)) = (name.0.first().and_then(span), name.0.last().and_then(span)) else {
            return;
        };
        let start = place(first.start.column);
        if start > 0 && found.stars.iter().all(|star| star.start != start) {
            let columns = super::types::by_number(oid);
            found.stars.push(Star { start, end: place(last.end.column), columns });
        }
    }

    /// Notes what `*` stands for in a query that is to be kept.
    pub(super) fn note_star<'c>(&self, start: u64, end: u64, columns: impl Iterator<Item = &'c ScopeColumn>) {
        let Frame::Keeping(found) = &mut *self.frame.borrow_mut() else { return };
        let start = place(start);
        if found.stars.iter().any(|star| star.start == start) {
            return;
        }
        let written = |column: &ScopeColumn| match &column.relation {
            Some(relation) => format!("{}.{}", quoted(relation), quoted(&column.name)),
            None => quoted(&column.name),
        };
        let columns = columns.map(written).collect::<Vec<_>>().join(", ");
        found.stars.push(Star { start, end: place(end), columns });
    }

    /// The rows of a view with its columns.
    pub(super) fn bind_view(&self, view: &Arc<ViewDescriptor>) -> Result<BoundQuery, SqlError> {
        let bound = self.in_view(view, |query| {
            let bound = self.bind_query(query, &Level::default())?;
            self.settle_unknown(bound)
        });
        let (node, mut columns) = bound?;
        for ((column, own), number) in columns.iter_mut().zip(&view.columns).zip(1..) {
            column.name.clone_from(&own.name);
            column.origin = Some((view.oid.get(), number));
        }
        Ok((node, columns))
    }

    /// Binds something of a view's query, each name of which is the relation that it was.
    pub(super) fn in_view<T>(
        &self,
        view: &Arc<ViewDescriptor>,
        bind: impl FnOnce(&Query) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if self.within_views.borrow().contains(&view.oid) {
            let message = format!("infinite recursion detected in rules for relation \"{}\"", view.name);
            return Err(fail(SqlState::INVALID_OBJECT_DEFINITION, message));
        }
        self.note_table(view.oid, TableUse::Read);
        self.within_views.borrow_mut().push(view.oid);
        let bound = self.nested(|| {
            let query = crate::parse::view::parse_view_query(&view.query)?;
            self.within(Frame::Stored(Arc::clone(view)), || bind(&query))
        });
        self.within_views.borrow_mut().pop();
        // A place in the view's text means nothing in the statement's.
        bound.map_err(|mut error| {
            error.fields_mut().position = None;
            error
        })
    }

    /// Binds a query that is to be a view's, and says what its names mean.
    ///
    /// # Errors
    /// As PostgreSQL's analysis; 0A000 for what a view cannot have.
    pub(crate) fn keep_query(&self, query: &Query) -> Result<(BoundQuery, Found), SqlError> {
        if !query.locks.is_empty() {
            return Err(unsupported("FOR UPDATE in a view"));
        }
        let found = self.within(Frame::Keeping(Found::default()), || {
            let bound = self.bind_query(query, &Level::default())?;
            let bound = self.settle_unknown(bound)?;
            let Frame::Keeping(found) = self.frame.take() else {
                return Err(SqlError::internal("what a view's names mean is lost"));
            };
            Ok((bound, found))
        })?;
        if !self.before.borrow().is_empty() {
            return Err(unsupported("FOR UPDATE in a view"));
        }
        if self.params.borrow().iter().any(Option::is_some) || !self.params.borrow().is_empty() {
            let error = fail(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1");
            return Err(super::errors::at(error, query));
        }
        Ok(found)
    }
}

/// A text with `*` spelled out.
pub(crate) fn without_stars(text: &str, stars: &[Star]) -> String {
    let mut pieces: Vec<(u32, u32, String)> =
        stars.iter().map(|star| (star.start, star.end, star.columns.clone())).collect();
    splice(text, &mut pieces)
}

/// A text with parts of it, by their places in characters from 1, replaced.
pub(crate) fn splice(text: &str, pieces: &mut [(u32, u32, String)]) -> String {
    pieces.sort_by_key(|(start, ..)| *start);
    let mut out = String::with_capacity(text.len());
    let mut pieces = pieces.iter().peekable();
    let mut skip_to = 0;
    for (place, character) in (1_u32..).zip(text.chars().map(Some).chain([None])) {
        while let Some((_, end, new)) = pieces.next_if(|(start, ..)| *start == place) {
            out.push_str(new);
            skip_to = skip_to.max(*end);
        }
        if let Some(character) = character
            && place >= skip_to
        {
            out.push(character);
        }
    }
    out
}
