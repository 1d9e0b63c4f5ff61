//! The vocabulary: identifiers, positions, values and the order-preserving key codec. No IO.

pub mod ids;
pub mod position;
