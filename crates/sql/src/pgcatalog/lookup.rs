//! What functions such as `pg_get_indexdef`, and the `reg*` types, ask of the catalog.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::datetime::Zone;
use rustydb_types::ids::{DatabaseId, Oid};
use rustydb_types::value::Value;

use super::{PG_CLASS, PG_CONSTRAINT, PG_NAMESPACE, activity, definition, privileges, shape, views};
use crate::bind::kept;
use crate::bind::privilege::Authority;
use crate::catalog::acl::Privileges;
use crate::catalog::snapshot;
use crate::catalog::virtual_table::VirtualContext;
use crate::error::{SqlError, SqlState};
use crate::scalar::context::{CatalogLookup, ObjectKind, ObjectName, SizeOf};

/// Collations by number.
const COLLATIONS: [(u32, &str); 3] = [(100, "default"), (950, "C"), (951, "POSIX")];

/// Functions: name by number, and number by name where the name has no overloads.
static FUNCTIONS: LazyLock<Names> = LazyLock::new(|| {
    Names::read(concat!(include_str!("data/pg_proc.tsv"), include_str!("data/pg_proc_own.tsv")))
});
/// Operators, likewise.
static OPERATORS: LazyLock<Names> = LazyLock::new(|| Names::read(include_str!("data/pg_operator.tsv")));

/// Names of one kind of built-in objects.
#[derive(Debug, Default)]
struct Names {
    by_oid: BTreeMap<u32, &'static str>,
    /// `None` where several objects share the name.
    by_name: BTreeMap<&'static str, Option<u32>>,
}

impl Names {
    /// Reads the first two columns, number and name, of a data file.
    fn read(text: &'static str) -> Self {
        let mut names = Self::default();
        for line in text.lines().skip(1) {
            let mut fields = line.split('\t');
            let (Some(oid), Some(name)) = (fields.next().and_then(|oid| oid.parse().ok()), fields.next())
            else {
                continue;
            };
            names.by_oid.insert(oid, name);
            names.by_name.entry(name).and_modify(|known| *known = None).or_insert(Some(oid));
        }
        names
    }
}

/// The catalog as the functions of one statement see it.
#[derive(Clone)]
pub struct SystemLookup<'a> {
    /// What the system relations are computed from.
    pub context: VirtualContext<'a>,
    /// Schemas in which names without a schema are looked up, in order; `pg_catalog` comes first when it is absent.
    pub search_path: &'a [String],
    /// The role that asks, which may not use every schema; absent where nobody asks.
    pub authority: Option<&'a Authority>,
}

impl fmt::Debug for SystemLookup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemLookup").field("search_path", &self.search_path).finish_non_exhaustive()
    }
}

impl SystemLookup<'_> {
    /// A type that a user made, or arrays of it, as it is written now.
    pub(super) fn user_type_text(&self, oid: u32) -> Option<String> {
        let own = self.context.catalog.type_descriptor(Oid::new(oid))?;
        let schema = self.context.catalog.schema(own.schema)?;
        let visible = self.user_type(None, &own.name) == Some(own.oid.get());
        let name = definition::qualified((!visible).then_some(schema.name.as_str()), &own.name);
        Some(if own.oid.get() == oid { name } else { format!("{name}[]") })
    }

    /// The number of a type that a user made, or of arrays of it, by name.
    fn user_type(&self, schema: Option<&str>, name: &str) -> Option<u32> {
        let catalog = self.context.catalog;
        let (name, is_array) = name.strip_suffix("[]").map_or((name, false), |name| (name.trim_end(), true));
        let find = |schema: &str| {
            let schema = catalog.schema_named(schema)?.oid;
            let found = catalog.type_named(schema, name);
            found.map(|own| if is_array { own.array_oid } else { own.oid }).or_else(|| {
                catalog
                    .types()
                    .find(|own| own.schema == schema && own.array_name == name)
                    .map(|own| own.array_oid)
            })
        };
        match schema {
            Some(schema) => find(schema),
            None => self.path().find_map(find),
        }
        .map(Oid::get)
    }

    fn kept_expression(&self, text: &str, relation: u32, pretty: bool, zone: Zone) -> Option<String> {
        let table = self.context.catalog.table(Oid::new(relation))?;
        if let Some(check) = table.checks.iter().find(|check| check.expr.as_str() == text) {
            return Some(definition::check_condition(table, check, pretty, zone));
        }
        let computed = |id| {
            let computed = table.computed_of(id)?;
            (computed.expr.as_str() == text).then_some((computed, kept::kind_of(table, id)))
        };
        if let Some((found, kept_for)) = table.computed.iter().find_map(|it| computed(it.id)) {
            return kept::shown_row_expr(&found.expr, (table, table), kept_for, (pretty, zone)).ok();
        }
        let generated = table.columns.iter().filter_map(|column| column.generated.as_ref());
        if let Some(found) = generated.into_iter().find(|generated| generated.as_str() == text) {
            let form = (pretty, zone);
            return kept::shown_row_expr(found, (table, table), kept::KeptFor::Generated, form).ok();
        }
        let mut columns = table.columns.iter();
        let column =
            columns.find(|column| column.default.as_ref().is_some_and(|kept| kept.as_str() == text))?;
        kept::shown_default(column.default.as_ref()?, (column, &table.types), pretty, zone).ok()
    }

    /// A kept text with the names that types have now.
    fn with_type_names(&self, text: String) -> String {
        crate::bind::types::with_names(&text, |oid| self.user_type_text(oid))
    }

    /// A relation as it is written now: with its schema where the search path does not find it.
    pub(super) fn written(&self, oid: u32) -> Option<String> {
        let (schema, name) = self.relation_name(oid)?;
        let visible = self.relation(None, &name) == Some(oid);
        Some(definition::qualified((!visible).then_some(schema.as_str()), &name))
    }

    fn path(&self) -> impl Iterator<Item = &str> {
        crate::bind::context::path(self.search_path, self.context.catalog)
    }

    fn relation_in(&self, schema: &str, name: &str) -> Option<u32> {
        if let Some(relation) = self.context.registry.get(schema, name) {
            return Some(relation.oid());
        }
        let catalog = self.context.catalog;
        let schema = catalog.schema_named(schema)?.oid;
        let table = catalog.table_named(schema, name).map(|table| table.oid);
        table
            .or_else(|| catalog.index_named(schema, name).map(|(_, index)| index.oid))
            .or_else(|| catalog.sequence_named(schema, name).map(|sequence| sequence.oid))
            .or_else(|| catalog.view_named(schema, name).map(|view| view.oid))
            .map(Oid::get)
    }

    pub(super) fn relation(&self, schema: Option<&str>, name: &str) -> Option<u32> {
        match schema {
            Some(schema) => self.relation_in(schema, name),
            None => self.path().find_map(|schema| self.relation_in(schema, name)),
        }
    }

    /// Schema and name of a relation.
    pub(super) fn relation_name(&self, oid: u32) -> Option<(String, String)> {
        let catalog = self.context.catalog;
        let named = |schema: Oid, name: &str| Some((catalog.schema(schema)?.name.clone(), name.to_owned()));
        if let Some(table) = catalog.table(Oid::new(oid)) {
            return named(table.schema, &table.name);
        }
        if let Some((table, index)) = catalog.index(Oid::new(oid)) {
            return named(table.schema, &index.name);
        }
        if let Some(sequence) = catalog.sequence(Oid::new(oid)) {
            return named(sequence.schema, &sequence.name);
        }
        if let Some(view) = catalog.view(Oid::new(oid)) {
            return named(view.schema, &view.name);
        }
        let relation = self.context.registry.iter().find(|relation| relation.oid() == oid)?;
        Some((relation.schema().to_owned(), relation.name().to_owned()))
    }

    /// Bytes of a table's rows, as ANALYZE estimated them.
    fn table_bytes(&self, table: Oid) -> Option<i64> {
        self.context.catalog.statistics(table).map(|statistics| statistics.bytes as i64)
    }
}

/// An object that every search path finds.
fn built_in(name: &str) -> ObjectName {
    ObjectName { schema: Some("pg_catalog".to_owned()), name: name.to_owned(), visible: true }
}

/// An object that is in no schema.
fn global(name: &str) -> ObjectName {
    ObjectName { schema: None, name: name.to_owned(), visible: true }
}

impl CatalogLookup for SystemLookup<'_> {
    fn temporary_schema(&self) -> Option<(u32, String)> {
        self.context.catalog.temporary_schema().map(|schema| (schema.oid.get(), schema.name.clone()))
    }

    fn may_use(&self, schema: &str) -> bool {
        let found = self.context.catalog.schema_named(schema).zip(self.authority);
        found.is_none_or(|(schema, authority)| authority.may_in(schema, Privileges::USAGE))
    }

    fn object_by_name(&self, kind: ObjectKind, schema: Option<&str>, name: &str) -> Option<u32> {
        let in_pg_catalog = schema.is_none_or(|schema| schema == "pg_catalog");
        match kind {
            ObjectKind::Relation => self.relation(schema, name),
            ObjectKind::Type => {
                let built_in = DataType::parse_name(name).filter(|_| in_pg_catalog).map(DataType::oid);
                built_in.or_else(|| self.user_type(schema, name))
            }
            ObjectKind::Function if in_pg_catalog => FUNCTIONS.by_name.get(name).copied().flatten(),
            ObjectKind::Operator if in_pg_catalog => OPERATORS.by_name.get(name).copied().flatten(),
            ObjectKind::Collation if in_pg_catalog => {
                COLLATIONS.iter().find(|(_, known)| *known == name).map(|(oid, _)| *oid)
            }
            ObjectKind::Function | ObjectKind::Operator | ObjectKind::Collation => None,
            ObjectKind::Schema => self.context.catalog.schema_named(name).map(|schema| schema.oid.get()),
            ObjectKind::Role if name == snapshot::DATABASE_OWNER_NAME => {
                Some(snapshot::DATABASE_OWNER_ROLE.get())
            }
            ObjectKind::Role => self.context.system.role_named(name).map(|role| role.oid.get()),
            ObjectKind::Database => {
                self.context.system.database_named(name).map(|database| database.id.get().get())
            }
        }
    }

    fn object_name(&self, kind: ObjectKind, oid: u32) -> Option<ObjectName> {
        match kind {
            ObjectKind::Relation => {
                let (schema, name) = self.relation_name(oid)?;
                let visible = self.relation(None, &name) == Some(oid);
                Some(ObjectName { schema: Some(schema), name, visible })
            }
            ObjectKind::Type => {
                BaseType::from_oid(oid).map(|base| built_in(base.type_name())).or_else(|| {
                    let own = self.context.catalog.type_descriptor(Oid::new(oid))?;
                    let schema = self.context.catalog.schema(own.schema)?.name.clone();
                    let is_own = own.oid.get() == oid;
                    let name = if is_own { own.name.clone() } else { own.array_name.clone() };
                    let visible = self.user_type(None, &name) == Some(oid);
                    Some(ObjectName { schema: Some(schema), name, visible })
                })
            }
            ObjectKind::Function => FUNCTIONS.by_oid.get(&oid).map(|name| built_in(name)),
            ObjectKind::Operator => OPERATORS.by_oid.get(&oid).map(|name| built_in(name)),
            ObjectKind::Collation => {
                COLLATIONS.iter().find(|(known, _)| *known == oid).map(|(_, name)| built_in(name))
            }
            ObjectKind::Schema => {
                self.context.catalog.schema(Oid::new(oid)).map(|schema| global(&schema.name))
            }
            ObjectKind::Role if oid == snapshot::DATABASE_OWNER_ROLE.get() => {
                Some(global(snapshot::DATABASE_OWNER_NAME))
            }
            ObjectKind::Role => self.context.system.roles.get(&Oid::new(oid)).map(|role| global(&role.name)),
            ObjectKind::Database => {
                let databases = &self.context.system.databases;
                databases.get(&DatabaseId::new(Oid::new(oid))).map(|database| global(&database.name))
            }
        }
    }

    fn index_definition(&self, oid: u32, column: i32, pretty: bool) -> Option<String> {
        let (table, index) = self.context.catalog.index(Oid::new(oid))?;
        if column != 0 {
            let shown = definition::index_column(table, index, usize::try_from(column).ok()?, pretty)?;
            return Some(self.with_type_names(shown));
        }
        let (schema, name) = self.relation_name(table.oid.get())?;
        let visible = self.relation(None, &name) == Some(table.oid.get());
        let shown = definition::index(table, index, (!pretty || !visible).then_some(schema.as_str()), pretty);
        Some(self.with_type_names(shown))
    }

    fn constraint_definition(&self, oid: u32, pretty: bool, zone: Zone) -> Option<String> {
        let oid = Oid::new(oid);
        let mut of_domains = super::types::domain_checks(&self.context);
        if let Some((domain, check)) = of_domains.find(|(_, check)| check.oid == oid) {
            let text = super::types::check_text(&self.context, domain, check);
            return Some(text);
        }
        self.context.catalog.tables().find_map(|table| {
            if let Some(check) = table.checks.iter().find(|check| check.oid == oid) {
                return Some(self.with_type_names(definition::check(table, check, pretty, zone)));
            }
            if let Some(key) = table.foreign_keys.iter().find(|key| key.oid == oid) {
                let parent = self.context.catalog.table(key.table)?;
                return Some(definition::foreign_key(table, key, parent, &self.written(parent.oid.get())?));
            }
            let index = table.indexes.iter().find(|index| index.constraint == Some(oid))?;
            Some(definition::constraint(table, index))
        })
    }

    fn expression(&self, text: &str, relation: u32, pretty: bool, zone: Zone) -> Option<String> {
        self.kept_expression(text, relation, pretty, zone).map(|shown| self.with_type_names(shown))
    }

    fn type_text(&self, oid: u32) -> Option<String> {
        self.user_type_text(oid)
    }

    fn serial_sequence(&self, table: &str, column: &str) -> Result<Option<String>, SqlError> {
        let (schema, name) = match table.split_once('.') {
            Some((schema, name)) => (Some(schema.trim_matches('"')), name),
            None => (None, table),
        };
        let name = name.trim_matches('"');
        let oid = self.relation(schema, name);
        let Some(found) = oid.and_then(|oid| self.context.catalog.table(Oid::new(oid))) else {
            let message = format!("relation \"{table}\" does not exist");
            return Err(SqlError::new(SqlState::UNDEFINED_TABLE, message));
        };
        let Some(place) = found.column_index(column) else {
            let message = format!("column \"{column}\" of relation \"{name}\" does not exist");
            return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message));
        };
        let column = found.columns.get(place).map(|column| column.id);
        let own = self.context.catalog.sequences_of(found.oid, column).next();
        Ok(own.and_then(|own| {
            let schema = self.context.catalog.schema(own.schema)?;
            let schema = if schema.oid.is_temporary() { "pg_temp" } else { &schema.name };
            Some(definition::qualified(Some(schema), &own.name))
        }))
    }

    fn sequence(&self, oid: u32) -> Option<std::sync::Arc<crate::catalog::SequenceDescriptor>> {
        self.context.catalog.sequence(Oid::new(oid)).cloned()
    }

    fn description(&self, oid: u32, catalog: &str, column: i32) -> Option<String> {
        let sub = u32::try_from(column).ok()?;
        let comment = |class| self.context.catalog.comment(class, Oid::new(oid), sub).map(str::to_owned);
        match shape::find("pg_catalog", catalog) {
            Some(shape) => comment(shape.oid),
            // Only the old form of obj_description() leaves the class open.
            None if catalog.is_empty() => {
                [PG_CLASS, PG_NAMESPACE, PG_CONSTRAINT].into_iter().find_map(comment)
            }
            None => None,
        }
    }

    fn relation_size(&self, oid: u32, part: SizeOf) -> Option<i64> {
        // Sizes are what ANALYZE estimated of the rows; entries of indexes are not measured.
        let catalog = self.context.catalog;
        match (catalog.table(Oid::new(oid)), part) {
            (Some(_), SizeOf::Indexes) => None,
            (Some(table), SizeOf::Main | SizeOf::Total) => self.table_bytes(table.oid),
            (None, _) if catalog.index(Oid::new(oid)).is_some() => None,
            (None, _) => self.context.registry.iter().any(|relation| relation.oid() == oid).then_some(0),
        }
    }

    fn database_size(&self, oid: u32) -> Option<i64> {
        // Only the connected database's statistics are at hand.
        let database = self.context.system.database_named(self.context.database)?;
        if database.id.get().get() != oid {
            return None;
        }
        let sizes: Vec<i64> =
            self.context.catalog.tables().filter_map(|table| self.table_bytes(table.oid)).collect();
        (!sizes.is_empty()).then(|| sizes.iter().sum())
    }

    fn has_privilege(&self, kind: ObjectKind, role: Option<u32>, object: u32, list: &str) -> Option<bool> {
        privileges::has_privilege(&self.context, kind, role, object, list)
    }

    fn has_column_privilege(
        &self,
        role: Option<u32>,
        relation: u32,
        column: Option<&str>,
        list: &str,
    ) -> Option<bool> {
        privileges::has_column_privilege(&self.context, role, relation, column, list)
    }

    fn has_role(&self, role: Option<u32>, of: u32, list: &str) -> Option<bool> {
        privileges::has_role(&self.context, role, of, list)
    }

    fn column_name(&self, relation: u32, number: i16) -> Option<String> {
        let table = self.context.catalog.table(Oid::new(relation))?;
        let number = u32::try_from(number).ok()?;
        table.columns.iter().find(|column| column.id.get() == number).map(|column| column.name.clone())
    }

    fn call(&self, function: &str, args: &[Value]) -> Result<Value, SqlError> {
        let pid =
            || args.first().and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        match function {
            "pg_get_viewdef" => Ok(views::pg_get_viewdef(self, args)),
            "pg_cancel_backend" => activity::cancel_backend(&self.context, pid()),
            "pg_blocking_pids" => Ok(activity::blocking_pids(&self.context, pid())),
            _ => Ok(Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalog, system};
    use super::*;
    use crate::catalog::virtual_table::VirtualRegistry;

    fn with_lookup(search_path: &[&str], check: impl FnOnce(&SystemLookup<'_>)) {
        let (catalog, system, registry) = (catalog(), system(), VirtualRegistry::builtin());
        let context = VirtualContext {
            catalog: &catalog,
            system: &system,
            registry: &registry,
            database: "shop",
            user: "postgres",
            settings: &[],
            live: None,
        };
        let search_path: Vec<String> = search_path.iter().map(|name| (*name).to_owned()).collect();
        check(&SystemLookup { context, search_path: &search_path, authority: None });
    }

    #[test]
    fn names_are_found_along_the_search_path() {
        with_lookup(&["$user", "public"], |lookup| {
            let relation = |schema, name| lookup.object_by_name(ObjectKind::Relation, schema, name);
            assert_eq!(relation(None, "accounts"), Some(16_385));
            assert_eq!(relation(None, "accounts_pkey"), Some(16_392));
            assert_eq!(relation(None, "items"), None);
            assert_eq!(relation(Some("app"), "items"), Some(16_412));
            assert_eq!(relation(None, "pg_class"), Some(PG_CLASS));
            assert_eq!(relation(Some("public"), "pg_class"), None);
            let visible = |oid| lookup.object_name(ObjectKind::Relation, oid).map(|name| name.visible);
            assert_eq!((visible(16_385), visible(16_412), visible(1)), (Some(true), Some(false), None));
        });
        with_lookup(&["app"], |lookup| {
            assert_eq!(lookup.object_by_name(ObjectKind::Relation, None, "accounts"), None);
            assert_eq!(lookup.object_by_name(ObjectKind::Relation, None, "items"), Some(16_412));
        });
    }

    #[test]
    fn other_objects_have_names_and_numbers() {
        with_lookup(&["public"], |lookup| {
            for (kind, name, oid) in [
                (ObjectKind::Type, "int4", 23),
                (ObjectKind::Function, "boolin", 1242),
                (ObjectKind::Schema, "public", 2200),
                (ObjectKind::Role, "postgres", 10),
                (ObjectKind::Collation, "C", 950),
                (ObjectKind::Database, "postgres", 5),
            ] {
                assert_eq!(lookup.object_by_name(kind, None, name), Some(oid), "{kind:?}");
                assert_eq!(
                    lookup.object_name(kind, oid).map(|object| object.name).as_deref(),
                    Some(name),
                    "{kind:?}"
                );
            }
            // An overloaded name means no single function.
            assert_eq!(lookup.object_by_name(ObjectKind::Function, None, "abs"), None);
            assert_eq!(
                lookup.object_name(ObjectKind::Operator, 96).map(|object| object.name).as_deref(),
                Some("=")
            );
        });
    }

    #[test]
    fn definitions_name_the_schema_where_it_is_needed() {
        with_lookup(&["public"], |lookup| {
            let definition = |pretty| lookup.index_definition(16_392, 0, pretty).unwrap();
            assert_eq!(
                definition(false),
                "CREATE UNIQUE INDEX accounts_pkey ON public.accounts USING btree (id)"
            );
            assert_eq!(definition(true), "CREATE UNIQUE INDEX accounts_pkey ON accounts USING btree (id)");
            assert_eq!(lookup.index_definition(16_396, 2, true).as_deref(), Some("balance"));
            assert_eq!(lookup.index_definition(16_396, 3, true), None);
            assert_eq!(lookup.index_definition(1, 0, true), None);
            assert_eq!(
                lookup.constraint_definition(16_405, true, Zone::UTC).as_deref(),
                Some("PRIMARY KEY (bid, \"Name\")")
            );
            assert_eq!(
                lookup.constraint_definition(16_395, true, Zone::UTC).as_deref(),
                Some("UNIQUE (email)")
            );
        });
    }

    #[test]
    fn comments_and_sizes_are_those_of_the_catalog() {
        with_lookup(&["public"], |lookup| {
            assert_eq!(lookup.description(16_385, "pg_class", 0).as_deref(), Some("all accounts"));
            assert_eq!(lookup.description(16_385, "pg_class", 2).as_deref(), Some("who owns it"));
            assert_eq!(lookup.description(16_385, "pg_proc", 0), None);
            assert_eq!(lookup.description(16_385, "no_such_catalog", 0), None);
            assert_eq!(lookup.relation_size(16_385, SizeOf::Total), Some(20_000));
            assert_eq!(lookup.relation_size(16_398, SizeOf::Main), None, "never analysed");
            assert_eq!((lookup.database_size(16_384), lookup.database_size(5)), (Some(20_000), None));
        });
    }

    #[test]
    fn asking_for_a_sequence_of_nothing_is_an_error() {
        with_lookup(&["public"], |lookup| {
            assert_eq!(lookup.serial_sequence("public.accounts", "id").unwrap(), None);
            let state = |table, column| lookup.serial_sequence(table, column).unwrap_err().state();
            assert_eq!(state("nobody", "id"), SqlState::UNDEFINED_TABLE);
            assert_eq!(state("accounts", "nothing"), SqlState::UNDEFINED_COLUMN);
        });
    }
}
