//! From SQL text to statements: the session's own by their words, the planner's by the parser.

mod cursor;
mod depth;
mod prepared;
mod privileges;
mod refused;
mod sequence;
mod setting;
mod size;
mod system;
mod text;
mod types;
mod utility;
mod words;

#[cfg(test)]
mod tests;

pub use size::size_bytes;
pub use text::parse;
pub use types::is_not_null_mark;
