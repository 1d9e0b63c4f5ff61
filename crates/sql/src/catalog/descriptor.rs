//! Descriptors: what the catalog knows of each object, and how it is written down.
//!
//! A stored descriptor is one format byte followed by JSON: the catalog is small, read rarely and changes shape with
//! every release, so named fields with defaults are worth more than a few saved bytes. A format byte that this
//! release does not know is refused, never guessed at.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustydb_types::datatype::DataType;
use rustydb_types::ids::{ColumnId, Oid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::acl::Acl;
use super::foreign::ForeignKeyDescriptor;
use super::types::UserTypes;

/// The format of stored descriptors that this release writes.
const FORMAT: u8 = 1;
/// The format of tables with CHECK constraints: the same JSON, which a release that does not check rows must not read.
const FORMAT_CHECKED: u8 = 2;
/// The format of tables with foreign keys, for the same reason.
const FORMAT_REFERRING: u8 = 3;
/// The format of tables of whose rows something is computed when they are written, for the same reason.
const FORMAT_COMPUTING: u8 = 4;
/// The format of tables with columns of types that users made, whose rows such a release would not understand.
const FORMAT_TYPED: u8 = 5;

/// A stored catalog row that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The row was written by a release that this one does not know.
    #[error("catalog row has unknown format {0:?}")]
    UnknownFormat(Option<u8>),
    /// The row's content does not parse.
    #[error("catalog row is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// Encodes a catalog or system record.
///
/// # Errors
/// When the record has no JSON form, which only maps with keys other than strings lack.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, DescriptorError> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, record)?;
    Ok(bytes)
}

/// Encodes a table.
///
/// # Errors
/// As [`encode`].
pub fn encode_table(table: &TableDescriptor) -> Result<Vec<u8>, DescriptorError> {
    let mut bytes = encode(table)?;
    if let Some(format) = bytes.first_mut() {
        if table.columns.iter().any(|column| column.data_type.known.is_some()) {
            *format = FORMAT_TYPED;
        } else if !table.computed.is_empty() || table.columns.iter().any(|column| column.generated.is_some())
        {
            *format = FORMAT_COMPUTING;
        } else if !table.foreign_keys.is_empty() {
            *format = FORMAT_REFERRING;
        } else if !table.checks.is_empty() {
            *format = FORMAT_CHECKED;
        }
    }
    Ok(bytes)
}

/// Decodes a catalog or system record.
///
/// # Errors
/// When the format is unknown or the content malformed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DescriptorError> {
    match bytes.split_first() {
        Some((&(FORMAT | FORMAT_CHECKED | FORMAT_REFERRING | FORMAT_COMPUTING | FORMAT_TYPED), body)) => {
            Ok(serde_json::from_slice(body)?)
        }
        Some((format, _)) => Err(DescriptorError::UnknownFormat(Some(*format))),
        None => Err(DescriptorError::UnknownFormat(None)),
    }
}

/// The number under which the rows of one table or the entries of one index are stored. TRUNCATE and rewriting
/// changes give a table a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageId(u32);

impl StorageId {
    /// Names a bare number as a storage number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether it belongs to a temporary table: the numbers of storages are divided like those of objects.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        Oid::new(self.0).is_temporary()
    }
}

impl std::fmt::Display for StorageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// A type as it is stored: PostgreSQL's type identifier and modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TypeRef {
    /// `pg_type.oid`.
    pub oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub modifier: i32,
    /// What a type that a user made means; the catalog finds it out when it is read.
    #[serde(skip)]
    pub known: Option<DataType>,
}

impl From<DataType> for TypeRef {
    fn from(data_type: DataType) -> Self {
        let known = data_type.base.enumeration().map(|_| data_type);
        Self { oid: data_type.base.oid(), modifier: data_type.modifier, known }
    }
}

impl TypeRef {
    /// The type that values have; text where this release does not know it.
    #[must_use]
    pub fn data_type(self) -> DataType {
        self.known.or_else(|| DataType::from_oid(self.oid, self.modifier)).unwrap_or(DataType::TEXT)
    }

    /// Whether it is a domain.
    #[must_use]
    pub fn is_domain(self) -> bool {
        self.known.is_some_and(|known| known.base.oid() != self.oid)
    }
}

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaDescriptor {
    /// `pg_namespace.oid`.
    pub oid: Oid,
    /// The schema's name.
    pub name: String,
    /// The role that owns it.
    pub owner: Oid,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

/// An expression that is part of an object, as SQL text in the form of [`crate::bind::deparse`]: literals have their
/// types, so that it means the same whatever the settings of the session that binds it. Names of columns are those of
/// the table now, so a rename writes it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredExpr(String);

impl StoredExpr {
    /// Names a text that was made by deparsing as such.
    #[must_use]
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDescriptor {
    /// `pg_constraint.oid`.
    pub oid: Oid,
    /// The constraint's name, unique among the constraints of its table.
    pub name: String,
    /// The condition that no row may fail.
    pub expr: StoredExpr,
    /// The columns it looks at, each once, in the order in which they stand in it: `pg_constraint.conkey`.
    pub columns: Vec<ColumnId>,
    /// Whether the rows that were there before it are known to satisfy it.
    pub validated: bool,
    /// Whether NO INHERIT was written.
    #[serde(default)]
    pub no_inherit: bool,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDescriptor {
    /// Identifies the column in stored rows and is its `attnum`; counts from 1 and is never reused in a table.
    pub id: ColumnId,
    /// The column's name.
    pub name: String,
    /// The column's type.
    pub data_type: TypeRef,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// The default; bound whenever a plan needs it. Releases before CHECK constraints kept it as it was written.
    #[serde(default)]
    pub default: Option<StoredExpr>,
    /// What rows written before the column existed hold: PostgreSQL's text form of the value, or NULL.
    #[serde(default)]
    pub missing: Option<String>,
    /// Whether and how it is an identity column; its sequence says so, too.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// What its value is computed from whenever a row is written: GENERATED ALWAYS AS (...) STORED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<StoredExpr>,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

/// What indexes hold of a table's rows and its columns do not: an expression by which one orders them, or the condition
/// of rows that one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputedDescriptor {
    /// Stands for it where columns are named; [`ComputedDescriptor::FIRST`] or more.
    pub id: ColumnId,
    /// The expression, over a row of the table.
    pub expr: StoredExpr,
    /// Its type.
    pub data_type: TypeRef,
    /// The columns that it looks at.
    pub columns: Vec<ColumnId>,
}

impl ComputedDescriptor {
    /// The lowest number; no column has one as high.
    pub const FIRST: u32 = 1 << 31;
}

/// Who may give the value of an identity column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// The sequence alone, unless OVERRIDING SYSTEM VALUE is written: GENERATED ALWAYS.
    Always,
    /// Whoever inserts, else the sequence: GENERATED BY DEFAULT.
    ByDefault,
}

/// What an index promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexKind {
    /// The primary key: unique, not null, and the key of the stored rows where it was declared with the table.
    Primary,
    /// A UNIQUE constraint or a unique index.
    Unique,
    /// Any number of rows for each key.
    Plain,
}

/// One column of an index key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexKeyColumn {
    /// Which column of the table.
    pub column: ColumnId,
    /// Whether larger values come first.
    #[serde(default)]
    pub descending: bool,
    /// Whether NULLs come first.
    #[serde(default)]
    pub nulls_first: bool,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDescriptor {
    /// `pg_class.oid` of the index.
    pub oid: Oid,
    /// The index's name, unique in the schema of its table.
    pub name: String,
    /// What it promises.
    pub kind: IndexKind,
    /// The key, most significant column first.
    pub key: Vec<IndexKeyColumn>,
    /// Where its entries are. The same as the table's when the table's rows are stored by this key.
    pub storage: StorageId,
    /// `pg_constraint.oid` when the index belongs to a PRIMARY KEY or UNIQUE constraint, which bears its name.
    #[serde(default)]
    pub constraint: Option<Oid>,
    /// Options given in WITH, kept as written.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Which rows it has, by the number of the [`ComputedDescriptor`]; all without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicate: Option<ColumnId>,
    /// INCLUDE: columns that are told beside the key. Reads take them from the row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<ColumnId>,
}

impl IndexDescriptor {
    /// The numbers of what is computed for it.
    pub fn computed(&self) -> impl Iterator<Item = ColumnId> + '_ {
        let key = self.key.iter().map(|part| part.column);
        key.chain(self.predicate).filter(|id| id.get() >= ComputedDescriptor::FIRST)
    }

    /// Whether two rows may not share a key without NULLs.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        matches!(self.kind, IndexKind::Primary | IndexKind::Unique)
    }
}

/// What the end of each transaction does to a temporary table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AtCommit {
    /// Nothing.
    #[default]
    Keep,
    /// Its rows are deleted: ON COMMIT DELETE ROWS.
    Empty,
    /// It is dropped: ON COMMIT DROP.
    Drop,
}

impl AtCommit {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// A table with its columns and indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDescriptor {
    /// `pg_class.oid`; also the name of the table's lock.
    pub oid: Oid,
    /// The schema it is in.
    pub schema: Oid,
    /// The table's name.
    pub name: String,
    /// The role that owns it.
    pub owner: Oid,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// Live columns in order of their declaration.
    pub columns: Vec<ColumnDescriptor>,
    /// The number that the next added column gets.
    pub next_column: u32,
    /// Indexes in order of their creation.
    pub indexes: Vec<IndexDescriptor>,
    /// CHECK constraints in order of their creation. A table without them is written as before there were any; one
    /// with them has another format, so that no release that would not check its rows reads it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckDescriptor>,
    /// Foreign keys in order of their creation; a table with them has a format of its own, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKeyDescriptor>,
    /// What its indexes hold beside its columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub computed: Vec<ComputedDescriptor>,
    /// Where the rows are.
    pub storage: StorageId,
    /// Columns whose values are the key of the stored rows; empty when rows are stored under hidden row numbers.
    #[serde(default)]
    pub row_key: Vec<ColumnId>,
    /// Options given in WITH, kept as written.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// What the end of a transaction does to it, if it is temporary.
    #[serde(default, skip_serializing_if = "AtCommit::is_keep")]
    pub at_commit: AtCommit,
    /// What types that users made mean in what is kept of it; the catalog finds it out when it is read.
    #[serde(skip)]
    pub types: KnownTypes,
}

/// The types of a catalog that users made, beside a descriptor; no part of what the descriptor says.
#[derive(Clone, Debug, Default)]
pub struct KnownTypes(pub Arc<UserTypes>);

impl PartialEq for KnownTypes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for KnownTypes {}

impl TableDescriptor {
    /// The place of a column among the live columns, by name.
    #[must_use]
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The place of a column among the live columns, by number.
    #[must_use]
    pub fn column_index_of(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The place of part of a key in a row behind whose columns stands what is computed.
    #[must_use]
    pub fn key_place(&self, id: ColumnId) -> Option<usize> {
        let computed = || self.computed.iter().position(|computed| computed.id == id);
        self.column_index_of(id).or_else(|| computed().map(|place| self.columns.len() + place))
    }

    /// What stands at a place behind the columns.
    #[must_use]
    pub fn computed_at(&self, place: usize) -> Option<&ComputedDescriptor> {
        self.computed.get(place.checked_sub(self.columns.len())?)
    }

    /// What is computed, by its number.
    #[must_use]
    pub fn computed_of(&self, id: ColumnId) -> Option<&ComputedDescriptor> {
        self.computed.iter().find(|computed| computed.id == id)
    }

    /// Forgets what no index holds any more.
    pub fn forget_computed(&mut self) {
        let used: Vec<ColumnId> = self.indexes.iter().flat_map(IndexDescriptor::computed).collect();
        self.computed.retain(|computed| used.contains(&computed.id));
    }

    /// The primary key, if there is one.
    #[must_use]
    pub fn primary_key(&self) -> Option<&IndexDescriptor> {
        self.indexes.iter().find(|index| index.kind == IndexKind::Primary)
    }

    /// Whether an index has no entries of its own because the rows are stored by its key.
    #[must_use]
    pub fn is_row_key(&self, index: &IndexDescriptor) -> bool {
        index.storage == self.storage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableDescriptor {
        TableDescriptor {
            oid: Oid::new(16_384),
            schema: Oid::new(2200),
            name: "accounts".into(),
            owner: Oid::new(10),
            acl: None,
            columns: vec![ColumnDescriptor {
                id: ColumnId::new(1),
                name: "id".into(),
                data_type: DataType::INT4.into(),
                not_null: true,
                default: Some(StoredExpr::new("1".into())),
                missing: None,
                identity: None,
                generated: None,
                acl: None,
            }],
            next_column: 2,
            indexes: vec![IndexDescriptor {
                oid: Oid::new(16_385),
                name: "accounts_pkey".into(),
                kind: IndexKind::Primary,
                key: vec![IndexKeyColumn { column: ColumnId::new(1), descending: false, nulls_first: false }],
                storage: StorageId::new(1),
                constraint: Some(Oid::new(16_386)),
                options: BTreeMap::new(),
                predicate: None,
                include: Vec::new(),
            }],
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            computed: Vec::new(),
            storage: StorageId::new(1),
            row_key: vec![ColumnId::new(1)],
            options: BTreeMap::from([("fillfactor".into(), "100".into())]),
            at_commit: AtCommit::Keep,
            types: KnownTypes::default(),
        }
    }

    #[test]
    fn a_descriptor_survives_being_stored() {
        let bytes = encode(&table()).unwrap();
        assert_eq!(decode::<TableDescriptor>(&bytes).unwrap(), table());
    }

    #[test]
    fn a_table_with_checks_has_a_format_of_its_own() {
        let mut checked = table();
        assert_eq!(encode_table(&checked).unwrap(), encode(&checked).unwrap());
        checked.checks.push(CheckDescriptor {
            oid: Oid::new(16_387),
            name: "positive".into(),
            expr: StoredExpr::new("(id > 0)".into()),
            columns: vec![ColumnId::new(1)],
            validated: true,
            no_inherit: false,
        });
        let bytes = encode_table(&checked).unwrap();
        assert_eq!(bytes[0], FORMAT_CHECKED);
        assert_eq!(decode::<TableDescriptor>(&bytes).unwrap(), checked);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let mut bytes = encode(&table()).unwrap();
        bytes[0] = 9;
        assert!(matches!(decode::<TableDescriptor>(&bytes), Err(DescriptorError::UnknownFormat(Some(9)))));
        assert!(matches!(decode::<TableDescriptor>(&[]), Err(DescriptorError::UnknownFormat(None))));
        assert!(matches!(decode::<TableDescriptor>(&[FORMAT, b'{']), Err(DescriptorError::Malformed(_))));
    }
}
