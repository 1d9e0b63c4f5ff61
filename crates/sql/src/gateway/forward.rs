//! A batch at another node: sent there, and its answer passed on.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::{Joiner, RequestFrame, ResponseFrame, StateChanges};
use super::host::BATCH_SIZE_MAX;
use super::peer::SessionClosed;
use super::session::{At, GatewaySession, PEER_WAIT};
use crate::error::Severity;
use crate::session::core::SessionEnd;
use crate::session::executor::Executor;
use crate::session::response::{Messages, TransactionStatus};
use crate::session::sink::ResponseSink;

/// How forwarding a batch ended, other than with its answer.
pub(super) enum Break {
    End(SessionEnd),
    /// Nothing of it was done.
    NotRun,
    /// Nothing of it is or will be committed, and nothing of its answer was shown.
    Fallen {
        /// How many request ids it has used.
        counter: u64,
    },
    /// It may have been done.
    Lost {
        held: Option<Held>,
        is_shown: bool,
    },
}

/// The answer to a batch, should its last commit stand.
pub(super) struct Held {
    /// The counter of that commit's request id.
    pub(super) counter: u64,
    /// Where the session is with its transactions then.
    pub(super) status: TransactionStatus,
    /// What has changed of the session then.
    pub(super) changes: StateChanges,
    pub(super) messages: Bytes,
}

impl<E: Executor> GatewaySession<E> {
    /// Sends a batch to the other node and passes its answer on.
    pub(super) async fn forward<S: ResponseSink>(
        &mut self,
        batch: &Bytes,
        sink: &mut S,
    ) -> Result<(), Break> {
        let env = self.gateway.env().clone();
        let mut held = None;
        let mut is_shown = false;
        let At::There { node, remote } = &mut self.at else { return Err(Break::NotRun) };
        let node = *node;
        let request = RequestFrame::Messages { since: self.since, messages: batch.clone() };
        for frame in request.encode() {
            let sending = async {
                tokio::select! {
                    biased;
                    sent = remote.requests.send(frame) => sent.is_ok(),
                    () = self.gateway.deserted(&self.record, node) => false,
                }
            };
            // Why it is closed, if it is, is the last of the responses.
            if !sending.await {
                break;
            }
        }
        let mut joiner = Joiner::new(BATCH_SIZE_MAX);
        loop {
            let receiving = async {
                tokio::select! {
                    biased;
                    next = remote.responses.recv() => next,
                    () = self.gateway.deserted(&self.record, node) => None,
                }
            };
            let next = match self.interrupts.guard(&env, None, receiving).await {
                Ok(next) => next,
                Err(error) if error.fields().severity == Severity::Fatal => {
                    return Err(Break::End(SessionEnd::Fatal(error)));
                }
                Err(_) => {
                    self.interrupts.forget_cancel();
                    self.is_cancelled = true;
                    if let Some(peer) = self.gateway.peer() {
                        let (peer, key, deadline) = (Arc::clone(peer), self.key, env.now() + PEER_WAIT);
                        // A cancel request that does not arrive is as if the statement had ended before.
                        drop(
                            env.spawn("cancel", async move { drop(peer.cancel(node, key, deadline).await) }),
                        );
                    }
                    continue;
                }
            };
            let frame = match next {
                Some(Ok(frame)) => frame,
                // The client has its error by now.
                Some(Err(SessionClosed::Ended)) => return Err(Break::End(SessionEnd::Closed)),
                Some(Err(SessionClosed::NotLeader { .. })) if held.is_none() && !is_shown => {
                    return Err(Break::NotRun);
                }
                Some(Err(_)) | None => return Err(Break::Lost { held, is_shown }),
            };
            let whole = match joiner.push(frame) {
                Ok(None) => continue,
                Ok(Some(whole)) => whole,
                Err(_) => return Err(Break::Lost { held, is_shown }),
            };
            match ResponseFrame::decode(whole) {
                Ok(ResponseFrame::Data(messages)) => {
                    held = None;
                    is_shown = true;
                    sink.buffer().extend_from_slice(&messages);
                    sink.flush().await.map_err(|_| Break::End(SessionEnd::Closed))?;
                }
                Ok(ResponseFrame::Held { counter, status, changes, messages }) => {
                    held = Some(Held { counter, status, changes, messages });
                }
                Ok(ResponseFrame::Done { status, counter, is_open, applied, changes, messages }) => {
                    self.gateway.saw(&self.record, applied);
                    sink.buffer().extend_from_slice(&messages);
                    self.is_ready = messages.ends_with(&[b'Z', 0, 0, 0, 5, status.letter()]);
                    self.absorb(status, counter, changes);
                    self.is_open = is_open;
                    return match Messages::new(batch).last() {
                        // What the session answered to Flush, or to the begin of a COPY, is wanted now.
                        Some((b'S', _)) | None => Ok(()),
                        Some(_) if self.is_ready => Ok(()),
                        Some(_) => sink.flush().await.map_err(|_| Break::End(SessionEnd::Closed)),
                    };
                }
                Ok(ResponseFrame::Fallen { counter }) if !is_shown => return Err(Break::Fallen { counter }),
                Ok(ResponseFrame::Outcome { .. } | ResponseFrame::Fallen { .. }) | Err(_) => {
                    return Err(Break::Lost { held, is_shown });
                }
            }
        }
    }
}
