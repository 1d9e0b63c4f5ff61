//! Conversions between types: which exist, where they apply by themselves, and how they compute.

use rustydb_types::datatype::{BaseType, Category, DataType};
use rustydb_types::datetime::{self, DAY};
use rustydb_types::numeric::Numeric;
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::{
    ArrayValue, DATE_INFINITY, DATE_NEGATIVE_INFINITY, Interval, TIMESTAMP_INFINITY,
    TIMESTAMP_NEGATIVE_INFINITY, Value,
};
use rustydb_types::value_error::ValueError;

use super::EvalContext;
use super::catalogue::Volatility;
use super::context::ObjectKind;
use crate::error::{SqlError, SqlState};

/// Where a conversion may happen; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CastContext {
    /// In any expression.
    Implicit,
    /// When a value is stored into a column.
    Assignment,
    /// Only when written as a cast.
    Explicit,
}

/// How a conversion computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastMethod {
    /// The value stays; only its type's name changes.
    Relabel,
    /// By a rule for the two types.
    Convert,
    /// Only the length or precision is applied.
    Length,
    /// By reading the text as the target type.
    Input,
    /// By printing the value.
    Output,
    /// Each element of an array by itself.
    Elements,
}

/// The weakest context in which `from` becomes `to`; `None` when it never does.
pub fn context(from: BaseType, to: BaseType) -> Option<CastContext> {
    use BaseType as T;
    use CastContext::{Assignment, Explicit, Implicit};
    if from == to {
        return Some(Implicit);
    }
    let rank = |base: BaseType| match base {
        T::Int2 => 1,
        T::Int4 => 2,
        T::Int8 => 3,
        T::Numeric => 4,
        T::Float4 => 5,
        T::Float8 => 6,
        _ => 0,
    };
    if rank(from) > 0 && rank(to) > 0 {
        return Some(if rank(from) < rank(to) { Implicit } else { Assignment });
    }
    let integer = |base: BaseType| matches!(base, T::Int2 | T::Int4 | T::Int8);
    let object = |base: BaseType| base == T::Oid || base.is_reg();
    let string = |base: BaseType| matches!(base, T::Text | T::Varchar | T::Bpchar);
    match (from, to) {
        (T::Bool, T::Int4) | (T::Int4, T::Bool | T::Char) | (T::Char, T::Int4) => Some(Explicit),
        (_, T::RegClass) if matches!(from, T::Text | T::Varchar) => Some(Implicit),
        _ if integer(from) && object(to) => Some(Implicit),
        (_, T::Int4 | T::Int8) if object(from) => Some(Assignment),
        (T::Oid, _) if to.is_reg() => Some(Implicit),
        (_, T::Oid) if from.is_reg() => Some(Implicit),
        (T::RegProc, T::RegProcedure) | (T::RegProcedure, T::RegProc) => Some(Implicit),
        (T::Char | T::Name, T::Text) => Some(Implicit),
        (T::Bpchar, T::Text | T::Varchar | T::Name) => Some(Implicit),
        (T::Text | T::Varchar, T::Text | T::Varchar | T::Bpchar | T::Name) => Some(Implicit),
        (T::PgNodeTree, T::Text) => Some(Implicit),
        (T::Date, T::Timestamp | T::Timestamptz) | (T::Timestamp, T::Timestamptz) => Some(Implicit),
        (T::Time, T::Interval) => Some(Implicit),
        (T::Timestamp, T::Date | T::Time) | (T::Timestamptz, T::Date | T::Time | T::Timestamp) => {
            Some(Assignment)
        }
        (T::Interval, T::Time) => Some(Assignment),
        (T::Int2Vector, T::Int2Array) | (T::OidVector, T::OidArray) => Some(Implicit),
        (T::Json, T::Jsonb) | (T::Jsonb, T::Json) => Some(Assignment),
        (T::Jsonb, T::Bool) => Some(Explicit),
        (T::Jsonb, _) if rank(to) > 0 => Some(Explicit),
        _ if from.category() == Category::Pseudo || to.category() == Category::Pseudo => None,
        _ if matches!(to, T::Int2Vector | T::OidVector) => {
            (from.category() == Category::String).then_some(Explicit)
        }
        _ if from.category() == Category::Array && to.category() == Category::Array => {
            context(from.element()?, to.element()?)
        }
        // Through text: assignment into strings, explicit out of them.
        _ if to.category() == Category::String && (string(to) || string(from) || to == T::Name) => {
            Some(if string(to) { Assignment } else { Explicit })
        }
        _ if from.category() == Category::String => Some(Explicit),
        (T::Unknown, _) => Some(Implicit),
        _ => None,
    }
}

/// How `from` becomes `to`.
pub fn method(from: BaseType, to: BaseType) -> Option<CastMethod> {
    use BaseType as T;
    context(from, to)?;
    if from == T::Unknown {
        return Some(CastMethod::Input);
    }
    let object = |base: BaseType| base == T::Oid || base.is_reg();
    Some(match (from, to) {
        (T::Int2Vector, T::Int2Array) | (T::OidVector, T::OidArray) => CastMethod::Relabel,
        (T::Text | T::Varchar, T::Text | T::Varchar | T::Bpchar) => CastMethod::Relabel,
        (T::Char | T::Name | T::PgNodeTree, T::Text | T::Varchar) => CastMethod::Relabel,
        _ if object(from) && object(to) => CastMethod::Relabel,
        (_, T::Json) if from.is_text_like() => CastMethod::Input,
        (T::Json, T::Text | T::Varchar) => CastMethod::Relabel,
        (T::Bpchar, _) if to.is_text_like() => CastMethod::Convert,
        (_, T::Char | T::Name) if from.is_text_like() => CastMethod::Convert,
        (T::Char, T::Int4) | (T::Int4, T::Char) => CastMethod::Convert,
        _ if to.is_text_like() => CastMethod::Output,
        _ if from.is_text_like() => CastMethod::Input,
        _ if from.category() == Category::Array && to.category() == Category::Array => CastMethod::Elements,
        _ => CastMethod::Convert,
    })
}

/// How far the result of a conversion may be relied on.
pub fn volatility(from: DataType, to: DataType) -> Volatility {
    let zoned = |base: BaseType| matches!(base.element().unwrap_or(base), BaseType::Timestamptz);
    let named = |base: BaseType| base.element().unwrap_or(base).is_reg();
    let zone = (zoned(from.base) || zoned(to.base)) && from.base != to.base;
    let names = (named(to.base) && from.base.category() != Category::Numeric)
        || (named(from.base) && to.base.category() == Category::String);
    // Labels may be renamed.
    let labelled = |ty: DataType| ty.base.enumeration().is_some();
    let string = |ty: DataType| ty.base.element().unwrap_or(ty.base).category() == Category::String;
    let labels = labelled(from) && string(to) || labelled(to) && string(from);
    if zone || names || labels { Volatility::Stable } else { Volatility::Immutable }
}

/// Whether every stored value of a type is one of another as it stands.
pub fn keeps_bytes(from: DataType, to: DataType) -> bool {
    let is_text = |base: BaseType| matches!(base, BaseType::Text | BaseType::Varchar);
    if from.base != to.base {
        return is_text(from.base) && is_text(to.base) && to.modifier < 0;
    }
    if to.modifier < 0 || from.modifier == to.modifier {
        return true;
    }
    if from.modifier < 0 {
        return false;
    }
    match to.base {
        BaseType::Varchar => from.modifier <= to.modifier,
        BaseType::Numeric => match (from.numeric_modifier(), to.numeric_modifier()) {
            (Some(from), Some(to)) => from.scale == to.scale && from.precision <= to.precision,
            _ => false,
        },
        BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz => {
            from.time_precision() <= to.time_precision()
        }
        _ => false,
    }
}

/// Reading `text` as this type needs the clock.
pub fn reads_clock(to: BaseType, text: &str) -> bool {
    matches!(
        to.element().unwrap_or(to),
        BaseType::Date | BaseType::Time | BaseType::Timestamp | BaseType::Timestamptz
    ) && datetime::uses_clock(text)
}

/// What text conversion depends on, taken from the session.
pub fn text_context(ctx: &EvalContext<'_>) -> TextContext {
    TextContext { zone: ctx.session.timezone(), now: ctx.transaction_time }
}

/// Converts a value.
///
/// # Errors
/// 22P02 and its kin for text, 22003 and 22008 for what does not fit, 22001 for long strings.
pub fn cast(
    value: Value,
    method: CastMethod,
    from: DataType,
    to: DataType,
    explicit: bool,
    ctx: &EvalContext<'_>,
) -> Result<Value, SqlError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let converted = match method {
        CastMethod::Relabel | CastMethod::Length => value,
        CastMethod::Input => match &value {
            Value::Text(text) => read(text, to, ctx)?,
            _ => value,
        },
        // The strings have casts of their own that spell the word; `name` goes by the wire form.
        CastMethod::Output => match (&value, to.base) {
            (Value::Bool(flag), BaseType::Name | BaseType::Char) => {
                Value::text(if *flag { "t" } else { "f" })
            }
            _ => Value::text(print(&value, from, ctx)),
        },
        CastMethod::Convert => convert(value, from.base, to.base, ctx)?,
        CastMethod::Elements => elements(value, from, to, explicit, ctx)?,
    };
    Ok(text::fit_modifier(converted, to, explicit)?)
}

fn elements(
    value: Value,
    from: DataType,
    to: DataType,
    explicit: bool,
    ctx: &EvalContext<'_>,
) -> Result<Value, SqlError> {
    let (Some(from), Some(to), Value::Array(array)) = (from.element(), to.element(), value) else {
        return Err(SqlError::internal("array conversion of a value that is no array"));
    };
    let how = method(from.base, to.base).unwrap_or(CastMethod::Relabel);
    let ArrayValue { dimensions, elements, .. } = *array;
    let elements = elements
        .into_iter()
        .map(|element| cast(element, how, from, to, explicit, ctx))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Value::Array(Box::new(ArrayValue { element: to.base, dimensions, elements })))
}

/// Prints a value as a client sees it; `reg*` types by name.
pub fn print(value: &Value, ty: DataType, ctx: &EvalContext<'_>) -> String {
    if let Value::Bool(flag) = value {
        // The cast spells the word; only the wire form is `t` and `f`.
        return if *flag { "true" } else { "false" }.to_owned();
    }
    match value {
        Value::Oid(oid) if ty.base.is_reg() => object_text(*oid, ty.base, ctx),
        _ => text::text_out(value, ty, &text_context(ctx)),
    }
}

fn object_kind(base: BaseType) -> ObjectKind {
    match base {
        BaseType::RegType => ObjectKind::Type,
        BaseType::RegProc | BaseType::RegProcedure => ObjectKind::Function,
        BaseType::RegOper | BaseType::RegOperator => ObjectKind::Operator,
        BaseType::RegNamespace => ObjectKind::Schema,
        BaseType::RegRole => ObjectKind::Role,
        BaseType::RegCollation => ObjectKind::Collation,
        _ => ObjectKind::Relation,
    }
}

/// An object id of a `reg*` type as text: its name, qualified unless visible; `-` for 0.
pub fn object_text(oid: u32, base: BaseType, ctx: &EvalContext<'_>) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    if base == BaseType::RegType
        && let Some(ty) = BaseType::from_oid(oid)
    {
        return ty.sql_name().to_owned();
    }
    if base == BaseType::RegType {
        return ctx.catalog.type_text(oid).unwrap_or_else(|| oid.to_string());
    }
    if matches!(base, BaseType::RegProc | BaseType::RegProcedure)
        && let Some(function) = super::catalogue::Catalogue::get().all_functions().find(|f| f.oid == oid)
    {
        if base == BaseType::RegProc {
            return function.name.to_owned();
        }
        let types: Vec<&str> = function.args.iter().map(|ty| ty.sql_name()).collect();
        return format!("{}({})", function.name, types.join(","));
    }
    match ctx.catalog.object_name(object_kind(base), oid) {
        Some(found) => {
            let name = super::function::quote_ident(&found.name);
            match found.schema {
                Some(schema) if !found.visible => {
                    format!("{}.{name}", super::function::quote_ident(&schema))
                }
                _ => name,
            }
        }
        None => oid.to_string(),
    }
}

/// Splits `schema.name` with quoted parts; unquoted parts fold to lower case.
pub fn split_name(text: &str) -> (Option<String>, String) {
    let mut parts: Vec<String> = vec![String::new()];
    let mut quoted = false;
    for c in text.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => {
                if let Some(part) = parts.last_mut() {
                    if quoted {
                        part.push(c);
                    } else {
                        part.extend(c.to_lowercase());
                    }
                }
            }
        }
    }
    let name = parts.pop().unwrap_or_default();
    (parts.pop(), name)
}

/// Reads a name as an object id; `None` when there is no such object.
///
/// # Errors
/// 42501 where the role may not use its schema.
pub fn find_object(text: &str, base: BaseType, ctx: &EvalContext<'_>) -> Result<Option<u32>, SqlError> {
    if text == "-" {
        return Ok(Some(0));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.parse().ok());
    }
    if base == BaseType::RegType
        && let Some(ty) = DataType::parse(text)
    {
        return Ok(Some(ty.oid()));
    }
    let (schema, name) = split_name(text);
    let system = schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
    if base == BaseType::RegProcedure && system && name.contains('(') {
        return Ok(procedure(&name));
    }
    if matches!(base, BaseType::RegProc | BaseType::RegProcedure) && system {
        match super::catalogue::Catalogue::get().functions(&name) {
            [] => {}
            [function] => return Ok(Some(function.oid)),
            // A name that several share means none of them.
            _ => return Ok(None),
        }
    }
    if let Some(schema) = schema.as_deref()
        && !ctx.catalog.may_use(schema)
    {
        let message = format!("permission denied for schema {schema}");
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    Ok(ctx.catalog.object_by_name(object_kind(base), schema.as_deref(), &name))
}

/// The function of a name with the types of its parameters: `abs(integer)`.
fn procedure(signature: &str) -> Option<u32> {
    let (name, types) = signature.strip_suffix(')')?.split_once('(')?;
    let mut args = Vec::new();
    for ty in types.split(',').map(str::trim).filter(|ty| !ty.is_empty()) {
        args.push(DataType::parse(ty).map(|ty| ty.base).or_else(|| BaseType::from_type_name(ty))?);
    }
    let named = super::catalogue::Catalogue::get().functions(name.trim());
    named.iter().find(|function| function.args == args).map(|function| function.oid)
}

/// Reads text as a type.
///
/// # Errors
/// Those of `text_in`; 42P01, 42704, 42883 or 3F000 for an unknown object's name.
pub fn read(input: &str, to: DataType, ctx: &EvalContext<'_>) -> Result<Value, SqlError> {
    if to.base.is_reg() {
        return find_object(input.trim(), to.base, ctx)?.map(Value::Oid).ok_or_else(|| {
            let (state, what) = match to.base {
                BaseType::RegType => (SqlState::UNDEFINED_OBJECT, "type"),
                BaseType::RegProc | BaseType::RegProcedure => (SqlState::UNDEFINED_FUNCTION, "function"),
                BaseType::RegNamespace => (SqlState::INVALID_SCHEMA_NAME, "schema"),
                BaseType::RegRole => (SqlState::UNDEFINED_OBJECT, "role"),
                BaseType::RegOper | BaseType::RegOperator => (SqlState::UNDEFINED_FUNCTION, "operator"),
                BaseType::RegCollation => (SqlState::UNDEFINED_OBJECT, "collation"),
                _ => (SqlState::UNDEFINED_TABLE, "relation"),
            };
            let (schema, name) = split_name(input.trim());
            if to.base == BaseType::RegProc
                && schema.is_none_or(|schema| schema == "pg_catalog")
                && super::catalogue::Catalogue::get().functions(&name).len() > 1
            {
                let message = format!("more than one function named \"{}\"", input.trim());
                return SqlError::new(SqlState::AMBIGUOUS_FUNCTION, message);
            }
            SqlError::new(state, format!("{what} \"{}\" does not exist", input.trim()))
        });
    }
    Ok(text::text_in_as(input, to, &text_context(ctx))?)
}

fn integer_into(n: i64, to: BaseType) -> Result<Value, ValueError> {
    let out = || ValueError::out_of_range(to);
    Ok(match to {
        BaseType::Int2 => Value::Int2(i16::try_from(n).map_err(|_| out())?),
        BaseType::Int4 => Value::Int4(i32::try_from(n).map_err(|_| out())?),
        BaseType::Int8 => Value::Int8(n),
        BaseType::Float4 => Value::Float4(n as f32),
        BaseType::Float8 => Value::Float8(n as f64),
        BaseType::Numeric => Value::Numeric(Box::new(Numeric::from(n))),
        BaseType::Bool => Value::Bool(n != 0),
        BaseType::Char => match i8::try_from(n) {
            Ok(0) => Value::text(""),
            Ok(n) => Value::text(char::from(n as u8).to_string()),
            Err(_) => return Err(ValueError::new("22003", "\"char\" out of range")),
        },
        _ => Value::Oid(
            u32::try_from(n)
                .or_else(|_| i32::try_from(n).map(|n| n as u32))
                .map_err(|_| ValueError::out_of_range(BaseType::Oid))?,
        ),
    })
}

fn float_into(n: f64, to: BaseType) -> Result<Value, ValueError> {
    let rounded = n.round_ties_even();
    let whole = |low: f64, high: f64| {
        if rounded >= low && rounded < high { Ok(rounded as i64) } else { Err(ValueError::out_of_range(to)) }
    };
    Ok(match to {
        BaseType::Int2 => integer_into(whole(-32768.0, 32768.0)?, to)?,
        BaseType::Int4 => integer_into(whole(-2_147_483_648.0, 2_147_483_648.0)?, to)?,
        BaseType::Int8 => {
            integer_into(whole(-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0)?, to)?
        }
        BaseType::Float4 => {
            let narrow = n as f32;
            if narrow.is_infinite() && n.is_finite() {
                return Err(ValueError::out_of_range(to));
            }
            if narrow == 0.0 && n != 0.0 {
                return Err(ValueError::new("22003", "value out of range: underflow"));
            }
            Value::Float4(narrow)
        }
        _ => Value::Float8(n),
    })
}

fn numeric_into(n: &Numeric, to: BaseType) -> Result<Value, ValueError> {
    Ok(match to {
        BaseType::Float4 => {
            let narrow: f32 = n.to_string().parse().unwrap_or(f32::NAN);
            if lost(f64::from(narrow), n) {
                return Err(ValueError::new("22003", format!("\"{n}\" is out of range for type real")));
            }
            Value::Float4(narrow)
        }
        BaseType::Float8 => {
            let wide = n.to_f64();
            if lost(wide, n) {
                let message = format!("\"{n}\" is out of range for type double precision");
                return Err(ValueError::new("22003", message));
            }
            Value::Float8(wide)
        }
        _ => {
            if n.is_nan() {
                return Err(ValueError::new("0A000", format!("cannot convert NaN to {to}")));
            }
            if !n.is_finite() {
                return Err(ValueError::new("0A000", format!("cannot convert infinity to {to}")));
            }
            integer_into(n.to_i64().ok_or_else(|| ValueError::out_of_range(to))?, to)?
        }
    })
}

/// Whether a number became infinite, or nothing, as a float.
fn lost(float: f64, n: &Numeric) -> bool {
    n.is_finite() && (float.is_infinite() || float == 0.0 && !n.is_zero())
}

/// Midnight of a date as a timestamp.
pub(super) fn date_to_timestamp(days: i32) -> Result<i64, ValueError> {
    match days {
        DATE_INFINITY => Ok(TIMESTAMP_INFINITY),
        DATE_NEGATIVE_INFINITY => Ok(TIMESTAMP_NEGATIVE_INFINITY),
        _ => datetime::check_timestamp(i128::from(days) * i128::from(DAY))
            .map_err(|_| ValueError::new("22008", "date out of range for timestamp")),
    }
}

fn timestamp_to_date(micros: i64) -> i32 {
    match micros {
        TIMESTAMP_INFINITY => DATE_INFINITY,
        TIMESTAMP_NEGATIVE_INFINITY => DATE_NEGATIVE_INFINITY,
        _ => micros.div_euclid(DAY) as i32,
    }
}

/// Local time in a zone to UTC, keeping the infinities.
pub(super) fn to_utc(local: i64, zone: datetime::Zone) -> i64 {
    match local {
        TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY => local,
        _ => zone.to_utc(local),
    }
}

/// UTC to local time in a zone, keeping the infinities.
pub(super) fn to_local(utc: i64, zone: datetime::Zone) -> i64 {
    match utc {
        TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY => utc,
        _ => zone.to_local(utc),
    }
}

fn convert(value: Value, from: BaseType, to: BaseType, ctx: &EvalContext<'_>) -> Result<Value, SqlError> {
    use BaseType as T;
    let zone = || ctx.session.timezone();
    Ok(match (&value, to) {
        (Value::Jsonb(json), _) => super::function::json::output::cast_to(json, to, ctx)?,
        (Value::Int2(_) | Value::Int4(_) | Value::Int8(_) | Value::Oid(_), _) => {
            integer_into(value.as_i64().unwrap_or(0), to)?
        }
        (Value::Bool(flag), _) => Value::Int4(i32::from(*flag)),
        (Value::Float4(n), T::Numeric) => Value::Numeric(Box::new(Numeric::from_f32(*n))),
        (Value::Float8(n), T::Numeric) => Value::Numeric(Box::new(Numeric::from_f64(*n))),
        (Value::Float4(n), _) => float_into(f64::from(*n), to)?,
        (Value::Float8(n), _) => float_into(*n, to)?,
        (Value::Numeric(n), _) => numeric_into(n, to)?,
        (Value::Text(text), T::Int4) => {
            // "char" to integer: its byte, signed.
            Value::Int4(i32::from(text.bytes().next().unwrap_or(0) as i8))
        }
        (Value::Text(text), T::Char) => {
            Value::text(text.chars().next().map(String::from).unwrap_or_default())
        }
        (Value::Text(text), T::Name) => {
            let bare = if from == T::Bpchar { text.trim_end_matches(' ') } else { text };
            Value::text(text::truncate_name(bare))
        }
        (Value::Text(text), _) if from == T::Bpchar => Value::text(text.trim_end_matches(' ')),
        (Value::Date(days), T::Timestamp) => Value::Timestamp(date_to_timestamp(*days)?),
        (Value::Date(days), T::Timestamptz) => Value::Timestamptz(to_utc(date_to_timestamp(*days)?, zone())),
        (Value::Timestamp(micros), T::Timestamptz) => Value::Timestamptz(to_utc(*micros, zone())),
        (Value::Timestamp(micros), T::Date) => Value::Date(timestamp_to_date(*micros)),
        (Value::Timestamptz(utc), T::Timestamp) => Value::Timestamp(to_local(*utc, zone())),
        (Value::Timestamptz(utc), T::Date) => Value::Date(timestamp_to_date(to_local(*utc, zone()))),
        (Value::Timestamp(TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY), T::Time)
        | (Value::Timestamptz(TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY), T::Time) => Value::Null,
        (Value::Timestamp(micros), T::Time) => Value::Time(micros.rem_euclid(DAY)),
        (Value::Timestamptz(utc), T::Time) => Value::Time(to_local(*utc, zone()).rem_euclid(DAY)),
        (Value::Time(micros), T::Interval) => {
            Value::Interval(Box::new(Interval { months: 0, days: 0, micros: *micros }))
        }
        (Value::Interval(interval), T::Time) => Value::Time(interval.micros.rem_euclid(DAY)),
        _ => {
            return Err(SqlError::new(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}")));
        }
    })
}
