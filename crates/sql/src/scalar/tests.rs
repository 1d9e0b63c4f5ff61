//! Expressions built as the binder builds them, against the answers of PostgreSQL 15.
//!
//! `testdata/cases.txt` is data: kind, name, arguments and the answer, written by
//! `testdata/answers.py` from a running server. `testdata/differences.txt` lists the cases that
//! RustyDB answers otherwise, with its own answer, so that no difference comes or goes unseen.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustydb_types::datatype::DataType;
use rustydb_types::text;
use rustydb_types::value::Value;

use super::{CastContext, EvalContext, Expr, coerce, resolve_function, resolve_operator, resolve_unary};
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

#[test]
fn the_catalogue_is_whole() {
    let catalogue = super::catalogue::Catalogue::get();
    assert!(catalogue.all_operators().count() > 350, "{}", catalogue.all_operators().count());
    assert!(catalogue.all_functions().count() > 300, "{}", catalogue.all_functions().count());
}
