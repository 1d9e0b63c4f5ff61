//! All that touches disk: the write-ahead log and the ordered-key engines. Bytes only, no transactions.

pub mod engine;
pub mod log;
