//! The system relations over a catalog like the one that `testdata/schema.sql` makes.

use std::collections::{BTreeMap, BTreeSet};

use rustydb_types::datatype::DataType;
use rustydb_types::ids::{ColumnId, DatabaseId, GroupId, Oid};
use rustydb_types::text::{TextContext, text_out};
use rustydb_types::value::Value;

use super::{PG_CLASS, relation, shape};
use crate::catalog::statistics::ColumnStatistics;
use crate::catalog::virtual_table::{VirtualContext, VirtualRegistry};
use crate::catalog::{
    CatalogSnapshot, ColumnDescriptor, IndexDescriptor, IndexKeyColumn, IndexKind, SchemaDescriptor,
    StorageId, TableDescriptor, TableStatistics, descriptor::KnownTypes, snapshot,
};
use crate::scalar::catalogue::Catalogue;
use crate::session::token::TokenKey;
use crate::system::{DatabaseRecord, DatabaseState, RoleRecord, SystemSnapshot};

fn column(id: u32, name: &str, data_type: &str, not_null: bool, default: Option<&str>) -> ColumnDescriptor {
    let data_type = DataType::parse(data_type).unwrap();
    ColumnDescriptor {
        id: ColumnId::new(id),
        name: name.into(),
        data_type: data_type.into(),
        not_null,
        default: default.map(|text| crate::catalog::StoredExpr::new(text.into())),
        missing: None,
        identity: None,
        generated: None,
        acl: None,
    }
}

fn index(
    oid: u32,
    name: &str,
    kind: IndexKind,
    key: &[(u32, bool, bool)],
    constraint: Option<u32>,
) -> IndexDescriptor {
    let part = |(column, descending, nulls_first): &(u32, bool, bool)| IndexKeyColumn {
        column: ColumnId::new(*column),
        descending: *descending,
        nulls_first: *nulls_first,
    };
    IndexDescriptor {
        oid: Oid::new(oid),
        name: name.into(),
        kind,
        key: key.iter().map(part).collect(),
        storage: StorageId::new(oid),
        constraint: constraint.map(Oid::new),
        options: BTreeMap::new(),
        predicate: None,
        include: Vec::new(),
    }
}

fn table(
    oid: u32,
    schema: u32,
    name: &str,
    columns: Vec<ColumnDescriptor>,
    indexes: Vec<IndexDescriptor>,
) -> TableDescriptor {
    TableDescriptor {
        oid: Oid::new(oid),
        schema: Oid::new(schema),
        name: name.into(),
        owner: snapshot::BOOTSTRAP_ROLE,
        acl: None,
        next_column: u32::try_from(columns.len()).expect("few columns") + 1,
        columns,
        indexes,
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        computed: Vec::new(),
        storage: StorageId::new(oid),
        row_key: Vec::new(),
        options: BTreeMap::new(),
        at_commit: crate::catalog::AtCommit::Keep,
        types: KnownTypes::default(),
    }
}

/// The catalog that `testdata/schema.sql` makes, with some statistics.
pub(super) fn catalog() -> CatalogSnapshot {
    let mut catalog = CatalogSnapshot::empty(Vec::new());
    let app = Oid::new(16_411);
    catalog.add_schema(SchemaDescriptor {
        oid: app,
        name: "app".into(),
        owner: snapshot::BOOTSTRAP_ROLE,
        acl: None,
    });
    catalog.add_table(table(
        16_385,
        2200,
        "accounts",
        vec![
            column(1, "id", "integer", true, None),
            column(2, "owner", "varchar(40)", true, None),
            column(3, "balance", "numeric(12,2)", false, Some("0")),
            column(4, "note", "text", false, None),
            column(5, "opened", "timestamptz", false, Some("now()")),
            column(6, "code", "char(3)", false, None),
            column(7, "email", "text", false, None),
        ],
        vec![
            index(16_392, "accounts_pkey", IndexKind::Primary, &[(1, false, false)], Some(16_393)),
            index(16_394, "accounts_email_key", IndexKind::Unique, &[(7, false, false)], Some(16_395)),
            index(
                16_396,
                "accounts_owner_idx",
                IndexKind::Plain,
                &[(2, false, false), (3, true, true)],
                None,
            ),
            index(16_397, "accounts_code_key2", IndexKind::Unique, &[(6, false, true)], None),
        ],
    ));
    let mut branches = table(
        16_398,
        2200,
        "branches",
        vec![
            column(1, "bid", "bigint", true, None),
            column(2, "Name", "text", false, None),
            column(3, "flag", "boolean", false, Some("FALSE")),
            column(4, "d", "date", false, None),
            column(5, "payload", "bytea", false, None),
            column(6, "u", "uuid", false, None),
        ],
        vec![index(
            16_404,
            "branches_pkey",
            IndexKind::Primary,
            &[(1, false, false), (2, false, false)],
            Some(16_405),
        )],
    );
    branches.options.insert("fillfactor".into(), "100".into());
    catalog.add_table(branches);
    let history = [
        ("tid", "int"),
        ("at", "timestamp(3)"),
        ("span", "interval"),
        ("r", "real"),
        ("f", "double precision"),
        ("s", "smallint"),
        ("t", "time"),
        ("tags", "text[]"),
        ("n", "numeric"),
    ];
    let columns = (1..).zip(history).map(|(id, (name, ty))| column(id, name, ty, false, None)).collect();
    catalog.add_table(table(16_406, 2200, "history", columns, Vec::new()));
    catalog.add_table(table(
        16_412,
        app.get(),
        "items",
        vec![column(1, "id", "uuid", false, None), column(2, "title", "text", false, Some("'none'"))],
        vec![index(16_418, "items_pkey", IndexKind::Primary, &[(1, false, false)], Some(16_419))],
    ));
    let statistics =
        ColumnStatistics { distinct: -1.0, null_fraction: 0.25, width: 4, ..ColumnStatistics::default() };
    let columns = BTreeMap::from([(1, statistics)]);
    catalog.add_statistics(Oid::new(16_385), TableStatistics { rows: 1000.0, bytes: 20_000.0, columns });
    catalog.add_comment(PG_CLASS, Oid::new(16_385), 0, "all accounts".into());
    catalog.add_comment(PG_CLASS, Oid::new(16_385), 2, "who owns it".into());
    catalog
}

/// Two databases and two roles, of which the second may do little.
pub(super) fn system() -> SystemSnapshot {
    let mut system = SystemSnapshot::default();
    for (oid, name, state) in
        [(5, "postgres", DatabaseState::Ready), (16_384, "shop", DatabaseState::Creating)]
    {
        let id = DatabaseId::new(Oid::new(oid));
        let owner = snapshot::BOOTSTRAP_ROLE;
        let group = GroupId::new(u64::from(oid));
        let (replicas, token_key) = (Vec::new(), TokenKey::new([1; 16]));
        let record =
            DatabaseRecord { id, name: name.into(), group, state, owner, replicas, token_key, acl: None };
        system.databases.insert(id, record);
    }
    for (oid, name, superuser) in [(10, "postgres", true), (16_390, "clerk", false)] {
        let role = RoleRecord {
            oid: Oid::new(oid),
            name: name.into(),
            superuser,
            login: true,
            create_database: superuser,
            create_role: superuser,
            verifier: Some("SCRAM-SHA-256$4096:x$y:z".into()),
            connection_limit: -1,
            inherit: true,
            member_of: Vec::new(),
        };
        system.roles.insert(role.oid, role);
    }
    system
}

/// What one relation shows to a user.
pub(super) fn rows_for(user: &str, schema: &str, name: &str) -> Vec<Vec<Value>> {
    let (catalog, system, registry) = (catalog(), system(), VirtualRegistry::builtin());
    let settings = [("work_mem".to_owned(), "4MB".to_owned()), ("my.own".to_owned(), "1".to_owned())];
    let context = VirtualContext {
        catalog: &catalog,
        system: &system,
        registry: &registry,
        database: "shop",
        user,
        settings: &settings,
        live: None,
    };
    registry.get(schema, name).unwrap().rows(&context).unwrap()
}

/// The value of a column in the row whose other column has the given text.
fn value(schema: &str, relation: &str, (by, wanted): (&str, &str), column: &str) -> Value {
    let shape = shape::find(schema, relation).unwrap();
    let place = |name: &str| shape.columns.iter().position(|column| column.name == name).unwrap();
    let (by, column) = (place(by), place(column));
    let rows = rows_for("postgres", schema, relation);
    let found = rows.iter().find(|row| match &row[by] {
        Value::Text(text) => &**text == wanted,
        Value::Oid(oid) => oid.to_string() == wanted,
        _ => false,
    });
    found.unwrap_or_else(|| panic!("no {wanted} in {relation}"))[column].clone()
}

#[test]
fn every_relation_yields_rows_of_its_own_width_and_types() {
    for shape in shape::all() {
        for row in rows_for("postgres", shape.schema, shape.name) {
            assert_eq!(row.len(), shape.columns.len(), "{}: {row:?}", shape.name);
            for ((value, column), not_null) in row.iter().zip(&shape.columns).zip(&shape.not_null) {
                let fits = relation::fits(value, column.data_type);
                assert!(fits, "{}.{} is {} but holds {value:?}", shape.name, column.name, column.data_type);
                assert!(
                    !(*not_null && value.is_null()),
                    "{}.{} is never NULL: {row:?}",
                    shape.name,
                    column.name
                );
            }
        }
    }
}

#[test]
fn identifiers_are_unique_within_each_catalog() {
    for shape in shape::all().iter().filter(|shape| shape.columns[0].name == "oid") {
        let rows = rows_for("postgres", shape.schema, shape.name);
        let oids: BTreeSet<i64> = rows.iter().filter_map(|row| row[0].as_i64()).collect();
        assert_eq!(oids.len(), rows.len(), "{}", shape.name);
    }
}

#[test]
fn catalogs_refer_to_rows_that_exist() {
    let oids = |relation| -> BTreeSet<i64> {
        rows_for("postgres", "pg_catalog", relation).iter().filter_map(|row| row[0].as_i64()).collect()
    };
    for (relation, column, target) in [
        ("pg_class", "relnamespace", "pg_namespace"),
        ("pg_class", "relowner", "pg_authid"),
        ("pg_class", "relam", "pg_am"),
        ("pg_attribute", "attrelid", "pg_class"),
        ("pg_attribute", "atttypid", "pg_type"),
        ("pg_attribute", "attcollation", "pg_collation"),
        ("pg_attrdef", "adrelid", "pg_class"),
        ("pg_index", "indexrelid", "pg_class"),
        ("pg_index", "indrelid", "pg_class"),
        ("pg_constraint", "conindid", "pg_index"),
        ("pg_type", "typarray", "pg_type"),
        ("pg_type", "typelem", "pg_type"),
        ("pg_type", "typinput", "pg_proc"),
        ("pg_type", "typoutput", "pg_proc"),
        ("pg_operator", "oprcode", "pg_proc"),
        ("pg_operator", "oprleft", "pg_type"),
        ("pg_opclass", "opcfamily", "pg_opfamily"),
        ("pg_opclass", "opcintype", "pg_type"),
        ("pg_cast", "castsource", "pg_type"),
        ("pg_proc", "prorettype", "pg_type"),
        ("pg_proc", "prolang", "pg_language"),
        ("pg_database", "datdba", "pg_authid"),
        ("pg_database", "dattablespace", "pg_tablespace"),
    ] {
        let known = oids(target);
        let shape = shape::find("pg_catalog", relation).unwrap();
        let place = shape.columns.iter().position(|known| known.name == column).unwrap();
        for row in rows_for("postgres", "pg_catalog", relation) {
            let oid = row[place].as_i64().unwrap();
            assert!(oid == 0 || known.contains(&oid), "{relation}.{column} = {oid} is not in {target}");
        }
    }
}

#[test]
fn tables_and_indexes_are_described() {
    let class = |name, column| value("pg_catalog", "pg_class", ("relname", name), column);
    assert_eq!(class("accounts", "relkind").as_str(), Some("r"));
    assert_eq!(class("accounts", "relpages").as_i64(), Some(3));
    assert_eq!(class("accounts_pkey", "relkind").as_str(), Some("i"));
    assert_eq!(class("pg_tables", "relkind").as_str(), Some("v"));
    let attribute = |name, column| value("pg_catalog", "pg_attribute", ("attname", name), column);
    assert!(matches!(attribute("Name", "attnotnull"), Value::Bool(true)), "a key column is not null");
    assert_eq!(
        attribute("balance", "atttypmod").as_i64(),
        Some(i64::from(DataType::numeric(12, 2).modifier))
    );
    let definition = |name| value("pg_catalog", "pg_indexes", ("indexname", name), "indexdef");
    for (name, expected) in [
        ("accounts_pkey", "CREATE UNIQUE INDEX accounts_pkey ON public.accounts USING btree (id)"),
        (
            "accounts_owner_idx",
            "CREATE INDEX accounts_owner_idx ON public.accounts USING btree (owner, balance DESC)",
        ),
        (
            "accounts_code_key2",
            "CREATE UNIQUE INDEX accounts_code_key2 ON public.accounts USING btree (code NULLS FIRST)",
        ),
        ("branches_pkey", "CREATE UNIQUE INDEX branches_pkey ON public.branches USING btree (bid, \"Name\")"),
    ] {
        assert_eq!(definition(name).as_str(), Some(expected));
    }
    let Value::Array(flags) = value("pg_catalog", "pg_index", ("indexrelid", "16396"), "indoption") else {
        panic!("indoption is a vector");
    };
    assert_eq!(flags.elements.iter().filter_map(Value::as_i64).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(flags.dimensions[0].lower, 0);
}

#[test]
fn only_superusers_see_password_verifiers() {
    let verifiers = |user| -> Vec<Value> {
        let rows = rows_for(user, "pg_catalog", "pg_authid");
        // The predefined role has none.
        rows.iter()
            .filter(|row| row[1] != Value::text("pg_database_owner"))
            .map(|row| row[10].clone())
            .collect()
    };
    assert!(
        verifiers("postgres")
            .iter()
            .all(|value| value.as_str().is_some_and(|text| text.starts_with("SCRAM")))
    );
    assert!(verifiers("clerk").iter().all(Value::is_null));
    for relation in ["pg_roles", "pg_shadow", "pg_user"] {
        let rows = rows_for("postgres", "pg_catalog", relation);
        assert!(
            !rows.iter().flatten().any(|value| value.as_str().is_some_and(|text| text.contains("SCRAM")))
        );
    }
}

#[test]
fn a_database_that_is_not_ready_takes_no_connections() {
    let allowed = |name| value("pg_catalog", "pg_database", ("datname", name), "datallowconn");
    assert!(matches!(allowed("postgres"), Value::Bool(true)));
    assert!(matches!(allowed("shop"), Value::Bool(false)));
}

#[test]
fn the_information_schema_shows_constraints_and_columns() {
    let kind =
        |name| value("information_schema", "table_constraints", ("constraint_name", name), "constraint_type");
    assert_eq!(kind("accounts_pkey").as_str(), Some("PRIMARY KEY"));
    assert_eq!(kind("accounts_email_key").as_str(), Some("UNIQUE"));
    assert_eq!(kind("2200_16385_2_not_null").as_str(), Some("CHECK"));
    let column = |name, column| value("information_schema", "columns", ("column_name", name), column);
    assert_eq!(column("tags", "data_type").as_str(), Some("ARRAY"));
    assert_eq!(column("flag", "column_default").as_str(), Some("false"));
    assert_eq!(column("email", "collation_name").as_str(), None);
    assert_eq!(column("typname", "collation_name").as_str(), Some("C"));
}

/// What the evaluator can call is what `pg_proc` and `pg_operator` list.
#[test]
fn every_function_and_operator_is_listed() {
    let listed = |relation| -> BTreeSet<u32> {
        let rows = rows_for("postgres", "pg_catalog", relation);
        rows.iter().filter_map(|row| row[0].as_i64()).filter_map(|oid| u32::try_from(oid).ok()).collect()
    };
    let operators: BTreeSet<u32> = Catalogue::get().all_operators().map(|operator| operator.oid).collect();
    assert_eq!(
        listed("pg_operator"),
        operators,
        "run data/extract.sql after a change of the evaluator's lists"
    );
    let functions = listed("pg_proc");
    for function in Catalogue::get().all_functions() {
        assert!(functions.contains(&function.oid), "{} is missing; run data/extract.sql", function.name);
    }
}

/// A value in COPY's text format.
fn copied(value: &Value, data_type: DataType) -> String {
    if value.is_null() { "\\N".to_owned() } else { text_out(value, data_type, &TextContext::UTC) }
}

/// `testdata/golden.tsv` is what PostgreSQL 15 shows of the same objects.
#[test]
fn objects_look_as_they_do_in_postgresql() {
    for section in include_str!("testdata/golden.tsv").split("# ").skip(1) {
        let mut lines = section.lines();
        let (schema, name) = lines.next().and_then(|name| name.split_once('.')).unwrap();
        let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
        let expected: BTreeSet<&str> = lines.collect();
        let shape = shape::find(schema, name).unwrap();
        let places: Vec<usize> = (header.iter())
            .map(|wanted| shape.columns.iter().position(|column| column.name == *wanted).unwrap())
            .collect();
        let shown: BTreeSet<String> = (rows_for("postgres", schema, name).iter())
            .map(|row| {
                places.iter().map(|place| copied(&row[*place], shape.columns[*place].data_type)).collect()
            })
            .filter(|fields: &Vec<String>| match fields[0].parse::<u32>() {
                Ok(oid) => (Oid::FIRST_USER.get()..1 << 31).contains(&oid),
                Err(_) => {
                    fields.iter().any(|field| field == "app" || field == "public" && name != "schemata")
                }
            })
            .map(|fields| fields.join("\t"))
            .collect();
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        let missing: Vec<_> = expected.difference(&shown).collect();
        let surplus: Vec<_> = shown.difference(&expected).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{schema}.{name}: PostgreSQL has {missing:#?}, here is {surplus:#?}"
        );
    }
}

/// The captured statements of a file with their names; `{schema.name}` becomes the number of the relation.
fn captured(text: &'static str) -> impl Iterator<Item = (&'static str, String)> {
    let catalog = catalog();
    let mut numbers = BTreeMap::new();
    for table in catalog.tables() {
        let schema = &catalog.schema(table.schema).unwrap().name;
        let named = [(table.oid, &table.name)]
            .into_iter()
            .chain(table.indexes.iter().map(|index| (index.oid, &index.name)));
        numbers.extend(named.map(|(oid, name)| (format!("{{{schema}.{name}}}"), oid.to_string())));
    }
    let numbered = move |statement: &str| {
        numbers.iter().fold(statement.to_owned(), |text, (name, number)| text.replace(name, number))
    };
    text.split("-- @ ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(move |(name, text)| (name, numbered(text)))
}

#[test]
fn what_clients_send_is_understood_by_the_parser() {
    let files = [
        include_str!("testdata/psql_meta.sql"),
        include_str!("testdata/psql_completion.sql"),
        include_str!("testdata/drivers.sql"),
    ];
    let mut statements = 0;
    for (name, text) in files.into_iter().flat_map(captured) {
        let parsed = sqlparser::parser::Parser::parse_sql(&sqlparser::dialect::PostgreSqlDialect {}, &text);
        assert!(parsed.is_ok(), "{name}: {parsed:?}\n{text}");
        statements += 1;
    }
    assert!(statements > 150);
}
