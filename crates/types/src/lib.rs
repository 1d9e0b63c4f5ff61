//! The vocabulary: identifiers, positions, values and the order-preserving key codec. No IO.

pub mod ids;
pub mod position;

pub mod datatype;
pub mod numeric;
pub mod value;
pub mod value_error;
