//! What `pg_attribute` and `pg_index` repeat of a column's type.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rustydb_types::datatype::{BaseType, DataType};

/// `pg_collation.oid` of the default collation.
const DEFAULT_COLLATION: u32 = 100;
/// `pg_collation.oid` of `C`, the collation of `name`.
const C_COLLATION: u32 = 950;

/// How values of a type are stored, as `pg_type` says.
#[derive(Clone, Copy, Debug)]
pub(super) struct TypeFacts {
    /// `typbyval`
    pub by_value: bool,
    /// `typalign`
    pub align: &'static str,
    /// `typstorage`
    pub storage: &'static str,
    /// `typcollation`
    pub collation: u32,
}

static TYPES: LazyLock<BTreeMap<u32, TypeFacts>> = LazyLock::new(|| {
    table(include_str!("data/pg_type.tsv"), &["oid", "typbyval", "typalign", "typstorage", "typcollation"])
        .filter_map(|fields| match fields.as_slice() {
            &[oid, by_value, align, storage, collation] => {
                let collation = collation.parse().ok()?;
                Some((oid.parse().ok()?, TypeFacts { by_value: by_value == "t", align, storage, collation }))
            }
            _ => None,
        })
        .collect()
});

/// Default operator classes of btree, by type.
static CLASSES: LazyLock<BTreeMap<u32, u32>> = LazyLock::new(|| {
    table(include_str!("data/pg_opclass.tsv"), &["opcintype", "oid", "opcmethod", "opcdefault"])
        .filter_map(|fields| match fields.as_slice() {
            &[data_type, oid, "403", "t"] => Some((data_type.parse().ok()?, oid.parse().ok()?)),
            _ => None,
        })
        .collect()
});

/// The named fields of each line of a data file.
fn table(text: &'static str, names: &[&str]) -> impl Iterator<Item = Vec<&'static str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let places: Vec<usize> =
        names.iter().filter_map(|name| header.iter().position(|column| column == name)).collect();
    lines.map(move |line| {
        let fields: Vec<&'static str> = line.split('\t').collect();
        places.iter().filter_map(|place| fields.get(*place).copied()).collect()
    })
}

/// How values of the type are stored; a type that this server lacks counts as text.
pub(super) fn of_type(oid: u32) -> TypeFacts {
    let text = TypeFacts { by_value: false, align: "i", storage: "x", collation: DEFAULT_COLLATION };
    TYPES.get(&oid).copied().unwrap_or(text)
}

/// How values of the type are stored, types that users made among them.
pub(super) fn of_data_type(data_type: DataType) -> TypeFacts {
    match data_type.base {
        BaseType::Enum(_) => TypeFacts { by_value: true, align: "i", storage: "p", collation: 0 },
        BaseType::EnumArray(_) => TypeFacts { by_value: false, align: "i", storage: "x", collation: 0 },
        built_in => of_type(built_in.oid()),
    }
}

/// The operator class by which btree indexes the type.
pub(super) fn operator_class(base: BaseType) -> u32 {
    let indexed = match base {
        BaseType::Enum(_) => BaseType::AnyEnum.oid(),
        BaseType::Varchar => BaseType::Text.oid(),
        base if base.is_reg() => BaseType::Oid.oid(),
        base if base.element().is_some() && base != BaseType::OidVector => BaseType::AnyArray.oid(),
        _ => base.oid(),
    };
    CLASSES.get(&indexed).copied().unwrap_or(0)
}

/// The name of a collation as `information_schema` shows it; the default one is not shown.
pub(super) fn shown_collation(oid: u32) -> Option<&'static str> {
    (oid == C_COLLATION).then_some("C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_those_of_postgresql() {
        assert_eq!(
            TYPES.len(),
            BaseType::ALL.len() + 1,
            "every type of this server and internal are in the file"
        );
        assert!(BaseType::ALL.iter().all(|base| TYPES.contains_key(&base.oid())));
        assert_eq!(of_type(25).storage, "x");
        assert_eq!(of_type(1700).storage, "m");
        assert_eq!((of_type(19).collation, of_type(1043).collation, of_type(23).collation), (950, 100, 0));
        assert!(of_type(20).by_value && !of_type(1186).by_value);
        // varchar and arrays have the classes of text and anyarray.
        let class = |oid| BaseType::from_oid(oid).map(operator_class).unwrap_or_default();
        assert_eq!((class(1043), class(25), class(1007)), (3126, 3126, 10_000));
        assert_eq!((class(1700), class(23), class(2205)), (3125, 1978, 1981));
    }
}
