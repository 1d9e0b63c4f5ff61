//! The simple protocol: a Query message holds statements that form one transaction unless they say otherwise.

use std::time::Duration;

use super::activity::kept_text;
use super::copy::CopyCaller;
use super::core::{Session, SessionEnd};
use super::executor::{Dialogue, Executor, ResultFormats};
use super::failure::Fault;
use super::portal::write_row_description;
use super::prepared::hold;
use super::request::Bind;
use super::response::{self, Mark, TransactionStatus};
use super::sink::ResponseSink;
use super::statement::Statement;
use super::syntax;
use crate::error::{SqlError, SqlState};

impl<E: Executor> Session<E> {
    pub(super) async fn query<S: ResponseSink>(&mut self, sql: &str, sink: &mut S) -> Result<(), SessionEnd> {
        self.unnamed = None;
        self.unnamed_portal = None;
        self.is_multiple = false;
        self.context.activity.begin(kept_text(sql), self.context.statement_time);
        let statements = match self.parse_query(sql) {
            Ok(statements) => statements,
            Err(error) => return self.answer_failure(true, error, sink).await,
        };
        if statements.is_empty() {
            response::mark(sink.buffer(), Mark::EmptyQuery);
        }
        self.is_multiple = statements.len() > 1;
        self.pending = statements.into();
        self.run_pending(sink).await
    }

    fn parse_query(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        self.memory = hold(&*self.parts.executor, &self.own_memory, sql)?;
        syntax::parse(sql)
    }

    /// Runs the statements of a Query, up to a COPY that takes data.
    pub(super) async fn run_pending<S: ResponseSink>(&mut self, sink: &mut S) -> Result<(), SessionEnd> {
        while let Some(statement) = self.pending.pop_front() {
            self.arm_timeouts();
            match self.run_simple(&statement, sink).await {
                Ok(()) if self.copy.is_some() => return sink.flush().await.map_err(SessionEnd::from),
                Ok(()) => self.spent = Duration::ZERO,
                Err(Fault::Closed) => return Err(SessionEnd::Closed),
                Err(Fault::Sql(error)) => return self.answer_failure(true, error, sink).await,
            }
        }
        let ended = match self.block.status {
            TransactionStatus::Idle => self.commit_implicit(&[], sink).await,
            _ => self.settle(sink).await,
        };
        match ended {
            Ok(()) => {
                self.ready(sink);
                Ok(())
            }
            Err(Fault::Closed) => Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => self.answer_failure(true, error, sink).await,
        }
    }

    async fn run_simple<S: ResponseSink>(
        &mut self,
        statement: &Statement,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let Statement::Plan(ast) = statement else {
            return self.run_utility(statement, &ResultFormats::Text, false, sink).await;
        };
        self.refuse_in_failed_block()?;
        self.refuse_by_block(ast)?;
        // One transaction for all statements of the message: if any writes, all run in a read-write one.
        let reads = statement.looks_read_only() && self.pending.iter().all(Statement::looks_read_only);
        let plan = self.plan(ast, &[], reads).await?;
        let plan = self.lock(plan, ast, &[]).await?;
        let shape = self.parts.executor.shape(&plan);
        if !shape.param_types.is_empty() {
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1").into());
        }
        if shape.has_rows && shape.dialogue == Dialogue::Rows {
            write_row_description(sink.buffer(), shape, &ResultFormats::Text);
        }
        let cursor = self.parts.executor.open(&self.context, &plan, &Bind::EMPTY)?;
        self.run_plan(&plan, cursor, &ResultFormats::Text, CopyCaller::Query, 0, sink).await?;
        Ok(())
    }

    /// Whether the statement that runs is the last of a Query outside a block, so that its tag waits for the commit.
    pub(super) fn is_last(&self) -> bool {
        self.pending.is_empty() && self.block.status == TransactionStatus::Idle
    }
}
