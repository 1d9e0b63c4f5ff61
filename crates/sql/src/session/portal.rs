//! Portals: prepared statements with parameters and a place up to which rows were fetched.

use std::sync::Arc;

use bytes::BytesMut;

use super::copy::CopyCaller;
use super::core::{Session, SessionEnd};
use super::cursor::SqlCursor;
use super::executor::{Dialogue, Executor, ResultFormats, Shape};
use super::failure::{Fault, no_such_portal};
use super::request::{Bind, Target};
use super::response::{self, Mark, TransactionStatus};
use super::sink::ResponseSink;
use super::statement::{Declaration, Statement};
use crate::error::{SqlError, SqlState};
use crate::memory::HeldMemory;

/// Most open portals of a session; one more is refused with 53400.
pub(super) const PORTAL_COUNT_MAX: usize = 1_000;

/// What a portal runs.
pub(super) enum PortalBody<E: Executor> {
    Empty,
    Run {
        plan: Arc<E::Plan>,
        cursor: E::Cursor,
    },
    /// DECLARE with its parameters.
    Declare {
        declaration: Arc<Declaration>,
        plan: Arc<E::Plan>,
        cursor: E::Cursor,
    },
    Utility(Arc<Statement>),
    /// A query that has given all its rows.
    Finished(Arc<E::Plan>),
    Done,
}

pub(super) struct Portal<E: Executor> {
    pub(super) body: PortalBody<E>,
    pub(super) formats: ResultFormats,
    /// How many savepoints there were when it was made: going back to one before ends it.
    pub(super) depth: usize,
    /// Whether rows may have been fetched, so that what is left must not see what comes after.
    pub(super) is_started: bool,
    /// What SQL says of it, if it was made by DECLARE.
    pub(super) cursor: Option<SqlCursor>,
    /// For the plan, which may outlive its statement.
    pub(super) memory: Arc<HeldMemory>,
}

impl<E: Executor> Session<E> {
    pub(super) async fn bind<S: ResponseSink>(&mut self, bind: &Bind<'_>, sink: &mut S) -> Result<(), Fault> {
        let prepared = self.prepared_named(bind.statement)?;
        let (statement, memory) = (prepared.statement.clone(), Arc::clone(&prepared.memory));
        self.context.activity.begin(Arc::clone(&prepared.text), self.context.statement_time);
        if !statement.as_deref().is_none_or(Statement::ends_failure) {
            self.refuse_in_failed_block()?;
        }
        if !bind.portal.is_empty() {
            if self.portals.contains_key(bind.portal) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_CURSOR,
                    format!("portal \"{}\" already exists", bind.portal),
                )
                .into());
            }
            if self.portals.len() >= PORTAL_COUNT_MAX {
                return Err(SqlError::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    format!("a session holds at most {PORTAL_COUNT_MAX} portals"),
                )
                .into());
            }
        }
        let plan = self.plan_of(bind.statement).await?;
        let shape = plan.as_ref().map(|plan| self.parts.executor.shape(plan));
        let wanted = shape.map_or(0, |shape| shape.param_types.len());
        if bind.params.len() != wanted {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
                    bind.params.len(),
                    bind.statement
                ),
            )
            .into());
        }
        let columns = shape.map_or(0, |shape| shape.columns.len());
        let is_plan = matches!(statement.as_deref(), Some(Statement::Plan(_)));
        if let Some(Statement::Plan(ast)) = statement.as_deref() {
            self.refuse_by_block(ast)?;
        }
        let formats = result_formats(bind, columns, is_plan)?;
        let body = match (plan, statement) {
            (Some(plan), statement) => {
                let cursor = self.parts.executor.open(&self.context, &plan, bind)?;
                match statement.as_deref() {
                    Some(Statement::Declare(declaration)) => {
                        PortalBody::Declare { declaration: Arc::clone(declaration), plan, cursor }
                    }
                    _ => PortalBody::Run { plan, cursor },
                }
            }
            (None, Some(statement)) => PortalBody::Utility(statement),
            (None, None) => PortalBody::Empty,
        };
        let depth = self.block.savepoints.len();
        let portal = Portal { body, formats, depth, is_started: false, cursor: None, memory };
        if bind.portal.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            self.portals.insert(bind.portal.to_owned(), portal);
        }
        response::mark(sink.buffer(), Mark::BindComplete);
        Ok(())
    }

    pub(super) async fn describe<S: ResponseSink>(
        &mut self,
        target: Target,
        name: &str,
        sink: &mut S,
    ) -> Result<(), Fault> {
        match target {
            Target::Statement => {
                let prepared = self.prepared_named(name)?;
                let statement = prepared.statement.clone();
                let is_planned = prepared.plan.is_some();
                if matches!(statement.as_deref(), Some(Statement::Plan(_) | Statement::Declare(_))) {
                    self.refuse_in_failed_block()?;
                }
                if !is_planned {
                    // Prepared by SQL or brought from another place: planned when first needed.
                    self.plan_of(name).await?;
                }
                let prepared = self.prepared_named(name)?;
                let out = sink.buffer();
                match &prepared.plan {
                    Some(plan) if matches!(statement.as_deref(), Some(Statement::Declare(_))) => {
                        let shape = self.parts.executor.shape(plan);
                        response::parameter_description(out, shape.param_types.iter().copied());
                        response::mark(out, Mark::NoData);
                    }
                    Some(plan) => {
                        let shape = self.parts.executor.shape(plan);
                        response::parameter_description(out, shape.param_types.iter().copied());
                        describe_result(out, shape, &ResultFormats::Text);
                    }
                    None => {
                        response::parameter_description(out, std::iter::empty());
                        self.describe_utility(statement.as_deref(), &ResultFormats::Text, out);
                    }
                }
            }
            Target::Portal => {
                let portal =
                    if name.is_empty() { self.unnamed_portal.as_ref() } else { self.portals.get(name) };
                let portal = portal.ok_or_else(|| no_such_portal(name))?;
                match &portal.body {
                    PortalBody::Run { plan, .. } | PortalBody::Finished(plan) => {
                        describe_result(sink.buffer(), self.parts.executor.shape(plan), &portal.formats);
                    }
                    PortalBody::Utility(statement) => {
                        self.describe_utility(Some(statement), &portal.formats, sink.buffer());
                    }
                    PortalBody::Empty | PortalBody::Done | PortalBody::Declare { .. } => {
                        response::mark(sink.buffer(), Mark::NoData)
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn execute<S: ResponseSink>(
        &mut self,
        name: &str,
        max_rows: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let place = if name.is_empty() { self.unnamed_portal.as_mut() } else { self.portals.get_mut(name) };
        let portal = place.ok_or_else(|| no_such_portal(name))?;
        let formats = std::mem::take(&mut portal.formats);
        let (depth, was_started, declared) = (portal.depth, portal.is_started, portal.cursor.take());
        let memory = Arc::clone(&portal.memory);
        match std::mem::replace(&mut portal.body, PortalBody::Done) {
            PortalBody::Empty => response::mark(sink.buffer(), Mark::EmptyQuery),
            PortalBody::Done => {
                return Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )
                .into());
            }
            PortalBody::Finished(plan) => {
                self.refuse_in_failed_block()?;
                response::command_complete(sink.buffer(), "SELECT 0");
                self.put_back(name, |portal| {
                    portal.body = PortalBody::Finished(plan);
                    portal.formats = formats;
                });
            }
            PortalBody::Utility(statement) => self.run_utility(&statement, &formats, true, sink).await?,
            PortalBody::Declare { declaration, plan, cursor } => {
                self.refuse_in_failed_block()?;
                self.declare(&declaration, plan, cursor, memory).await?;
                response::command_complete(sink.buffer(), "DECLARE CURSOR");
            }
            PortalBody::Run { plan, cursor } => {
                self.refuse_in_failed_block()?;
                // What is suspended goes on in the snapshot in which it began.
                if !was_started {
                    self.begin_statement().await?;
                }
                self.ensure_transaction(rustydb_txn::Access::ReadOnly).await?;
                let rest =
                    self.run_plan(&plan, cursor, &formats, CopyCaller::Execute, max_rows, sink).await?;
                let shape = self.parts.executor.shape(&plan);
                let is_query = shape.dialogue == Dialogue::Rows
                    && shape.is_read_only
                    && shape.has_rows
                    && declared.is_none();
                let body = match rest {
                    Some(cursor) => PortalBody::Run { plan, cursor },
                    // A query that has given all its rows gives none when it is asked again.
                    None if is_query => PortalBody::Finished(plan),
                    None => PortalBody::Done,
                };
                if !matches!(body, PortalBody::Done) {
                    self.put_back(name, |portal| {
                        *portal = Portal { body, formats, depth, is_started: true, cursor: declared, memory };
                    });
                }
            }
        }
        Ok(())
    }

    /// Changes a portal that has run, if it is still there.
    fn put_back(&mut self, name: &str, change: impl FnOnce(&mut Portal<E>)) {
        let place = if name.is_empty() { self.unnamed_portal.as_mut() } else { self.portals.get_mut(name) };
        if let Some(portal) = place {
            change(portal);
        }
    }

    pub(super) fn close(&mut self, target: Target, name: &str) {
        match target {
            Target::Statement => {
                self.remove_prepared(name);
            }
            Target::Portal if name.is_empty() => self.unnamed_portal = None,
            Target::Portal => {
                self.portals.remove(name);
            }
        }
    }

    pub(super) async fn sync<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        self.is_skipping = false;
        let ended = match self.block.status {
            TransactionStatus::Idle => self.commit_implicit(&[], sink).await,
            _ => self.settle(sink).await,
        };
        match ended {
            Ok(()) => {}
            Err(Fault::Closed) => return Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => {
                self.answer_failure(false, error, sink).await?;
                self.is_skipping = false;
            }
        }
        self.ready(sink);
        Ok(())
    }

    /// Ends the portals that a failure or the end of the transaction ends: all but held cursors and, while the
    /// innermost savepoint stands, those that were made before it.
    pub(super) fn close_portals(&mut self) {
        let depth = self.block.savepoints.len();
        let in_block = self.block.status != TransactionStatus::Idle;
        self.portals.retain(|_, portal| {
            let is_held = portal.cursor.as_ref().is_some_and(|cursor| cursor.is_held);
            is_held || (in_block && portal.depth < depth)
        });
        self.unnamed_portal = None;
    }

    /// Lets no portal that has begun see what the statement that comes does: what is left of it is kept.
    pub(super) async fn keep_portals(&mut self) -> Result<(), SqlError> {
        let Self { parts, context, txn, portals, unnamed_portal, deadline, .. } = self;
        let Some(txn) = txn else { return Ok(()) };
        for portal in portals.values_mut().chain(unnamed_portal) {
            if let PortalBody::Run { cursor, .. } = &mut portal.body
                && portal.is_started
                && parts.executor.kept_count(cursor).is_none()
            {
                let kept = parts.executor.keep(txn, context, cursor);
                context.interrupts.guard(&parts.env, *deadline, kept).await??;
            }
        }
        Ok(())
    }
}

fn result_formats(bind: &Bind<'_>, columns: usize, is_plan: bool) -> Result<ResultFormats, SqlError> {
    let formats = bind.result_formats;
    if is_plan && formats.len() > 1 && formats.len() != columns {
        return Err(SqlError::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("bind message has {} result formats but query has {columns} columns", formats.len()),
        ));
    }
    Ok(match formats.len() {
        0 => ResultFormats::Text,
        1 if formats.get(0) == response::Format::Text => ResultFormats::Text,
        1 => ResultFormats::Binary,
        count => ResultFormats::Each(
            (0..count).map(|index| formats.get(index) == response::Format::Binary).collect(),
        ),
    })
}

fn describe_result(out: &mut BytesMut, shape: &Shape, formats: &ResultFormats) {
    if !shape.has_rows || shape.dialogue != Dialogue::Rows {
        response::mark(out, Mark::NoData);
    } else {
        write_row_description(out, shape, formats);
    }
}

pub(super) fn write_row_description(out: &mut BytesMut, shape: &Shape, formats: &ResultFormats) {
    let fields = shape.columns.iter().enumerate().map(|(index, column)| response::Field {
        name: &column.name,
        table: column.table,
        column: column.number,
        type_oid: column.type_oid,
        type_size: column.type_size,
        modifier: column.modifier,
        format: formats.get(index),
    });
    response::row_description(out, fields);
}
