//! What the relations look like: the table of their names, numbers and columns.
//!
//! One line of `data/columns.tsv` is one relation: schema, name, kind (`r` or `v`), object identifier, and columns as
//! `name:type` with `!` behind a column that is never NULL. Views have no fixed identifiers in PostgreSQL; here they
//! are numbered from [`FIRST_VIEW`] by their place in the file. Columns of types that this server lacks are `text`.

use std::sync::LazyLock;

use rustydb_types::datatype::{BaseType, DataType};

use crate::catalog::virtual_table::VirtualColumn;

/// The first identifier that is given to relations without one of their own; below those of users' objects.
const FIRST_VIEW: u32 = 15_000;

/// A relation without its rows.
#[derive(Debug)]
pub(super) struct Shape {
    /// `pg_catalog` or `information_schema`.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `pg_class.relkind`.
    pub kind: &'static str,
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its columns.
    pub columns: Vec<VirtualColumn>,
    /// Which of them are never NULL.
    pub not_null: Vec<bool>,
}

static SHAPES: LazyLock<Vec<Shape>> =
    LazyLock::new(|| include_str!("data/columns.tsv").lines().enumerate().filter_map(parse).collect());

/// All relations, in the order of the file.
pub(super) fn all() -> &'static [Shape] {
    &SHAPES
}

/// The relation with this schema and name.
pub(super) fn find(schema: &str, name: &str) -> Option<&'static Shape> {
    all().iter().find(|shape| shape.schema == schema && shape.name == name)
}

fn parse((place, line): (usize, &'static str)) -> Option<Shape> {
    let mut fields = line.split('\t');
    let (schema, name, kind) = (fields.next()?, fields.next()?, fields.next()?);
    let oid = match fields.next()?.parse().ok()? {
        0 => FIRST_VIEW + u32::try_from(place).ok()?,
        oid => oid,
    };
    let mut columns = Vec::new();
    let mut not_null = Vec::new();
    for column in fields.next()?.split(' ') {
        let (name, data_type) = column.split_once(':')?;
        not_null.push(data_type.ends_with('!'));
        let base = BaseType::from_type_name(data_type.trim_end_matches('!')).unwrap_or(BaseType::Text);
        columns.push(VirtualColumn { name, data_type: DataType::from(base) });
    }
    Some(Shape { schema, name, kind, oid, columns, not_null })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_is_a_relation_of_known_types() {
        let lines: Vec<&str> = include_str!("data/columns.tsv").lines().collect();
        assert_eq!(all().len(), lines.len());
        for line in lines {
            for column in line.rsplit('\t').next().unwrap().split(' ') {
                let data_type = column.split_once(':').unwrap().1.trim_end_matches('!');
                assert!(BaseType::from_type_name(data_type).is_some(), "{column} in {line}");
            }
        }
    }

    #[test]
    fn identifiers_are_unique_and_below_those_of_users() {
        let oids: BTreeSet<u32> = all().iter().map(|shape| shape.oid).collect();
        assert_eq!(oids.len(), all().len());
        assert!(oids.iter().all(|oid| *oid < rustydb_types::ids::Oid::FIRST_USER.get()));
        assert_eq!(find("pg_catalog", "pg_class").map(|shape| shape.oid), Some(super::super::PG_CLASS));
        assert_eq!(
            find("pg_catalog", "pg_namespace").map(|shape| shape.oid),
            Some(super::super::PG_NAMESPACE)
        );
        assert_eq!(
            find("pg_catalog", "pg_constraint").map(|shape| shape.oid),
            Some(super::super::PG_CONSTRAINT)
        );
    }
}
