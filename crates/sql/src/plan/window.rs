//! Window functions in a plan: what is computed over the rows around each row.

use rustydb_types::datatype::DataType;

use super::node::{AggregateCall, Node, SortKey};
use crate::scalar::Expr;

/// What the offsets of a frame count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameMode {
    /// Rows.
    Rows,
    /// Differences of the value that is ordered by.
    Range,
    /// Groups of peers: rows that are equal in the order.
    Groups,
}

/// How far a frame reaches from the current row.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameOffset {
    /// How far; the same for all rows.
    pub offset: Expr,
    /// In RANGE mode, how the value that is ordered by is compared and moved.
    pub reach: Option<Reach>,
}

/// Arithmetic of a RANGE frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// The value in the row `[value]`, as it is compared.
    pub compared: Expr,
    /// The last value within reach of the one in the row `[value, offset]`.
    pub moved: Expr,
    /// An offset of nothing: a smaller one is an error.
    pub zero: Expr,
}

/// One end of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameBound {
    /// The first row of the partition.
    UnboundedPreceding,
    /// So far before the current row.
    Preceding(FrameOffset),
    /// The current row, or the first or last of its peers.
    CurrentRow,
    /// So far behind the current row.
    Following(FrameOffset),
    /// The last row of the partition.
    UnboundedFollowing,
}

impl FrameBound {
    /// The offset, if there is one.
    #[must_use]
    pub fn offset(&self) -> Option<&FrameOffset> {
        match self {
            Self::Preceding(offset) | Self::Following(offset) => Some(offset),
            _ => None,
        }
    }
}

/// Which rows around the current one are left out of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// None.
    NoOthers,
    /// The current row.
    CurrentRow,
    /// The current row and its peers.
    Group,
    /// The peers of the current row.
    Ties,
}

/// The rows of the partition that a function looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// What offsets count.
    pub mode: FrameMode,
    /// Where it begins.
    pub start: FrameBound,
    /// Where it ends.
    pub end: FrameBound,
    /// What is left out.
    pub exclusion: Exclusion,
}

/// A function over a window.
#[derive(Clone, Debug, PartialEq)]
pub enum WindowFunction {
    /// The number of the row.
    RowNumber,
    /// One more than the rows before the first peer.
    Rank,
    /// The number of the group of peers.
    DenseRank,
    /// The rank as a share of the other rows.
    PercentRank,
    /// The share of rows that are not behind the last peer.
    CumeDist,
    /// Which of so many parts of the partition the row is in.
    Ntile,
    /// A value of a row before.
    Lag,
    /// A value of a row behind.
    Lead,
    /// A value of the first row of the frame.
    FirstValue,
    /// A value of the last row of the frame.
    LastValue,
    /// A value of the row of the frame with a number.
    NthValue,
    /// An aggregate of the frame.
    Aggregate(Box<AggregateCall>),
}

impl WindowFunction {
    /// The function of a name that is no aggregate's.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "row_number" => Self::RowNumber,
            "rank" => Self::Rank,
            "dense_rank" => Self::DenseRank,
            "percent_rank" => Self::PercentRank,
            "cume_dist" => Self::CumeDist,
            "ntile" => Self::Ntile,
            "lag" => Self::Lag,
            "lead" => Self::Lead,
            "first_value" => Self::FirstValue,
            "last_value" => Self::LastValue,
            "nth_value" => Self::NthValue,
            _ => return None,
        })
    }
}

/// One call over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowCall {
    /// What is computed.
    pub function: WindowFunction,
    /// Its arguments over the input row; those of an aggregate are its own.
    pub args: Vec<Expr>,
    /// The type of its result.
    pub ty: DataType,
    /// Over which rows.
    pub frame: Frame,
}

impl WindowCall {
    /// All expressions over the input row.
    pub fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        let mut exprs: Vec<&mut Expr> = self.args.iter_mut().collect();
        if let WindowFunction::Aggregate(call) = &mut self.function {
            exprs.extend(call.args.iter_mut().chain(call.filter.as_mut()));
        }
        exprs
    }

    /// All expressions over the input row.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let own = match &self.function {
            WindowFunction::Aggregate(call) => Some(call.args.iter().chain(call.filter.as_ref())),
            _ => None,
        };
        self.args.iter().chain(own.into_iter().flatten())
    }
}

/// Rows, partition by partition and in order, each followed by what is computed over its window.
#[derive(Clone, Debug)]
pub struct Window {
    /// The rows.
    pub input: Node,
    /// Rows with equal values are a partition.
    pub partition: Vec<Expr>,
    /// The order within a partition.
    pub order: Vec<SortKey>,
    /// What is computed.
    pub calls: Vec<WindowCall>,
}
