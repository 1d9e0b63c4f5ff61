//! Requests that wait for their answers.
//!
//! Bounded by the callers: each openraft stream keeps at most a window of requests waiting, each with a deadline,
//! and a request that nobody waits for is forgotten at once.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use parking_lot::Mutex;
use rustydb_proto::v1::{RaftFrame, raft_frame::Body};
use rustydb_types::ids::{GroupId, NodeId};
use tokio::sync::oneshot;

use crate::transport::{Lane, Transport, TransportError};

/// All requests of this node that wait for an answer.
pub(crate) struct Calls {
    transport: Arc<dyn Transport>,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

struct Waiting {
    to: NodeId,
    lane: Lane,
    answer: oneshot::Sender<Body>,
}

/// The connection broke before the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to node {to} broke")]
pub(crate) struct Lost {
    /// The peer.
    pub(crate) to: NodeId,
}

impl Calls {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new(Self { transport, next: AtomicU64::new(1), waiting: Mutex::new(BTreeMap::new()) })
    }

    /// Sends a request.
    pub(crate) fn start(
        self: &Arc<Self>,
        to: NodeId,
        lane: Lane,
        group: GroupId,
        body: Body,
    ) -> Result<Call, TransportError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(number, Waiting { to, lane, answer: sender });
        // From here on dropping the call forgets it.
        let call = Call { calls: self.clone(), number, to, answer: receiver };
        self.transport.send(to, lane, RaftFrame { group: group.get(), call: number, body: Some(body) })?;
        Ok(call)
    }

    /// Hands an answer to whoever waits for it. One that nobody waits for, or from another node than was asked, is
    /// dropped.
    pub(crate) fn answer(&self, from: NodeId, frame: RaftFrame) {
        let Some(body) = frame.body else { return };
        let waiting = {
            let mut all = self.waiting.lock();
            match all.get(&frame.call) {
                Some(waiting) if waiting.to == from => all.remove(&frame.call),
                _ => None,
            }
        };
        if let Some(waiting) = waiting {
            // Nobody listens any more when the deadline passed at this moment.
            let _late = waiting.answer.send(body);
        }
    }

    /// Gives up all that waits on a broken connection.
    pub(crate) fn lost(&self, peer: NodeId, lane: Lane) {
        let lost: Vec<Waiting> = {
            let mut all = self.waiting.lock();
            let numbers: Vec<u64> = all
                .iter()
                .filter(|(_, waiting)| waiting.to == peer && waiting.lane == lane)
                .map(|(number, _)| *number)
                .collect();
            numbers.into_iter().filter_map(|number| all.remove(&number)).collect()
        };
        // Dropping the senders, outside of the lock, tells the callers.
        drop(lost);
    }

    /// How many requests wait.
    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.lock().len()
    }
}

/// A request that waits for its answer. Dropping it forgets the request.
pub(crate) struct Call {
    calls: Arc<Calls>,
    number: u64,
    to: NodeId,
    answer: oneshot::Receiver<Body>,
}

impl Future for Call {
    type Output = Result<Body, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let to = self.to;
        Pin::new(&mut self.answer).poll(context).map(|result| result.map_err(|_| Lost { to }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use rustydb_proto::v1;

    use super::*;

    /// Keeps what it is given.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<RaftFrame>>);

    impl Transport for Recorder {
        fn send(&self, to: NodeId, _lane: Lane, frame: RaftFrame) -> Result<(), TransportError> {
            if to == NodeId::new(9) {
                return Err(TransportError::Unreachable { to });
            }
            self.0.lock().push(frame);
            Ok(())
        }
    }

    fn body() -> Body {
        Body::TransferAnswer(v1::RaftTransferAnswer { refusal: None })
    }

    #[tokio::test]
    async fn an_answer_finds_its_call_and_a_forged_or_late_one_does_not() {
        let recorder = Arc::new(Recorder::default());
        let calls = Calls::new(recorder.clone());
        let (two, three) = (NodeId::new(2), NodeId::new(3));
        let first = calls.start(two, Lane::Consensus, GroupId::SYSTEM, body()).unwrap();
        let second = calls.start(three, Lane::Consensus, GroupId::SYSTEM, body()).unwrap();
        let numbers: Vec<u64> = recorder.0.lock().iter().map(|frame| frame.call).collect();
        let frame = |call| RaftFrame { group: 1, call, body: Some(body()) };
        // Node 3 answers for node 2: dropped.
        calls.answer(three, frame(numbers[0]));
        assert_eq!(calls.waiting_count(), 2);
        calls.answer(two, frame(numbers[0]));
        assert_eq!(first.await, Ok(body()));
        drop(second);
        assert_eq!(calls.waiting_count(), 0);
        calls.answer(three, frame(numbers[1]));
    }

    #[tokio::test]
    async fn a_broken_connection_fails_only_what_waits_on_it() {
        let calls = Calls::new(Arc::new(Recorder::default()));
        let two = NodeId::new(2);
        let lost = calls.start(two, Lane::Consensus, GroupId::SYSTEM, body()).unwrap();
        let kept = calls.start(two, Lane::Bulk, GroupId::SYSTEM, body()).unwrap();
        calls.lost(two, Lane::Consensus);
        assert_eq!(lost.await, Err(Lost { to: two }));
        assert_eq!(calls.waiting_count(), 1);
        drop(kept);
    }

    #[test]
    fn a_frame_that_is_not_taken_leaves_nothing_behind() {
        let calls = Calls::new(Arc::new(Recorder::default()));
        let nine = NodeId::new(9);
        let refused = calls.start(nine, Lane::Consensus, GroupId::SYSTEM, body());
        assert_eq!(refused.err(), Some(TransportError::Unreachable { to: nine }));
        assert_eq!(calls.waiting_count(), 0);
    }
}
