//! The binder: from a parsed statement to a plan with resolved names and types.
//!
//! ```text
//! ast::Statement --bind--> Plan { Node tree | change of rows | change of schema }
//! ```
//!
//! A query level is one SELECT. A subquery in an expression is a level of its own whose outer columns become
//! `Expr::Outer` values: the subquery carries the expressions that compute them from the outer row. The binder decides
//! everything that PostgreSQL decides at parse time; it reads the catalog snapshot and never data.

pub mod aggregate;
pub mod context;
pub mod deparse;
pub mod errors;
pub mod expr;
pub mod from;
mod grouping;
pub mod kept;
pub mod modify;
mod ordered_set;
pub mod privilege;
pub mod query;
pub(crate) mod recursive;
pub(crate) mod references;
pub mod resolve;
pub mod scope;
pub mod select;
pub mod sequence;
mod set;
mod special;
pub(crate) mod target;
pub mod types;
pub(crate) mod view;
mod window;

pub use context::{AnalyzeContext, Binder};
