//! The formats of COPY: bytes to fields and fields to bytes. No types, no tables.
//!
//! ```text
//!   chunks of CopyData ──> CopyReader ──> one row of Option<str> fields at a time   (COPY FROM)
//!   fields as text     ──> CopyWriter ──> bytes of one line at a time               (COPY TO)
//! ```
//!
//! Invariants: chunk borders mean nothing; a row is given out only when its line is complete; memory is bounded
//! by the longest line allowed; every error names its line as PostgreSQL does.
//! The formats and messages are those of PostgreSQL 15 (`copyfromparse.c`, `copyto.c`).
//!
//! Deliberately absent: files of the server, which are refused with 0A000.

pub mod binary;
mod options;
mod reader;
mod writer;

pub use self::options::{CopyFormat, CopyOptions, normalise_tokens};
pub use self::reader::{CopyReader, CopyRow};
pub use self::writer::CopyWriter;
