//! Views in the system catalogs, and the text of their queries.

use std::collections::BTreeSet;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::Oid;
use rustydb_types::value::Value;
use sqlparser::ast::{Expr as AstExpr, SelectItem};

use super::definition::{qualified, quoted};
use super::lookup::SystemLookup;
use super::relation::Rows;
use super::shape;
use crate::bind::from::column_type;
use crate::bind::target::not_updatable;
use crate::bind::types::with_names;
use crate::bind::view::splice;
use crate::catalog::view::{CheckOption, ViewColumn, ViewDescriptor, ViewRelation};
use crate::catalog::virtual_table::VirtualContext;
use crate::parse::view::parse_view_query;

/// The columns of a view with their types and numbers.
pub(super) fn columns(view: &ViewDescriptor) -> impl Iterator<Item = (&ViewColumn, DataType, i16)> {
    view.columns.iter().zip(1..).map(|(shown, number)| (shown, column_type(shown.data_type), number))
}

/// The query of a view with the names that its relations have now; `written` is that of a relation as it has to be
/// written, and its own; `typed` is the name of a type that somebody made.
fn query(
    context: &VirtualContext<'_>,
    view: &ViewDescriptor,
    written: &dyn Fn(u32) -> Option<(String, String)>,
    typed: &dyn Fn(u32) -> Option<String>,
) -> Option<String> {
    let mut pieces = Vec::with_capacity(view.relations.len());
    for known in &view.relations {
        let (name, own) = written(known.relation.get())?;
        let columns =
            renamed_columns(context, view, known).filter(|_| !known.names_columns).unwrap_or_default();
        match known.alias_end {
            Some(end) => {
                pieces.push((known.start, known.end, name));
                pieces.push((end, end, columns));
            }
            None if own == known.visible && columns.is_empty() => pieces.push((known.start, known.end, name)),
            None => {
                let text = format!("{name} {}{columns}", quoted(&known.visible));
                pieces.push((known.start, known.end, text));
            }
        }
    }
    let text = with_names(&splice(&view.query, &mut pieces), typed);
    Some(format!(" {text};"))
}

/// The names by which a view's query knows the columns of a relation, in parentheses, where some have other names now,
/// or where one that came later has a name that the query means otherwise.
fn renamed_columns(
    context: &VirtualContext<'_>,
    view: &ViewDescriptor,
    known: &ViewRelation,
) -> Option<String> {
    let now: Vec<(u32, &str)> = match context.catalog.table(known.relation) {
        Some(table) => table.columns.iter().map(|column| (column.id.get(), column.name.as_str())).collect(),
        None => {
            let view = context.catalog.view(known.relation)?;
            (1..).zip(view.columns.iter().map(|column| column.name.as_str())).collect()
        }
    };
    let mut taken: BTreeSet<String> = (view.relations.iter())
        .flat_map(|known| known.columns.iter().map(|column| column.name.clone()))
        .collect();
    let mut is_other = false;
    let mut names = Vec::with_capacity(now.len());
    for (number, name) in now {
        let wanted = match known.columns.iter().find(|column| column.number == number) {
            Some(former) => former.name.clone(),
            None if taken.contains(name) => {
                let free =
                    (1..).map(|count| format!("{name}_{count}")).find(|other| !taken.contains(other))?;
                taken.insert(free.clone());
                free
            }
            None => name.to_owned(),
        };
        is_other |= wanted != name;
        names.push(quoted(&wanted));
    }
    is_other.then(|| format!("({})", names.join(", ")))
}

/// Whether rows of a view can be changed, as far as the form of its query tells.
pub(super) fn is_updatable(view: &ViewDescriptor) -> bool {
    parse_view_query(&view.query).is_ok_and(|query| not_updatable(&query).is_none())
}

/// Whether each column of a view can be written: it is one of the relation below a simple view.
pub(super) fn updatable_columns(view: &ViewDescriptor) -> Vec<bool> {
    let query = parse_view_query(&view.query).ok().filter(|query| not_updatable(query).is_none());
    let items = query.as_ref().and_then(crate::parse::lone_select).map(|select| select.projection.as_slice());
    let is_column = |item: &SelectItem| {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            return false;
        };
        matches!(expr, AstExpr::Identifier(_) | AstExpr::CompoundIdentifier(_))
    };
    (0..view.columns.len())
        .map(|place| items.and_then(|items| items.get(place)).is_some_and(is_column))
        .collect()
}

/// The rows of `pg_depend` for views: the rule of each belongs to it, and needs the relations of its query and their
/// columns.
pub(super) fn dependencies(context: &VirtualContext<'_>) -> Rows {
    let class = |name: &str| Value::Oid(shape::find("pg_catalog", name).map_or(0, |shape| shape.oid));
    let (rules, relations) = (class("pg_rewrite"), class("pg_class"));
    let mut rows = Rows::new();
    for view in context.catalog.views() {
        let mut needs: Vec<(Oid, u32, &str)> = vec![(view.oid, 0, "i")];
        for known in &view.relations {
            let columns = view.uses.iter().filter(|(relation, _)| *relation == known.relation);
            let before = needs.len();
            needs.extend(columns.map(|(relation, column)| (*relation, *column, "n")));
            if needs.len() == before {
                needs.push((known.relation, 0, "n"));
            }
        }
        needs.dedup();
        for (object, column, kind) in needs.into_iter().filter(|(object, ..)| *object >= Oid::FIRST_USER) {
            rows.push(vec![
                rules.clone(),
                Value::Oid(view.oid.get() | (1 << 31)),
                Value::Int4(0),
                relations.clone(),
                Value::Oid(object.get()),
                Value::Int4(i32::try_from(column).unwrap_or_default()),
                Value::text(kind),
            ]);
        }
    }
    rows
}

/// The options of a view as `pg_class` shows them.
pub(super) fn options(view: &ViewDescriptor) -> Value {
    let option = match view.check_option {
        None => return Value::Null,
        Some(CheckOption::Local) => "check_option=local",
        Some(CheckOption::Cascaded) => "check_option=cascaded",
    };
    Value::array(BaseType::Text, vec![Value::text(option)])
}

/// `pg_get_viewdef()` of a number or a name; NULL for what is no view that somebody made.
pub(super) fn pg_get_viewdef(lookup: &SystemLookup<'_>, args: &[Value]) -> Value {
    let oid = match args.first() {
        Some(Value::Oid(oid)) => Some(*oid),
        Some(Value::Text(name)) => {
            let (schema, name) = crate::scalar::cast::split_name(name);
            lookup.relation(schema.as_deref(), &name)
        }
        _ => None,
    };
    let text = oid.and_then(|oid| {
        let view = lookup.context.catalog.view(Oid::new(oid))?;
        let written = |oid| Some((lookup.written(oid)?, lookup.relation_name(oid)?.1));
        query(&lookup.context, view, &written, &|oid| lookup.user_type_text(oid))
    });
    text.map_or(Value::Null, Value::text)
}

/// The query with the schemas of its relations: what these relations are computed from knows no search path.
fn definition(context: &VirtualContext<'_>, view: &ViewDescriptor) -> Value {
    let lookup = SystemLookup { context: *context, search_path: &[], authority: None };
    let written = |oid: u32| {
        let (schema, own) = lookup.relation_name(oid)?;
        let shown = !matches!(schema.as_str(), "public" | "pg_catalog");
        Some((qualified(shown.then_some(schema.as_str()), &own), own))
    };
    let typed = |oid: u32| super::types::written(context, oid);
    query(context, view, &written, &typed).map_or(Value::Null, Value::text)
}

fn schema_name(context: &VirtualContext<'_>, schema: Oid) -> Value {
    context.catalog.schema(schema).map_or(Value::Null, |schema| Value::text(schema.name.as_str()))
}

/// `pg_views`
pub(super) fn pg_views(context: &VirtualContext<'_>) -> Rows {
    let row = |view: &ViewDescriptor| {
        let owner = context.system.roles.get(&view.owner);
        vec![
            schema_name(context, view.schema),
            Value::text(view.name.as_str()),
            owner.map_or(Value::Null, |role| Value::text(role.name.as_str())),
            definition(context, view),
        ]
    };
    context.catalog.views().map(|view| row(view)).collect()
}

/// `pg_rewrite`: the rule that each view is. It has no identifier; the number is made of the view's, above all that
/// objects get.
pub(super) fn pg_rewrite(context: &VirtualContext<'_>) -> Rows {
    let row = |view: &ViewDescriptor| {
        vec![
            Value::Oid(view.oid.get() | (1 << 31)),
            Value::text("_RETURN"),
            Value::Oid(view.oid.get()),
            Value::text("1"),
            Value::text("O"),
            Value::Bool(true),
            Value::text("<>"),
            Value::text("<>"),
        ]
    };
    context.catalog.views().map(|view| row(view)).collect()
}

/// `information_schema.views`
pub(super) fn views(context: &VirtualContext<'_>) -> Rows {
    let row = |view: &ViewDescriptor| {
        let no = || Value::text("NO");
        let updatable = || Value::text(if is_updatable(view) { "YES" } else { "NO" });
        vec![
            Value::text(context.database),
            schema_name(context, view.schema),
            Value::text(view.name.as_str()),
            definition(context, view),
            Value::text(match view.check_option {
                None => "NONE",
                Some(CheckOption::Local) => "LOCAL",
                Some(CheckOption::Cascaded) => "CASCADED",
            }),
            updatable(),
            updatable(),
            no(),
            no(),
            no(),
        ]
    };
    context.catalog.views().map(|view| row(view)).collect()
}
