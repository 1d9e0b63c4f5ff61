//! Expressions built as the binder builds them; the expected results are PostgreSQL 15's.
//!
//! Each case is data: an operator or function name, typed arguments as text, and the answer as
//! `type: text` or the SQLSTATE. The same table can drive a comparison with a running PostgreSQL.

use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

use super::{CastContext, EvalContext, Expr, coerce, resolve_function, resolve_operator, resolve_unary};
use crate::error::SqlError;

/// `type:text`, an untyped literal `'text`, or a bare number.
fn arg(text: &str) -> Expr {
    if let Some(literal) = text.strip_prefix('\'') {
        return Expr::literal(literal);
    }
    match text.split_once(':') {
        Some((ty, literal)) => {
            let ty = DataType::parse(ty).unwrap_or_else(|| panic!("type {ty}"));
            coerce(Expr::literal(literal), ty, CastContext::Explicit).expect("a literal of its type")
        }
        None => Expr::number(text).expect("a number"),
    }
}

fn answer(expr: Result<Expr, SqlError>) -> String {
    let ctx = EvalContext::constant(&[]);
    let result = expr.and_then(|expr| Ok((expr.ty(), expr.eval(&[], &ctx)?)));
    match result {
        Ok((ty, Value::Null)) => format!("{ty}: NULL"),
        Ok((ty, value)) => format!("{ty}: {}", super::cast::print(&value, ty, &ctx)),
        Err(error) => error.state().to_string(),
    }
}

#[test]
fn every_operator_and_function_of_the_catalogue_has_an_implementation() {
    let catalogue = super::catalogue::Catalogue::get();
    assert!(catalogue.all_operators().count() > 350, "{}", catalogue.all_operators().count());
    assert!(catalogue.all_functions().count() > 250, "{}", catalogue.all_functions().count());
}

#[test]
fn operators_answer_as_postgresql() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("+", "1", "1", "integer: 2"),
        ("+", "2147483647", "1", "22003"),
        ("+", "smallint:1", "bigint:1", "bigint: 2"),
        ("+", "1", "'2", "integer: 3"),
        ("+", "1.5", "2", "numeric: 3.5"),
        ("+", "float8:1", "numeric:1", "double precision: 2"),
        ("/", "5", "2", "integer: 2"),
        ("/", "-7", "2", "integer: -3"),
        ("/", "1", "0", "22012"),
        ("/", "1.0", "3", "numeric: 0.33333333333333333333"),
        ("/", "10.0", "4", "numeric: 2.5000000000000000"),
        ("/", "100000.0", "7", "numeric: 14285.714285714286"),
        ("%", "-7", "3", "integer: -1"),
        ("%", "5.5", "2", "numeric: 1.5"),
        ("*", "1.20", "2.0", "numeric: 2.400"),
        ("^", "2", "10", "double precision: 1024"),
        ("^", "2.0", "0.5", "numeric: 1.4142135623730950"),
        ("=", "1", "'x", "22P02"),
        ("=", "text:a", "1", "42883"),
        ("<", "text:a", "text:b", "boolean: true"),
        ("=", "char(5):ab", "'ab", "boolean: true"),
        ("||", "'a", "'b", "text: ab"),
        ("||", "'a", "1", "text: a1"),
        ("||", "int[]:{1,2}", "3", "integer[]: {1,2,3}"),
        ("||", "int[]:{1}", "'{2}", "integer[]: {1,2}"),
        ("~~", "'hello", "'h_l%", "boolean: true"),
        ("~~", "'100%", "'100\\%", "boolean: true"),
        ("!~~*", "'HELLO", "'hel%", "boolean: false"),
        ("~", "name:pg_class", "'^(pg_class)$", "boolean: true"),
        ("!~", "name:pg_toast_1", "'^pg_toast", "boolean: false"),
        ("~*", "'ABC", "'b", "boolean: true"),
        ("~", "'a", "'(", "2201B"),
        ("&", "6", "3", "integer: 2"),
        ("<<", "1", "4", "integer: 16"),
        ("#", "bigint:5", "bigint:1", "bigint: 4"),
        ("+", "date:2024-01-31", "1", "date: 2024-02-01"),
        ("-", "date:2024-03-01", "date:2024-02-01", "integer: 29"),
        ("+", "date:2024-01-31", "interval:1 month", "timestamp without time zone: 2024-02-29 00:00:00"),
        ("-", "timestamp:2024-03-01 12:00", "timestamp:2024-02-01", "interval: 29 days 12:00:00"),
        ("*", "interval:1 month 1 day", "1.5", "interval: 1 mon 16 days 12:00:00"),
        ("/", "interval:1 day", "2", "interval: 12:00:00"),
        ("<", "date:2024-01-01", "timestamp:2024-01-01 00:00:01", "boolean: true"),
        ("=", "float8:NaN", "float8:NaN", "boolean: true"),
        (">", "float8:NaN", "float8:Infinity", "boolean: true"),
        ("@>", "int[]:{1,2,3}", "int[]:{2}", "boolean: true"),
        ("=", "oid:5", "5", "boolean: true"),
        ("*", "float8:1e300", "float8:1e300", "22003"),
        ("-", "interval:1 day", "interval:1 hour", "interval: 1 day -01:00:00"),
        ("=", "interval:1 month", "interval:30 days", "boolean: true"),
        ("+", "bool:t", "1", "42883"),
    ];
    for (name, left, right, expected) in cases {
        let found = answer(resolve_operator(name, arg(left), arg(right)));
        assert_eq!(found, *expected, "{left} {name} {right}");
    }
    assert_eq!(answer(resolve_unary("-", arg("smallint:-32768"))), "22003");
    assert_eq!(answer(resolve_unary("@", arg("-5"))), "integer: 5");
}

#[test]
fn functions_answer_as_postgresql() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("length", &["'héllo"], "integer: 5"),
        ("upper", &["'abc"], "text: ABC"),
        ("substr", &["'hello", "2", "3"], "text: ell"),
        ("substr", &["'hello", "-1", "3"], "text: h"),
        ("substring", &["'foobar", "'o(.)b"], "text: o"),
        ("btrim", &["'xxaxx", "'x"], "text: a"),
        ("strpos", &["'high", "'ig"], "integer: 2"),
        ("split_part", &["'a,b,c", "',", "-1"], "text: c"),
        ("left", &["'abcde", "-2"], "text: abc"),
        ("right", &["'abcde", "2"], "text: de"),
        ("lpad", &["'hi", "5", "'xy"], "text: xyxhi"),
        ("concat", &["'a", "1", "bool:t"], "text: a1t"),
        ("concat_ws", &["',", "'a", "'b"], "text: a,b"),
        ("format", &["'%s %I %L", "'x", "'Y z", "'it''s"], "text: x \"Y z\" 'it''''s'"),
        ("quote_ident", &["'Foo"], "text: \"Foo\""),
        ("regexp_replace", &["'foobarbaz", "'b(..)", "'X\\1Y", "'g"], "text: fooXarYXazY"),
        ("initcap", &["'hi THOMAS"], "text: Hi Thomas"),
        ("translate", &["'12345", "'143", "'ax"], "text: a2x5"),
        ("to_hex", &["255"], "text: ff"),
        ("abs", &["-5"], "integer: 5"),
        ("round", &["2.5"], "numeric: 3"),
        ("round", &["float8:2.5"], "double precision: 2"),
        ("round", &["-1.255", "2"], "numeric: -1.26"),
        ("trunc", &["-1.5"], "numeric: -1"),
        ("ceil", &["-1.5"], "numeric: -1"),
        ("floor", &["-1.5"], "numeric: -2"),
        ("sqrt", &["2.0"], "numeric: 1.414213562373095"),
        ("sqrt", &["2"], "double precision: 1.4142135623730951"),
        ("exp", &["1.0"], "numeric: 2.7182818284590452"),
        ("ln", &["2.0"], "numeric: 0.6931471805599453"),
        ("log", &["100.0"], "numeric: 2.0000000000000000"),
        ("power", &["2", "0.5"], "numeric: 1.4142135623730950"),
        ("mod", &["7", "4"], "integer: 3"),
        ("gcd", &["12", "18"], "integer: 6"),
        ("width_bucket", &["5.35", "0.024", "10.06", "5"], "integer: 3"),
        ("sqrt", &["-1"], "2201F"),
        ("ln", &["0.0"], "2201E"),
        ("date_part", &["'year", "date:2024-02-29"], "double precision: 2024"),
        ("extract", &["'second", "timestamp:2024-01-01 00:00:05.5"], "numeric: 5.500000"),
        ("extract", &["'epoch", "timestamp:1970-01-02"], "numeric: 86400.000000"),
        (
            "date_trunc",
            &["'month", "timestamp:2024-02-29 12:00"],
            "timestamp without time zone: 2024-02-01 00:00:00",
        ),
        ("age", &["timestamp:2024-03-31", "timestamp:2024-02-29"], "interval: 1 mon 2 days"),
        ("make_date", &["2024", "2", "30"], "22008"),
        ("array_length", &["int[]:{1,2}", "1"], "integer: 2"),
        ("array_to_string", &["text[]:{a,NULL,b}", "',", "'*"], "text: a,*,b"),
        ("string_to_array", &["'a,b", "',"], "text[]: {a,b}"),
        ("array_position", &["text[]:{a,b}", "'b"], "integer: 2"),
        ("format_type", &["oid:1043", "14"], "text: character varying(10)"),
        ("num_nulls", &["1", "2"], "integer: 0"),
        ("pg_typeof", &["1.5"], "regtype: numeric"),
        ("no_such_function", &["1"], "42883"),
        ("length", &["1"], "42883"),
    ];
    for (name, args, expected) in cases {
        let args: Vec<Expr> = args.iter().map(|text| arg(text)).collect();
        assert_eq!(answer(resolve_function(name, args)), *expected, "{name}");
    }
}

#[test]
fn casts_answer_as_postgresql() {
    let cases: &[(&str, &str, &str)] = &[
        ("numeric:1.5", "integer", "integer: 2"),
        ("float8:2.5", "integer", "integer: 2"),
        ("integer:70000", "smallint", "22003"),
        ("bool:t", "integer", "integer: 1"),
        ("bool:t", "text", "text: true"),
        ("text:abcdef", "varchar(3)", "character varying(3): abc"),
        ("text:ab", "char(4)", "character(4): ab  "),
        ("float8:1e20", "numeric", "numeric: 100000000000000000000"),
        ("timestamp:2024-01-02 03:04:05", "date", "date: 2024-01-02"),
        ("'2024-13-01", "date", "22008"),
        ("int[]:{1,2}", "text[]", "text[]: {1,2}"),
        ("date:2024-01-01", "integer", "42846"),
        ("numeric:123.456", "numeric(5,1)", "numeric(5,1): 123.5"),
    ];
    for (from, to, expected) in cases {
        let ty = DataType::parse(to).expect("a type");
        assert_eq!(answer(coerce(arg(from), ty, CastContext::Explicit)), *expected, "{from}::{to}");
    }
}
