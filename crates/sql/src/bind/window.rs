//! OVER and WINDOW: which functions are computed over which rows.
//!
//! A [`WindowPlace`] stands around the place of the select list and ORDER BY. A call with OVER becomes a column behind
//! those of the row; its arguments and its window are bound at the place within, where no window function may stand.
//! When all is bound, [`stack`] puts the window nodes on top of the plan and settles the columns.

use std::cell::RefCell;
use std::cmp::Reverse;

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;
use sqlparser::ast::{
    DuplicateTreatment, Expr as AstExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    NamedWindowDefinition, NamedWindowExpr, OrderByExpr, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowSpec, WindowType,
};
use sqlparser::tokenizer::Location;

use super::aggregate::{SET_BASE, WINDOW_BASE};
use super::context::Binder;
use super::errors::{at, at_literal, fail, syntax, unsupported};
use super::from::function_arg;
use super::query::{is_unknown, require_equality, sort_key};
use super::scope::{Resolve, Scope, ScopeColumn};
use super::select::OutputItem;
use crate::error::{SqlError, SqlState};
use crate::plan::window::{
    Exclusion, Frame, FrameBound, FrameMode, FrameOffset, Reach, Window, WindowCall, WindowFunction,
};
use crate::plan::{AggregateCall, Node, SortKey};
use crate::scalar::{self, Expr};

/// What is said of a window function where none may stand, until the clause is known.
const NOT_HERE: &str = "window functions are not allowed here";

/// The same error in other words.
fn reworded(error: &SqlError, state: SqlState, message: impl Into<String>) -> SqlError {
    let mut other = fail(state, message);
    other.fields_mut().position = error.fields().position;
    other
}

/// Names the place in which a window function may not stand.
pub(super) fn not_allowed_in(error: SqlError, place: &str) -> SqlError {
    if error.message() != NOT_HERE {
        return error;
    }
    reworded(&error, SqlState::WINDOWING_ERROR, format!("window functions are not allowed in {place}"))
}

/// DISTINCT ON is bound over the rows of FROM, which window functions are not part of.
pub(super) fn not_supported_in_distinct_on(error: SqlError) -> SqlError {
    if error.message() != NOT_HERE {
        return error;
    }
    reworded(&error, SqlState::FEATURE_NOT_SUPPORTED, "a window function in DISTINCT ON is not supported")
}

/// Says that the arguments of an aggregate hold a window function.
pub(super) fn within_aggregate(error: SqlError) -> SqlError {
    if error.message() != NOT_HERE {
        return error;
    }
    let message = "aggregate function calls cannot contain window function calls";
    reworded(&error, SqlState::GROUPING_ERROR, message)
}

/// A call with the window that it is computed over.
#[derive(Debug)]
pub(crate) struct PlacedCall {
    partition: Vec<Expr>,
    order: Vec<SortKey>,
    call: WindowCall,
}

impl PlacedCall {
    fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        let mut exprs = self.call.exprs_mut();
        exprs.extend(self.partition.iter_mut().chain(self.order.iter_mut().map(|key| &mut key.expr)));
        exprs
    }
}

/// The select list and ORDER BY of a SELECT, in which window functions may stand.
#[derive(Debug)]
pub struct WindowPlace<'p> {
    inner: &'p dyn Resolve,
    named: &'p [NamedWindowDefinition],
    calls: RefCell<Vec<PlacedCall>>,
}

impl<'p> WindowPlace<'p> {
    /// A place around another, with the windows that WINDOW names.
    pub(crate) fn new(inner: &'p dyn Resolve, named: &'p [NamedWindowDefinition]) -> Self {
        Self { inner, named, calls: RefCell::default() }
    }

    /// The calls that were met.
    pub(crate) fn into_calls(self) -> Vec<PlacedCall> {
        self.calls.into_inner()
    }

    fn add(&self, placed: PlacedCall) -> Expr {
        let ty = placed.call.ty;
        let mut calls = self.calls.borrow_mut();
        let known = calls.iter().position(|known| {
            known.partition == placed.partition
                && known.order == placed.order
                && known.call == placed.call
                && !placed.call.exprs().any(Expr::is_volatile)
        });
        let index = known.unwrap_or_else(|| {
            calls.push(placed);
            calls.len() - 1
        });
        Expr::Column { index: WINDOW_BASE + index, ty }
    }
}

impl Resolve for WindowPlace<'_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        self.inner.column(relation, name)
    }

    fn star_column(&self, column: &ScopeColumn) -> Result<Expr, SqlError> {
        self.inner.star_column(column)
    }

    fn whole_row(&self, relation: &str) -> Result<Option<Expr>, SqlError> {
        self.inner.whole_row(relation)
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.inner.has_relation(relation)
    }

    fn aggregate_place(&self) -> Result<&dyn Resolve, SqlError> {
        self.inner.aggregate_place()
    }

    fn add_aggregate(&self, call: AggregateCall) -> Result<Expr, SqlError> {
        self.inner.add_aggregate(call)
    }

    fn grouped(&self, expr: &AstExpr) -> Option<Expr> {
        self.inner.grouped(expr)
    }

    fn takes_grouping(&self) -> bool {
        self.inner.takes_grouping()
    }

    fn grouping_key(&self, index: usize) -> Option<usize> {
        self.inner.grouping_key(index)
    }

    fn add_grouping(&self, keys: Vec<usize>) -> Result<Expr, SqlError> {
        self.inner.add_grouping(keys)
    }

    fn window_place(&self) -> Option<&WindowPlace<'_>> {
        Some(self)
    }
}

/// Puts the nodes of window functions on top of a plan. `settle` moves what was bound within to the rows of that plan.
pub(crate) fn stack(
    mut calls: Vec<PlacedCall>,
    mut node: Node,
    settle: &dyn Fn(Expr) -> Expr,
) -> (Node, impl Fn(Expr) -> Expr) {
    for expr in calls.iter_mut().flat_map(PlacedCall::exprs_mut) {
        *expr = settle(std::mem::replace(expr, Expr::null()));
    }
    let width = node.width();
    let mut windows: Vec<Placed> = Vec::new();
    for (number, PlacedCall { partition, order, call }) in calls.into_iter().enumerate() {
        match windows.iter_mut().find(|known| known.0 == partition && known.1 == order) {
            Some((_, _, calls)) => calls.push((number, call)),
            None => windows.push((partition, order, vec![(number, call)])),
        }
    }
    let order = order_of_windows(&windows);
    windows.sort_by_cached_key(order);
    let mut numbers = Vec::new();
    for (partition, order, calls) in windows {
        let (own, calls): (Vec<usize>, Vec<WindowCall>) = calls.into_iter().unzip();
        numbers.extend(own);
        node = Node::Window(Box::new(Window { input: node, partition, order, calls }));
    }
    let place = move |index: usize| match index {
        WINDOW_BASE..SET_BASE => {
            let number = index - WINDOW_BASE;
            width + numbers.iter().position(|known| *known == number).unwrap_or(0)
        }
        index => index,
    };
    (node, move |expr: Expr| expr.map_columns(&mut |index| place(index)))
}

type Placed = (Vec<Expr>, Vec<SortKey>, Vec<(usize, WindowCall)>);

/// In which order windows are computed. As in PostgreSQL, those that begin alike follow each other, the longest order
/// first: the shorter ones see the rows in that order.
fn order_of_windows(windows: &[Placed]) -> impl Fn(&Placed) -> Vec<Reverse<(usize, bool, bool)>> + use<> {
    let mut known: Vec<Expr> = Vec::new();
    for (partition, order, _) in windows {
        for expr in partition.iter().chain(order.iter().map(|key| &key.expr)) {
            if !known.contains(expr) {
                known.push(expr.clone());
            }
        }
    }
    move |(partition, order, _)| {
        let number = |expr: &Expr| known.iter().position(|known| known == expr).unwrap_or(0) + 1;
        let partition = partition.iter().map(|expr| (number(expr), false, false));
        let order = order.iter().map(|key| (number(&key.expr), key.descending, key.nulls_first));
        // What ends first comes last.
        partition.chain(order).chain([(0, false, false)]).map(Reverse).collect()
    }
}

/// The items of a select list and the keys of ORDER BY over other rows.
pub(crate) fn settled(
    items: Vec<OutputItem>,
    keys: Vec<SortKey>,
    settle: &dyn Fn(Expr) -> Expr,
) -> (Vec<OutputItem>, Vec<SortKey>) {
    let items = items.into_iter().map(|mut item| {
        item.exprs = item.exprs.into_iter().map(settle).collect();
        item
    });
    let keys = keys.into_iter().map(|mut key| {
        key.expr = settle(key.expr);
        key
    });
    (items.collect(), keys.collect())
}

/// A window as written, with what it takes over from those that it extends.
#[derive(Clone)]
struct Written<'w> {
    partition: &'w [AstExpr],
    order: &'w [OrderByExpr],
    frame: Option<&'w WindowFrame>,
    exclusion: Exclusion,
}

fn undefined_window(name: &Ident, location: &Location) -> SqlError {
    at(fail(SqlState::UNDEFINED_OBJECT, format!("window \"{}\" does not exist", name.value)), location)
}

/// Where the parenthesis of a window is that begins with the name of another.
fn parenthesis(name: &Ident) -> Location {
    let start = name.span.start;
    Location { line: start.line, column: start.column.saturating_sub(1) }
}

fn windowing(message: impl Into<String>) -> SqlError {
    fail(SqlState::WINDOWING_ERROR, message)
}

/// The window of a name; windows that are extended stand before those that extend them.
fn named<'w>(
    name: &Ident,
    before: &'w [NamedWindowDefinition],
    location: &Location,
) -> Result<Written<'w>, SqlError> {
    let found =
        before.iter().enumerate().find(|(_, NamedWindowDefinition(known, _))| known.value == name.value);
    let Some((place, NamedWindowDefinition(_, definition))) = found else {
        return Err(undefined_window(name, location));
    };
    match definition {
        NamedWindowExpr::WindowSpec(spec) => written(spec, before.get(..place).unwrap_or_default(), false),
        NamedWindowExpr::NamedWindow(_) => Err(syntax("a window definition is expected")),
    }
}

/// A window in parentheses.
fn written<'w>(
    spec: &'w WindowSpec,
    before: &'w [NamedWindowDefinition],
    in_over: bool,
) -> Result<Written<'w>, SqlError> {
    let (order, exclusion) = crate::parse::window_exclusion(&spec.order_by);
    let mut own =
        Written { partition: &spec.partition_by, order, frame: spec.window_frame.as_ref(), exclusion };
    let Some(name) = &spec.window_name else { return Ok(own) };
    let base = named(name, before, &parenthesis(name))?;
    if !own.partition.is_empty() {
        let message = format!("cannot override PARTITION BY clause of window \"{}\"", name.value);
        return Err(at(windowing(message), &parenthesis(name)));
    }
    if !own.order.is_empty() && !base.order.is_empty() {
        let message = format!("cannot override ORDER BY clause of window \"{}\"", name.value);
        return Err(at(windowing(message), &parenthesis(name)));
    }
    if base.frame.is_some() {
        let message = format!("cannot copy window \"{}\" because it has a frame clause", name.value);
        let error = at(windowing(message), &parenthesis(name));
        let is_plain = in_over && own.order.is_empty() && own.frame.is_none();
        return Err(if is_plain {
            error.with_hint("Omit the parentheses in this OVER clause.")
        } else {
            error
        });
    }
    own.partition = base.partition;
    if own.order.is_empty() {
        own.order = base.order;
    }
    Ok(own)
}

impl Binder<'_> {
    /// Binds the windows that WINDOW names, used or not.
    ///
    /// # Errors
    /// 42P20 for windows that cannot be, and as [`Binder::bind_expr`].
    pub(crate) fn bind_named_windows(&self, place: &WindowPlace<'_>) -> Result<(), SqlError> {
        for (index, NamedWindowDefinition(name, _)) in place.named.iter().enumerate() {
            let before = place.named.get(..index).unwrap_or_default();
            if before.iter().any(|NamedWindowDefinition(known, _)| known.value == name.value) {
                let message = format!("window \"{}\" is already defined", name.value);
                return Err(windowing(message));
            }
            let upto = place.named.get(..=index).unwrap_or_default();
            self.bind_window(&named(name, upto, &name.span.start)?, place)?;
        }
        Ok(())
    }

    /// Whether a call of so many arguments is that of a window function, which needs OVER.
    pub(super) fn needs_over(&self, name: &str, count: usize) -> bool {
        use crate::scalar::catalogue::{Catalogue, FunctionKind};
        let functions = Catalogue::get().functions(name);
        functions.iter().any(|known| known.kind == FunctionKind::Window && known.args.len() == count)
    }

    /// Binds a call with OVER.
    ///
    /// # Errors
    /// 42P20 where no window function may stand, and as PostgreSQL's analysis.
    pub(super) fn bind_window_call(
        &self,
        function: &Function,
        over: &WindowType,
        place: &dyn Resolve,
    ) -> Result<Expr, SqlError> {
        self.refuse_kept_window()?;
        if !function.within_group.is_empty() {
            return self.bind_ordered_set(function, place);
        }
        let Some(windows) = place.window_place() else { return Err(windowing(NOT_HERE)) };
        let (_, name) = self.split_name(&function.name)?;
        let FunctionArguments::List(list) = &function.args else {
            return Err(syntax("a window function needs parentheses"));
        };
        if function.null_treatment.is_some() || list.args.iter().any(super::special::is_named) {
            return Err(unsupported("a named argument or treatment of nulls of a window function"));
        }
        let nested = |error: SqlError| {
            if error.message() == NOT_HERE {
                let message = "window function calls cannot be nested";
                return reworded(&error, SqlState::WINDOWING_ERROR, message);
            }
            error
        };
        let star = matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        let written: Vec<&AstExpr> =
            if star { Vec::new() } else { list.args.iter().map(function_arg).collect::<Result<_, _>>()? };
        let bind = |expr: &&AstExpr| self.bind_expr(expr, windows.inner).map_err(nested);
        let args = written.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let filter = match &function.filter {
            Some(filter) => Some(self.bind_condition(filter, windows.inner, "FILTER")?),
            None => None,
        };
        let not_implemented =
            |what: &str| fail(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} for window functions"));
        let refuse_clauses = || {
            if matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)) {
                return Err(not_implemented("DISTINCT is not implemented"));
            }
            if list.clauses.is_empty() {
                Ok(())
            } else {
                Err(not_implemented("aggregate ORDER BY is not implemented"))
            }
        };
        let (computed, args, ty) = if self.is_aggregate(&name.value) {
            if args.is_empty() && !star && name.value == "count" {
                let message = "count(*) must be used to call a parameterless aggregate function";
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            }
            let kind = scalar::catalogue::Catalogue::get().functions(&name.value);
            if kind.iter().any(|kind| scalar::aggregate::OrderedSet::of(kind).is_some()) {
                let message = format!("WITHIN GROUP is required for ordered-set aggregate {}", name.value);
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            }
            let (function, args) = self
                .aggregate(&name.value, args, false)
                .map_err(|error| at_literal(error, written.iter().copied()))?;
            refuse_clauses()?;
            let ty = function.ty;
            let (direct, order_by) = (Vec::new(), Vec::new());
            let call = AggregateCall { function, args, direct, distinct: false, filter, order_by };
            (WindowFunction::Aggregate(Box::new(call)), Vec::new(), ty)
        } else {
            let resolved = scalar::resolve_window(&name.value, args.clone())
                .map_err(|error| at_literal(error, written.iter().copied()))?;
            let (Some((args, ty)), Some(computed)) = (resolved, WindowFunction::from_name(&name.value))
            else {
                self.function(&function.name, args)?;
                let message = format!(
                    "OVER specified, but {} is not a window function nor an aggregate function",
                    name.value
                );
                return Err(fail(SqlState::WRONG_OBJECT_TYPE, message));
            };
            refuse_clauses()?;
            if filter.is_some() {
                let message = "FILTER is not implemented for non-aggregate window functions";
                return Err(fail(SqlState::FEATURE_NOT_SUPPORTED, message));
            }
            let args = args.into_iter().map(|arg| self.settle(arg)).collect();
            (computed, args, ty)
        };
        let written = match over {
            WindowType::NamedWindow(name) => named(name, windows.named, &name.span.start)?,
            WindowType::WindowSpec(spec) => self::written(spec, windows.named, true)?,
        };
        let (partition, order, frame) = self.bind_window(&written, windows)?;
        let call = WindowCall { function: computed, args, ty, frame };
        Ok(windows.add(PlacedCall { partition, order, call }))
    }

    /// Binds the definition of a window.
    fn bind_window(
        &self,
        written: &Written<'_>,
        windows: &WindowPlace<'_>,
    ) -> Result<(Vec<Expr>, Vec<SortKey>, Frame), SqlError> {
        let bind = |expr: &AstExpr| {
            let bound = self
                .bind_expr(expr, windows.inner)
                .map_err(|error| not_allowed_in(error, "window definitions"))?;
            if is_unknown(bound.ty()) { self.coerce_implicit(bound, DataType::TEXT) } else { Ok(bound) }
        };
        let mut partition: Vec<Expr> = Vec::new();
        for expr in written.partition {
            let bound = bind(expr)?;
            require_equality(bound.ty()).map_err(|error| at(error, expr))?;
            if !partition.contains(&bound) {
                partition.push(bound);
            }
        }
        let mut order: Vec<SortKey> = Vec::new();
        for item in written.order {
            let key = sort_key(bind(&item.expr)?, item)?;
            // A value that was ordered by already decides nothing more.
            if !order.iter().any(|known| known.expr == key.expr) {
                order.push(key);
            }
        }
        let frame = self.bind_frame(written, &order)?;
        Ok((partition, order, frame))
    }

    fn bind_frame(&self, written: &Written<'_>, order: &[SortKey]) -> Result<Frame, SqlError> {
        let Some(frame) = written.frame else {
            let (start, end) = (FrameBound::UnboundedPreceding, FrameBound::CurrentRow);
            return Ok(Frame { mode: FrameMode::Range, start, end, exclusion: written.exclusion });
        };
        let end = frame.end_bound.as_ref().unwrap_or(&WindowFrameBound::CurrentRow);
        check_bounds(&frame.start_bound, end)?;
        let mode = match frame.units {
            WindowFrameUnits::Rows => FrameMode::Rows,
            WindowFrameUnits::Range => FrameMode::Range,
            WindowFrameUnits::Groups => FrameMode::Groups,
        };
        if mode == FrameMode::Groups && order.is_empty() {
            return Err(windowing("GROUPS mode requires an ORDER BY clause"));
        }
        let bound = |bound: &WindowFrameBound| {
            Ok::<FrameBound, SqlError>(match bound {
                WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
                WindowFrameBound::Preceding(None) => FrameBound::UnboundedPreceding,
                WindowFrameBound::Following(None) => FrameBound::UnboundedFollowing,
                WindowFrameBound::Preceding(Some(offset)) => {
                    FrameBound::Preceding(self.bind_offset(offset, mode, order, true)?)
                }
                WindowFrameBound::Following(Some(offset)) => {
                    FrameBound::Following(self.bind_offset(offset, mode, order, false)?)
                }
            })
        };
        let (start, end) = (bound(&frame.start_bound)?, bound(end)?);
        Ok(Frame { mode, start, end, exclusion: written.exclusion })
    }

    fn bind_offset(
        &self,
        offset: &AstExpr,
        mode: FrameMode,
        order: &[SortKey],
        back: bool,
    ) -> Result<FrameOffset, SqlError> {
        let clause = match mode {
            FrameMode::Rows => "ROWS",
            FrameMode::Range => "RANGE",
            FrameMode::Groups => "GROUPS",
        };
        let level = super::scope::Level::default();
        let bound = self.bind_expr(offset, &Scope::empty(&level)).map_err(|error| {
            if error.state() == SqlState::UNDEFINED_COLUMN || error.state() == SqlState::UNDEFINED_TABLE {
                let message = format!("argument of {clause} must not contain variables");
                return reworded(&error, SqlState::INVALID_COLUMN_REFERENCE, message);
            }
            if error.message() == "aggregate functions are not allowed here" {
                let message = format!("aggregate functions are not allowed in window {clause}");
                return at(fail(SqlState::GROUPING_ERROR, message), offset);
            }
            not_allowed_in(error, "window definitions")
        })?;
        let to = |bound: Expr, target: DataType| {
            let ty = bound.ty();
            if is_unknown(ty) {
                return self.coerce_implicit(bound, target).map_err(|error| at_literal(error, [offset]));
            }
            self.coerce_implicit(bound, target).map_err(|_| {
                let (target, ty) = (target.base.sql_name(), ty.base.sql_name());
                let message = format!("argument of {clause} must be type {target}, not type {ty}");
                at(fail(SqlState::DATATYPE_MISMATCH, message), offset)
            })
        };
        if mode != FrameMode::Range {
            return Ok(FrameOffset { offset: to(bound, DataType::INT8)?, reach: None });
        }
        let [key] = order else {
            let message = "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column";
            return Err(windowing(message));
        };
        let ty = key.expr.ty();
        let is_integer = |base: BaseType| matches!(base, BaseType::Int2 | BaseType::Int4 | BaseType::Int8);
        // Integers are compared as numbers, which do not overflow.
        let (offset_type, compared) = match ty.base {
            base if is_integer(base) => (DataType::INT8, DataType::NUMERIC),
            BaseType::Numeric => (DataType::NUMERIC, DataType::NUMERIC),
            BaseType::Float4 | BaseType::Float8 => (DataType::FLOAT8, DataType::FLOAT8),
            BaseType::Date => (DataType::INTERVAL, DataType::TIMESTAMP),
            BaseType::Timestamp | BaseType::Timestamptz | BaseType::Interval => {
                (DataType::INTERVAL, ty.without_modifier())
            }
            base => {
                let what = "RANGE with offset PRECEDING/FOLLOWING is not supported for column type";
                let message = format!("{what} {}", base.sql_name());
                return Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), offset));
            }
        };
        let offset_base = bound.ty().base;
        let fits = match offset_type.base {
            BaseType::Int8 => is_integer(offset_base),
            _ => self.coerce_implicit(bound.clone(), offset_type).is_ok(),
        };
        if !fits && !is_unknown(bound.ty()) {
            let (ty, offset_type) = (ty.base.sql_name(), offset_base.sql_name());
            let message = format!(
                "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {ty} and offset type {offset_type}"
            );
            return Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), offset)
                .with_hint("Cast the offset value to an appropriate type."));
        }
        let mut far = to(bound, offset_type)?;
        let mut zero = match offset_type.base {
            BaseType::Interval => self.cast(Expr::literal("0"), DataType::INTERVAL)?,
            _ => self.cast(Expr::constant(Value::Int4(0), DataType::INT4), offset_type)?,
        };
        let mut far_type = offset_type;
        if is_integer(ty.base) {
            far = self.cast(far, DataType::NUMERIC)?;
            zero = self.cast(zero, DataType::NUMERIC)?;
            far_type = DataType::NUMERIC;
        }
        let value = Expr::Column { index: 0, ty };
        let value = if ty.base == compared.base { value } else { self.cast(value, compared)? };
        let distance = Expr::Column { index: 1, ty: far_type };
        let operator = if back != key.descending { "-" } else { "+" };
        let moved = self.operator(operator, value.clone(), distance)?;
        Ok(FrameOffset { offset: far, reach: Some(Reach { compared: value, moved, zero }) })
    }
}

/// What a frame's bounds cannot be together.
fn check_bounds(start: &WindowFrameBound, end: &WindowFrameBound) -> Result<(), SqlError> {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let message = match (start, end) {
        (Following(None), _) => "frame start cannot be UNBOUNDED FOLLOWING",
        (_, Preceding(None)) => "frame end cannot be UNBOUNDED PRECEDING",
        (CurrentRow, Preceding(_)) => "frame starting from current row cannot have preceding rows",
        (Following(_), Preceding(_)) => "frame starting from following row cannot have preceding rows",
        (Following(_), CurrentRow) => "frame starting from following row cannot end with current row",
        _ => return Ok(()),
    };
    Err(windowing(message))
}
