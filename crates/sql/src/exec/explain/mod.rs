//! EXPLAIN: a plan in PostgreSQL's shape, as text or as JSON, with what each part of it did where it was executed.

mod render;
mod tree;

use rustydb_txn::Transaction;
use rustydb_types::value::Value;

use self::tree::{Item, Tree};
use super::cursor::Execution;
use super::database::ExecContext;
use super::meter::Meter;
use super::modify;
use super::operator::Batch;
use crate::bind::errors::unsupported;
use crate::error::SqlError;
use crate::plan::statement::{Action, ExplainOptions, Plan};
use crate::plan::{Node, cost};

/// The rows of EXPLAIN; with ANALYZE the statement is executed first, and what each node does is measured.
pub(crate) async fn rows(
    plan: &Plan,
    options: ExplainOptions,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Batch, SqlError> {
    let mut took = None;
    if options.analyze {
        execution.state.meter = Some(Meter::default());
        let begun = context.session.clock();
        execute(plan, execution, txn, context).await?;
        took = Some(context.session.clock().saturating_sub(begun).max(0));
    }
    let meter = execution.state.meter.take();
    let mut tree = Tree::new(context, meter.as_ref(), nodes_of(plan));
    let mut item = whole(plan, &tree)?;
    if tree.lacks_prefixes() {
        tree = tree.with_prefixes();
        item = whole(plan, &tree)?;
    }
    Ok(match options.is_json {
        true => vec![vec![Value::text(render::json(&item, options, took))]],
        false => {
            let lines = render::text(&item, options, took).into_iter();
            lines.map(|line| vec![Value::text(line)]).collect()
        }
    })
}

/// A statement with the parts of its WITH that change rows.
fn whole(plan: &Plan, tree: &Tree<'_>) -> Result<Item, SqlError> {
    let mut item = statement(&plan.action, tree)?;
    for (_, action) in &plan.before {
        if !matches!(action, Action::Query(_)) {
            let mut before = statement(action, tree)?;
            before.relation = Some("InitPlan".to_owned());
            item.children.push(before);
        }
    }
    Ok(item)
}

async fn execute(
    plan: &Plan,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    modify::run_before(plan, execution, txn, context).await?;
    match &plan.action {
        Action::Query(node) => while execution.next(node, txn, context)?.is_some() {},
        Action::Lock(lock) => drop(modify::lock_rows(lock, execution, txn, context).await?),
        Action::Insert(insert) => drop(modify::insert(insert, execution, txn, context).await?),
        Action::Update(update) => drop(modify::update(update, execution, txn, context).await?),
        Action::Delete(delete) => drop(modify::delete(delete, execution, txn, context).await?),
        Action::Explain { .. } | Action::Utility(_) => {}
    }
    Ok(())
}

/// The inputs of a statement and of what runs before it.
fn nodes_of(plan: &Plan) -> Vec<&Node> {
    let actions = plan.before.iter().map(|(_, action)| action).chain([&plan.action]);
    actions.filter_map(input_of).map(|(_, _, node)| node).collect()
}

/// What a statement is, the relation that it changes, and its input.
fn input_of(action: &Action) -> Option<(&'static str, Option<&str>, &Node)> {
    Some(match action {
        Action::Query(node) => ("Query", None, node),
        Action::Lock(plan) => ("LockRows", None, &plan.input),
        Action::Insert(plan) => ("Insert", Some(plan.table.name.as_str()), &plan.input),
        Action::Update(plan) => ("Update", Some(plan.table.name.as_str()), &plan.input),
        Action::Delete(plan) => ("Delete", Some(plan.table.name.as_str()), &plan.input),
        Action::Explain { .. } | Action::Utility(_) => return None,
    })
}

fn statement(action: &Action, tree: &Tree<'_>) -> Result<Item, SqlError> {
    let (what, table, node) = input_of(action).ok_or_else(|| unsupported("EXPLAIN of this statement"))?;
    let (input, _) = tree.item(node, &[]);
    if what == "Query" {
        return Ok(input);
    }
    let of_input = cost::of(node, tree.catalog());
    let mut item = match table {
        Some(table) => {
            let mut item = Item::new(format!("{what} on {table}"), "ModifyTable");
            item.facts.push(("Operation", what.to_owned()));
            item.facts.push(("Relation Name", table.to_owned()));
            item
        }
        None => {
            let mut item = Item::new(what.to_owned(), what);
            (item.rows, item.width) = (input.rows, input.width);
            item
        }
    };
    item.cost = of_input;
    item.measure = input.measure;
    if let Some(measure) = &mut item.measure {
        measure.removed = 0;
        if table.is_some() {
            measure.rows = 0;
        }
    }
    item.is_measured = input.is_measured;
    item.add(input);
    Ok(item)
}
