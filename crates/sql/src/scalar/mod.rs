//! Scalar expressions: their bound form, how names and types resolve, and how they evaluate.
//!
//! ```text
//!   syntax --(binder)--> resolve::{resolve_operator, resolve_function, coerce, ...}
//!                               |  picks rows of `catalogue` as PostgreSQL's chapter 10 says
//!                               v
//!                             Expr --eval(row, EvalContext)--> Value
//! ```
//!
//! The catalogue of operators and functions is data taken from PostgreSQL 15 (`catalogue/*.txt`),
//! so names, overloads, result types, volatility and strictness are PostgreSQL's by construction.
//! Operators and functions dispatch on the variants of their arguments.

pub mod aggregate;
mod arithmetic;
pub mod cast;
pub mod catalogue;
pub mod context;
mod eval;
pub mod expr;
mod function;
pub mod resolve;

pub use aggregate::{AggregateFunction, AggregateState};
pub use cast::CastContext;
pub use context::{CatalogLookup, EvalContext, NoCatalog, SessionView};
pub use expr::{BoolTest, CompareOp, Expr, SubqueryExpr};
pub use resolve::{
    coerce, common_type, resolve_aggregate, resolve_function, resolve_operator, resolve_unary, resolve_window,
};

#[cfg(test)]
mod tests;
