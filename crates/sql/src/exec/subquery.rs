//! Subqueries in expressions: run again for each outer row, or once when they do not depend on it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustydb_env::ambient;
use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

use super::operator::{self, State};
use super::run::Run;
use crate::error::{SqlError, SqlState};
use crate::plan::{Node, Row};
use crate::scalar::{EvalContext, Expr, SubqueryExpr};

/// What an expression asks of a subquery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubqueryKind {
    /// Its one value.
    Scalar,
    /// Whether it has a row.
    Exists,
    /// Whether some row passes the test; IN.
    Any,
    /// Whether all rows pass the test.
    All,
    /// All its values as an array.
    Array,
}

/// A subquery in an expression.
#[derive(Debug)]
pub struct Subquery {
    /// Identifies it within the statement.
    pub id: usize,
    /// What is asked of it.
    pub kind: SubqueryKind,
    /// Its plan, whose outer values are `outer`.
    pub plan: Arc<Node>,
    /// The type of the answer.
    pub ty: DataType,
    /// What it uses of the row around it.
    pub outer: Vec<Expr>,
    /// Left sides of a quantified comparison, over the row around it.
    pub operands: Vec<Expr>,
    /// The comparison, over the operands followed by a row of the subquery.
    pub test: Option<Expr>,
    /// Whether the comparison is by equality, so that rows may be looked up by hash.
    pub hashable: bool,
}

/// What was kept of a subquery that does not depend on the row around it.
#[derive(Debug)]
pub struct KeptSubquery {
    /// All its rows.
    pub rows: Vec<Row>,
    /// The rows again, for lookups, when equality of values is what the test asks.
    pub lookup: Option<std::collections::HashSet<HashedRow>>,
    /// Whether some row holds a NULL.
    pub has_null: bool,
}

/// A row as a key of a hash table, compared as PostgreSQL's equality of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedRow(pub Row);

impl Hash for HashedRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in &self.0 {
            value.hash_value(state);
        }
    }
}

/// Folds the outcomes of a comparison with many rows: true wins over unknown over false for ANY, the reverse for ALL.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    decided: bool,
    unknown: bool,
    decisive: bool,
}

impl Verdict {
    fn new(kind: SubqueryKind) -> Self {
        Self { decided: false, unknown: false, decisive: kind == SubqueryKind::Any }
    }

    fn take(&mut self, outcome: &Value) {
        match outcome {
            Value::Bool(flag) if *flag == self.decisive => self.decided = true,
            Value::Null => self.unknown = true,
            _ => {}
        }
    }

    fn value(self) -> Value {
        if self.decided {
            Value::Bool(self.decisive)
        } else if self.unknown {
            Value::Null
        } else {
            Value::Bool(!self.decisive)
        }
    }
}

impl Subquery {
    fn answer(&self, row: &[Value], context: &EvalContext<'_>) -> Result<Value, SqlError> {
        let run = Run::of(context)?;
        if self.outer.is_empty() {
            let kept = run.state.subquery(self.id, || ambient::in_place(|| self.keep(run)))?;
            return self.answer_kept(&kept, row, context);
        }
        let (answer, bytes) =
            run.state.measured(|| ambient::in_place(|| self.answer_anew(run, row, context)));
        run.state.release_measured(bytes);
        answer
    }

    fn answer_anew(
        &self,
        run: &Run<'_>,
        row: &[Value],
        context: &EvalContext<'_>,
    ) -> Result<Value, SqlError> {
        let outer = self.outer.iter().map(|expr| expr.eval(row, context)).collect::<Result<Vec<_>, _>>()?;
        let inner = run.with_outer(&outer);
        let mut state = State::open(&self.plan);
        match self.kind {
            SubqueryKind::Exists => {
                Ok(Value::Bool(operator::next(&self.plan, &mut state, &inner)?.is_some()))
            }
            SubqueryKind::Scalar => {
                let mut found = None;
                while let Some(batch) = operator::next(&self.plan, &mut state, &inner)? {
                    for row in batch {
                        if found.is_some() {
                            return Err(too_many_rows());
                        }
                        found = Some(row.into_iter().next().unwrap_or(Value::Null));
                    }
                }
                Ok(found.unwrap_or(Value::Null))
            }
            SubqueryKind::Any | SubqueryKind::All => {
                let operands = self.operands(row, context)?;
                let mut verdict = Verdict::new(self.kind);
                while let Some(batch) = operator::next(&self.plan, &mut state, &inner)? {
                    for row in batch {
                        verdict.take(&self.test(&operands, &row, context)?);
                        if verdict.decided {
                            return Ok(verdict.value());
                        }
                    }
                }
                Ok(verdict.value())
            }
            SubqueryKind::Array => {
                let mut values = Vec::new();
                while let Some(batch) = operator::next(&self.plan, &mut state, &inner)? {
                    values.extend(batch.into_iter().filter_map(|row| row.into_iter().next()));
                }
                Ok(self.array(values))
            }
        }
    }

    fn keep(&self, run: &Run<'_>) -> Result<KeptSubquery, SqlError> {
        let mut rows = Vec::new();
        let mut state = State::open(&self.plan);
        while let Some(batch) = operator::next(&self.plan, &mut state, run)? {
            for row in batch {
                run.state.charge_row(&row)?;
                rows.push(row);
            }
            if self.kind == SubqueryKind::Exists || (self.kind == SubqueryKind::Scalar && rows.len() > 1) {
                break;
            }
        }
        let has_null = rows.iter().flatten().any(Value::is_null);
        let lookup = (self.hashable && rows.len() > 8)
            .then(|| rows.iter().cloned().map(HashedRow).collect::<std::collections::HashSet<_>>());
        Ok(KeptSubquery { rows, lookup, has_null })
    }

    fn answer_kept(
        &self,
        kept: &KeptSubquery,
        row: &[Value],
        context: &EvalContext<'_>,
    ) -> Result<Value, SqlError> {
        match self.kind {
            SubqueryKind::Exists => Ok(Value::Bool(!kept.rows.is_empty())),
            SubqueryKind::Scalar => match kept.rows.as_slice() {
                [] => Ok(Value::Null),
                [row] => Ok(row.first().cloned().unwrap_or(Value::Null)),
                _ => Err(too_many_rows()),
            },
            SubqueryKind::Array => {
                Ok(self.array(kept.rows.iter().filter_map(|row| row.first()).cloned().collect()))
            }
            SubqueryKind::Any | SubqueryKind::All => {
                let operands = self.operands(row, context)?;
                if let Some(lookup) = &kept.lookup
                    && !kept.has_null
                    && !operands.iter().any(Value::is_null)
                {
                    return Ok(Value::Bool(lookup.contains(&HashedRow(operands))));
                }
                let mut verdict = Verdict::new(self.kind);
                for row in &kept.rows {
                    verdict.take(&self.test(&operands, row, context)?);
                    if verdict.decided {
                        break;
                    }
                }
                Ok(verdict.value())
            }
        }
    }

    fn operands(&self, row: &[Value], context: &EvalContext<'_>) -> Result<Vec<Value>, SqlError> {
        self.operands.iter().map(|expr| expr.eval(row, context)).collect()
    }

    fn test(&self, operands: &[Value], row: &[Value], context: &EvalContext<'_>) -> Result<Value, SqlError> {
        let Some(test) = &self.test else { return Ok(Value::Null) };
        let joined: Row = operands.iter().chain(row).cloned().collect();
        test.eval(&joined, context)
    }

    fn array(&self, values: Vec<Value>) -> Value {
        Value::array(self.ty.base.element().unwrap_or(self.ty.base), values)
    }
}

impl SubqueryExpr for Subquery {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn id(&self) -> usize {
        self.id
    }

    fn ty(&self) -> DataType {
        self.ty
    }

    fn eval(&self, row: &[Value], context: &EvalContext<'_>) -> Result<Value, SqlError> {
        self.answer(row, context)
    }

    fn columns(&self, visit: &mut dyn FnMut(&Expr)) {
        self.outer.iter().chain(&self.operands).for_each(visit);
    }

    fn with_inputs(&self, map: &mut dyn FnMut(Expr) -> Expr) -> Arc<dyn SubqueryExpr> {
        Arc::new(Self {
            id: self.id,
            kind: self.kind,
            plan: Arc::clone(&self.plan),
            ty: self.ty,
            outer: self.outer.iter().cloned().map(&mut *map).collect(),
            operands: self.operands.iter().cloned().map(map).collect(),
            test: self.test.clone(),
            hashable: self.hashable,
        })
    }
}

fn too_many_rows() -> SqlError {
    SqlError::new(
        SqlState::CARDINALITY_VIOLATION,
        "more than one row returned by a subquery used as an expression",
    )
}
