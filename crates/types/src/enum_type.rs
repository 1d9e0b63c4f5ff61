//! Enumerations: types that users make, whose values are labels in an order.
//!
//! What is stored of a value is its position, a number that belongs to its label for as long as there is one: a label
//! that is added between two others gets a position between theirs, and one that is renamed keeps its own.
//!
//! An [`EnumType`] is one version of such a type, as a catalog has it: a small handle to something that is kept for
//! the life of the process, since values, plans and types all hold it. Versions that are equal share one. Handles mean
//! something within this process only: neither they nor their numbers are stored or sent.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use parking_lot::RwLock;

use crate::value_error::ValueError;

/// So many bytes the versions of all enumerations may take together in a process.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// What a version of an enumeration is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnumDefinition {
    /// `pg_type.oid` of the type.
    pub oid: u32,
    /// `pg_type.oid` of arrays of it.
    pub array_oid: u32,
    /// `pg_type.typname`.
    pub name: String,
    /// `pg_type.typname` of arrays of it.
    pub array_name: String,
    /// Its name as messages have it: quoted where that is needed.
    pub shown: String,
    /// Position and text of each label, in the order of the positions.
    pub labels: Vec<(u64, String)>,
}

#[derive(Debug)]
struct Version {
    number: u32,
    definition: EnumDefinition,
    shown_array: String,
    labels: Vec<Label>,
}

#[derive(Debug)]
struct Label {
    version: u32,
    position: u64,
    text: Box<str>,
}

#[derive(Default)]
struct Versions {
    numbers: HashMap<EnumDefinition, u32>,
    versions: Vec<&'static Version>,
    bytes: usize,
}

static VERSIONS: LazyLock<RwLock<Versions>> = LazyLock::new(RwLock::default);

/// A version of an enumeration. Two are the same type when their object identifiers are.
#[derive(Clone, Copy)]
pub struct EnumType(&'static Version);

impl EnumType {
    /// The handle of a version.
    ///
    /// # Errors
    /// 53200 when this process has seen more versions of enumerations than it has room for.
    pub fn of(definition: EnumDefinition) -> Result<EnumType, ValueError> {
        if let Some(number) = VERSIONS.read().numbers.get(&definition).copied() {
            return EnumType::numbered(number).ok_or_else(full);
        }
        let mut versions = VERSIONS.write();
        if let Some(number) = versions.numbers.get(&definition) {
            let found = usize::try_from(*number).ok().and_then(|number| versions.versions.get(number));
            return found.copied().map(EnumType).ok_or_else(full);
        }
        // Each label is held twice here and once as a key.
        let texts: usize = definition.labels.iter().map(|(_, text)| 3 * text.len() + 128).sum();
        let bytes = versions.bytes + texts + 6 * definition.name.len() + 512;
        let number = u32::try_from(versions.versions.len()).map_err(|_| full())?;
        if bytes > KEPT_BYTES_MAX {
            return Err(full());
        }
        let labels = definition.labels.iter().map(|(position, text)| Label {
            version: number,
            position: *position,
            text: text.as_str().into(),
        });
        let version: &'static Version = Box::leak(Box::new(Version {
            number,
            labels: labels.collect(),
            shown_array: format!("{}[]", definition.shown),
            definition: definition.clone(),
        }));
        versions.bytes = bytes;
        versions.versions.push(version);
        versions.numbers.insert(definition, number);
        Ok(EnumType(version))
    }

    /// The version with this number.
    #[must_use]
    pub fn numbered(number: u32) -> Option<EnumType> {
        VERSIONS.read().versions.get(usize::try_from(number).ok()?).copied().map(EnumType)
    }

    /// The number of this version in this process.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.number
    }

    /// What it is made of.
    #[must_use]
    pub fn definition(self) -> &'static EnumDefinition {
        &self.0.definition
    }

    /// The name of arrays of it, as messages have it.
    #[must_use]
    pub fn shown_array(self) -> &'static str {
        &self.0.shown_array
    }

    /// The values in their order.
    pub fn values(self) -> impl DoubleEndedIterator<Item = EnumValue> {
        self.0.labels.iter().map(EnumValue)
    }

    /// The value whose label this is.
    ///
    /// # Errors
    /// 22P02 when there is none.
    pub fn read(self, text: &str) -> Result<EnumValue, ValueError> {
        self.values().find(|value| value.text() == text).ok_or_else(|| {
            let shown = &self.0.definition.shown;
            ValueError::new("22P02", format!("invalid input value for enum {shown}: \"{text}\""))
        })
    }

    /// The value with this position.
    #[must_use]
    pub fn at(self, position: u64) -> Option<EnumValue> {
        let labels = &self.0.labels;
        let place = labels.binary_search_by_key(&position, |label| label.position).ok()?;
        labels.get(place).map(EnumValue)
    }
}

fn full() -> ValueError {
    ValueError::new("53200", "too many versions of enumerations")
        .with_detail(format!(
            "This server has seen enumerations of {KEPT_BYTES_MAX} bytes since it was started."
        ))
        .with_hint("Restart the server.")
}

impl fmt::Debug for EnumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.definition.shown, self.0.definition.oid)
    }
}
impl PartialEq for EnumType {
    fn eq(&self, other: &EnumType) -> bool {
        self.0.definition.oid == other.0.definition.oid
    }
}
impl Eq for EnumType {}
impl Hash for EnumType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.0.definition.oid);
    }
}
impl PartialOrd for EnumType {
    fn partial_cmp(&self, other: &EnumType) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for EnumType {
    fn cmp(&self, other: &EnumType) -> Ordering {
        self.0.definition.oid.cmp(&other.0.definition.oid)
    }
}

/// A value of an enumeration.
#[derive(Clone, Copy)]
pub struct EnumValue(&'static Label);

impl EnumValue {
    /// Its label.
    #[must_use]
    pub fn text(self) -> &'static str {
        &self.0.text
    }

    /// What is stored of it; values are in the order of their positions.
    #[must_use]
    pub fn position(self) -> u64 {
        self.0.position
    }

    /// The version of the type that gave it.
    #[must_use]
    pub fn of(self) -> Option<EnumType> {
        EnumType::numbered(self.0.version)
    }
}

impl fmt::Debug for EnumValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(oid: u32, labels: &[(u64, &str)]) -> EnumDefinition {
        EnumDefinition {
            oid,
            array_oid: oid + 1,
            name: "mood".into(),
            array_name: "_mood".into(),
            shown: "mood".into(),
            labels: labels.iter().map(|(position, text)| (*position, (*text).to_owned())).collect(),
        }
    }

    #[test]
    fn equal_versions_share_a_handle_and_versions_are_one_type() {
        let first = EnumType::of(definition(900_001, &[(10, "sad"), (20, "happy")])).expect("room");
        let same = EnumType::of(definition(900_001, &[(10, "sad"), (20, "happy")])).expect("room");
        let later =
            EnumType::of(definition(900_001, &[(10, "sad"), (15, "ok"), (20, "happy")])).expect("room");
        assert_eq!(first.number(), same.number());
        assert_ne!(first.number(), later.number());
        assert_eq!(first, later);
        assert_eq!(EnumType::numbered(later.number()).map(EnumType::number), Some(later.number()));
        let other = EnumType::of(definition(900_003, &[(10, "sad")])).expect("room");
        assert_ne!(first, other);
    }

    #[test]
    fn labels_are_read_and_found_again() {
        let ty = EnumType::of(definition(900_005, &[(10, "sad"), (15, "ok"), (20, "happy")])).expect("room");
        let ok = ty.read("ok").expect("a label");
        assert_eq!((ok.position(), ok.text()), (15, "ok"));
        assert_eq!(ty.at(15).map(EnumValue::text), Some("ok"));
        assert!(ty.at(16).is_none());
        assert_eq!(ok.of(), Some(ty));
        let error = ty.read("Ok").expect_err("labels are exact");
        assert_eq!(
            (error.state, error.message.as_str()),
            ("22P02", "invalid input value for enum mood: \"Ok\"")
        );
        assert_eq!(ty.values().map(EnumValue::text).collect::<Vec<_>>(), ["sad", "ok", "happy"]);
    }
}
