//! Foreign keys, as the catalog keeps them: with the table that refers. Who refers to a table is told by
//! [`CatalogSnapshot::referencing`](super::CatalogSnapshot::referencing).

use rustydb_types::ids::{ColumnId, Oid};
use serde::{Deserialize, Serialize};

/// What becomes of rows that refer to a row which is deleted, or whose key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReferentialAction {
    /// The statement fails at its end, unless another row has the key by then.
    NoAction,
    /// The statement fails.
    Restrict,
    /// They are deleted too, or take the new key.
    Cascade,
    /// Their columns become NULL.
    SetNull,
    /// Their columns take their defaults.
    SetDefault,
}

impl ReferentialAction {
    /// The letter of `pg_constraint.confdeltype` and `confupdtype`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::NoAction => 'a',
            Self::Restrict => 'r',
            Self::Cascade => 'c',
            Self::SetNull => 'n',
            Self::SetDefault => 'd',
        }
    }

    /// Its name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Restrict => "RESTRICT",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }

    /// Whether it writes to the rows that refer.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Cascade | Self::SetNull | Self::SetDefault)
    }
}

/// A FOREIGN KEY constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKeyDescriptor {
    /// `pg_constraint.oid`.
    pub oid: Oid,
    /// The constraint's name, unique among the constraints of its table.
    pub name: String,
    /// The columns that refer, in the order in which they were written: `pg_constraint.conkey`.
    pub columns: Vec<ColumnId>,
    /// The table that is referred to.
    pub table: Oid,
    /// Its columns, each for the one at the same place: `pg_constraint.confkey`.
    pub referenced: Vec<ColumnId>,
    /// The unique index over them.
    pub index: Oid,
    /// Whether either all columns or none must be NULL: MATCH FULL.
    #[serde(default)]
    pub is_full: bool,
    /// ON DELETE.
    pub on_delete: ReferentialAction,
    /// ON UPDATE.
    pub on_update: ReferentialAction,
    /// Whether SET CONSTRAINTS may put its check off to the commit; if so, whether that is how transactions begin.
    #[serde(default)]
    pub deferrable: Option<bool>,
    /// Whether the rows that were there before it are known to satisfy it.
    pub validated: bool,
}
