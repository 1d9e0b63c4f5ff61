//! Whether the members of a group hold the same state, and what a member does that does not.
//!
//! ```text
//!   sound ── differs from a majority ──► diverged: leads nothing, shows nothing
//!     ▲                                      │ hands over, passes over what is to be applied
//!     └── state of a sound member, in place ─┘
//! ```
//!
//! Every member asks the others, now and then and when something was applied since, for the hash of their state at its
//! own last position, and judges nobody but itself: when a majority of the voters holds one state and it holds
//! another, its own is wrong, whoever leads. Without such a majority nothing is stopped; that replicas differ is told.
//! A wrong state keeps its vote and its log, which are as good as before. It is replaced where it is, by the state of
//! a member that is as far as this one was then, or further; what the log has beyond is applied to that. A state whose
//! files are damaged is treated alike: it needs no comparison to be known as wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::RaftLogReader;
use openraft::async_runtime::WatchReceiver;
use rustydb_env::ambient;
use rustydb_proto::v1::{self, raft_frame::Body, raft_mark_answer::Standing};
use rustydb_types::{ids::NodeId, position::LogPosition};

use super::Group;
use crate::{
    codec,
    error::ConsensusError,
    log_store::LogStore,
    machine::{Mark, MarkAt},
    node_state::NodeState,
    quorum::Quorum,
    repair::{RepairError, Transfer},
    transport::Lane,
};

/// How often a member is asked that has not applied a position yet.
const ASKED_TIMES: u32 = 5;
/// Pause between two such questions.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Pause after a repair that did not work out; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How a member's state stands to that of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against it.
    #[default]
    Sound,
    /// It differs from another member's, and there is no majority to say which is right.
    Disputed,
    /// It differs from that of a majority: it is withheld until it is replaced.
    Diverged,
}

impl Health {
    /// The name as people see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Disputed => "disputed",
            Self::Diverged => "diverged",
        }
    }
}

/// What comparing has come to, in this life of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// How the state stands.
    pub health: Health,
    /// The last position at which a majority was found to hold this state.
    pub agreed: Option<LogPosition>,
    /// How often this state was compared.
    pub comparisons: u64,
    /// Rows that were not what an entry overwrote, counted once per look.
    pub suspicions: u64,
    /// How often this state was found to differ from that of a majority.
    pub divergences: u64,
    /// How often it was replaced by that of another member.
    pub repairs: u64,
}

/// What follows from the states of some members at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// A majority holds this state.
    Agreed,
    /// A majority holds another.
    Diverged { holders: BTreeSet<NodeId> },
    /// Some hold another, and no majority holds one.
    Disputed { others: BTreeSet<NodeId> },
    /// Nobody differs, but they are too few.
    TooFew,
}

/// Whether the rows of a state that is taken in must be those of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Soundness {
    Required,
    Preferred,
}

/// `known` has the marks of voters, this node's among them if it votes.
fn judge(own: Mark, known: &BTreeMap<NodeId, Mark>, voters: usize) -> Verdict {
    let mut holders: BTreeMap<Mark, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, mark) in known {
        holders.entry(*mark).or_default().insert(*node);
    }
    let quorum = Quorum::of(voters).size();
    match holders.into_iter().find(|(_, nodes)| nodes.len() >= quorum) {
        Some((mark, _)) if mark == own => Verdict::Agreed,
        Some((_, holders)) => Verdict::Diverged { holders },
        None => {
            let differs = |(node, mark): (&NodeId, &Mark)| (*mark != own).then_some(*node);
            let others: BTreeSet<NodeId> = known.iter().filter_map(differs).collect();
            if others.is_empty() { Verdict::TooFew } else { Verdict::Disputed { others } }
        }
    }
}

impl Group {
    /// What comparing this state with that of the other members has come to.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        *self.inner.agreement.lock()
    }

    /// Takes this member's state for wrong, whatever its hash: it is withheld and replaced by that of another member.
    pub fn distrust(&self, reason: &str) {
        *self.inner.distrusted.lock() = Some(reason.to_owned());
        self.inner.cell.suspect();
    }

    /// Whether this member's state may be shown and passed on.
    pub(crate) fn is_sound(&self) -> bool {
        self.agreement().health != Health::Diverged
    }

    /// Compares and, where it must be, repairs, until the group ends.
    pub(super) async fn keep_agreement(self) {
        let stopping = self.inner.tasks.stopping();
        let mut diverged = (!self.is_sound()).then(|| {
            let damage = self.inner.cell.with(|machine| machine.lost().or_else(|| machine.damage()));
            (BTreeSet::new(), damage.unwrap_or_else(|| "it was when the node stopped".to_owned()))
        });
        let mut done: Option<LogPosition> = None;
        loop {
            if let Some((holders, reason)) = diverged.take() {
                tokio::select! {
                    biased;
                    () = stopping.wait() => return,
                    () = self.repair(holders, &reason) => {}
                }
                done = None;
            }
            // Cancel-safe: each loses nothing when dropped.
            tokio::select! {
                biased;
                () = stopping.wait() => return,
                reason = self.inner.cell.damaged() => {
                    if self.has_no_peer() {
                        return self.end_node(ConsensusError::OnlyCopy { group: self.inner.id, reason });
                    }
                    diverged = Some((BTreeSet::new(), reason));
                    continue;
                }
                () = self.inner.cell.suspected() => {}
                () = self.inner.env.sleep(self.inner.config.compare_interval) => {}
            }
            if let Some(reason) = self.inner.distrusted.lock().take() {
                diverged = Some((BTreeSet::new(), reason));
                continue;
            }
            let suspicion = self.inner.cell.take_suspicion();
            let own = self.inner.cell.with(|machine| machine.mark());
            let Some(own) = own.filter(|own| suspicion.is_some() || Some(own.position) != done) else {
                continue;
            };
            if let Some(suspicion) = &suspicion {
                self.note_suspicion(suspicion);
            }
            let looked = tokio::select! {
                biased;
                () = stopping.wait() => return,
                looked = self.compare(own) => looked,
            };
            match looked {
                Some(Verdict::Agreed) => done = Some(own.position),
                Some(Verdict::Diverged { holders }) => {
                    diverged = Some((holders, format!("it differs from a majority at {}", own.position)));
                }
                _ => {}
            }
        }
    }

    fn note_suspicion(&self, suspicion: &str) {
        let inner = &self.inner;
        inner.agreement.lock().suspicions += 1;
        tracing::error!(group = inner.id.get(), node = inner.node.get(), suspicion, "the state may be wrong");
        if self.status().voters.len() <= 1 {
            // The one that led is this one: there is nobody to compare with, or to be repaired from.
            self.end_node(ConsensusError::Stopped { group: inner.id, reason: suspicion.to_owned() });
        }
    }

    /// Whether nobody else has a copy.
    fn has_no_peer(&self) -> bool {
        let status = self.status();
        status.voters.union(&status.learners).eq([&self.inner.node])
    }

    /// The node cannot go on.
    fn end_node(&self, error: ConsensusError) {
        self.inner.failure.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(error);
            first
        });
    }

    /// Compares the state with that of the voters; [`None`] while there is nobody to compare with.
    async fn compare(&self, own: Mark) -> Option<Verdict> {
        let inner = &self.inner;
        let status = self.status();
        if status.joint || !(status.voters.len() > 1 || status.learners.contains(&inner.node)) {
            return None;
        }
        let mut known = self.marks_of(&status.voters, own).await;
        if status.voters.contains(&inner.node) {
            known.insert(inner.node, own);
        }
        let verdict = judge(own, &known, status.voters.len());
        let (group, node, position) = (inner.id.get(), inner.node.get(), own.position);
        let mut agreement = inner.agreement.lock();
        agreement.comparisons += 1;
        match &verdict {
            Verdict::Agreed => {
                agreement.agreed = Some(own.position);
                if std::mem::take(&mut agreement.health) == Health::Disputed {
                    tracing::info!(group, node, %position, "a majority holds this state");
                }
            }
            Verdict::Disputed { others } => {
                if std::mem::replace(&mut agreement.health, Health::Disputed) != Health::Disputed {
                    tracing::error!(group, node, %position, ?others, "replicas differ, and no majority holds one state");
                }
            }
            Verdict::Diverged { .. } | Verdict::TooFew => {}
        }
        Some(verdict)
    }

    /// The marks of the others at the index of a mark, of those that answer and know it.
    async fn marks_of(&self, voters: &BTreeSet<NodeId>, at: Mark) -> BTreeMap<NodeId, Mark> {
        let others = voters.iter().filter(|node| **node != self.inner.node);
        let asked = others.map(|node| async move { Some((*node, self.mark_of(*node, at).await?)) });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn mark_of(&self, node: NodeId, at: Mark) -> Option<Mark> {
        let inner = &self.inner;
        for _ in 0..ASKED_TIMES {
            let body = Body::Mark(v1::RaftMarkAsk { index: at.position.index.get() });
            let call = inner.calls.start(node, Lane::Consensus, inner.id, body).ok()?;
            let Ok(Ok(Body::MarkAnswer(answer))) = inner.env.timeout(inner.config.read_timeout, call).await
            else {
                return None;
            };
            match answer.standing() {
                Standing::Known => return codec::mark_from_wire(answer.mark.as_ref()?).ok(),
                Standing::NotYet => inner.env.sleep(ASK_AGAIN).await,
                _ => return None,
            }
        }
        None
    }

    /// The answer to another member that asks for a mark.
    pub(crate) fn answer_mark(&self, ask: &v1::RaftMarkAsk) -> v1::RaftMarkAnswer {
        let index = rustydb_types::ids::LogIndex::new(ask.index);
        let (standing, mark) = match self.inner.cell.with(|machine| machine.mark_at(index)) {
            _ if !self.is_sound() => (Standing::Withheld, None),
            MarkAt::Known(mark) => (Standing::Known, Some(codec::mark_to_wire(&mark))),
            MarkAt::NotYet => (Standing::NotYet, None),
            MarkAt::Passed => (Standing::Passed, None),
        };
        v1::RaftMarkAnswer { standing: standing.into(), mark, cannot_lead: !self.may_campaign() }
    }

    /// Whether another member can be elected now; nothing when it does not say so in time.
    pub(super) async fn can_lead(&self, node: NodeId) -> Option<bool> {
        let inner = &self.inner;
        let body = Body::Mark(v1::RaftMarkAsk { index: 0 });
        let call = inner.calls.start(node, Lane::Consensus, inner.id, body).ok()?;
        match inner.env.timeout(inner.config.election_timeout_max, call).await {
            Ok(Ok(Body::MarkAnswer(answer))) => Some(!answer.cannot_lead),
            // It has no such group, or none yet.
            Ok(Ok(Body::Refusal(_))) => Some(false),
            _ => None,
        }
    }

    /// Withholds this member's state and replaces it by that of another. `holders` are known to be sound; without any,
    /// a majority of the others must hold what is taken.
    async fn repair(&self, holders: BTreeSet<NodeId>, reason: &str) {
        let inner = &self.inner;
        let (group, node) = (inner.id.get(), inner.node.get());
        {
            let mut agreement = inner.agreement.lock();
            agreement.health = Health::Diverged;
            agreement.divergences += 1;
        }
        tracing::error!(
            group,
            node,
            reason,
            "the state of this replica is wrong; it serves nobody until it is replaced"
        );
        self.settle_elections();
        inner.cell.give_up();
        if let Err(error) = inner.cell.with(|machine| machine.withhold(reason)) {
            tracing::warn!(group, node, %error, "that the state is wrong will not be known after a restart");
        }
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.try_repair(&holders).await {
            tracing::warn!(group, node, %error, "the state is not replaced yet");
            inner.env.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let agreement = {
            let mut agreement = inner.agreement.lock();
            agreement.health = Health::Sound;
            agreement.repairs += 1;
            *agreement
        };
        self.settle_elections();
        tracing::info!(
            group,
            node,
            repairs = agreement.repairs,
            "the state was replaced; this replica serves again"
        );
    }

    async fn try_repair(&self, holders: &BTreeSet<NodeId>) -> Result<(), RepairError> {
        let inner = &self.inner;
        if self.status().state == NodeState::Leader {
            self.step_down().await?;
            if self.status().state == NodeState::Leader {
                return Err(RepairError::Leads);
            }
        }
        let status = self.status();
        let mut sources = status.voters.clone();
        // Of a lost state the members may not be known; whoever leads knows them.
        sources.extend(status.leader);
        let mut last = RepairError::NoSource;
        // A hash that all hold may be wrong where a wrong leader had rows overwritten; the rows count then.
        for soundness in [Soundness::Required, Soundness::Preferred] {
            for source in sources.iter().filter(|source| **source != inner.node) {
                match self.replace_from(*source, holders, &status.voters, soundness).await {
                    Ok(()) => {
                        if status.voters.is_empty() {
                            let reason =
                                "its state was replaced; its members are known after a restart".to_owned();
                            self.end_node(ConsensusError::Stopped { group: inner.id, reason });
                        }
                        return Ok(());
                    }
                    Err(error) => last = error,
                }
            }
            if !matches!(last, RepairError::Unsound { .. }) {
                break;
            }
        }
        Err(last)
    }

    /// Applies to the new state what was passed over meanwhile.
    async fn make_up(&self) -> Result<(), RepairError> {
        const STEP: u64 = 256;
        let inner = &self.inner;
        let mut log = LogStore::new(inner.handle.group_log(), inner.config.append_bytes_max);
        let mut before = None;
        while let Some(missing) = inner.cell.missing() {
            if before.replace(missing.start) == Some(missing.start) {
                return Err(RepairError::Stalled { index: missing.start });
            }
            if let Some(room) = inner.cell.with(|machine| machine.room()) {
                let room = inner.env.timeout(inner.config.change_timeout, room).await;
                room.map_err(|_| RepairError::Full)??;
            }
            let piece = missing.start..missing.end.min(missing.start + STEP);
            let entries = log.try_get_log_entries(piece).await?;
            inner.cell.make_up(&entries)?;
            ambient::yield_now().await;
        }
        Ok(())
    }

    async fn replace_from(
        &self,
        source: NodeId,
        holders: &BTreeSet<NodeId>,
        voters: &BTreeSet<NodeId>,
        soundness: Soundness,
    ) -> Result<(), RepairError> {
        let inner = &self.inner;
        let transfer = Transfer::open(self, source).await?;
        let mark = transfer.mark();
        if !holders.contains(&source) {
            let theirs = transfer.voters()?;
            let voters = if voters.is_empty() { &theirs } else { voters };
            let mut known = self.marks_of(voters, mark).await;
            known.insert(source, mark);
            if judge(mark, &known, voters.len()) != Verdict::Agreed {
                return Err(RepairError::Unconfirmed { source_node: source });
            }
        }
        let (installer, applied) = transfer.take_in(self).await?;
        if soundness == Soundness::Required && !installer.adds_up()? {
            return Err(RepairError::Unsound { source_node: source });
        }
        let position = mark.position;
        let committed = async {
            let mut metrics = inner.handle.raft.metrics();
            loop {
                let committed = metrics.borrow_watched().local_committed;
                if committed.is_some_and(|committed| committed.index >= position.index.get()) {
                    return Ok::<(), RepairError>(());
                }
                metrics.changed().await.map_err(|_| RepairError::Ending)?;
            }
        };
        // The log must have come as far as the state before the state takes its place.
        inner.env.timeout(inner.config.change_timeout, committed).await.map_err(|_| RepairError::Late)??;
        inner.cell.replace(installer, applied)?;
        self.make_up().await?;
        inner.cell.with(|machine| machine.release())?;
        // What was suspected of the former state is of no interest any more.
        inner.cell.take_suspicion();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustydb_types::ids::{LogIndex, Term};

    use super::*;

    fn mark(hash: u128) -> Mark {
        Mark { position: LogPosition::new(Term::new(1), LogIndex::new(7)), hash }
    }

    fn verdict(own: u128, hashes: &[(u64, u128)], voters: usize) -> Verdict {
        let known = hashes.iter().map(|(node, hash)| (NodeId::new(*node), mark(*hash))).collect();
        judge(mark(own), &known, voters)
    }

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    #[test]
    fn a_majority_says_who_is_wrong_whoever_asks() {
        let one_is_wrong = [(1, 66), (2, 5), (3, 5)];
        assert_eq!(verdict(66, &one_is_wrong, 3), Verdict::Diverged { holders: nodes(&[2, 3]) });
        assert_eq!(verdict(5, &one_is_wrong, 3), Verdict::Agreed);
        assert_eq!(verdict(5, &[(2, 5), (3, 5), (4, 5)], 5), Verdict::Agreed);
        assert_eq!(
            verdict(6, &[(1, 5), (2, 5), (3, 5)], 3),
            Verdict::Diverged { holders: nodes(&[1, 2, 3]) }
        );
    }

    #[test]
    fn without_a_majority_nobody_is_stopped() {
        assert_eq!(verdict(5, &[(1, 5)], 3), Verdict::TooFew);
        assert_eq!(verdict(5, &[(1, 5), (2, 6)], 3), Verdict::Disputed { others: nodes(&[2]) });
        assert_eq!(verdict(5, &[(1, 5), (2, 6), (3, 7)], 3), Verdict::Disputed { others: nodes(&[2, 3]) });
        assert_eq!(verdict(5, &[(1, 5), (2, 6)], 2), Verdict::Disputed { others: nodes(&[2]) });
        assert_eq!(
            verdict(5, &[(1, 5), (2, 5), (3, 6), (4, 6)], 4),
            Verdict::Disputed { others: nodes(&[3, 4]) }
        );
    }

    #[test]
    fn another_position_is_another_state() {
        let elsewhere = Mark { position: LogPosition::new(Term::new(2), LogIndex::new(7)), hash: 5 };
        let known = [(NodeId::new(1), mark(5)), (NodeId::new(2), elsewhere), (NodeId::new(3), elsewhere)];
        let verdict = judge(mark(5), &known.into(), 3);
        assert_eq!(verdict, Verdict::Diverged { holders: nodes(&[2, 3]) });
    }
}
