//! Expressions that the catalog keeps: how they are bound when they are defined, what is kept of them, and how they are
//! bound again when rows are checked.
//!
//! ```text
//! CHECK (a > 0 AND b < 'now')
//!   --bind, remembering what was written--> Expr + Forms --deparse--> StoredExpr
//! StoredExpr --parse, bind--> BoundCheck, part of each plan that writes rows
//! ```
//!
//! A text is kept only if it means itself again: it is bound and deparsed a second time, and must come out the same.

use std::cell::RefCell;
use std::sync::Arc;

use rustydb_types::datetime::Zone;
use rustydb_types::ids::ColumnId;
use sqlparser::ast::{self, Expr as AstExpr, Ident, Spanned};

use super::context::{AnalyzeContext, Binder};
use super::deparse::Deparse;
use super::errors::{at, fail, unsupported};
use super::from::{column_type, table_columns};
use super::scope::{Level, Resolve, Scope};
use super::types::BoundDomain;
use crate::catalog::descriptor::KnownTypes;
use crate::catalog::virtual_table::VirtualRegistry;
use crate::catalog::{CatalogSnapshot, ColumnDescriptor, StoredExpr, TableDescriptor};
use crate::error::{SqlError, SqlState};
use crate::exec::subquery::SubqueryKind;
use crate::scalar::{EvalContext, Expr};

/// The form in which expressions are kept: not pretty, points in time in UTC.
const KEPT_FORM: (bool, Zone) = (false, Zone::UTC);

/// What an expression is kept for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeptFor {
    /// A CHECK constraint.
    #[default]
    Check,
    /// The default of a column.
    Default,
    /// A generated column.
    Generated,
    /// Part of the key of an index.
    IndexKey,
    /// The condition of the rows that an index has.
    IndexPredicate,
    /// A CHECK constraint of a domain.
    Domain,
}

impl KeptFor {
    const fn singular(self) -> &'static str {
        match self {
            Self::Check | Self::Domain => "check constraint",
            Self::Default => "DEFAULT expression",
            Self::Generated => "column generation expression",
            Self::IndexKey => "index expression",
            Self::IndexPredicate => "index predicate",
        }
    }
}

/// What the binder keeps of an expression that is to be written again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forms {
    /// Number literals; they stand in the expression as [`Expr::Outer`], so that no conversion is folded into them.
    pub literals: Vec<Expr>,
    /// Parts that were written in a form of their own.
    written: Vec<(Expr, Written)>,
    /// What for.
    kept_for: KeptFor,
    /// Whether it is a text that was kept before, and means itself to the letter.
    is_stored: bool,
}

/// How a part of an expression was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Written {
    /// As a word without parentheses: `CURRENT_DATE`.
    Word(&'static str),
    /// With words between its arguments: `EXTRACT(year FROM a)`.
    Syntax,
    /// CASE with this operand.
    Operand(Expr),
}

impl Forms {
    /// Whether it is the default of a column.
    pub(crate) fn is_of_default(&self) -> bool {
        self.kept_for == KeptFor::Default
    }

    /// Whether it is over a value of a domain.
    pub(crate) fn is_of_domain(&self) -> bool {
        self.kept_for == KeptFor::Domain
    }

    /// How an expression was written, where that is not how it is written by default.
    pub(crate) fn written(&self, expr: &Expr) -> Option<&Written> {
        self.written.iter().find(|(known, _)| known == expr).map(|(_, form)| form)
    }
}

/// A CHECK constraint, bound over the table's row.
#[derive(Clone, Debug)]
pub struct BoundCheck {
    /// The constraint's name.
    pub name: String,
    /// What must not be false.
    pub expr: Expr,
    /// Whether a view asks for it with CHECK OPTION: the name is the view's, and NULL is refused, too.
    pub is_view: bool,
}

/// What is computed of a table's rows when they are written.
#[derive(Clone, Debug, Default)]
pub struct RowRules {
    /// Generated columns by their places, over the row.
    pub generated: Vec<(usize, Expr)>,
    /// Constraints, in the order in which each new row is asked.
    pub checks: Arc<[BoundCheck]>,
    /// What indexes hold beside the columns, over the row.
    pub computed: Vec<Expr>,
    /// Domains of columns by their places; each new row is asked for them first.
    pub domains: Vec<(usize, Arc<BoundDomain>)>,
    /// The places of columns to which the statement itself gives values: errors may show those.
    pub given: Vec<usize>,
}

impl RowRules {
    /// The same without constraints, for rows that are there already.
    #[must_use]
    pub fn without_checks(&self) -> Self {
        Self { checks: Arc::default(), domains: Vec::new(), ..self.clone() }
    }

    /// The same for a statement that gives values to columns at these places.
    #[must_use]
    pub(crate) fn giving(self: &Arc<Self>, given: impl Iterator<Item = usize>) -> Arc<Self> {
        Arc::new(Self { given: given.collect(), ..self.as_ref().clone() })
    }
}

/// The row of one table, where a CHECK constraint is written.
#[derive(Debug)]
struct CheckPlace<'a> {
    scope: Scope<'a>,
    table: &'a str,
    /// What is written there.
    what: &'static str,
    /// Columns that may not stand there because they are generated.
    generated: Vec<&'a str>,
}

impl Resolve for CheckPlace<'_> {
    fn column(&self, relation: Option<&str>, name: &Ident) -> Result<Option<Expr>, SqlError> {
        let found = self.scope.column(relation, name)?;
        if self.generated.contains(&name.value.as_str()) {
            let message =
                format!("cannot use generated column \"{}\" in column generation expression", name.value);
            let error = fail(SqlState::INVALID_OBJECT_DEFINITION, message)
                .with_detail("A generated column cannot reference another generated column.");
            return Err(at(error, name));
        }
        if found.is_none() && relation.is_none_or(|relation| relation == self.table) {
            let system = ["ctid", "xmin", "cmin", "xmax", "cmax"];
            if system.contains(&name.value.as_str()) {
                let message =
                    format!("system column \"{}\" reference in {} is invalid", name.value, self.what);
                // It stands where its qualifier does.
                let mut start = name.span.start;
                start.column -=
                    relation.map_or(0, |relation| relation.chars().count() as u64 + 1).min(start.column);
                return Err(at(fail(SqlState::INVALID_COLUMN_REFERENCE, message), &start));
            }
            if name.value == "tableoid" {
                return Err(at(unsupported(format!("tableoid in a {}", self.what)), name));
            }
        }
        Ok(found)
    }

    fn whole_row(&self, _relation: &str) -> Result<Option<Expr>, SqlError> {
        Ok(None)
    }

    fn has_relation(&self, relation: &str) -> bool {
        relation == self.table
    }
}

/// PostgreSQL's words for what may not stand in an expression that is kept.
fn refusal(error: SqlError, kept_for: KeptFor) -> SqlError {
    let what = match error.state() {
        SqlState::GROUPING_ERROR if error.message().starts_with("aggregate functions are not allowed") => {
            "aggregate functions"
        }
        SqlState::FEATURE_NOT_SUPPORTED if error.message().starts_with("a set-returning function") => {
            "set-returning functions"
        }
        _ => return error,
    };
    let mut refused = fail(error.state(), format!("{what} are not allowed in {}s", kept_for.singular()));
    refused.fields_mut().position = error.fields().position;
    refused
}

impl<'a> Binder<'a> {
    /// A binder of an expression that is to be kept.
    fn keeping(context: &'a AnalyzeContext, kept_for: KeptFor, is_stored: bool) -> Self {
        let mut binder = Self::new(context, &[]);
        binder.kept = Some(RefCell::new(Forms { kept_for, is_stored, ..Forms::default() }));
        binder
    }

    /// Whether the expression is to be kept, and was not before.
    pub(crate) fn keeps_new(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.borrow().is_stored)
    }

    /// A number literal as it stands in the expression.
    pub(crate) fn number_literal(&self, text: &str) -> Result<Expr, SqlError> {
        Ok(self.literal(Expr::number(text)?))
    }

    /// A constant as it stands in the expression: where that is kept, no conversion is folded into it.
    pub(crate) fn literal(&self, constant: Expr) -> Expr {
        let (Some(kept), Expr::Const { value, ty }) = (&self.kept, &constant) else { return constant };
        if value.is_null() || ty.is_unknown() {
            return constant;
        }
        let mut forms = kept.borrow_mut();
        let ty = *ty;
        // Equal numbers may have other digits, so each is its own.
        let index = forms.literals.len();
        forms.literals.push(constant);
        Expr::Outer { index, ty }
    }

    /// Remembers how a part was written.
    pub(crate) fn note_form(&self, expr: &Expr, form: impl FnOnce() -> Written) {
        if let Some(kept) = &self.kept {
            let mut forms = kept.borrow_mut();
            if forms.written(expr).is_none() {
                forms.written.push((expr.clone(), form()));
            }
        }
    }

    /// 0A000 when a query is written into an expression that is kept. It is found where its words begin, as they are
    /// mostly written.
    pub(crate) fn refuse_kept_query(&self, query: &ast::Query, kind: SubqueryKind) -> Result<(), SqlError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let message = format!("cannot use subquery in {}", kept.borrow().kept_for.singular());
        let before = match kind {
            SubqueryKind::Scalar => "(",
            SubqueryKind::Exists => "EXISTS (",
            SubqueryKind::Array => "ARRAY(",
            SubqueryKind::Any | SubqueryKind::All => "IN (",
        };
        let mut start = query.span().start;
        start.column -= (before.len() as u64).min(start.column);
        Err(at(fail(SqlState::FEATURE_NOT_SUPPORTED, message), &start))
    }

    /// 42P20 when a window function is written into an expression that is kept.
    pub(crate) fn refuse_kept_window(&self) -> Result<(), SqlError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let what = kept.borrow().kept_for.singular();
        Err(fail(SqlState::WINDOWING_ERROR, format!("window functions are not allowed in {what}s")))
    }

    fn check_condition(&self, expr: &AstExpr, table: &TableDescriptor) -> Result<Expr, SqlError> {
        self.row_expr(expr, table, KeptFor::Check)
    }

    /// An expression over a row of a table.
    fn row_expr(&self, expr: &AstExpr, table: &TableDescriptor, kept_for: KeptFor) -> Result<Expr, SqlError> {
        let level = Level::default();
        let scope = Scope { columns: table_columns(table, &table.name, 0), level: &level };
        let is_defined = self.kept.is_some() && kept_for == KeptFor::Generated;
        let generated = table.columns.iter().filter(|column| is_defined && column.generated.is_some());
        let place = CheckPlace {
            scope,
            table: &table.name,
            what: kept_for.singular(),
            generated: generated.map(|column| column.name.as_str()).collect(),
        };
        let bound = match kept_for {
            KeptFor::Check | KeptFor::Domain => self.bind_condition(expr, &place, "CHECK"),
            KeptFor::IndexPredicate => self.bind_condition(expr, &place, "WHERE"),
            KeptFor::Default | KeptFor::Generated | KeptFor::IndexKey => self.bind_expr(expr, &place),
        };
        bound.map_err(|error| refusal(error, kept_for))
    }

    /// The condition of a domain over its row; see [`super::types::domain_row`].
    pub(crate) fn bind_domain_check(
        &self,
        stored: &StoredExpr,
        row: &TableDescriptor,
    ) -> Result<Expr, SqlError> {
        self.row_expr(&crate::parse::parse_expr(stored.as_str())?, row, KeptFor::Domain)
    }

    /// What is computed of a table's rows when they are written.
    ///
    /// # Errors
    /// When something of it cannot be read, which none should.
    pub(crate) fn bind_rules(&self, table: &TableDescriptor) -> Result<Arc<RowRules>, SqlError> {
        let mut rules = RowRules { checks: self.bind_checks(table)?, ..RowRules::default() };
        for (place, column) in table.columns.iter().enumerate() {
            if let Some(generated) = &column.generated {
                rules.generated.push((place, self.bind_generated(generated, column, table)?));
            }
        }
        rules.computed = self.bind_computed(table)?;
        for (place, column) in
            table.columns.iter().enumerate().filter(|(_, column)| column.data_type.is_domain())
        {
            rules.domains.extend(self.bind_domain(column.data_type.oid)?.map(|domain| (place, domain)));
        }
        Ok(Arc::new(rules))
    }

    /// The value of a generated column over a row of its table.
    pub(crate) fn bind_generated(
        &self,
        stored: &StoredExpr,
        column: &ColumnDescriptor,
        table: &TableDescriptor,
    ) -> Result<Expr, SqlError> {
        let parsed = crate::parse::parse_expr(stored.as_str())?;
        let bound = self.row_expr(&parsed, table, KeptFor::Generated)?;
        self.coerce_assignment(bound, column_type(column.data_type), &column.name)
    }

    /// What indexes hold of a table's rows beside its columns, in the order in which it stands behind them.
    ///
    /// # Errors
    /// When it cannot be read, which none should.
    pub(crate) fn bind_computed(&self, table: &TableDescriptor) -> Result<Vec<Expr>, SqlError> {
        let bound = table.computed.iter().map(|computed| {
            let parsed = crate::parse::parse_expr(computed.expr.as_str())?;
            let is_predicate = table.indexes.iter().any(|index| index.predicate == Some(computed.id));
            let kept_for = if is_predicate { KeptFor::IndexPredicate } else { KeptFor::IndexKey };
            self.row_expr(&parsed, table, kept_for)
        });
        bound.collect()
    }

    /// The CHECK constraints of a table in the order in which they are checked, which is that of their names.
    ///
    /// # Errors
    /// When one cannot be read, which none should.
    pub(crate) fn bind_checks(&self, table: &TableDescriptor) -> Result<Arc<[BoundCheck]>, SqlError> {
        let mut checks = Vec::with_capacity(table.checks.len());
        for check in &table.checks {
            let parsed = crate::parse::parse_expr(check.expr.as_str())?;
            let expr = self.check_condition(&parsed, table)?;
            checks.push(BoundCheck { name: check.name.clone(), expr, is_view: false });
        }
        checks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(checks.into())
    }
}

/// The condition of a CHECK constraint as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptCheck {
    /// Its text.
    pub text: StoredExpr,
    /// The columns it looks at, in the order in which they stand in it.
    pub columns: Vec<ColumnId>,
}

/// Binds the condition of a CHECK constraint that is being defined. Literals that look at the clock or at the session
/// are read with `eval`.
///
/// # Errors
/// As PostgreSQL; 0A000 for an expression that has no text.
pub(crate) fn keep_check(
    context: &AnalyzeContext,
    expr: &AstExpr,
    table: &TableDescriptor,
    eval: &EvalContext<'_>,
) -> Result<KeptCheck, SqlError> {
    let new = Binder::keeping(context, KeptFor::Check, false);
    let bound = new.check_condition(expr, table)?;
    let text = new.deparsed(&bound, &table.columns, KEPT_FORM, eval).map_err(|error| at(error, expr))?;
    let again = stored_condition(context, &text, (table, table), KEPT_FORM, eval);
    if !again.is_ok_and(|again| again == text) {
        return Err(at(unsupported("this expression in a check constraint"), expr));
    }
    let columns = columns_of(&bound, table);
    Ok(KeptCheck { text: StoredExpr::new(text), columns })
}

/// Binds an expression over a table's row that is being defined for something else than a CHECK constraint.
///
/// # Errors
/// As PostgreSQL; 0A000 for an expression that has no text.
pub(crate) fn keep_row_expr(
    context: &AnalyzeContext,
    expr: &AstExpr,
    table: &TableDescriptor,
    kept_for: KeptFor,
    eval: &EvalContext<'_>,
) -> Result<(KeptCheck, Expr), SqlError> {
    let text_of = |binder: &Binder<'_>, expr: &AstExpr| {
        let bound = binder.row_expr(expr, table, kept_for)?;
        let text = binder.deparsed(&bound, &table.columns, KEPT_FORM, eval)?;
        Ok::<_, SqlError>((text, bound))
    };
    let (text, bound) =
        text_of(&Binder::keeping(context, kept_for, false), expr).map_err(|error| at(error, expr))?;
    let again = crate::parse::parse_expr(&text)
        .and_then(|parsed| text_of(&Binder::keeping(context, kept_for, true), &parsed));
    if !again.is_ok_and(|(again, _)| again == text) {
        return Err(at(unsupported(format!("this expression in a {}", kept_for.singular())), expr));
    }
    let columns = columns_of(&bound, table);
    Ok((KeptCheck { text: StoredExpr::new(text), columns }, bound))
}

/// The columns of a table that an expression over its row looks at, in the order in which they stand in it.
fn columns_of(bound: &Expr, table: &TableDescriptor) -> Vec<ColumnId> {
    let mut columns = Vec::new();
    bound.visit(&mut |part| {
        if let Expr::Column { index, .. } = part
            && let Some(column) = table.columns.get(*index)
            && !columns.contains(&column.id)
        {
            columns.push(column.id);
        }
    });
    columns
}

/// A kept expression over a table's row for people.
///
/// # Errors
/// When it cannot be read, which none should.
pub(crate) fn shown_row_expr(
    stored: &StoredExpr,
    (bound_over, named): (&TableDescriptor, &TableDescriptor),
    kept_for: KeptFor,
    form: (bool, Zone),
) -> Result<String, SqlError> {
    let context = nowhere(&bound_over.types);
    let binder = Binder::keeping(&context, kept_for, true);
    let bound = binder.row_expr(&crate::parse::parse_expr(stored.as_str())?, bound_over, kept_for)?;
    binder.deparsed(&bound, &named.columns, form, &EvalContext::constant(&[]))
}

/// Writes anew for other names of the columns what of a table is computed from its rows.
///
/// # Errors
/// When it cannot be read, which none should.
pub(crate) fn rename_computed(former: &TableDescriptor, table: &mut TableDescriptor) -> Result<(), SqlError> {
    let renamed = |stored: &StoredExpr, kept_for: KeptFor, table: &TableDescriptor| {
        shown_row_expr(stored, (former, table), kept_for, KEPT_FORM).map(StoredExpr::new)
    };
    for place in 0..table.columns.len() {
        let generated = table.columns.get(place).and_then(|column| column.generated.clone());
        if let Some(generated) = generated {
            let text = renamed(&generated, KeptFor::Generated, table)?;
            if let Some(column) = table.columns.get_mut(place) {
                column.generated = Some(text);
            }
        }
    }
    for place in 0..table.computed.len() {
        let Some(computed) = table.computed.get(place) else { continue };
        let kept_for = kind_of(table, computed.id);
        let text = renamed(&computed.expr, kept_for, table)?;
        if let Some(computed) = table.computed.get_mut(place) {
            computed.expr = text;
        }
    }
    Ok(())
}

/// What something that is computed is for.
pub(crate) fn kind_of(table: &TableDescriptor, id: ColumnId) -> KeptFor {
    let is_predicate = table.indexes.iter().any(|index| index.predicate == Some(id));
    if is_predicate { KeptFor::IndexPredicate } else { KeptFor::IndexKey }
}

/// What indexes hold of a table's rows beside its columns, for a plan.
///
/// # Errors
/// When it cannot be read, which none should.
pub(crate) fn computed_of(table: &TableDescriptor) -> Result<Arc<[Expr]>, SqlError> {
    if table.computed.is_empty() {
        return Ok(Arc::new([]));
    }
    Binder::new(&nowhere(&table.types), &[]).bind_computed(table).map(Into::into)
}

/// The text of a kept condition for people: `pg_get_expr`.
///
/// # Errors
/// When it cannot be read, which none should.
pub(crate) fn shown(
    stored: &StoredExpr,
    table: &TableDescriptor,
    pretty: bool,
    zone: Zone,
) -> Result<String, SqlError> {
    if is_shown_as_kept(stored, pretty, zone) {
        return Ok(stored.as_str().to_owned());
    }
    let eval = EvalContext::constant(&[]);
    stored_condition(&nowhere(&table.types), stored.as_str(), (table, table), (pretty, zone), &eval)
}

/// Whether the text for people is the one that is kept. Only points in time are written otherwise in another zone.
fn is_shown_as_kept(stored: &StoredExpr, pretty: bool, zone: Zone) -> bool {
    !pretty && (zone == Zone::UTC || !stored.as_str().contains("timestamp with time zone"))
}

/// The text of a default for people: `pg_get_expr`.
///
/// # Errors
/// When it cannot be read, or was kept as it was written.
pub(crate) fn shown_default(
    stored: &StoredExpr,
    (column, types): (&ColumnDescriptor, &KnownTypes),
    pretty: bool,
    zone: Zone,
) -> Result<String, SqlError> {
    if is_shown_as_kept(stored, pretty, zone) {
        return Ok(stored.as_str().to_owned());
    }
    let (context, eval) = (nowhere(types), EvalContext::constant(&[]));
    let binder = Binder::keeping(&context, KeptFor::Default, true);
    let bound = binder.default_value(&crate::parse::parse_expr(stored.as_str())?, column)?;
    binder.deparsed(&bound, &[], (pretty, zone), &eval)
}

/// A kept condition with the names that the table's columns get.
///
/// # Errors
/// When it cannot be read, which none should.
pub(crate) fn renamed(
    stored: &StoredExpr,
    former: &TableDescriptor,
    table: &TableDescriptor,
) -> Result<StoredExpr, SqlError> {
    let eval = EvalContext::constant(&[]);
    stored_condition(&nowhere(&former.types), stored.as_str(), (former, table), KEPT_FORM, &eval)
        .map(StoredExpr::new)
}

/// A kept condition over the types that the table's columns get.
///
/// # Errors
/// As PostgreSQL, when it does not fit them.
pub(crate) fn retyped(stored: &StoredExpr, table: &TableDescriptor) -> Result<StoredExpr, SqlError> {
    renamed(stored, table, table)
}

/// What a kept expression is bound against: it says all itself, but for the types that users made.
pub(crate) fn nowhere(types: &KnownTypes) -> AnalyzeContext {
    AnalyzeContext {
        catalog: Arc::new(CatalogSnapshot::of_types(&types.0)),
        virtuals: Arc::new(VirtualRegistry::default()),
        search_path: Vec::new(),
        database: String::new(),
        user: String::new(),
        user_oid: crate::catalog::snapshot::BOOTSTRAP_ROLE,
        authority: Arc::new(super::privilege::Authority::all()),
    }
}

/// Binds a condition that was kept over one table and writes it with the names of another.
fn stored_condition(
    context: &AnalyzeContext,
    text: &str,
    (bound_over, named): (&TableDescriptor, &TableDescriptor),
    form: (bool, Zone),
    eval: &EvalContext<'_>,
) -> Result<String, SqlError> {
    let binder = Binder::keeping(context, KeptFor::Check, true);
    let bound = binder.check_condition(&crate::parse::parse_expr(text)?, bound_over)?;
    binder.deparsed(&bound, &named.columns, form, eval)
}

impl Binder<'_> {
    /// The text of what this binder bound for keeping over a row of these columns.
    fn deparsed(
        &self,
        bound: &Expr,
        columns: &[ColumnDescriptor],
        (pretty, zone): (bool, Zone),
        eval: &EvalContext<'_>,
    ) -> Result<String, SqlError> {
        let columns: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let forms = self.kept.as_ref().map(|forms| forms.borrow().clone()).unwrap_or_default();
        Deparse { columns: &columns, forms: &forms, eval, zone, pretty, plan: None }.text(bound)
    }

    /// The default of a column, over no row, as PostgreSQL brings it to the column's type: its length comes later.
    fn default_value(&self, expr: &AstExpr, column: &ColumnDescriptor) -> Result<Expr, SqlError> {
        let level = Level::default();
        let bound =
            self.bind_expr(expr, &Scope::empty(&level)).map_err(|error| refusal(error, KeptFor::Default))?;
        let ty = column_type(column.data_type).without_modifier();
        self.coerce_assignment(bound, ty, &column.name).map_err(|error| at(error, expr))
    }
}

/// Binds the default of a column that is being defined; none for NULL, which is what a column without one gets. What
/// has no text of its own is kept as it was written.
///
/// # Errors
/// As PostgreSQL.
pub(crate) fn keep_default(
    context: &AnalyzeContext,
    expr: &AstExpr,
    column: &ColumnDescriptor,
    eval: &EvalContext<'_>,
) -> Result<Option<StoredExpr>, SqlError> {
    let new = Binder::keeping(context, KeptFor::Default, false);
    let bound = new.default_value(expr, column)?;
    // PostgreSQL keeps one that a length is applied to.
    if matches!(&bound, Expr::Const { value, .. } if value.is_null()) && column.data_type.modifier < 0 {
        return Ok(None);
    }
    let text = |binder: &Binder<'_>, bound: &Expr| binder.deparsed(bound, &[], KEPT_FORM, eval);
    let kept = text(&new, &bound).and_then(|kept| {
        let again = Binder::keeping(context, KeptFor::Default, true);
        let bound = again.default_value(&crate::parse::parse_expr(&kept)?, column)?;
        Ok((text(&again, &bound)? == kept).then_some(kept))
    });
    let mut names_sequences = false;
    bound.visit(&mut |part| {
        names_sequences |= matches!(part, Expr::Call { function, .. }
            if matches!(function.name, "nextval" | "currval" | "setval"));
    });
    match kept.ok().flatten() {
        Some(kept) => Ok(Some(StoredExpr::new(kept))),
        // As it was written its sequences would be looked up anew each time.
        None if names_sequences => Err(at(unsupported("this default"), expr)),
        None => Ok(Some(StoredExpr::new(expr.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use rustydb_types::text::{self, TextContext};
    use rustydb_types::value::Value;

    use super::*;

    /// The text of an expression over no row.
    fn text(sql: &str, is_stored: bool) -> Result<String, SqlError> {
        let context = nowhere(&KnownTypes::default());
        let binder = Binder::keeping(&context, KeptFor::Default, is_stored);
        let level = Level::default();
        let bound = binder.bind_expr(&crate::parse::parse_expr(sql)?, &Scope::empty(&level))?;
        let forms = binder.kept.as_ref().unwrap().borrow().clone();
        let eval = EvalContext::constant(&[]);
        Deparse { columns: &[], forms: &forms, eval: &eval, zone: Zone::UTC, pretty: false, plan: None }
            .text(&bound)
    }

    /// The type and the value of an expression over no row.
    fn answer(sql: &str) -> Result<String, SqlError> {
        let context = nowhere(&KnownTypes::default());
        let level = Level::default();
        let parsed = crate::parse::parse_expr(sql)?;
        let bound = Binder::new(&context, &[]).bind_expr(&parsed, &Scope::empty(&level))?;
        let ty = bound.ty();
        Ok(match bound.eval(&[], &EvalContext::constant(&[]))? {
            Value::Null => format!("{}: NULL", ty.base),
            value => format!("{}: {}", ty.base, text::text_out(&value, ty, &TextContext::UTC)),
        })
    }

    /// The cases of `scalar/testdata` as SQL: what is kept of each means what it meant.
    #[test]
    fn what_is_kept_means_what_was_written() {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let argument = |text: &str| match (text.strip_prefix('\''), text.split_once(':')) {
            (Some(literal), _) => quoted(literal),
            (None, Some((ty, literal))) => format!("({}::{ty})", quoted(literal)),
            (None, None) => format!("({text})"),
        };
        let (mut count, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
        for line in include_str!("../scalar/testdata/cases.txt").lines() {
            let Some((case, _)) = line.rsplit_once("\t=\t") else { continue };
            if line.starts_with('#') || case.contains('\\') {
                continue;
            }
            let mut fields = case.split('\t');
            let (Some(kind), Some(name)) = (fields.next(), fields.next()) else { continue };
            let args: Vec<String> = fields.map(argument).collect();
            let sql = match (kind, args.as_slice()) {
                ("op", [left, right]) => format!("{left} {name} {right}"),
                ("op", [operand]) => format!("{name} {operand}"),
                ("cast", [operand]) => format!("{operand}::{name}"),
                _ => format!("{name}({})", args.join(", ")),
            };
            // Literals that look at the clock are not what they were.
            let Ok(expected) = answer(&sql) else { continue };
            count += 1;
            match text(&sql, false) {
                Ok(kept) => {
                    let again = text(&kept, true);
                    if again.as_deref() != Ok(kept.as_str()) {
                        refused.push(format!("{sql} -> {kept} -> {again:?}"));
                    } else if answer(&kept).as_deref() != Ok(expected.as_str()) {
                        wrong.push(format!("{sql} -> {kept}: {expected}, {:?}", answer(&kept)));
                    }
                }
                Err(error) => refused.push(format!("{sql} -> {error}")),
            }
        }
        assert!(count > 3000, "only {count} cases");
        assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
        assert!(refused.len() < 10, "{} of {count} are refused:\n{}", refused.len(), refused.join("\n"));
    }
}
