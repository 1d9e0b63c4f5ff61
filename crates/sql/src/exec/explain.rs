//! EXPLAIN: a plan as text in PostgreSQL's shape.

use rustydb_txn::Transaction;
use rustydb_types::value::Value;

use super::cursor::Execution;
use super::database::ExecContext;
use super::modify;
use super::operator::Batch;
use crate::bind::errors::unsupported;
use crate::error::SqlError;
use crate::plan::optimize;
use crate::plan::statement::{Action, Plan};
use crate::plan::{JoinAlgorithm, JoinKind, Node, Scan, SetOperation};

/// The rows of EXPLAIN; with ANALYZE the statement is executed first, and the rows it yields are counted.
pub(crate) async fn rows(
    plan: &Plan,
    analyze: bool,
    execution: &mut Execution,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<Batch, SqlError> {
    let mut lines = Vec::new();
    match &plan.action {
        Action::Query(node) => print(node, 0, &mut lines),
        Action::Lock(lock) => {
            lines.push("LockRows".to_owned());
            print(&lock.input, 1, &mut lines);
        }
        Action::Insert(insert) => {
            lines.push(format!("Insert on {}", insert.table.name));
            print(&insert.input, 1, &mut lines);
        }
        Action::Update(update) => {
            lines.push(format!("Update on {}", update.table.name));
            print(&update.input, 1, &mut lines);
        }
        Action::Delete(delete) => {
            lines.push(format!("Delete on {}", delete.table.name));
            print(&delete.input, 1, &mut lines);
        }
        Action::Explain { .. } | Action::Utility(_) => return Err(unsupported("EXPLAIN of this statement")),
    }
    for (_, action) in &plan.before {
        let (title, input) = match action {
            Action::Lock(plan) => ("LockRows".to_owned(), &plan.input),
            Action::Insert(plan) => (format!("Insert on {}", plan.table.name), &plan.input),
            Action::Update(plan) => (format!("Update on {}", plan.table.name), &plan.input),
            Action::Delete(plan) => (format!("Delete on {}", plan.table.name), &plan.input),
            Action::Query(_) | Action::Explain { .. } | Action::Utility(_) => continue,
        };
        lines.push(format!("InitPlan: {title}"));
        print(input, 1, &mut lines);
    }
    if analyze {
        modify::run_before(plan, execution, txn, context).await?;
        let count = match &plan.action {
            Action::Query(node) => {
                let mut count = 0;
                while let Some(batch) = execution.next(node, txn, context)? {
                    count += batch.len() as u64;
                }
                count
            }
            Action::Lock(lock) => modify::lock_rows(lock, execution, txn, context).await?.len() as u64,
            Action::Insert(insert) => modify::insert(insert, execution, txn, context).await?.count,
            Action::Update(update) => modify::update(update, execution, txn, context).await?.count,
            Action::Delete(delete) => modify::delete(delete, execution, txn, context).await?.count,
            Action::Explain { .. } | Action::Utility(_) => 0,
        };
        lines.push(format!("Actual rows: {count}"));
    }
    Ok(lines.into_iter().map(|line| vec![Value::text(line)]).collect())
}

fn print(node: &Node, depth: usize, lines: &mut Vec<String>) {
    let mut line = |text: String| {
        let indent = if depth == 0 { String::new() } else { format!("{}->  ", " ".repeat(depth * 6 - 4)) };
        lines.push(format!("{indent}{text}  (rows={:.0})", optimize::rows(node)));
    };
    match node {
        // Neither adds a line in PostgreSQL's plans.
        Node::Project { input, .. } => print(input, depth, lines),
        Node::Filter { input, .. } => {
            line("Filter".into());
            print(input, depth + 1, lines);
        }
        Node::Values { rows, width: 0 } if rows.len() == 1 => line("Result".into()),
        Node::Values { .. } => line("Values Scan on \"*VALUES*\"".into()),
        Node::Scan(scan) => {
            line(scan_title(scan));
            print_scan(scan, depth, lines);
        }
        Node::Virtual { relation, .. } => line(format!("Seq Scan on {}", relation.name())),
        Node::Function { .. } => line("Function Scan".into()),
        Node::Recursive { initial, step, .. } => {
            line("Recursive Union".into());
            print(initial, depth + 1, lines);
            print(step, depth + 1, lines);
        }
        Node::WorkTable { name, .. } => line(format!("WorkTable Scan on {name}")),
        Node::Shared { plan, .. } => {
            line("CTE Scan".into());
            print(plan, depth + 1, lines);
        }
        Node::ProjectSet { input, .. } => {
            line("ProjectSet".into());
            print(input, depth + 1, lines);
        }
        Node::Join(join) => {
            let kind = match join.kind {
                JoinKind::Inner => "",
                JoinKind::Left => " Left",
                JoinKind::Right => " Right",
                JoinKind::Full => " Full",
            };
            line(match (&join.algorithm, join.kind) {
                (JoinAlgorithm::Hash { .. }, _) => format!("Hash{kind} Join"),
                (_, JoinKind::Inner) => "Nested Loop".into(),
                _ => format!("Nested Loop{kind} Join"),
            });
            print(&join.left, depth + 1, lines);
            print(&join.right, depth + 1, lines);
        }
        Node::Aggregate(aggregate) => {
            line(match aggregate.sets.iter().any(|set| set.is_empty) {
                _ if aggregate.always_one => "Aggregate".into(),
                true => "MixedAggregate".into(),
                false => "HashAggregate".into(),
            });
            print(&aggregate.input, depth + 1, lines);
        }
        Node::Window(window) => {
            line("WindowAgg".into());
            print(&window.input, depth + 1, lines);
        }
        Node::Sort { input, bound, .. } => {
            line(if bound.is_some() { "Top-N Sort".into() } else { "Sort".into() });
            print(input, depth + 1, lines);
        }
        Node::Distinct { input, .. } => {
            line("Unique".into());
            print(input, depth + 1, lines);
        }
        Node::SetOp { operation, all, left, right } => {
            line(match (operation, all) {
                (SetOperation::Union, true) => "Append".into(),
                (SetOperation::Union, false) => "HashAggregate (Append)".into(),
                (SetOperation::Intersect, _) => "HashSetOp Intersect".into(),
                (SetOperation::Except, _) => "HashSetOp Except".into(),
            });
            print(left, depth + 1, lines);
            print(right, depth + 1, lines);
        }
        Node::Limit { input, .. } => {
            line("Limit".into());
            print(input, depth + 1, lines);
        }
    }
}

fn scan_title(scan: &Scan) -> String {
    let table = &scan.table.name;
    let on = if *table == scan.alias { table.clone() } else { format!("{table} {}", scan.alias) };
    let index = match scan.path.index {
        Some(place) => scan.table.indexes.get(place),
        None if scan.path.probes.is_empty() && !scan.path.reverse => None,
        None => scan.table.indexes.iter().find(|index| scan.table.is_row_key(index)),
    };
    match index {
        Some(index) => {
            let backward = if scan.path.reverse { " Backward" } else { "" };
            format!("Index Scan{backward} using {} on {on}", index.name)
        }
        None => format!("Seq Scan on {on}"),
    }
}

fn print_scan(scan: &Scan, depth: usize, lines: &mut Vec<String>) {
    let indent = " ".repeat(depth * 6 + 2);
    if let Some(probe) = scan.path.probes.first() {
        let mut columns = probe.prefix.len();
        columns += usize::from(probe.low.is_some() || probe.high.is_some());
        lines.push(format!("{indent}Index Cond: {columns} column(s), {} range(s)", scan.path.probes.len()));
    }
    if scan.filter.is_some() {
        lines.push(format!("{indent}Filter: yes"));
    }
}
