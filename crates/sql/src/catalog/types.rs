//! Types that users make: enumerations and domains.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::enum_type::{EnumDefinition, EnumType};
use rustydb_types::ids::Oid;
use rustydb_types::value_error::ValueError;
use serde::{Deserialize, Serialize};

use super::acl::Acl;
use super::descriptor::{StoredExpr, TypeRef};
use super::snapshot::PUBLIC;
use crate::pgcatalog::definition::qualified;

/// Positions of labels are so far apart where nothing stands between them.
pub const LABEL_STEP: u64 = 1 << 50;
/// No label has a position as high: it is stored as a signed number.
const LABEL_END: u64 = 1 << 63;

/// A label of an enumeration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnumLabel {
    /// `pg_enum.oid`.
    pub oid: Oid,
    /// What is stored of a value; labels are in this order.
    pub position: u64,
    /// The label.
    pub text: String,
}

/// A CHECK constraint of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainCheck {
    /// `pg_constraint.oid`.
    pub oid: Oid,
    /// Its name, unique among those of the domain.
    pub name: String,
    /// The condition over `VALUE`, a column of this name.
    pub expr: StoredExpr,
    /// Whether the values that were there before it are known to satisfy it.
    pub validated: bool,
}

/// What a type is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypeKind {
    /// CREATE TYPE ... AS ENUM: the labels in their order.
    Enum(Vec<EnumLabel>),
    /// CREATE DOMAIN.
    Domain {
        /// The type under it, which may be a domain.
        base: TypeRef,
        /// Whether NULL is refused.
        not_null: bool,
        /// The default of columns that have none.
        default: Option<StoredExpr>,
        /// The constraints in order of their creation.
        checks: Vec<DomainCheck>,
    },
}

/// A type that a user made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDescriptor {
    /// `pg_type.oid`.
    pub oid: Oid,
    /// `pg_type.oid` of arrays of it.
    pub array_oid: Oid,
    /// The schema it is in.
    pub schema: Oid,
    /// Its name.
    pub name: String,
    /// `pg_type.typname` of arrays of it.
    pub array_name: String,
    /// The role that owns it.
    pub owner: Oid,
    /// Who may do what with it, if something was said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// What it is.
    pub kind: TypeKind,
}

/// Labels with positions far apart, in this order.
pub fn spread(texts: impl IntoIterator<Item = (Oid, String)>) -> Vec<EnumLabel> {
    let mut labels: Vec<EnumLabel> = Vec::new();
    for (oid, text) in texts {
        // So many that they come closer than a step do not fit into a statement.
        let position = labels.last().map_or(0, |last| last.position) + LABEL_STEP;
        labels.push(EnumLabel { oid, position, text });
    }
    labels
}

/// The position of a label that is put at a place among others; none when its neighbours have no room between them.
#[must_use]
pub fn position_at(labels: &[EnumLabel], place: usize) -> Option<u64> {
    let before = place.checked_sub(1).and_then(|place| labels.get(place)).map_or(0, |label| label.position);
    let position = match labels.get(place) {
        Some(after) => before + (after.position - before) / 2,
        None if LABEL_END - before > LABEL_STEP => before + LABEL_STEP,
        None => before + (LABEL_END - before) / 2,
    };
    (position > before).then_some(position)
}

/// What a type identifier means.
#[derive(Clone, Debug)]
pub enum UserType {
    /// An enumeration, or arrays of one.
    Plain(DataType),
    /// A domain, with the type that its values have.
    Domain(Arc<TypeDescriptor>, DataType),
}

impl UserType {
    /// The type that values have.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Plain(data_type) | Self::Domain(_, data_type) => *data_type,
        }
    }
}

/// The types of one catalog that users made.
#[derive(Clone, Debug, Default)]
pub struct UserTypes {
    by_oid: BTreeMap<u32, UserType>,
}

impl UserTypes {
    /// What these types mean.
    ///
    /// # Errors
    /// 53200 when there is no room for further enumerations.
    pub fn new<'a>(
        types: impl Iterator<Item = &'a Arc<TypeDescriptor>>,
        schema_name: impl Fn(Oid) -> Option<String>,
    ) -> Result<Self, ValueError> {
        let mut by_oid = BTreeMap::new();
        let mut domains = Vec::new();
        for descriptor in types {
            let TypeKind::Enum(labels) = &descriptor.kind else {
                domains.push(descriptor);
                continue;
            };
            let schema = schema_name(descriptor.schema).filter(|_| descriptor.schema != PUBLIC);
            let of = EnumType::of(EnumDefinition {
                oid: descriptor.oid.get(),
                array_oid: descriptor.array_oid.get(),
                name: descriptor.name.clone(),
                array_name: descriptor.array_name.clone(),
                shown: qualified(schema.as_deref(), &descriptor.name),
                labels: labels.iter().map(|label| (label.position, label.text.clone())).collect(),
            })?;
            let plain = |base| UserType::Plain(DataType::plain(base));
            by_oid.insert(descriptor.oid.get(), plain(BaseType::Enum(of)));
            by_oid.insert(descriptor.array_oid.get(), plain(BaseType::EnumArray(of)));
        }
        // A domain is made after the type under it.
        for descriptor in domains {
            let TypeKind::Domain { base, .. } = &descriptor.kind else { continue };
            let found = by_oid.get(&base.oid).map(UserType::data_type);
            let known = DataType::from_oid(base.oid, base.modifier).or(found).unwrap_or(DataType::TEXT);
            by_oid.insert(descriptor.oid.get(), UserType::Domain(Arc::clone(descriptor), known));
        }
        Ok(Self { by_oid })
    }

    /// What a type identifier means.
    #[must_use]
    pub fn get(&self, oid: u32) -> Option<&UserType> {
        self.by_oid.get(&oid)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_oid.is_empty()
    }

    /// The domain with this identifier and those under it, the innermost first.
    #[must_use]
    pub fn domains(&self, oid: u32) -> Vec<Arc<TypeDescriptor>> {
        let mut found = Vec::new();
        let mut oid = oid;
        while let Some(UserType::Domain(descriptor, _)) = self.by_oid.get(&oid) {
            found.push(Arc::clone(descriptor));
            let TypeKind::Domain { base, .. } = &descriptor.kind else { break };
            oid = base.oid;
        }
        found.reverse();
        found
    }

    /// Finds out what a stored type means.
    pub fn settle(&self, stored: &mut TypeRef) {
        stored.known = self.by_oid.get(&stored.oid).map(UserType::data_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_find_room_between_others_until_there_is_none() {
        let mut labels = spread([(Oid::new(1), "a".to_owned()), (Oid::new(2), "z".to_owned())]);
        let mut added = 0;
        while let Some(position) = position_at(&labels, 1) {
            labels.insert(1, EnumLabel { oid: Oid::new(3), position, text: "x".to_owned() });
            added += 1;
        }
        assert_eq!(added, 50);
        assert!(labels.is_sorted_by(|a, b| a.position < b.position));
        assert_eq!(position_at(&labels, 0), Some(LABEL_STEP / 2));
        let mut end = labels.len();
        while let Some(position) = position_at(&labels, end) {
            labels.push(EnumLabel { oid: Oid::new(4), position, text: "e".to_owned() });
            end += 1;
        }
        assert!(end > 8000, "{end}");
        assert!(labels.last().is_some_and(|last| last.position < LABEL_END));
    }
}
