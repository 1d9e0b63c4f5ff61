//! `jsonb`: a JSON value taken apart, with PostgreSQL's order, text and key rules.
//!
//! Objects keep their keys by length, then by bytes; of equal keys the last one written counts. Numbers are `numeric` with
//! their scale. The text of `json`, which stays as it was written, is read by [`text`].

mod codec;
pub mod text;

use std::cmp::Ordering;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::numeric::Numeric;
use crate::value_error::ValueError;

pub use self::codec::{KeyReader, KeyWriter, decode, decode_key, encode, encode_key};

/// So deep may arrays and objects nest.
pub const DEPTH_MAX: usize = 500;

/// The most bytes of a string, and the most elements of an array or object.
const PART_MAX: usize = 0x0fff_ffff;

/// A key of an object with its value.
pub type Pair = (Arc<str>, Json);

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number; never NaN nor infinite.
    Number(Numeric),
    /// A string.
    String(Arc<str>),
    /// An array.
    Array(Vec<Json>),
    /// An object, its keys in order, each once.
    Object(Vec<Pair>),
}

/// The order of keys in an object.
fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

impl Json {
    /// A string.
    #[must_use]
    pub fn string(text: &str) -> Json {
        Json::String(text.into())
    }

    /// An object; of equal keys the last one counts.
    #[must_use]
    pub fn object(mut pairs: Vec<Pair>) -> Json {
        // Stable, so that the last of equals stays the last.
        pairs.sort_by(|(a, _), (b, _)| key_order(a, b));
        let mut kept: Vec<Pair> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match kept.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                _ => kept.push(pair),
            }
        }
        Json::Object(kept)
    }

    /// Whether it is neither an array nor an object.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// What `jsonb_typeof` calls it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// The value of a key of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(pairs) = self else { return None };
        let place = pairs.binary_search_by(|(known, _)| key_order(known, key)).ok()?;
        pairs.get(place).map(|(_, value)| value)
    }

    /// An element of an array; from the end when `index` is below 0.
    #[must_use]
    pub fn at(&self, index: i64) -> Option<&Json> {
        let Json::Array(elements) = self else { return None };
        let count = i64::try_from(elements.len()).ok()?;
        let index = if index < 0 { count.checked_add(index)? } else { index };
        elements.get(usize::try_from(index).ok()?)
    }

    /// How deep arrays and objects nest in it; a scalar is 0.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Json::Array(elements) => 1 + elements.iter().map(Json::depth).max().unwrap_or(0),
            Json::Object(pairs) => 1 + pairs.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Bytes on the heap, about.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        let own = size_of::<Json>();
        match self {
            Json::Null | Json::Bool(_) => own,
            Json::Number(_) => own + 48,
            Json::String(text) => own + text.len() + 16,
            Json::Array(elements) => own + elements.iter().map(Json::heap_size).sum::<usize>(),
            Json::Object(pairs) => {
                own + pairs.iter().map(|(key, value)| key.len() + 32 + value.heap_size()).sum::<usize>()
            }
        }
    }

    /// Refuses what is too large or too deep.
    ///
    /// # Errors
    /// 54000 for long strings and large arrays, 54001 for what nests deeper than [`DEPTH_MAX`].
    pub fn check(&self) -> Result<(), ValueError> {
        self.check_at(0)
    }

    fn check_at(&self, depth: usize) -> Result<(), ValueError> {
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        let large = |what: &str| {
            Err(ValueError::new("54000", format!("{what} exceeds the maximum of {PART_MAX} bytes")))
        };
        match self {
            Json::String(text) if text.len() > PART_MAX => {
                large("string too long to represent as jsonb string: it")
            }
            Json::Array(elements) => elements.iter().try_for_each(|element| element.check_at(depth + 1)),
            Json::Object(pairs) => pairs.iter().try_for_each(|(_, value)| value.check_at(depth + 1)),
            _ => Ok(()),
        }
    }

    /// PostgreSQL's btree order: object, array, boolean, number, string, null, the greatest first; more elements are
    /// greater. An empty array at the top is below all.
    #[must_use]
    pub fn compare(&self, other: &Json) -> Ordering {
        let is_empty = |json: &Json| matches!(json, Json::Array(elements) if elements.is_empty());
        match (is_empty(self), is_empty(other)) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => self.compare_within(other),
        }
    }

    fn compare_within(&self, other: &Json) -> Ordering {
        match (self, other) {
            (Json::Null, Json::Null) => Ordering::Equal,
            (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
            (Json::Number(a), Json::Number(b)) => a.cmp(b),
            (Json::String(a), Json::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Json::Array(a), Json::Array(b)) => a.len().cmp(&b.len()).then_with(|| {
                let mut pairs = a.iter().zip(b).map(|(a, b)| a.compare_within(b));
                pairs.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            }),
            (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
                let pair = |((a, x), (b, y)): (&Pair, &Pair)| {
                    a.as_bytes().cmp(b.as_bytes()).then_with(|| x.compare_within(y))
                };
                a.iter().zip(b).map(pair).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            }),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Json::Null => 0,
            Json::String(_) => 1,
            Json::Number(_) => 2,
            Json::Bool(_) => 3,
            Json::Array(_) => 4,
            Json::Object(_) => 5,
        }
    }

    /// Whether it contains another, as `@>` says.
    #[must_use]
    pub fn contains(&self, other: &Json) -> bool {
        match (self, other) {
            // An array contains a scalar that stands in it, at the top alone.
            (Json::Array(elements), scalar) if scalar.is_scalar() => elements.contains(scalar),
            _ => self.contains_within(other),
        }
    }

    fn contains_within(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Object(_), Json::Object(pairs)) => pairs
                .iter()
                .all(|(key, wanted)| self.get(key).is_some_and(|found| found.contains_within(wanted))),
            (Json::Array(have), Json::Array(wanted)) => wanted.iter().all(|wanted| {
                have.iter().any(|have| {
                    if wanted.is_scalar() { have == wanted } else { have.contains_within(wanted) }
                })
            }),
            (a, b) => a.is_scalar() && b.is_scalar() && a == b,
        }
    }

    /// Appends its text, as PostgreSQL prints `jsonb`.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => drop(write!(out, "{number}")),
            Json::String(text) => text::quote(out, text),
            Json::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Json::Object(pairs) => {
                out.push('{');
                for (index, (key, value)) in pairs.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    text::quote(out, key);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Appends its text over several lines, as `jsonb_pretty` does.
    pub fn write_pretty(&self, out: &mut String, depth: usize) {
        let indent = |out: &mut String, depth: usize| {
            out.push('\n');
            for _ in 0..depth {
                out.push_str("    ");
            }
        };
        match self {
            Json::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    indent(out, depth + 1);
                    element.write_pretty(out, depth + 1);
                }
                indent(out, depth);
                out.push(']');
            }
            Json::Object(pairs) => {
                out.push('{');
                for (index, (key, value)) in pairs.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    indent(out, depth + 1);
                    text::quote(out, key);
                    out.push_str(": ");
                    value.write_pretty(out, depth + 1);
                }
                indent(out, depth);
                out.push('}');
            }
            scalar => scalar.write(out),
        }
    }
}

fn too_deep() -> ValueError {
    ValueError::new("54001", format!("JSON is nested deeper than {DEPTH_MAX} levels"))
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.compare_within(other) == Ordering::Equal
    }
}
impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.rank());
        match self {
            Json::Null => {}
            Json::Bool(flag) => state.write_u8(u8::from(*flag)),
            Json::Number(number) => number.hash(state),
            Json::String(text) => text.hash(state),
            Json::Array(elements) => elements.hash(state),
            Json::Object(pairs) => pairs.hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            (any::<i32>(), 0u32..4).prop_map(|(n, scale)| Json::Number(Numeric::new(n.into(), scale))),
            "[a-c\u{0}-\u{2}é\"\\\\]{0,3}".prop_map(|text| Json::string(&text.replace('\0', ""))),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                prop::collection::vec(("[a-c]{0,3}", inner), 0..4).prop_map(|pairs| {
                    Json::object(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn its_text_is_read_back(json in any_json()) {
            let text = json.to_string();
            let back = text::read(&text).expect("own text");
            prop_assert_eq!(&back, &json);
            prop_assert_eq!(back.to_string(), text);
            let mut pretty = String::new();
            json.write_pretty(&mut pretty, 0);
            prop_assert_eq!(text::read(&pretty).expect("own text"), json);
        }

        #[test]
        fn equal_values_are_hashed_alike_and_contain_each_other(a in any_json(), b in any_json()) {
            use std::hash::{BuildHasher, RandomState};
            let hasher = RandomState::new();
            if a == b {
                prop_assert_eq!(hasher.hash_one(&a), hasher.hash_one(&b));
                prop_assert!(a.contains(&b) && b.contains(&a));
            }
            prop_assert!(a.contains(&a));
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            prop_assert_eq!(a.compare(&b).is_eq(), a == b);
        }
    }
}
