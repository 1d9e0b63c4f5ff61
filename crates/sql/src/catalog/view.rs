//! Views as the catalog knows them.
//!
//! A view keeps the text of its query, `*` spelled out, and beside it what each name of a relation in that text means:
//! its number, and the columns that it had with the names that they had. So renaming a relation or a column, adding a
//! column, and another `search_path` do not touch what the view means.

use rustydb_types::ids::Oid;
use serde::{Deserialize, Serialize};

use super::acl::Acl;
use super::descriptor::TypeRef;

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: TypeRef,
}

/// A column of a relation as a view's query knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownColumn {
    /// Its number in the relation.
    pub number: u32,
    /// The name that the query has for it.
    pub name: String,
}

/// A place in a view's query at which a relation is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRelation {
    /// Where the name begins, in characters from 1.
    pub start: u32,
    /// Where it has ended.
    pub end: u32,
    /// Which relation it is.
    pub relation: Oid,
    /// The name by which the query refers to its columns.
    pub visible: String,
    /// Where the alias has ended, if one is written.
    #[serde(default)]
    pub alias_end: Option<u32>,
    /// Whether the alias names columns, too.
    #[serde(default)]
    pub names_columns: bool,
    /// Its columns; those that it got later are none of the view's.
    pub columns: Vec<KnownColumn>,
}

/// Which new rows WITH CHECK OPTION refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckOption {
    /// Those that the view itself would not show.
    Local,
    /// Those that it or a view below it would not show.
    Cascaded,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDescriptor {
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
    /// Its columns, numbered from 1 in this order.
    pub columns: Vec<ViewColumn>,
    /// The text of its query.
    pub query: String,
    /// The relations that the query names, in order of their places.
    pub relations: Vec<ViewRelation>,
    /// The columns of relations that it uses, by the numbers of both.
    pub uses: Vec<(Oid, u32)>,
    /// WITH CHECK OPTION.
    #[serde(default)]
    pub check_option: Option<CheckOption>,
}

impl ViewDescriptor {
    /// Whether its query names a relation, or uses a column of it.
    #[must_use]
    pub fn depends_on(&self, relation: Oid, column: Option<u32>) -> bool {
        match column {
            Some(column) => self.uses.contains(&(relation, column)),
            None => self.relations.iter().any(|known| known.relation == relation),
        }
    }

    /// The place of a column by name.
    #[must_use]
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
