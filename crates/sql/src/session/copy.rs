//! COPY FROM STDIN: between the statement and the end of its data the session takes data only.

use super::core::{Session, SessionEnd};
use super::executor::Executor;
use super::failure::{Fault, no_transaction};
use super::interrupt::Interrupts;
use super::request::Request;
use super::response;
use super::sink::ResponseSink;
use super::transaction::tag_bytes;
use crate::error::{SqlError, SqlState};

/// Who runs the rest of what the client asked for when a COPY that takes data is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyCaller {
    Query,
    Execute,
}

pub(super) struct ActiveCopy<E: Executor> {
    pub(super) copy: E::CopyIn,
    pub(super) caller: CopyCaller,
    /// Whether a tag ends it that waits for the commit: the last statement of a Query outside a block.
    pub(super) is_last: bool,
}

impl<E: Executor> Session<E> {
    pub(super) async fn copy_message<S: ResponseSink>(
        &mut self,
        request: Request<'_>,
        sink: &mut S,
    ) -> Result<(), SessionEnd> {
        let Some(mut active) = self.copy.take() else { return Ok(()) };
        let caller = active.caller;
        let result = match request {
            Request::CopyData(data) => match self.copy_data(&mut active, data).await {
                Ok(()) => {
                    self.copy = Some(active);
                    return Ok(());
                }
                Err(error) => Err(Fault::Sql(error)),
            },
            Request::CopyDone => self.copy_done(active, sink).await,
            Request::CopyFail { message } => Err(Fault::Sql(SqlError::new(
                SqlState::QUERY_CANCELED,
                format!("COPY from stdin failed: {message}"),
            ))),
            // Clients may send these after the Execute without knowing that it is a COPY.
            Request::Flush | Request::Sync => {
                self.copy = Some(active);
                return Ok(());
            }
            Request::Terminate => return Err(SessionEnd::Goodbye),
            _ => Err(Fault::Sql(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                "unexpected message type during COPY from stdin",
            ))),
        };
        match result {
            Ok(()) if caller == CopyCaller::Query => self.run_pending(sink).await,
            Ok(()) => Ok(()),
            Err(Fault::Closed) => Err(SessionEnd::Closed),
            Err(Fault::Sql(error)) => self.answer_failure(caller == CopyCaller::Query, error, sink).await,
        }
    }

    async fn copy_data(&mut self, active: &mut ActiveCopy<E>, data: &[u8]) -> Result<(), SqlError> {
        self.context.interrupts.check()?;
        Interrupts::check_deadline(&self.parts.env, self.deadline)?;
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let taken = self.parts.executor.copy_data(txn, &self.context, &mut active.copy, data);
        self.context.interrupts.guard(&self.parts.env, self.deadline, taken).await?
    }

    async fn copy_done<S: ResponseSink>(&mut self, active: ActiveCopy<E>, sink: &mut S) -> Result<(), Fault> {
        let txn = self.txn.as_mut().ok_or_else(no_transaction)?;
        let ended = self.parts.executor.copy_end(txn, &self.context, active.copy);
        let rows = self.context.interrupts.guard(&self.parts.env, self.deadline, ended).await??;
        let tag = format!("COPY {rows}");
        if active.is_last {
            self.commit_implicit(&tag_bytes(&tag), sink).await?;
        }
        response::command_complete(sink.buffer(), &tag);
        Ok(())
    }
}
