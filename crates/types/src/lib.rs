//! The vocabulary: identifiers, positions, values and the order-preserving key codec. No IO.

pub mod ids;
pub mod position;

pub mod binary;
pub mod datatype;
pub mod datetime;
pub mod enum_type;
pub mod interval_fields;
pub mod json;
pub mod keycodec;
pub mod numeric;
pub mod row_shape;
pub mod rowcodec;
pub mod text;
pub mod value;
pub mod value_error;
