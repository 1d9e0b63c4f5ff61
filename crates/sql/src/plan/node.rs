//! The nodes of a plan.
//!
//! Every node has a width: the number of values in each of its rows. A scan's rows are as wide as its table, so that
//! expressions keep their column numbers while the optimizer moves them, until [`narrow`](super::narrow) takes away
//! what nobody asks for.

use std::sync::Arc;

use rustydb_types::datatype::DataType;
use rustydb_types::rowcodec::Wanted;
use rustydb_types::value::Value;

use crate::catalog::TableDescriptor;
use crate::catalog::virtual_table::VirtualRelation;
use crate::exec::rows::RowLayout;
use crate::scalar::catalogue::Function;
use crate::scalar::{AggregateFunction, Expr};

/// The values of one row.
pub type Row = Vec<Value>;

/// A column of a result.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// The name that the client sees.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// The table and the column number it comes from unchanged, when it does.
    pub origin: Option<(u32, u32)>,
}

/// One range of keys to look up: equal to `prefix`, and then between the bounds in the next key column.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Values of the first key columns.
    pub prefix: Vec<Expr>,
    /// Lower bound of the next key column, and whether it is included.
    pub low: Option<(Expr, bool)>,
    /// Upper bound of the next key column, and whether it is included.
    pub high: Option<(Expr, bool)>,
}

impl Probe {
    /// Its values.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.prefix.iter().chain([&self.low, &self.high].into_iter().flatten().map(|(bound, _)| bound))
    }

    /// Its values.
    pub fn exprs_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let bounds = [&mut self.low, &mut self.high].into_iter().flatten();
        self.prefix.iter_mut().chain(bounds.map(|(bound, _)| bound))
    }
}

/// How a scan finds its rows.
#[derive(Clone, Debug, Default)]
pub struct AccessPath {
    /// The place of the index among the table's; `None` reads the rows in the order of their own keys.
    pub index: Option<usize>,
    /// The ranges to read; empty means everything.
    pub probes: Vec<Probe>,
    /// Whether to read from the end.
    pub reverse: bool,
    /// Whether exactly one row can match each probe.
    pub unique: bool,
}

/// A scan of a stored table.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The table.
    pub table: Arc<TableDescriptor>,
    /// The name that the statement uses for it.
    pub alias: String,
    /// How the table's rows are stored.
    pub layout: Arc<RowLayout>,
    /// The places in the table of the values of its rows.
    pub columns: Vec<usize>,
    /// The values that are read.
    pub wanted: Vec<Wanted>,
    /// A row before anything is read: what rows have that were written before a column existed.
    pub blank: Row,
    /// Whether each row ends with its storage key, for statements that lock or change rows.
    pub locator: bool,
    /// How rows are found.
    pub path: AccessPath,
    /// What indexes of the table hold beside its columns, over its row.
    pub computed: Arc<[Expr]>,
    /// What rows must satisfy.
    pub filter: Option<Expr>,
    /// Estimated rows after the filter.
    pub rows: f64,
}

impl Scan {
    /// The width of the scan's rows.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.len() + usize::from(self.locator)
    }
}

/// A function that yields rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TableFunction {
    /// A function of the catalogue that yields rows.
    Set(&'static Function),
    /// A scalar function in FROM: one row with its result.
    Scalar,
}

/// Which rows of a join appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Only pairs that match.
    Inner,
    /// Left rows without a match too.
    Left,
    /// Right rows without a match too.
    Right,
    /// Rows of both sides without a match too.
    Full,
}

/// How a join finds its pairs.
#[derive(Clone, Debug)]
pub enum JoinAlgorithm {
    /// Every left row against every right row, the right side kept in memory.
    NestedLoop,
    /// The right side in a hash table by the key.
    Hash {
        /// Key over the left row.
        left: Vec<Expr>,
        /// Key over the right row.
        right: Vec<Expr>,
    },
    /// The right side computed anew for each left row.
    Lateral {
        /// Its outer values, over the left row.
        outer: Vec<Expr>,
    },
    /// The right side, a scan, looked up for each left row: the probes of its path read the left row as outer values.
    IndexLookup,
}

/// A join; its rows are a left row followed by a right row.
#[derive(Clone, Debug)]
pub struct Join {
    /// The left side.
    pub left: Node,
    /// The right side.
    pub right: Node,
    /// Which rows appear.
    pub kind: JoinKind,
    /// What a pair must satisfy, over both rows.
    pub condition: Option<Expr>,
    /// How pairs are found.
    pub algorithm: JoinAlgorithm,
}

/// One aggregate of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// Which aggregate.
    pub function: AggregateFunction,
    /// Its arguments over the input row; none for `count(*)`.
    pub args: Vec<Expr>,
    /// Of an ordered-set aggregate, what stands before WITHIN GROUP; it is the same for all rows of a group.
    pub direct: Vec<Expr>,
    /// Whether equal arguments count once.
    pub distinct: bool,
    /// Which rows count.
    pub filter: Option<Expr>,
    /// The order in which rows are taken.
    pub order_by: Vec<SortKey>,
}

/// One of the keys' subsets that rows are grouped by.
#[derive(Clone, Debug)]
pub struct GroupingSet {
    /// The numbers of its keys; the others are NULL in its groups.
    pub keys: Vec<usize>,
    /// Whether it is the set without keys, which has one group even without rows.
    pub is_empty: bool,
}

/// An aggregation; its rows are the group's key followed by the aggregates and the values of GROUPING.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// What is aggregated.
    pub input: Node,
    /// The key of the groups.
    pub groups: Vec<Expr>,
    /// What is computed for each.
    pub calls: Vec<AggregateCall>,
    /// Whether there is one group even without rows: there was no GROUP BY.
    pub always_one: bool,
    /// The grouping sets; without any, rows are grouped by all keys.
    pub sets: Vec<GroupingSet>,
    /// The keys of each GROUPING, the last one in the lowest bit of its value.
    pub groupings: Vec<Vec<usize>>,
    /// How many groups a set has at most, where statistics know the distinct values of its keys.
    pub estimate: Option<f64>,
}

/// One key of a sort.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// The value to sort by.
    pub expr: Expr,
    /// Whether larger values come first.
    pub descending: bool,
    /// Whether NULLs come first.
    pub nulls_first: bool,
}

/// How two results are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    /// Rows of either.
    Union,
    /// Rows of both.
    Intersect,
    /// Rows of the left that are not in the right.
    Except,
}

/// A plan, or a part of one.
#[derive(Clone, Debug)]
pub enum Node {
    /// Rows written in the statement.
    Values {
        /// The rows.
        rows: Vec<Vec<Expr>>,
        /// Values in each.
        width: usize,
    },
    /// Rows of a stored table.
    Scan(Box<Scan>),
    /// Rows of a relation that is computed.
    Virtual {
        /// The relation.
        relation: Arc<dyn VirtualRelation>,
        /// Values in each row.
        width: usize,
    },
    /// Rows of a function.
    Function {
        /// Which.
        function: TableFunction,
        /// Its arguments.
        args: Vec<Expr>,
        /// Whether a row number follows.
        ordinality: bool,
    },
    /// A common table expression, computed once for each execution.
    Shared {
        /// Identifies it within the statement.
        id: usize,
        /// What it computes.
        plan: Arc<Node>,
    },
    /// A query that reads the rows which it gave last.
    Recursive {
        /// Identifies it within the statement.
        id: usize,
        /// The rows that it begins with.
        initial: Box<Node>,
        /// What gives other rows of those that were given last.
        step: Box<Node>,
        /// Whether repetitions stay.
        all: bool,
        /// Whether it is computed once for each execution; else for each reader.
        is_shared: bool,
    },
    /// The rows that a recursive query gave last.
    WorkTable {
        /// Which query.
        id: usize,
        /// Its name.
        name: String,
        /// Values in each row.
        width: usize,
    },
    /// Rows that satisfy a predicate.
    Filter {
        /// The rows.
        input: Box<Node>,
        /// The predicate.
        predicate: Expr,
    },
    /// Other values computed from each row.
    Project {
        /// The rows.
        input: Box<Node>,
        /// The values.
        exprs: Vec<Expr>,
    },
    /// Some of the values of each row, in this order.
    Pick {
        /// The rows.
        input: Box<Node>,
        /// The places of the values.
        columns: Vec<usize>,
    },
    /// As a projection, but some values are functions that yield rows.
    ProjectSet {
        /// The rows.
        input: Box<Node>,
        /// The values; a table function with its arguments, or a plain expression.
        exprs: Vec<(Option<TableFunction>, Vec<Expr>)>,
    },
    /// Pairs of rows.
    Join(Box<Join>),
    /// Groups of rows.
    Aggregate(Box<Aggregate>),
    /// Rows with what is computed over the rows around each.
    Window(Box<super::window::Window>),
    /// Rows in order.
    Sort {
        /// The rows.
        input: Box<Node>,
        /// The order.
        keys: Vec<SortKey>,
        /// Only so many of the first rows are needed.
        bound: Option<Expr>,
    },
    /// Rows without repetition.
    Distinct {
        /// The rows.
        input: Box<Node>,
        /// How many of the first values decide; all when absent.
        on: Option<usize>,
    },
    /// Two results combined.
    SetOp {
        /// How.
        operation: SetOperation,
        /// Whether repetitions stay.
        all: bool,
        /// The left result.
        left: Box<Node>,
        /// The right result.
        right: Box<Node>,
    },
    /// Some of the first rows.
    Limit {
        /// The rows.
        input: Box<Node>,
        /// How many at most.
        limit: Option<Expr>,
        /// How many are passed over first.
        offset: Option<Expr>,
    },
}

impl Node {
    /// A single row without values: FROM of a SELECT that has none.
    #[must_use]
    pub fn one_row() -> Self {
        Self::Values { rows: vec![Vec::new()], width: 0 }
    }

    /// The number of values in each row.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Values { width, .. } | Self::Virtual { width, .. } | Self::WorkTable { width, .. } => {
                *width
            }
            Self::Recursive { initial, .. } => initial.width(),
            Self::Scan(scan) => scan.width(),
            Self::Function { ordinality, .. } => 1 + usize::from(*ordinality),
            Self::Shared { plan, .. } => plan.width(),
            Self::Filter { input, .. }
            | Self::Sort { input, .. }
            | Self::Distinct { input, .. }
            | Self::Limit { input, .. } => input.width(),
            Self::Project { exprs, .. } => exprs.len(),
            Self::Pick { columns, .. } => columns.len(),
            Self::ProjectSet { exprs, .. } => exprs.len(),
            Self::Join(join) => join.left.width() + join.right.width(),
            Self::Aggregate(aggregate) => {
                aggregate.groups.len() + aggregate.calls.len() + aggregate.groupings.len()
            }
            Self::Window(window) => window.input.width() + window.calls.len(),
            Self::SetOp { left, .. } => left.width(),
        }
    }
}
