//! The tree of a plan as PostgreSQL writes it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::tree::Item;
use crate::plan::statement::ExplainOptions;

/// Columns by which a node is set in under the one above it.
const INDENT: usize = 6;

/// A part of a JSON document; what is in an object stays in its order.
enum Doc {
    Text(String),
    Count(u64),
    Number(f64),
    Flag(bool),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::List(list) => serializer.collect_seq(list),
            Self::Object(parts) => {
                let mut map = serializer.serialize_map(Some(parts.len()))?;
                for (name, value) in parts {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl From<&str> for Doc {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn millis(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

/// Whole for counts, with two digits for what is a mean of several loops.
fn per_loop(count: u64, loops: u64) -> u64 {
    (count + loops / 2) / loops.max(1)
}

/// The lines of the plan.
pub(super) fn text(item: &Item, options: ExplainOptions, took: Option<i64>) -> Vec<String> {
    let mut lines = Vec::new();
    write(item, 0, options, &mut lines);
    if let Some(took) = took.filter(|_| options.summary) {
        lines.push(format!("Execution Time: {:.3} ms", millis(took)));
    }
    lines
}

/// `depth_in` is where the line of a node would begin without its arrow, which takes four columns before it.
fn write(item: &Item, mut depth_in: usize, options: ExplainOptions, lines: &mut Vec<String>) {
    if let Some(relation) = &item.relation {
        lines.push(format!("{}{relation}", " ".repeat(depth_in.saturating_sub(4))));
        depth_in += 2;
    }
    let indent = match depth_in {
        0 => String::new(),
        deep => format!("{}->  ", " ".repeat(deep - 4)),
    };
    let mut line = format!("{indent}{}", item.title);
    if options.costs {
        line.push_str(&format!(
            "  (cost={:.2}..{:.2} rows={:.0} width={})",
            item.cost.startup, item.cost.total, item.rows, item.width
        ));
    }
    match item.measure {
        _ if !item.is_measured => {}
        Some(measure) if measure.loops > 0 => {
            let loops = measure.loops;
            let mean = |micros: i64| millis(micros) / loops as f64;
            let times = if options.timing {
                format!("time={:.3}..{:.3} ", mean(measure.startup_micros), mean(measure.total_micros))
            } else {
                String::new()
            };
            line.push_str(&format!(" (actual {times}rows={} loops={loops})", per_loop(measure.rows, loops)));
        }
        _ => line.push_str(" (never executed)"),
    }
    lines.push(line);
    let inner = " ".repeat(depth_in + 2);
    for (name, values) in &item.lines {
        lines.push(format!("{inner}{name}: {}", values.join(", ")));
    }
    if let Some(measure) = item.measure.filter(|measure| measure.removed > 0) {
        let removed = per_loop(measure.removed, measure.loops);
        lines.push(format!("{inner}Rows Removed by Filter: {removed}"));
    }
    for child in &item.children {
        write(child, depth_in + INDENT, options, lines);
    }
}

/// The plan as a JSON document.
pub(super) fn json(item: &Item, options: ExplainOptions, took: Option<i64>) -> String {
    let mut whole = vec![("Plan".to_owned(), object(item, options, None))];
    if let Some(took) = took {
        whole.push(("Triggers".to_owned(), Doc::List(Vec::new())));
        if options.summary {
            whole.push(("Execution Time".to_owned(), Doc::Number(millis(took))));
        }
    }
    serde_json::to_string_pretty(&Doc::List(vec![Doc::Object(whole)])).unwrap_or_default()
}

fn rounded(value: f64) -> Doc {
    Doc::Number((value * 100.0).round() / 100.0)
}

/// A count of rows of an estimate, which is not negative.
fn count(rows: f64) -> Doc {
    Doc::Count(rows.round() as u64)
}

fn object(item: &Item, options: ExplainOptions, parent: Option<&str>) -> Doc {
    let mut shown: Vec<(String, Doc)> = Vec::new();
    let mut put = |name: &str, value: Doc| shown.push((name.to_owned(), value));
    put("Node Type", item.kind.into());
    if let Some(relation) = &item.relation {
        let parent = if relation.starts_with("InitPlan") { "InitPlan" } else { "SubPlan" };
        put("Parent Relationship", parent.into());
        put("Subplan Name", relation.as_str().into());
    } else if let Some(parent) = parent {
        put("Parent Relationship", parent.into());
    }
    put("Parallel Aware", Doc::Flag(false));
    put("Async Capable", Doc::Flag(false));
    for (name, value) in &item.facts {
        put(name, value.as_str().into());
    }
    if options.costs {
        put("Startup Cost", rounded(item.cost.startup));
        put("Total Cost", rounded(item.cost.total));
        put("Plan Rows", count(item.rows));
        put("Plan Width", Doc::Count(item.width.into()));
    }
    if item.is_measured {
        let measure = item.measure.unwrap_or_default();
        let loops = measure.loops.max(1);
        let mean = |micros: i64| Doc::Number(millis(micros) / loops as f64);
        if options.timing {
            put("Actual Startup Time", mean(measure.startup_micros));
            put("Actual Total Time", mean(measure.total_micros));
        }
        put("Actual Rows", Doc::Count(per_loop(measure.rows, loops)));
        put("Actual Loops", Doc::Count(measure.loops));
    }
    for (name, values) in &item.lines {
        let is_list = name.ends_with("Key");
        let list = || Doc::List(values.iter().map(|value| value.as_str().into()).collect());
        put(name, if is_list { list() } else { Doc::Text(values.join(", ")) });
    }
    if let Some(measure) = item.measure.filter(|_| item.lines.iter().any(|(name, _)| *name == "Filter")) {
        put("Rows Removed by Filter", Doc::Count(per_loop(measure.removed, measure.loops)));
    }
    if !item.children.is_empty() {
        let children = item.children.iter().enumerate().map(|(place, child)| {
            let parent = if place == 0 { "Outer" } else { item.other_children };
            object(child, options, Some(parent))
        });
        put("Plans", Doc::List(children.collect()));
    }
    Doc::Object(shown)
}
