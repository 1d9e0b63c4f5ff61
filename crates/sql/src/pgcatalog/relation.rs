//! A system relation: its shape joined with where its rows come from.

use std::sync::OnceLock;

use rustydb_types::datatype::BaseType;
#[cfg(test)]
use rustydb_types::datatype::DataType;
use rustydb_types::value::{ArrayValue, Value};

use super::shape::Shape;
use super::{
    activity, classes, cluster, information_schema, privileges, sequences, settings, types, views, visible,
};
use crate::catalog::virtual_table::{VirtualColumn, VirtualContext, VirtualRelation};
use crate::error::{SqlError, SqlState};

/// Rows of a relation, each as wide as its columns.
pub(super) type Rows = Vec<Vec<Value>>;

/// Where the rows of a relation come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// The feature does not exist, or nobody uses it: no rows.
    Empty,
    /// Rows that never change.
    Data {
        /// COPY's text format with a header line that names the columns.
        text: &'static str,
        /// Columns that are the same in every row. Those that are in neither are NULL.
        constants: &'static [(&'static str, &'static str)],
    },
    /// Rows that the catalog and the session decide.
    Computed(fn(&VirtualContext<'_>) -> Rows),
}

/// A system relation.
#[derive(Debug)]
pub(super) struct SystemRelation {
    shape: &'static Shape,
    source: Source,
    /// Parsed rows of [`Source::Data`].
    parsed: OnceLock<Rows>,
}

impl SystemRelation {
    pub(super) fn new(shape: &'static Shape, source: Source) -> Self {
        Self { shape, source, parsed: OnceLock::new() }
    }
}

impl VirtualRelation for SystemRelation {
    fn schema(&self) -> &'static str {
        self.shape.schema
    }

    fn name(&self) -> &'static str {
        self.shape.name
    }

    fn oid(&self) -> u32 {
        self.shape.oid
    }

    fn columns(&self) -> &[VirtualColumn] {
        &self.shape.columns
    }

    fn rows(&self, context: &VirtualContext<'_>) -> Result<Rows, SqlError> {
        match self.source {
            Source::Empty => Ok(Vec::new()),
            Source::Computed(compute) if self.shape.schema == "information_schema" => {
                Ok(visible::visible(self.shape.name, context, compute(context)))
            }
            Source::Computed(compute) => Ok(compute(context)),
            Source::Data { text, constants } => {
                if let Some(rows) = self.parsed.get() {
                    return Ok(rows.clone());
                }
                let rows = parse_rows(self.shape, text, constants).ok_or_else(|| {
                    SqlError::new(
                        SqlState::INTERNAL_ERROR,
                        format!("built-in rows of {} do not parse", self.shape.name),
                    )
                })?;
                Ok(self.parsed.get_or_init(|| rows).clone())
            }
        }
    }
}

/// Where the rows of each relation come from.
pub(super) fn source_of(shape: &Shape) -> Source {
    let data = |text, constants| Source::Data { text, constants };
    match (shape.schema, shape.name) {
        ("pg_catalog", "pg_am") => {
            data("oid\tamname\tamhandler\tamtype\n2\theap\t3\tt\n403\tbtree\t330\ti\n", &[])
        }
        ("pg_catalog", "pg_amop") => data(include_str!("data/pg_amop.tsv"), &[]),
        ("pg_catalog", "pg_attrdef") => Source::Computed(classes::pg_attrdef),
        ("pg_catalog", "pg_attribute") => Source::Computed(classes::pg_attribute),
        ("pg_catalog", "pg_auth_members") => Source::Computed(privileges::pg_auth_members),
        ("pg_catalog", "pg_default_acl") => Source::Computed(privileges::pg_default_acl),
        ("pg_catalog", "pg_authid") => Source::Computed(cluster::pg_authid),
        ("pg_catalog", "pg_cast") => data(include_str!("data/pg_cast.tsv"), &[]),
        ("pg_catalog", "pg_class") => Source::Computed(classes::pg_class),
        ("pg_catalog", "pg_collation") => data(
            "oid\tcollname\tcollprovider\tcollcollate\tcollctype\n100\tdefault\td\t\\N\t\\N\n950\tC\tc\tC\tC\n951\tPOSIX\tc\tPOSIX\tPOSIX\n",
            &[
                ("collnamespace", "11"),
                ("collowner", "10"),
                ("collisdeterministic", "t"),
                ("collencoding", "-1"),
            ],
        ),
        ("pg_catalog", "pg_constraint") => Source::Computed(classes::pg_constraint),
        ("pg_catalog", "pg_database") => Source::Computed(cluster::pg_database),
        ("pg_catalog", "pg_depend") => Source::Computed(sequences::pg_depend),
        ("pg_catalog", "pg_sequence") => Source::Computed(sequences::pg_sequence),
        ("pg_catalog", "pg_description") => Source::Computed(classes::pg_description),
        ("pg_catalog", "pg_index") => Source::Computed(classes::pg_index),
        ("pg_catalog", "pg_indexes") => Source::Computed(classes::pg_indexes),
        ("pg_catalog", "pg_language") => data(
            "oid\tlanname\tlanpltrusted\tlanvalidator\n12\tinternal\tf\t2246\n14\tsql\tt\t2248\n",
            &[("lanowner", "10"), ("lanispl", "f"), ("lanplcallfoid", "0"), ("laninline", "0")],
        ),
        ("pg_catalog", "pg_locks") => Source::Computed(activity::pg_locks),
        ("pg_catalog", "pg_namespace") => Source::Computed(classes::pg_namespace),
        ("pg_catalog", "pg_opclass") => {
            data(include_str!("data/pg_opclass.tsv"), &[("opcnamespace", "11"), ("opcowner", "10")])
        }
        ("pg_catalog", "pg_operator") => {
            data(include_str!("data/pg_operator.tsv"), &[("oprnamespace", "11"), ("oprowner", "10")])
        }
        ("pg_catalog", "pg_opfamily") => {
            data(include_str!("data/pg_opfamily.tsv"), &[("opfnamespace", "11"), ("opfowner", "10")])
        }
        ("pg_catalog", "pg_proc") => data(
            concat!(include_str!("data/pg_proc.tsv"), include_str!("data/pg_proc_own.tsv")),
            &[
                ("pronamespace", "11"),
                ("proowner", "10"),
                ("prolang", "12"),
                ("procost", "1"),
                ("prosupport", "0"),
                ("prosecdef", "f"),
                ("proleakproof", "f"),
                ("pronargdefaults", "0"),
            ],
        ),
        ("pg_catalog", "pg_roles") => Source::Computed(cluster::pg_roles),
        ("pg_catalog", "pg_settings") => Source::Computed(settings::pg_settings),
        ("pg_catalog", "pg_shadow" | "pg_user") => Source::Computed(cluster::pg_shadow),
        ("pg_catalog", "pg_stat_activity") => Source::Computed(activity::pg_stat_activity),
        ("pg_catalog", "pg_stats") => Source::Computed(classes::pg_stats),
        ("pg_catalog", "pg_rewrite") => Source::Computed(views::pg_rewrite),
        ("pg_catalog", "pg_views") => Source::Computed(views::pg_views),
        ("pg_catalog", "pg_tables") => Source::Computed(classes::pg_tables),
        ("pg_catalog", "pg_tablespace") => {
            data("oid\tspcname\n1663\tpg_default\n1664\tpg_global\n", &[("spcowner", "10")])
        }
        ("pg_catalog", "pg_enum") => Source::Computed(types::pg_enum),
        ("pg_catalog", "pg_type") => Source::Computed(types::pg_type),
        ("information_schema", name) => match information_schema::source_of(name) {
            Some(compute) => Source::Computed(compute),
            None => Source::Empty,
        },
        _ => Source::Empty,
    }
}

/// Parses the rows of a relation that never change; `None` when a line does not fit.
pub(super) fn parse_rows(shape: &Shape, text: &str, constants: &[(&str, &str)]) -> Option<Rows> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split('\t').collect();
    // For each column of the relation: its place in the line, or the same value for all.
    let origins = shape
        .columns
        .iter()
        .map(|column| match header.iter().position(|name| *name == column.name) {
            Some(place) => Some(Err(place)),
            None => match constants.iter().find(|(name, _)| *name == column.name) {
                Some((_, constant)) => parse_field(column.data_type.base, constant).map(Ok),
                None => Some(Ok(Value::Null)),
            },
        })
        .collect::<Option<Vec<Result<Value, usize>>>>()?;
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (shape.columns.iter().zip(&origins))
                .map(|(column, origin)| match origin {
                    Ok(constant) => Some(constant.clone()),
                    Err(place) => parse_field(column.data_type.base, fields.get(*place)?),
                })
                .collect()
        })
        .collect()
}

/// Parses one field of a line; `None` when it is not of the type.
fn parse_field(base: BaseType, text: &str) -> Option<Value> {
    if text == "\\N" {
        return Some(Value::Null);
    }
    if base.is_oid_like() {
        return text.parse().ok().map(Value::Oid);
    }
    if base.is_text_like() {
        return Some(Value::text(text));
    }
    let elements = |element: BaseType, parts: &mut dyn Iterator<Item = &str>| {
        parts.map(|part| parse_field(element, part)).collect::<Option<Vec<Value>>>()
    };
    match base {
        BaseType::Bool => Some(Value::Bool(text == "t")),
        BaseType::Int2 => text.parse().ok().map(Value::Int2),
        BaseType::Int4 => text.parse().ok().map(Value::Int4),
        BaseType::Float4 => text.parse().ok().map(Value::Float4),
        BaseType::OidVector => {
            let oids = elements(BaseType::Oid, &mut text.split_whitespace())?;
            Some(Value::Array(Box::new(ArrayValue::vector(BaseType::Oid, oids))))
        }
        BaseType::TextArray => {
            let inner = text.strip_prefix('{')?.strip_suffix('}')?;
            let words = elements(BaseType::Text, &mut inner.split(',').map(|word| word.trim_matches('"')))?;
            Some(Value::array(BaseType::Text, words))
        }
        _ => None,
    }
}

/// Whether a value may stand in a column of the type.
#[cfg(test)]
pub(super) fn fits(value: &Value, data_type: DataType) -> bool {
    let base = data_type.base;
    match value {
        Value::Null => true,
        Value::Bool(_) => base == BaseType::Bool,
        Value::Int2(_) => base == BaseType::Int2,
        Value::Int4(_) => base == BaseType::Int4,
        Value::Int8(_) => base == BaseType::Int8,
        Value::Float4(_) => base == BaseType::Float4,
        Value::Timestamptz(_) => base == BaseType::Timestamptz,
        Value::Text(_) => base.is_text_like(),
        Value::Oid(_) => base.is_oid_like(),
        Value::Array(array) => base.element() == Some(array.element),
        _ => false,
    }
}
