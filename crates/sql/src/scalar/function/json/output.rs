//! SQL values as the text of JSON.

use rustydb_types::datatype::{BaseType, Category, DataType};
use rustydb_types::datetime;
use rustydb_types::json::text::quote;
use rustydb_types::value::{ArrayValue, DATE_INFINITY, DATE_NEGATIVE_INFINITY, Value};

use super::super::array::wire_text;
use super::invalid;
use crate::error::SqlError;
use crate::scalar::EvalContext;
use crate::scalar::cast;

/// The JSON of a value.
///
/// # Errors
/// 22023 for what cannot be JSON.
pub(in super::super::super) fn of(
    value: &Value,
    ty: DataType,
    ctx: &EvalContext<'_>,
) -> Result<String, SqlError> {
    let mut writer = Writer::new(ctx, false);
    writer.value(value, ty)?;
    Ok(writer.finish())
}

/// Whether an element of a type begins a line of its own in what `json_agg` makes.
pub(in super::super::super) fn is_composite(ty: DataType) -> bool {
    ty.base == BaseType::Record || ty.base.category() == Category::Array
}

/// Writes JSON.
pub(in super::super::super) struct Writer<'c> {
    out: String,
    ctx: &'c EvalContext<'c>,
    /// Whether the outermost array or record has its parts on lines of their own.
    has_lines: bool,
}

impl<'c> Writer<'c> {
    pub(in super::super::super) fn new(ctx: &'c EvalContext<'c>, has_lines: bool) -> Self {
        Self { out: String::new(), ctx, has_lines }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    pub(super) fn push(&mut self, character: char) {
        self.out.push(character);
    }

    pub(super) fn push_str(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A key of an object.
    pub(super) fn key(&mut self, key: &Value, ty: DataType) -> Result<(), SqlError> {
        if is_composite(ty) || matches!(ty.base, BaseType::Json | BaseType::Jsonb) {
            return Err(invalid("key value must be scalar, not array, composite, or json"));
        }
        let text = self.scalar_text(key, ty).unwrap_or_else(|| match key {
            Value::Bool(flag) => if *flag { "true" } else { "false" }.to_owned(),
            _ => wire_text(key, ty, self.ctx),
        });
        quote(&mut self.out, &text);
        Ok(())
    }

    /// Any value.
    pub(super) fn value(&mut self, value: &Value, ty: DataType) -> Result<(), SqlError> {
        let has_lines = std::mem::take(&mut self.has_lines);
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(flag) => self.out.push_str(if *flag { "true" } else { "false" }),
            Value::Int2(_) | Value::Int4(_) | Value::Int8(_) => {
                self.out.push_str(&wire_text(value, ty, self.ctx));
            }
            Value::Float4(_) | Value::Float8(_) | Value::Numeric(_) => {
                let text = wire_text(value, ty, self.ctx);
                if text.ends_with(|last: char| last.is_ascii_digit()) {
                    self.out.push_str(&text);
                } else {
                    quote(&mut self.out, &text);
                }
            }
            Value::Jsonb(json) => json.write(&mut self.out),
            Value::Text(text) if ty.base == BaseType::Json => self.out.push_str(text),
            Value::Array(array) => {
                let element = ty.element().unwrap_or_else(|| array.element.into());
                self.array(array, element, has_lines)?;
            }
            Value::Record(fields) => self.record(fields, ty, has_lines)?,
            other => {
                let text = self.scalar_text(other, ty).unwrap_or_else(|| wire_text(other, ty, self.ctx));
                quote(&mut self.out, &text);
            }
        }
        Ok(())
    }

    /// Dates and times as ISO 8601 has them.
    fn scalar_text(&self, value: &Value, ty: DataType) -> Option<String> {
        match value {
            Value::Date(days) if !matches!(*days, DATE_INFINITY | DATE_NEGATIVE_INFINITY) => {
                Some(datetime::format_date(*days))
            }
            Value::Timestamp(_) | Value::Timestamptz(_) => {
                let text = wire_text(value, ty, self.ctx);
                let Some((date, time)) = text.split_once(' ') else { return Some(text) };
                // An offset of whole hours has its minutes written, too.
                let offset = time.rfind(['+', '-']).filter(|_| matches!(value, Value::Timestamptz(_)));
                let (time, era) = match time.strip_suffix(" BC") {
                    Some(time) => (time, " BC"),
                    None => (time, ""),
                };
                let minutes = match offset {
                    Some(place) if time.len() - place == 3 => ":00",
                    _ => "",
                };
                Some(format!("{date}T{time}{minutes}{era}"))
            }
            _ => None,
        }
    }

    fn array(&mut self, array: &ArrayValue, element: DataType, has_lines: bool) -> Result<(), SqlError> {
        let lengths: Vec<usize> =
            array.dimensions.iter().map(|dimension| usize::try_from(dimension.length).unwrap_or(0)).collect();
        let mut elements = array.elements.iter();
        match lengths.as_slice() {
            [] => self.out.push_str("[]"),
            lengths => self.dimension(lengths, &mut elements, element, has_lines)?,
        }
        Ok(())
    }

    fn dimension(
        &mut self,
        lengths: &[usize],
        elements: &mut std::slice::Iter<'_, Value>,
        element: DataType,
        has_lines: bool,
    ) -> Result<(), SqlError> {
        let Some((length, inner)) = lengths.split_first() else { return Ok(()) };
        self.out.push('[');
        for index in 0..*length {
            if index > 0 {
                self.out.push_str(if has_lines { ",\n " } else { "," });
            }
            if inner.is_empty() {
                let next = elements.next().unwrap_or(&Value::Null);
                self.value(next, element)?;
            } else {
                self.dimension(inner, elements, element, false)?;
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn record(&mut self, fields: &[Value], ty: DataType, has_lines: bool) -> Result<(), SqlError> {
        let shape = ty.row_shape();
        self.out.push('{');
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                self.out.push_str(if has_lines { ",\n " } else { "," });
            }
            match shape.as_ref().and_then(|shape| shape.get(index)) {
                Some((name, ty)) => {
                    quote(&mut self.out, name);
                    self.out.push(':');
                    self.value(field, *ty)?;
                }
                None => {
                    quote(&mut self.out, &format!("f{}", index + 1));
                    self.out.push(':');
                    self.value(field, rustydb_types::binary::natural_type(field).into())?;
                }
            }
        }
        self.out.push('}');
        Ok(())
    }
}

/// Takes one row into what `json_agg` or `json_object_agg` has gathered.
///
/// # Errors
/// 22023 for a key that is NULL or no scalar.
pub(in super::super::super) fn gather(
    gathered: &mut Option<String>,
    (first, second): (&Value, Option<&Value>),
    types: [DataType; 2],
    is_object: bool,
    ctx: &EvalContext<'_>,
) -> Result<(), SqlError> {
    let [first_type, second_type] = types;
    let is_new = gathered.is_none();
    let out = gathered.take().unwrap_or_else(|| if is_object { "{ " } else { "[" }.to_owned());
    let mut writer = Writer { out, ctx, has_lines: false };
    if !is_new {
        writer.push_str(", ");
    }
    if is_object {
        if first.is_null() {
            return Err(invalid("field name must not be null"));
        }
        writer.key(first, first_type)?;
        writer.push_str(" : ");
        writer.value(second.unwrap_or(&Value::Null), second_type)?;
    } else {
        if !is_new && !first.is_null() && is_composite(first_type) {
            writer.push_str("\n ");
        }
        writer.value(first, first_type)?;
    }
    *gathered = Some(writer.finish());
    Ok(())
}

/// Reads `jsonb` as a type that it can be cast to.
///
/// # Errors
/// 22023 when it is of another kind, 22003 when the number does not fit.
pub(in super::super::super) fn cast_to(
    json: &rustydb_types::json::Json,
    to: BaseType,
    ctx: &EvalContext<'_>,
) -> Result<Value, SqlError> {
    use rustydb_types::json::Json;
    match (json, to) {
        (Json::Bool(flag), BaseType::Bool) => Ok(Value::Bool(*flag)),
        (Json::Number(number), BaseType::Numeric) => Ok(Value::Numeric(Box::new(number.clone()))),
        (Json::Number(number), to) if to != BaseType::Bool => {
            let number = Value::Numeric(Box::new(number.clone()));
            let from = DataType::NUMERIC;
            let method = cast::method(from.base, to).unwrap_or(cast::CastMethod::Relabel);
            cast::cast(number, method, from, to.into(), true, ctx)
        }
        (other, to) => {
            let kind = if matches!(other, Json::Number(_)) { "numeric" } else { other.type_name() };
            Err(invalid(format!("cannot cast jsonb {kind} to type {to}")))
        }
    }
}
