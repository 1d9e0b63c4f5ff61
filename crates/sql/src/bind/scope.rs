//! What names mean at one place of a statement.

use std::cell::RefCell;

use rustydb_types::datatype::DataType;
use sqlparser::ast::{Expr as AstExpr, Ident};

use super::errors::{ambiguous_column, at, fail, undefined_column, undefined_table};
use super::privilege::ReadColumns;
use crate::error::{SqlError, SqlState};
use crate::plan::{AggregateCall, TableFunction};
use crate::scalar::Expr;

/// A column that a name may mean.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    /// The name or alias of its relation; none for a column merged by USING.
    pub relation: Option<String>,
    /// The column's name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// What computes it from the row of this place.
    pub expr: Expr,
    /// Whether an unqualified name and `*` pass it over, as they do with columns that USING merged.
    pub merged: bool,
    /// Whether `*` never shows it: a system column.
    pub hidden: bool,
    /// Whether an outer join may have put NULL in its place.
    pub nullable: bool,
    /// Whether it is what the name of its relation stands for: the result of a function in FROM that is no record.
    pub is_whole: bool,
    /// The table and column number it comes from.
    pub origin: Option<(u32, u32)>,
    /// Where it is noted that it is read.
    pub read: Option<ReadColumns>,
}

/// One query level: whose columns it may use from outside, and which of them it does use.
#[derive(Debug, Default)]
pub struct Level<'a> {
    /// The place in the enclosing level at which this level stands.
    pub outer: Option<&'a dyn Resolve>,
    /// Expressions over the enclosing row that this level uses, in order of their outer numbers.
    pub used: RefCell<Vec<Expr>>,
}

/// A place at which column names are resolved.
pub trait Resolve: std::fmt::Debug {
    /// The expression that a column name means, over the row of this place; `None` when the name means nothing here
    /// nor further out.
    ///
    /// # Errors
    /// When the name is ambiguous or may not be used here.
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError>;

    /// The expression that a column of FROM is here when `*` stands for it: its name need not be its alone.
    ///
    /// # Errors
    /// 42803 when it may not be used here.
    fn star_column(&self, column: &ScopeColumn) -> Result<Expr, SqlError> {
        Ok(column.expr.clone())
    }

    /// The record that the name of a relation stands for; `None` when there is no such relation here nor further out.
    ///
    /// # Errors
    /// 42803 when a column of it may not be used here.
    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError>;

    /// Takes a function that yields rows, which is written here, and says which column of the row will hold its results.
    ///
    /// # Errors
    /// 0A000 where such functions may not stand.
    fn add_set(&self, _function: TableFunction, _args: Vec<Expr>, _ty: DataType) -> Result<Expr, SqlError> {
        Err(fail(SqlState::FEATURE_NOT_SUPPORTED, "set-returning functions are not allowed here"))
    }

    /// Says that what is bound next is within a clause in which no function that yields rows may stand, or is no longer.
    /// Gives back what was said before.
    fn forbid_sets(&self, _clause: Option<&'static str>) -> Option<&'static str> {
        None
    }

    /// Whether a relation of this name is visible here or further out.
    fn has_relation(&self, relation: &str) -> bool;

    /// The place for the arguments of an aggregate that is written here.
    ///
    /// # Errors
    /// 42803 when aggregates are not allowed here.
    fn aggregate_place(&self) -> Result<&dyn Resolve, SqlError> {
        Err(fail(SqlState::GROUPING_ERROR, "aggregate functions are not allowed here"))
    }

    /// Takes an aggregate that is written here and says which column of the row will hold it.
    ///
    /// # Errors
    /// 42803 when aggregates are not allowed here.
    fn add_aggregate(&self, _call: AggregateCall) -> Result<Expr, SqlError> {
        Err(fail(SqlState::GROUPING_ERROR, "aggregate functions are not allowed here"))
    }

    /// Whether GROUPING may stand here.
    fn takes_grouping(&self) -> bool {
        false
    }

    /// The number of the group key that a column of this place holds.
    fn grouping_key(&self, _index: usize) -> Option<usize> {
        None
    }

    /// Takes a GROUPING over some keys and says which column of the row will hold it.
    ///
    /// # Errors
    /// 42803 where there are no groups.
    fn add_grouping(&self, _keys: Vec<usize>) -> Result<Expr, SqlError> {
        Err(fail(SqlState::GROUPING_ERROR, "grouping operations are not allowed here"))
    }

    /// The place at which window functions are taken; none where they are not allowed.
    fn window_place(&self) -> Option<&super::window::WindowPlace<'_>> {
        None
    }

    /// What a whole expression means because it is grouped by.
    fn grouped(&self, _expr: &AstExpr) -> Option<Expr> {
        None
    }
}

/// The columns of a FROM clause.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// The columns in the order of `*`.
    pub columns: Vec<ScopeColumn>,
    /// The level that the scope belongs to.
    pub level: &'a Level<'a>,
}

impl<'a> Scope<'a> {
    /// A scope without columns.
    #[must_use]
    pub fn empty(level: &'a Level<'a>) -> Self {
        Self { columns: Vec::new(), level }
    }

    /// The one column of this scope that a name means.
    ///
    /// # Errors
    /// When several do.
    pub fn own(&self, relation: Option<&str>, name: &Ident) -> Result<Option<&ScopeColumn>, SqlError> {
        let mut found: Option<&ScopeColumn> = None;
        for column in &self.columns {
            let matches = column.name == name.value
                && match relation {
                    Some(relation) => column.relation.as_deref() == Some(relation),
                    None => !column.merged,
                };
            if matches {
                if found.is_some() {
                    return Err(ambiguous_column(name));
                }
                found = Some(column);
            }
        }
        if let Some(found) = found {
            found.note_read();
        }
        Ok(found)
    }

    /// The record of one of the scope's own relations, each of its columns as `column` says.
    ///
    /// # Errors
    /// Those of `column`.
    pub fn own_row(
        &self,
        relation: &str,
        column: &dyn Fn(&ScopeColumn) -> Result<Expr, SqlError>,
    ) -> Result<Option<Expr>, SqlError> {
        let of_relation = |column: &&ScopeColumn| column.relation.as_deref() == Some(relation);
        let columns = || self.columns.iter().filter(of_relation).filter(|column| !column.hidden);
        if !self.own_relation(relation) {
            return Ok(None);
        }
        if let Some(whole) = columns().find(|column| column.is_whole) {
            return column(whole).map(Some);
        }
        columns().for_each(ScopeColumn::note_read);
        let fields = columns().map(column).collect::<Result<Vec<_>, _>>()?;
        let shape: Vec<(String, DataType)> =
            columns().map(|column| (column.name.clone(), column.data_type)).collect();
        let nullable = columns().any(|column| column.nullable);
        Ok(Some(Expr::WholeRow { fields, nullable, ty: DataType::record_of(&shape) }))
    }

    /// Whether the scope itself has a relation of this name.
    #[must_use]
    pub fn own_relation(&self, relation: &str) -> bool {
        self.columns.iter().any(|column| column.relation.as_deref() == Some(relation))
    }
}

impl Level<'_> {
    /// Resolves a name in the enclosing level and notes that this level uses it.
    ///
    /// # Errors
    /// As [`Resolve::column`].
    pub fn outer_column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        let Some(outer) = self.outer else { return Ok(None) };
        Ok(outer.column(relation, name)?.map(|expr| self.outside(expr)))
    }

    /// The record of a relation of the enclosing level.
    ///
    /// # Errors
    /// As [`Resolve::whole_row`].
    pub fn outer_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        let Some(outer) = self.outer else { return Ok(None) };
        Ok(outer.whole_row(relation)?.map(|expr| self.outside(expr)))
    }

    fn outside(&self, expr: Expr) -> Expr {
        let data_type = expr.ty();
        let mut used = self.used.borrow_mut();
        let index = match used.iter().position(|known| *known == expr) {
            Some(index) => index,
            None => {
                used.push(expr);
                used.len() - 1
            }
        };
        Expr::Outer { index, ty: data_type }
    }
}

impl Resolve for Scope<'_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        match self.own(relation, name)? {
            Some(column) => Ok(Some(column.expr.clone())),
            None => self.level.outer_column(relation, name),
        }
    }

    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        match self.own_row(relation, &|column| Ok(column.expr.clone()))? {
            Some(row) => Ok(Some(row)),
            None => self.level.outer_row(relation),
        }
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.own_relation(relation) || self.level.outer.is_some_and(|outer| outer.has_relation(relation))
    }
}

/// Resolves a column name or says, as PostgreSQL does, what is missing.
///
/// # Errors
/// 42703, 42P01 or 42702.
pub fn require_column(scope: &dyn Resolve, relation: Option<&Ident>, name: &Ident) -> Result<Expr, SqlError> {
    match scope.column(relation.map(|relation| relation.value.as_str()), name)? {
        Some(expr) => Ok(expr),
        None => match relation {
            None if let Some(row) = scope.whole_row(&name.value).map_err(|error| at(error, name))? => Ok(row),
            Some(relation) if !scope.has_relation(&relation.value) => Err(undefined_table(relation)),
            relation => Err(undefined_column(relation, name)),
        },
    }
}

impl ScopeColumn {
    /// Notes that the column is read.
    pub fn note_read(&self) {
        if let (Some(read), Some((_, number))) = (&self.read, self.origin) {
            read.lock().insert(number);
        }
    }

    /// `tableoid`: which relation a row is of.
    #[must_use]
    pub fn tableoid(relation: &str, oid: u32) -> Self {
        use rustydb_types::value::Value;
        Self {
            relation: Some(relation.to_owned()),
            name: "tableoid".into(),
            data_type: DataType::OID,
            expr: Expr::constant(Value::Oid(oid), DataType::OID),
            merged: false,
            hidden: true,
            nullable: false,
            is_whole: false,
            origin: None,
            read: None,
        }
    }
}
