//! Expressions built as the binder builds them, against the answers of PostgreSQL 15.
//!
//! `testdata/cases.txt` is data: kind, name, arguments and the answer, written by
//! `testdata/answers.py` from a running server. `testdata/differences.txt` lists the cases that
//! RustyDB answers otherwise, with its own answer, so that no difference comes or goes unseen.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::text;
use rustydb_types::value::Value;

use super::catalogue::Invocation;
use super::{
    AggregateState, CastContext, EvalContext, Expr, coerce, resolve_aggregate, resolve_function,
    resolve_operator, resolve_unary,
};
use crate::error::SqlError;

/// `type:text`, an untyped literal `'text`, NULL, or a bare number.
fn arg(text: &str) -> Result<Expr, SqlError> {
    if let Some(literal) = text.strip_prefix('\'') {
        return Ok(Expr::literal(literal));
    }
    if text == "NULL" {
        return Ok(Expr::null());
    }
    match text.split_once(':') {
        Some((ty, literal)) => {
            let ty = DataType::parse(ty).unwrap_or_else(|| panic!("type {ty}"));
            coerce(Expr::literal(literal), ty, CastContext::Explicit)
        }
        None => match text.strip_prefix('-') {
            Some(positive) => resolve_unary("-", Expr::number(positive)?),
            None => Expr::number(text),
        },
    }
}

fn bind(kind: &str, name: &str, args: &[String]) -> Result<Expr, SqlError> {
    let mut bound = args.iter().map(|text| arg(text)).collect::<Result<Vec<_>, _>>()?;
    match (kind, bound.len()) {
        ("op", 2) => {
            let right = bound.pop().unwrap_or_else(Expr::null);
            let left = bound.pop().unwrap_or_else(Expr::null);
            resolve_operator(name, left, right)
        }
        ("op", _) => resolve_unary(name, bound.pop().unwrap_or_else(Expr::null)),
        ("cast", _) => {
            let ty = DataType::parse(name).unwrap_or_else(|| panic!("type {name}"));
            coerce(bound.pop().unwrap_or_else(Expr::null), ty, CastContext::Explicit)
        }
        _ => resolve_function(name, bound),
    }
}

fn answer(kind: &str, name: &str, args: &[String]) -> String {
    let ctx = EvalContext::constant(&[]);
    let result = bind(kind, name, args).and_then(|expr| Ok((expr.ty(), expr.eval(&[], &ctx)?)));
    match result {
        // PostgreSQL's `pg_typeof` of an untyped literal.
        Ok((ty, Value::Null)) => format!("{}: NULL", ty.base),
        Ok((ty, value)) => {
            let text = match &value {
                Value::Oid(_) => super::cast::print(&value, ty, &ctx),
                _ => text::text_out(&value, ty, &super::cast::text_context(&ctx)),
            };
            format!("{}: {text}", ty.base)
        }
        Err(error) => error.state().to_string(),
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, _) => out.push(c),
        }
    }
    out
}

/// The expression part and the answer of each line.
fn cases(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (expression, answer) = line.rsplit_once("\t=\t")?;
        Some((expression, unescape(answer)))
    })
}

#[test]
fn expressions_answer_as_postgresql() {
    let known: BTreeMap<&str, String> = cases(include_str!("testdata/differences.txt")).collect();
    let mut found = String::new();
    let mut count = 0;
    let mut unseen = known.len();
    for (expression, expected) in cases(include_str!("testdata/cases.txt")) {
        let mut fields = expression.split('\t').map(unescape);
        let (Some(kind), Some(name)) = (fields.next(), fields.next()) else { continue };
        let args: Vec<String> = fields.collect();
        let ours = answer(&kind, &name, &args);
        count += 1;
        let listed = known.get(expression);
        unseen -= usize::from(listed.is_some());
        if ours != *listed.unwrap_or(&expected) {
            let escaped = ours.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(found, "{expression}\t=\t{escaped}\t(PostgreSQL: {expected:?})");
        }
    }
    assert!(count > 3000, "only {count} cases");
    assert_eq!(unseen, 0, "differences that are no cases");
    assert!(found.is_empty(), "{} of {count} differ:\n{found}", found.lines().count());
}

/// One aggregate over values of a type, as [`answer`] writes it.
fn aggregate(name: &str, ty: DataType, values: &str) -> Result<String, SqlError> {
    let ctx = EvalContext::constant(&[]);
    let mut args = vec![Expr::Column { index: 0, ty }];
    if name == "string_agg" {
        let delimiter = Expr::literal(if ty == DataType::BYTEA { "\\x2c" } else { "," });
        args.push(if ty == DataType::BYTEA {
            coerce(delimiter, ty, CastContext::Explicit)?
        } else {
            delimiter
        });
    }
    let Some((function, args)) = resolve_aggregate(name, args)? else { return Ok("no aggregate".to_owned()) };
    let mut state = AggregateState::new(&function)?;
    for value in values.split('|') {
        let value = match value {
            "NULL" => Value::Null,
            text => coerce(Expr::literal(text), ty, CastContext::Explicit)?.eval(&[], &ctx)?,
        };
        let row = [value];
        let inputs = args.iter().map(|arg| arg.eval(&row, &ctx)).collect::<Result<Vec<_>, _>>()?;
        state.update(&inputs, &EvalContext::constant(&[]))?;
    }
    let value = state.finish()?;
    let text = match &value {
        Value::Null => "NULL".to_owned(),
        value => text::text_out(value, function.ty, &super::cast::text_context(&ctx)),
    };
    Ok(format!("{}: {text}", function.ty.base))
}

/// `testdata/aggregates.txt` is written by `testdata/aggregates.py` from a running server.
#[test]
fn aggregates_answer_as_postgresql() {
    let mut found = String::new();
    let mut count = 0;
    for line in include_str!("testdata/aggregates.txt").lines() {
        let [name, ty, values, _, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let parsed = DataType::parse(ty).unwrap_or_else(|| panic!("type {ty}"));
        let ours = aggregate(name, parsed, values).unwrap_or_else(|error| error.state().to_string());
        count += 1;
        if ours != expected {
            let _ = writeln!(found, "{name}({ty}) of {values}: {ours}, PostgreSQL: {expected}");
        }
    }
    assert!(found.is_empty(), "{} of {count} differ:\n{found}", found.lines().count());
}

#[test]
fn the_catalogue_is_whole() {
    let catalogue = super::catalogue::Catalogue::get();
    assert!(catalogue.all_operators().count() > 350, "{}", catalogue.all_operators().count());
    assert!(catalogue.all_functions().count() > 300, "{}", catalogue.all_functions().count());
}

/// Values at the edges of each type, as text.
fn edges(base: BaseType) -> Vec<&'static str> {
    match base {
        BaseType::Bool => vec!["t", "f"],
        BaseType::Int2 => vec!["0", "-1", "32767", "-32768"],
        BaseType::Int4 => vec!["0", "1", "-1", "7", "2147483647", "-2147483648"],
        BaseType::Int8 => vec!["0", "-1", "9223372036854775807", "-9223372036854775808"],
        BaseType::Numeric => {
            vec!["0", "-1.50", "1e300", "-1e-300", "NaN", "Infinity", "-Infinity", "1234.5678"]
        }
        BaseType::Float4 => vec!["0", "-0", "3.4e38", "1e-45", "NaN", "Infinity"],
        BaseType::Float8 => vec!["0", "-0", "1.7e308", "-1.7e308", "5e-324", "NaN", "-Infinity", "0.5"],
        BaseType::Bytea => vec!["\\x", "\\x00ff5c25"],
        BaseType::Date => vec!["2024-02-29", "4714-11-24 BC", "5874897-12-31", "infinity", "-infinity"],
        BaseType::Time => vec!["00:00", "24:00:00", "23:59:59.999999"],
        BaseType::Timestamp => vec!["4714-11-24 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity"],
        BaseType::Timestamptz => {
            vec!["4714-11-24 00:00+00 BC", "294276-12-31 23:59:59.999999+00", "infinity"]
        }
        BaseType::Interval => vec![
            "0",
            "178956970 years",
            "-178956970 years -2147483647 days",
            "2562047788:00:54",
            "1 mon -1 day",
        ],
        BaseType::Uuid => vec!["ffffffff-ffff-ffff-ffff-ffffffffffff"],
        BaseType::PgLsn => vec!["0/0", "FFFFFFFF/FFFFFFFF"],
        BaseType::Int2Vector | BaseType::OidVector => vec!["", "1 2"],
        _ if base.is_oid_like() => vec!["0", "4294967295"],
        _ if base.is_text_like() => vec![
            "",
            "é\u{10ffff}",
            "%_\\",
            "YYYY-MM-DDth HH24:MI\"x",
            "FM9990.99MI",
            "(a|b",
            "2024-1",
            "999999999999999999999:00",
            "utf8",
            "month",
            "\\1&$",
            "{1,2",
        ],
        _ => match base.element() {
            Some(_) => vec!["{}", "{NULL}", "[-5:-4]={1,0}", "{{1,0},{0,1}}"],
            None => vec![],
        },
    }
}

fn edge_values(base: BaseType) -> Vec<Value> {
    let concrete = match base {
        BaseType::Any | BaseType::AnyElement | BaseType::AnyNonArray | BaseType::AnyCompatible => {
            BaseType::Int4
        }
        BaseType::AnyArray | BaseType::AnyCompatibleArray => BaseType::Int4Array,
        other => other,
    };
    let ctx = text::TextContext::UTC;
    edges(concrete)
        .into_iter()
        .filter_map(|edge| text::text_in(edge, concrete, &ctx).ok())
        .chain([Value::Null])
        .collect()
}

/// Every operator and function over every edge: an answer or an error, never a panic.
#[test]
fn nothing_panics_at_the_edges_of_its_types() {
    let catalogue = super::catalogue::Catalogue::get();
    let ctx = EvalContext::constant(&[]);
    for operator in catalogue.all_operators() {
        let rights: Vec<Value> = edge_values(operator.right);
        for left in edge_values(operator.left.unwrap_or(operator.right)) {
            for right in rights.iter().filter(|right| !right.is_null() && !left.is_null()) {
                let _ = (operator.eval)(&left, right, &ctx);
            }
        }
    }
    for function in catalogue.all_functions() {
        let Some(eval) = function.eval else { continue };
        let mut types = function.args.clone();
        if let (Some(element), Some(last)) = (function.variadic, types.last_mut()) {
            *last = element;
        }
        let arg_types: Vec<DataType> = types.iter().map(|base| DataType::plain(*base)).collect();
        let pools: Vec<Vec<Value>> = types.iter().map(|base| edge_values(*base)).collect();
        // Walks all combinations of few arguments, and a spread of them for many.
        let total: usize = pools.iter().map(Vec::len).product();
        let step = total / 2000 + 1;
        for number in (0..total).step_by(step) {
            let mut rest = number;
            let args: Vec<Value> = pools
                .iter()
                .map(|pool| {
                    let value = pool[rest % pool.len()].clone();
                    rest /= pool.len();
                    value
                })
                .collect();
            if function.strict && args.iter().any(Value::is_null) {
                continue;
            }
            let ty = DataType::plain(if function.result == BaseType::AnyArray {
                BaseType::Int4Array
            } else {
                function.result
            });
            let _ = eval(&args, &Invocation { function, arg_types: &arg_types, ty, ctx: &ctx });
        }
    }
}
