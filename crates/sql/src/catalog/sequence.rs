//! Sequences as the catalog knows them. Where a sequence stands is not here: it changes with every block of numbers
//! that is taken, beside all transactions, under [`keys::sequence`](super::keys::sequence).

use rustydb_types::ids::{ColumnId, Oid};
use serde::{Deserialize, Serialize};

use super::acl::Acl;

/// The column that a sequence belongs to, and is dropped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceOwner {
    /// Its table.
    pub table: Oid,
    /// The column.
    pub column: ColumnId,
    /// Whether the column is an identity column, whose sequence cannot be dropped by itself.
    #[serde(default)]
    pub is_identity: bool,
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceDescriptor {
    /// `pg_class.oid`; also the name of its lock.
    pub oid: Oid,
    /// The schema it is in.
    pub schema: Oid,
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: Oid,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// `pg_type.oid` of its numbers: smallint, integer or bigint.
    pub data_type: u32,
    /// The first number.
    pub start: i64,
    /// The step, never 0.
    pub increment: i64,
    /// The least number.
    pub min: i64,
    /// The largest number.
    pub max: i64,
    /// How many numbers a session takes at a time, as declared.
    pub cache: i64,
    /// Whether it begins anew behind its last number.
    pub cycle: bool,
    /// Under which random number its position is stored. RESTART draws another, so that it takes effect with its
    /// transaction.
    pub mark: u64,
    /// The column that it belongs to.
    #[serde(default)]
    pub owned_by: Option<SequenceOwner>,
}

impl SequenceDescriptor {
    /// Whether it belongs to a column of a table.
    #[must_use]
    pub fn is_of(&self, table: Oid, column: Option<ColumnId>) -> bool {
        self.owned_by
            .is_some_and(|owner| owner.table == table && column.is_none_or(|column| owner.column == column))
    }
}
