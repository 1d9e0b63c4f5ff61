//! What EXPLAIN shows of each node, and the texts of its expressions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bind::deparse::{Deparse, PlanNames, SubqueryNames};
use crate::bind::from::column_type;
use crate::bind::kept::Forms;
use crate::catalog::CatalogSnapshot;
use crate::exec::database::ExecContext;
use crate::exec::meter::{self, Measure, Meter};
use crate::exec::subquery::Subquery;
use crate::pgcatalog::definition::quoted;
use crate::plan::window::WindowFunction;
use crate::plan::{
    Aggregate, AggregateCall, Join, JoinAlgorithm, JoinKind, Node, Probe, Scan, SetOperation, SortKey,
    TableFunction, cost, optimize,
};
use crate::scalar::{EvalContext, Expr, SubqueryExpr};
use rustydb_types::datatype::DataType;

/// Bytes that a value of a type without a fixed size is taken to have when nothing is known of it.
const WIDTH: u32 = 32;

/// One node as it is shown.
#[derive(Debug)]
pub(super) struct Item {
    /// Its line, without figures.
    pub title: String,
    /// Its kind in JSON.
    pub kind: &'static str,
    /// What JSON alone says beside that.
    pub facts: Vec<(&'static str, String)>,
    /// What is said under its line.
    pub lines: Vec<(&'static str, Vec<String>)>,
    /// What it costs.
    pub cost: cost::Cost,
    /// Rows that it is expected to give.
    pub rows: f64,
    /// Bytes of each.
    pub width: u32,
    /// What it did.
    pub measure: Option<Measure>,
    /// Whether it was executed at all.
    pub is_measured: bool,
    /// What it is for the node above, where that is not its input: a subquery's name.
    pub relation: Option<String>,
    /// What its second and later inputs are to it.
    pub other_children: &'static str,
    /// Its inputs.
    pub children: Vec<Item>,
}

impl Item {
    pub(super) fn new(title: String, kind: &'static str) -> Self {
        Self {
            title,
            kind,
            facts: Vec::new(),
            lines: Vec::new(),
            cost: cost::Cost::default(),
            rows: 0.0,
            width: 0,
            measure: None,
            is_measured: false,
            relation: None,
            other_children: "Inner",
            children: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, child: Self) {
        self.children.push(child);
    }

    fn line(&mut self, name: &'static str, values: Vec<String>) {
        if !values.is_empty() {
            self.lines.push((name, values));
        }
    }
}

/// A value of a node's rows: its text, and its bytes.
#[derive(Clone, Debug)]
pub(super) struct Output {
    text: String,
    width: u32,
    /// Its text in the node that computes it, where that is another.
    bare: Option<String>,
}

/// The subqueries that the expressions of a node name, by their numbers in the statement.
#[derive(Debug, Default)]
struct Subqueries {
    numbers: RefCell<BTreeMap<usize, usize>>,
    /// Those named since this was emptied.
    named: RefCell<Vec<Named>>,
}

/// A subquery: its number, its plan, and what it reads of the row around it.
type Named = (usize, Arc<Node>, Vec<Expr>);

impl SubqueryNames for Subqueries {
    fn name(&self, subquery: &dyn SubqueryExpr) -> String {
        let mut numbers = self.numbers.borrow_mut();
        let next = numbers.len() + 1;
        let number = *numbers.entry(subquery.id()).or_insert_with(|| {
            if let Some(subquery) = subquery.as_any().downcast_ref::<Subquery>() {
                let (plan, outer) = (Arc::clone(&subquery.plan), subquery.outer.clone());
                self.named.borrow_mut().push((next, plan, outer));
            }
            next
        });
        format!("(SubPlan {number})")
    }
}

/// Makes items of nodes.
pub(super) struct Tree<'a> {
    context: &'a ExecContext<'a>,
    meter: Option<&'a Meter>,
    eval: EvalContext<'a>,
    forms: Forms,
    subqueries: Subqueries,
    /// Whether columns are written behind the name of their relation: where there are several.
    prefixed: bool,
    /// Common table expressions that were shown.
    shown: RefCell<Vec<usize>>,
}

/// How many relations a plan reads.
fn relations(node: &Node) -> usize {
    match node {
        Node::Scan(_) | Node::Virtual { .. } | Node::Function { .. } | Node::WorkTable { .. } => 1,
        Node::Values { width, .. } => usize::from(*width > 0),
        Node::Shared { plan, .. } => 1 + relations(plan),
        Node::Recursive { initial, step, .. } => 1 + relations(initial) + relations(step),
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::Pick { input, .. }
        | Node::ProjectSet { input, .. }
        | Node::Sort { input, .. }
        | Node::Distinct { input, .. }
        | Node::Limit { input, .. } => relations(input),
        Node::Join(join) => relations(&join.left) + relations(&join.right),
        Node::Aggregate(aggregate) => relations(&aggregate.input),
        Node::Window(window) => relations(&window.input),
        Node::SetOp { left, right, .. } => relations(left) + relations(right),
    }
}

fn width_of(data_type: DataType) -> u32 {
    let fixed = data_type.base.type_len();
    u32::try_from(fixed).ok().filter(|fixed| *fixed > 0).unwrap_or(WIDTH)
}

/// A text that stands for a value computed below.
fn referred(text: String) -> String {
    let is_name = text.chars().all(|c| c.is_alphanumeric() || "_.\"$*".contains(c));
    if is_name { text } else { format!("({text})") }
}

impl<'a> Tree<'a> {
    pub(super) fn new(context: &'a ExecContext<'a>, meter: Option<&'a Meter>, nodes: Vec<&Node>) -> Self {
        Self {
            context,
            meter,
            eval: context.eval(&[]),
            forms: Forms::default(),
            subqueries: Subqueries::default(),
            prefixed: nodes.into_iter().map(relations).sum::<usize>() > 1,
            shown: RefCell::default(),
        }
    }

    /// Whether a second look at the plan is due: there are relations in subqueries, and none was counted.
    pub(super) fn lacks_prefixes(&self) -> bool {
        !self.prefixed && !self.subqueries.numbers.borrow().is_empty()
    }

    /// The same with columns behind the names of their relations.
    pub(super) fn with_prefixes(self) -> Self {
        Self { prefixed: true, subqueries: Subqueries::default(), shown: RefCell::default(), ..self }
    }

    pub(super) fn catalog(&self) -> &'a CatalogSnapshot {
        &self.context.analyze.catalog
    }

    fn text(&self, expr: &Expr, row: &[Output], outer: &[String]) -> String {
        let columns: Vec<String> = row.iter().map(|output| output.text.clone()).collect();
        let plan = PlanNames { outer, subquery: &self.subqueries };
        let deparse = Deparse {
            columns: &columns,
            forms: &self.forms,
            eval: &self.eval,
            zone: self.context.session.timezone(),
            pretty: false,
            plan: Some(&plan),
        };
        deparse.text(expr).unwrap_or_else(|_| "(?)".to_owned())
    }

    fn texts<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        row: &[Output],
        outer: &[String],
    ) -> Vec<String> {
        exprs.into_iter().map(|expr| self.text(expr, row, outer)).collect()
    }

    fn sort_keys(&self, keys: &[SortKey], row: &[Output], outer: &[String]) -> Vec<String> {
        let text = |key: &SortKey| {
            let text = self.text(&key.expr, row, outer);
            let mut text = if matches!(key.expr, Expr::Column { .. }) { text } else { referred(text) };
            if key.descending {
                text.push_str(" DESC");
            }
            if key.nulls_first != key.descending {
                text.push_str(if key.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
            }
            text
        };
        keys.iter().map(text).collect()
    }

    /// The item of a node with its estimates and measures.
    fn finished(&self, mut item: Item, node: &Node, row: &[Output]) -> Item {
        item.cost = cost::of(node, self.catalog());
        item.rows = optimize::rows(node).max(1.0);
        item.width = row.iter().map(|output| output.width).sum();
        item.is_measured = self.meter.is_some();
        item.measure = self.meter.and_then(|meter| meter.of(meter::key(node)));
        item
    }

    /// Adds the subqueries that the expressions of a node named.
    fn add_subqueries(&self, item: &mut Item, row: &[Output], outer: &[String]) {
        let named = std::mem::take(&mut *self.subqueries.named.borrow_mut());
        for (number, plan, read) in named {
            let around = self.texts(&read, row, outer);
            let (mut child, _) = self.item(&plan, &around);
            child.relation = Some(format!("SubPlan {number}"));
            item.children.push(child);
        }
    }

    /// What is shown of a node whose rows read `outer`, and the values of its rows.
    pub(super) fn item(&self, node: &Node, outer: &[String]) -> (Item, Vec<Output>) {
        match node {
            Node::Project { input, exprs } => {
                let (mut item, below) = self.item(input, outer);
                let one = |expr: &Expr| Output {
                    bare: None,
                    text: match expr {
                        Expr::Column { .. } => self.text(expr, &below, outer),
                        _ => referred(self.text(expr, &below, outer)),
                    },
                    width: width_of(expr.ty()),
                };
                let row: Vec<Output> = exprs.iter().map(one).collect();
                self.add_subqueries(&mut item, &below, outer);
                item.cost = cost::of(node, self.catalog());
                item.width = row.iter().map(|output| output.width).sum();
                (item, row)
            }
            Node::Pick { input, columns } => {
                let (mut item, below) = self.item(input, outer);
                let row: Vec<Output> =
                    columns.iter().filter_map(|column| below.get(*column).cloned()).collect();
                item.width = row.iter().map(|output| output.width).sum();
                (item, row)
            }
            Node::Filter { input, predicate } => {
                let (mut item, below) = self.item(input, outer);
                let bare = |output: &Output| Output {
                    text: output.bare.clone().unwrap_or_else(|| output.text.clone()),
                    ..output.clone()
                };
                let inner: Vec<Output> = match input.as_ref() {
                    Node::Aggregate(_) => below.iter().map(bare).collect(),
                    _ => below.clone(),
                };
                item.line("Filter", vec![self.text(predicate, &inner, outer)]);
                self.add_subqueries(&mut item, &below, outer);
                let width = item.width;
                let mut item = self.finished(item, node, &below);
                item.width = width;
                (item, below)
            }
            _ => {
                let (mut item, row) = self.own(node, outer);
                self.add_subqueries(&mut item, &row, outer);
                (self.finished(item, node, &row), row)
            }
        }
    }

    fn own(&self, node: &Node, outer: &[String]) -> (Item, Vec<Output>) {
        match node {
            Node::Values { rows, width: 0 } if rows.len() == 1 => {
                (Item::new("Result".into(), "Result"), vec![])
            }
            Node::Values { rows, .. } if rows.len() == 1 => {
                let row = rows.first().map(Vec::as_slice).unwrap_or_default();
                let one = |expr: &Expr| Output {
                    bare: None,
                    text: referred(self.text(expr, &[], outer)),
                    width: width_of(expr.ty()),
                };
                (Item::new("Result".into(), "Result"), row.iter().map(one).collect())
            }
            Node::Values { rows, .. } => {
                let mut item = Item::new("Values Scan on \"*VALUES*\"".into(), "Values Scan");
                item.facts.push(("Alias", "*VALUES*".to_owned()));
                let types = rows.first().map(|row| row.iter().map(Expr::ty).collect::<Vec<_>>());
                let row = types.unwrap_or_default().into_iter().zip(1..).map(|(ty, number)| Output {
                    bare: None,
                    text: format!("\"*VALUES*\".column{number}"),
                    width: width_of(ty),
                });
                (item, row.collect())
            }
            Node::Scan(scan) => self.scan(scan, outer),
            Node::Virtual { relation, .. } => {
                let name = relation.name();
                let mut item = Item::new(format!("Seq Scan on {name}"), "Seq Scan");
                item.facts.extend([("Relation Name", name.to_owned()), ("Alias", name.to_owned())]);
                let columns = relation.columns().iter();
                (
                    item,
                    columns
                        .map(|column| self.column(name, column.name, width_of(column.data_type)))
                        .collect(),
                )
            }
            Node::Function { function, args, ordinality } => {
                let (name, ty) = match (function, args.first()) {
                    (TableFunction::Set(function), _) => (function.name, None),
                    (TableFunction::Scalar, Some(Expr::Call { function, ty, .. })) => {
                        (function.name, Some(*ty))
                    }
                    (TableFunction::Scalar, _) => ("expression", None),
                };
                let mut item = Item::new(format!("Function Scan on {name}"), "Function Scan");
                item.facts.extend([("Function Name", name.to_owned()), ("Alias", name.to_owned())]);
                let mut row = vec![self.column(name, name, ty.map_or(4, width_of))];
                if *ordinality {
                    row.push(self.column(name, "ordinality", 8));
                }
                (item, row)
            }
            Node::Recursive { initial, step, id, .. } => {
                let mut item = Item::new("Recursive Union".into(), "Recursive Union");
                self.shown.borrow_mut().push(*id);
                let (first, row) = self.item(initial, outer);
                item.add(first);
                item.add(self.item(step, outer).0);
                (item, row)
            }
            Node::WorkTable { name, width, .. } => {
                let mut item = Item::new(format!("WorkTable Scan on {name}"), "WorkTable Scan");
                item.facts.push(("CTE Name", name.clone()));
                let row = (1..=*width).map(|number| Output {
                    bare: None,
                    text: format!("{name}.column{number}"),
                    width: WIDTH,
                });
                (item, row.collect())
            }
            Node::Shared { plan, id } => {
                let mut item = Item::new("CTE Scan".into(), "CTE Scan");
                let (input, row) = self.item(plan, outer);
                let is_first = !self.shown.borrow().contains(id);
                if is_first {
                    self.shown.borrow_mut().push(*id);
                    item.add(input);
                }
                (item, row)
            }
            Node::ProjectSet { input, exprs } => {
                let mut item = Item::new("ProjectSet".into(), "ProjectSet");
                let (below, row) = self.item(input, outer);
                item.add(below);
                let one = |(function, args): &(Option<TableFunction>, Vec<Expr>)| {
                    let args_text = self.texts(args, &row, outer).join(", ");
                    let text = match function {
                        Some(TableFunction::Set(function)) => format!("({}({args_text}))", function.name),
                        _ => args_text,
                    };
                    Output { bare: None, text, width: args.first().map_or(4, |arg| width_of(arg.ty())) }
                };
                (item, exprs.iter().map(one).collect())
            }
            Node::Join(join) => self.join(join, outer),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, outer),
            Node::Window(window) => {
                let mut item = Item::new("WindowAgg".into(), "WindowAgg");
                let (below, mut row) = self.item(&window.input, outer);
                let keys = window.partition.iter().map(|expr| referred(self.text(expr, &row, outer)));
                let keys: Vec<String> = keys.chain(self.sort_keys(&window.order, &row, outer)).collect();
                let mut input = below;
                if !keys.is_empty() {
                    // The node sorts its rows itself.
                    let mut sort = Item::new("Sort".into(), "Sort");
                    (sort.cost, sort.rows, sort.width) = (input.cost, input.rows, input.width);
                    sort.line("Sort Key", keys);
                    sort.add(input);
                    input = sort;
                }
                item.add(input);
                let calls = window.calls.iter().map(|call| {
                    let name = match &call.function {
                        WindowFunction::Aggregate(call) => self.call(call, &row, outer),
                        other => format!(
                            "{}({})",
                            window_name(other),
                            self.texts(&call.args, &row, outer).join(", ")
                        ),
                    };
                    Output { bare: None, text: format!("({name} OVER (?))"), width: width_of(call.ty) }
                });
                let calls: Vec<Output> = calls.collect();
                row.extend(calls);
                (item, row)
            }
            Node::Sort { input, keys, bound } => {
                let mut item = Item::new("Sort".into(), "Sort");
                let (below, row) = self.item(input, outer);
                item.line("Sort Key", self.sort_keys(keys, &row, outer));
                if bound.is_some() && self.meter.is_some() {
                    item.line("Sort Method", vec!["top-N heapsort".into()]);
                }
                item.add(below);
                (item, row)
            }
            Node::Distinct { input, on } => {
                let mut item = match on {
                    Some(_) => Item::new("Unique".into(), "Unique"),
                    None => Item::new("HashAggregate".into(), "Aggregate"),
                };
                let (below, row) = self.item(input, outer);
                if on.is_none() {
                    item.facts.push(("Strategy", "Hashed".into()));
                    item.line("Group Key", row.iter().map(|output| output.text.clone()).collect());
                }
                item.add(below);
                (item, row)
            }
            Node::SetOp { operation, all, left, right } => {
                let (first, row) = self.item(left, outer);
                let (second, _) = self.item(right, outer);
                let mut append = Item::new("Append".into(), "Append");
                append.other_children = "Member";
                append.cost =
                    cost::Cost { startup: first.cost.startup, total: first.cost.total + second.cost.total };
                (append.rows, append.width) = (first.rows + second.rows, first.width);
                append.add(first);
                append.add(second);
                let mut item = match (operation, all) {
                    (SetOperation::Union, true) => return (append, row),
                    (SetOperation::Union, false) => {
                        let mut item = Item::new("HashAggregate".into(), "Aggregate");
                        item.facts.push(("Strategy", "Hashed".into()));
                        item.line("Group Key", row.iter().map(|output| output.text.clone()).collect());
                        item
                    }
                    (operation, all) => {
                        let word = if *operation == SetOperation::Intersect { "Intersect" } else { "Except" };
                        let all = if *all { " All" } else { "" };
                        let mut item = Item::new(format!("HashSetOp {word}{all}"), "SetOp");
                        item.facts
                            .extend([("Strategy", "Hashed".into()), ("Command", format!("{word}{all}"))]);
                        item
                    }
                };
                item.add(append);
                (item, row)
            }
            Node::Limit { input, .. } => {
                let mut item = Item::new("Limit".into(), "Limit");
                let (below, row) = self.item(input, outer);
                item.add(below);
                (item, row)
            }
            Node::Project { .. } | Node::Pick { .. } | Node::Filter { .. } => self.item(node, outer),
        }
    }

    fn column(&self, relation: &str, name: &str, width: u32) -> Output {
        let name = quoted(name);
        let text = if self.prefixed { format!("{}.{name}", quoted(relation)) } else { name };
        Output { bare: None, text, width }
    }

    /// The values of all columns of a scan's table.
    fn row_of(&self, scan: &Scan) -> Vec<Output> {
        let known = self.catalog().statistics(scan.table.oid);
        let columns = scan.table.columns.iter().map(|column| {
            let own = known.and_then(|known| known.columns.get(&column.id.get()));
            let data_type = column_type(column.data_type);
            let fixed = width_of(data_type);
            let width = match own {
                Some(own) if data_type.base.type_len() < 0 => own.width,
                _ => fixed,
            };
            let is_wanted = scan.wanted.iter().any(|wanted| wanted.column == column.id.get());
            self.column(&scan.alias, &column.name, if is_wanted { width } else { 0 })
        });
        let locator = scan.locator.then(|| self.column(&scan.alias, "ctid", 6));
        columns.chain(locator).collect()
    }

    fn scan(&self, scan: &Scan, outer: &[String]) -> (Item, Vec<Output>) {
        let table = &scan.table.name;
        let shown = quoted(table);
        let on = if *table == scan.alias { shown } else { format!("{shown} {}", quoted(&scan.alias)) };
        let index = match scan.path.index {
            Some(place) => scan.table.indexes.get(place),
            None if scan.path.probes.is_empty() && !scan.path.reverse => None,
            None => scan.table.indexes.iter().find(|index| scan.table.is_row_key(index)),
        };
        let table_row = self.row_of(scan);
        let own = scan.columns.iter().filter_map(|column| table_row.get(*column));
        let row: Vec<Output> = own.chain(table_row.iter().skip(scan.table.columns.len())).cloned().collect();
        let mut item = match index {
            Some(index) => {
                let backward = if scan.path.reverse { " Backward" } else { "" };
                let name = quoted(&index.name);
                let mut item = Item::new(format!("Index Scan{backward} using {name} on {on}"), "Index Scan");
                let direction = if scan.path.reverse { "Backward" } else { "Forward" };
                item.facts.extend([("Scan Direction", direction.into()), ("Index Name", index.name.clone())]);
                item
            }
            None => Item::new(format!("Seq Scan on {on}"), "Seq Scan"),
        };
        item.facts.extend([("Relation Name", table.clone()), ("Alias", scan.alias.clone())]);
        if let Some(index) = index {
            let keys: Vec<String> = index
                .key
                .iter()
                .map(|part| match scan.table.column_index_of(part.column) {
                    Some(place) => {
                        table_row.get(place).map_or_else(String::new, |output| output.text.clone())
                    }
                    None => {
                        let computed = scan.table.computed_of(part.column);
                        let place = computed.and_then(|own| scan.table.key_place(own.id));
                        let place = place.and_then(|place| place.checked_sub(scan.table.columns.len()));
                        let expr = place.and_then(|place| scan.computed.get(place));
                        expr.map_or_else(|| "?".into(), |expr| self.text(expr, &table_row, outer))
                    }
                })
                .collect();
            item.line("Index Cond", self.probes(&scan.path.probes, &keys, outer).into_iter().collect());
        }
        if let Some(filter) = &scan.filter {
            item.line("Filter", vec![self.text(filter, &row, outer)]);
        }
        (item, row)
    }

    /// What ranges of keys ask of the columns of the key. Their bounds read the row around.
    fn probes(&self, probes: &[Probe], keys: &[String], outer: &[String]) -> Option<String> {
        let around: Vec<Output> =
            outer.iter().map(|text| Output { bare: None, text: text.clone(), width: 0 }).collect();
        let first = probes.first()?;
        let mut parts = Vec::new();
        for (place, key) in keys.iter().enumerate().take(first.prefix.len()) {
            let mut values: Vec<String> = Vec::new();
            for probe in probes {
                let text = probe.prefix.get(place).map(|value| self.text(value, &around, outer));
                values.extend(text.filter(|text| !values.contains(text)));
            }
            parts.push(match values.as_slice() {
                [value] => format!("({key} = {value})"),
                values => format!("({key} = ANY (ARRAY[{}]))", values.join(", ")),
            });
        }
        if let Some(key) = keys.get(first.prefix.len()) {
            let bound = |bound: &Option<(Expr, bool)>, sign: &str| {
                let (value, included) = bound.as_ref()?;
                let equal = if *included { "=" } else { "" };
                Some(format!("({key} {sign}{equal} {})", self.text(value, &around, outer)))
            };
            parts.extend(bound(&first.low, ">"));
            parts.extend(bound(&first.high, "<"));
        }
        match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(format!("({})", parts.join(" AND "))),
        }
    }

    fn join(&self, join: &Join, outer: &[String]) -> (Item, Vec<Output>) {
        let (kind, word) = match join.kind {
            JoinKind::Inner => ("", "Inner"),
            JoinKind::Left => (" Left", "Left"),
            JoinKind::Right => (" Right", "Right"),
            JoinKind::Full => (" Full", "Full"),
        };
        let (left, left_row) = self.item(&join.left, outer);
        let texts = |row: &[Output]| row.iter().map(|output| output.text.clone()).collect::<Vec<_>>();
        let around = match &join.algorithm {
            JoinAlgorithm::Lateral { outer: values } => self.texts(values, &left_row, outer),
            JoinAlgorithm::IndexLookup => texts(&left_row),
            JoinAlgorithm::NestedLoop | JoinAlgorithm::Hash { .. } => outer.to_vec(),
        };
        let (right, right_row) = self.item(&join.right, &around);
        let row: Vec<Output> = left_row.iter().chain(&right_row).cloned().collect();
        let condition = join.condition.as_ref().map(|condition| self.text(condition, &row, outer));
        let mut item;
        if let JoinAlgorithm::Hash { left: of_left, right: of_right } = &join.algorithm {
            item = Item::new(format!("Hash{kind} Join"), "Hash Join");
            let pairs = of_left.iter().zip(of_right).map(|(a, b)| {
                let (a, b) = (self.text(a, &left_row, outer), self.text(b, &right_row, outer));
                format!("({a} = {b})")
            });
            let pairs: Vec<String> = pairs.collect();
            item.line(
                "Hash Cond",
                vec![match pairs.as_slice() {
                    [one] => one.clone(),
                    many => format!("({})", many.join(" AND ")),
                }],
            );
            item.line("Join Filter", condition.into_iter().collect());
            let mut hash = Item::new("Hash".into(), "Hash");
            hash.cost = cost::Cost { startup: right.cost.total, total: right.cost.total };
            (hash.rows, hash.width) = (right.rows, right.width);
            (hash.measure, hash.is_measured) = (right.measure, right.is_measured);
            if let Some(measure) = &mut hash.measure {
                measure.removed = 0;
            }
            hash.add(right);
            item.add(left);
            item.add(hash);
        } else {
            let title = if join.kind == JoinKind::Inner {
                "Nested Loop".into()
            } else {
                format!("Nested Loop{kind} Join")
            };
            item = Item::new(title, "Nested Loop");
            item.line("Join Filter", condition.into_iter().collect());
            item.add(left);
            item.add(right);
        }
        item.facts.push(("Join Type", word.to_owned()));
        (item, row)
    }

    fn call(&self, call: &AggregateCall, row: &[Output], outer: &[String]) -> String {
        let mut args = self.texts(&call.args, row, outer).join(", ");
        let name = call.function.function.name;
        if args.is_empty() && call.direct.is_empty() && name == "count" {
            args.push('*');
        }
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let order = self.sort_keys(&call.order_by, row, outer).join(", ");
        let mut text = if call.direct.is_empty() {
            let order = if order.is_empty() { order } else { format!(" ORDER BY {order}") };
            format!("{name}({distinct}{args}{order})")
        } else {
            let direct = self.texts(&call.direct, row, outer).join(", ");
            format!("{name}({direct}) WITHIN GROUP (ORDER BY {order})")
        };
        if let Some(filter) = &call.filter {
            text.push_str(&format!(" FILTER (WHERE {})", self.text(filter, row, outer)));
        }
        text
    }

    /// The values of an aggregation's rows; referred to from above they stand in parentheses.
    fn of_groups(&self, aggregate: &Aggregate, row: &[Output], outer: &[String]) -> Vec<Output> {
        let output = |text: String, width| Output { text: referred(text.clone()), width, bare: Some(text) };
        let keys = self.texts(&aggregate.groups, row, outer);
        let groups = aggregate.groups.iter().zip(&keys);
        let groups = groups.map(|(expr, text)| output(text.clone(), width_of(expr.ty())));
        let calls = aggregate.calls.iter();
        let calls = calls.map(|call| output(self.call(call, row, outer), width_of(call.function.ty)));
        let groupings = aggregate.groupings.iter().map(|places| {
            let of = places.iter().filter_map(|place| keys.get(*place).cloned()).collect::<Vec<_>>();
            output(format!("GROUPING({})", of.join(", ")), 4)
        });
        groups.chain(calls).chain(groupings).collect()
    }

    fn aggregate(&self, aggregate: &Aggregate, outer: &[String]) -> (Item, Vec<Output>) {
        let is_mixed = aggregate.sets.iter().any(|set| set.is_empty);
        let (title, strategy) = match aggregate.always_one {
            true => ("Aggregate", "Plain"),
            false if is_mixed => ("MixedAggregate", "Mixed"),
            false => ("HashAggregate", "Hashed"),
        };
        let mut item = Item::new(title.into(), "Aggregate");
        item.facts.push(("Strategy", strategy.to_owned()));
        let (below, row) = self.item(&aggregate.input, outer);
        let keys = self.texts(&aggregate.groups, &row, outer);
        if aggregate.sets.is_empty() {
            item.line("Group Key", keys);
        } else {
            for set in &aggregate.sets {
                let of: Vec<String> = set.keys.iter().filter_map(|place| keys.get(*place).cloned()).collect();
                let name = if of.is_empty() { "Group Key" } else { "Hash Key" };
                item.line(name, if of.is_empty() { vec!["()".into()] } else { of });
            }
        }
        item.add(below);
        let row = self.of_groups(aggregate, &row, outer);
        (item, row)
    }
}

const fn window_name(function: &WindowFunction) -> &'static str {
    match function {
        WindowFunction::RowNumber => "row_number",
        WindowFunction::Rank => "rank",
        WindowFunction::DenseRank => "dense_rank",
        WindowFunction::PercentRank => "percent_rank",
        WindowFunction::CumeDist => "cume_dist",
        WindowFunction::Ntile => "ntile",
        WindowFunction::Lag => "lag",
        WindowFunction::Lead => "lead",
        WindowFunction::FirstValue => "first_value",
        WindowFunction::LastValue => "last_value",
        WindowFunction::NthValue => "nth_value",
        WindowFunction::Aggregate(_) => "aggregate",
    }
}
