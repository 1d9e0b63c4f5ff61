//! Prepared statements: of Parse and of PREPARE, in one name space, with their plans.

use std::sync::Arc;

use super::activity::kept_text;
use super::copy::CopyCaller;
use super::core::Session;
use super::executor::{Column, Executor, ResultFormats};
use super::failure::{Fault, no_such_statement};
use super::portal::write_row_description;
use super::request::Bind;
use super::response::{self, Mark};
use super::sink::ResponseSink;
use super::statement::Statement;
use super::syntax;
use crate::error::{SqlError, SqlState};
use crate::gateway::frame::PreparedText;
use crate::memory::{HeldMemory, TextMemory};

/// Most named prepared statements of a session; one more is refused with 53400.
pub(super) const PREPARED_COUNT_MAX: usize = 10_000;

/// A prepared statement.
pub(super) struct Prepared<E: Executor> {
    /// Its text, as others are shown it.
    pub(super) text: Arc<str>,
    /// `None` is the empty statement.
    pub(super) statement: Option<Arc<Statement>>,
    /// Types given for its parameters.
    pub(super) param_types: Vec<u32>,
    /// The plan, for what the executor runs.
    pub(super) plan: Option<Arc<E::Plan>>,
    /// For all of it, and for what runs with it.
    pub(super) memory: Arc<HeldMemory>,
}

/// What may be made of the texts of a session before it takes of what all sessions share, in bytes.
pub(super) const OWN_MEMORY_BYTES: usize = 256 << 10;

/// Memory for what is made of a text: the session's own while that lasts, then the node's.
///
/// # Errors
/// 54001 for a text that is too large in any case, 53200 when the node's is used up.
pub(super) fn hold<E: Executor>(
    executor: &E,
    own: &Arc<TextMemory>,
    sql: &str,
) -> Result<Arc<HeldMemory>, SqlError> {
    let size_bytes = syntax::size_bytes(sql)?;
    own.hold_within(size_bytes).map_or_else(|| executor.hold(size_bytes), Ok).map(Arc::new)
}

impl<E: Executor> Session<E> {
    pub(super) async fn parse<S: ResponseSink>(
        &mut self,
        name: &str,
        sql: &str,
        param_types: Vec<u32>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let text = kept_text(sql);
        self.context.activity.begin(Arc::clone(&text), self.context.statement_time);
        if name.is_empty() {
            // Gone in any case.
            self.unnamed = None;
        }
        let memory = hold(&*self.parts.executor, &self.own_memory, sql)?;
        let mut statements = syntax::parse(sql)?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let statement = statements.pop();
        if !statement.as_ref().is_none_or(Statement::ends_failure) {
            self.refuse_in_failed_block()?;
        }
        self.check_new_prepared(name)?;
        let mut plan = None;
        if let Some(statement) = &statement
            && let Some(ast) = statement.planned()
        {
            plan = Some(self.plan(ast, &param_types, statement.looks_read_only()).await?);
        }
        self.add_prepared(
            name,
            sql,
            Prepared { text, statement: statement.map(Arc::new), param_types, plan, memory },
        );
        response::mark(sink.buffer(), Mark::ParseComplete);
        Ok(())
    }

    /// Refuses a name that is taken, or one too many.
    pub(super) fn check_new_prepared(&self, name: &str) -> Result<(), SqlError> {
        if name.is_empty() {
            return Ok(());
        }
        if self.prepared.contains_key(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.prepared.len() >= PREPARED_COUNT_MAX {
            return Err(SqlError::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!("a session holds at most {PREPARED_COUNT_MAX} prepared statements"),
            ));
        }
        Ok(())
    }

    pub(super) fn add_prepared(&mut self, name: &str, sql: &str, prepared: Prepared<E>) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
            return;
        }
        self.changes.prepared.push(PreparedText {
            name: name.to_owned(),
            sql: sql.to_owned(),
            param_types: prepared.param_types.clone(),
        });
        self.prepared.insert(name.to_owned(), prepared);
    }

    /// DEALLOCATE, or Close of a statement.
    pub(super) fn remove_prepared(&mut self, name: &str) -> bool {
        if name.is_empty() {
            return self.unnamed.take().is_some();
        }
        let found = self.prepared.remove(name).is_some();
        if found {
            self.changes.prepared.retain(|prepared| prepared.name != name);
            self.changes.deallocated.push(name.to_owned());
        }
        found
    }

    pub(super) fn prepared_named(&self, name: &str) -> Result<&Prepared<E>, SqlError> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.prepared.get(name) };
        found.ok_or_else(|| no_such_statement(name))
    }

    /// The plan of a prepared statement, locked and good; kept for the next time.
    pub(super) async fn plan_of(&mut self, name: &str) -> Result<Option<Arc<E::Plan>>, SqlError> {
        let prepared = self.prepared_named(name)?;
        let Some(statement) = prepared.statement.clone() else { return Ok(None) };
        let Some(ast) = statement.planned() else { return Ok(None) };
        let known = prepared.plan.clone();
        let types: Vec<u32> = prepared.param_types.clone();
        let plan = match &known {
            Some(plan) => Arc::clone(plan),
            None => self.plan(ast, &types, statement.looks_read_only()).await?,
        };
        let plan = self.lock(plan, ast, &types).await?;
        if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &plan)) {
            if let Some(known) = &known
                && !same_result(
                    &self.parts.executor.shape(known).columns,
                    &self.parts.executor.shape(&plan).columns,
                )
            {
                return Err(SqlError::not_supported("cached plan must not change result type"));
            }
            let kept = if name.is_empty() { self.unnamed.as_mut() } else { self.prepared.get_mut(name) };
            if let Some(prepared) = kept {
                prepared.plan = Some(Arc::clone(&plan));
            }
        }
        Ok(Some(plan))
    }

    /// EXECUTE: runs a prepared statement with parameters that were read from SQL.
    pub(super) async fn run_bound<S: ResponseSink>(
        &mut self,
        bind: &Bind<'_>,
        formats: &ResultFormats,
        is_described: bool,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let Some(plan) = self.plan_of(bind.statement).await? else {
            return Err(no_such_statement(bind.statement).into());
        };
        let shape = self.parts.executor.shape(&plan);
        if shape.param_types.len() != bind.params.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{}\"", bind.statement),
            )
            .with_detail(format!(
                "Expected {} parameters but got {}.",
                shape.param_types.len(),
                bind.params.len()
            ))
            .into());
        }
        if !is_described && shape.has_rows {
            write_row_description(sink.buffer(), shape, formats);
        }
        let cursor = self.parts.executor.open(&self.context, &plan, bind)?;
        let caller = if is_described { CopyCaller::Execute } else { CopyCaller::Query };
        self.run_plan(&plan, cursor, formats, caller, 0, sink).await?;
        Ok(())
    }
}

fn same_result(left: &[Column], right: &[Column]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| left.type_oid == right.type_oid && left.name == right.name)
}
