//! What the fields of a `record` are called and which types they have, where that is known.
//!
//! A record's [`DataType`] carries the number of its shape as its modifier, as PostgreSQL's does. The numbers mean
//! something within this process only: they are neither stored nor sent.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use crate::datatype::{BaseType, DataType};

/// So many shapes are kept; records of any further shape are plain ones, whose fields cannot be named.
const SHAPES_MAX: usize = 1 << 18;

/// Names and types of the fields of a row.
pub type RowShape = Arc<[(String, DataType)]>;

#[derive(Default)]
struct Shapes {
    numbers: HashMap<RowShape, i32>,
    shapes: Vec<RowShape>,
}

static SHAPES: LazyLock<RwLock<Shapes>> = LazyLock::new(RwLock::default);

impl DataType {
    /// `record` with fields that are known.
    #[must_use]
    pub fn record_of(fields: &[(String, DataType)]) -> DataType {
        if let Some(number) = SHAPES.read().numbers.get(fields) {
            return DataType { base: BaseType::Record, modifier: *number };
        }
        let mut shapes = SHAPES.write();
        if let Some(number) = shapes.numbers.get(fields) {
            return DataType { base: BaseType::Record, modifier: *number };
        }
        let number = match i32::try_from(shapes.shapes.len()) {
            Ok(number) if shapes.shapes.len() < SHAPES_MAX => number,
            _ => return DataType::RECORD,
        };
        let shape: RowShape = fields.into();
        shapes.shapes.push(Arc::clone(&shape));
        shapes.numbers.insert(shape, number);
        DataType { base: BaseType::Record, modifier: number }
    }

    /// The fields of a record, where they are known.
    #[must_use]
    pub fn row_shape(self) -> Option<RowShape> {
        let number = usize::try_from(self.modifier).ok()?;
        if self.base != BaseType::Record {
            return None;
        }
        SHAPES.read().shapes.get(number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_one_number() {
        let fields = [("a".to_owned(), DataType::INT4), ("b".to_owned(), DataType::TEXT)];
        let first = DataType::record_of(&fields);
        assert_eq!(first, DataType::record_of(&fields));
        assert_ne!(first, DataType::record_of(&fields[..1]));
        assert_eq!(first.row_shape().as_deref(), Some(fields.as_slice()));
        assert_eq!(DataType::RECORD.row_shape(), None);
        assert_eq!(DataType::varchar(0).row_shape(), None);
    }
}
