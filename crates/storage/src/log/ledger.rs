//! The ledger: what the frames written so far say, group by group. The log thread keeps it beside its file to
//! write checkpoints and to know which segments are still needed; recovery rebuilds it by the same steps.

use std::collections::{BTreeMap, VecDeque};

use rustydb_types::ids::{GroupId, LogIndex, Term};
use rustydb_types::position::LogPosition;

use super::record::GroupPoints;
use super::segment::SegmentId;

/// The entries of one group in one segment: an unbroken run of indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    segment: SegmentId,
    first: LogIndex,
    last: LogIndex,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupLedger {
    /// Everything but the entries.
    pub(super) points: GroupPoints,
    spans: VecDeque<Span>,
    /// First index of each run of entries of one term.
    terms: VecDeque<(LogIndex, Term)>,
}

/// Stands for segments that are gone: entries that were in them must turn out to be purged or truncated.
const MISSING: SegmentId = SegmentId(0);

impl GroupLedger {
    /// The group as the checkpoint of the oldest segment tells it.
    pub(super) fn from_checkpoint(points: GroupPoints) -> Self {
        let mut ledger = Self { points, ..Self::default() };
        let purged = ledger.points.purged.as_ref().map(|(position, _)| position.index);
        if let Some(last) = ledger.points.last.filter(|last| purged.is_none_or(|purged| purged < last.index))
        {
            let first = purged.map_or(LogIndex::new(0), LogIndex::next);
            ledger.spans.push_back(Span { segment: MISSING, first, last: last.index });
            ledger.terms.push_back((first, last.term));
        }
        ledger
    }

    /// Whether entries are recorded whose segment is gone.
    pub(super) fn misses_entries(&self) -> bool {
        self.spans.front().is_some_and(|span| span.segment == MISSING)
    }

    /// Whether the checkpoint of a later segment says what was found before it.
    pub(super) fn agrees(&mut self, points: &GroupPoints) -> bool {
        if self.misses_entries() && self.spans.len() == 1 {
            // The terms of missing entries are unknown, and so may be that of the last one after a truncation.
            self.points.last = points.last;
        }
        self.points == *points
    }

    /// The index that the next entry must have, if that is determined.
    pub(super) fn expected(&self) -> Option<LogIndex> {
        self.points.last.map(|last| last.index.next())
    }

    /// An entry was written.
    pub(super) fn entry(&mut self, position: LogPosition, segment: SegmentId) {
        match self.spans.back_mut() {
            Some(span) if span.segment == segment && span.last.next() == position.index => {
                span.last = position.index;
            }
            _ => self.spans.push_back(Span { segment, first: position.index, last: position.index }),
        }
        if self.terms.back().is_none_or(|(_, term)| *term != position.term) {
            self.terms.push_back((position.index, position.term));
        }
        self.points.last = Some(position);
    }

    /// A truncation was written.
    pub(super) fn truncate(&mut self, keep: Option<LogIndex>) {
        while let Some(span) = self.spans.back_mut() {
            match keep {
                Some(keep) if span.first <= keep => {
                    span.last = span.last.min(keep);
                    break;
                }
                _ => self.spans.pop_back(),
            };
        }
        while self.terms.back().is_some_and(|(first, _)| keep.is_none_or(|keep| *first > keep)) {
            self.terms.pop_back();
        }
        let purged = self.points.purged.as_ref().map(|(position, _)| *position);
        self.points.last = match (self.spans.back(), self.terms.back()) {
            (Some(span), Some((_, term))) => Some(LogPosition::new(*term, span.last)),
            _ => purged,
        };
    }

    /// A purge was written.
    pub(super) fn purge(&mut self, through: LogPosition, opaque: bytes::Bytes) {
        while self.spans.front().is_some_and(|span| span.last <= through.index) {
            self.spans.pop_front();
        }
        if let Some(span) = self.spans.front_mut() {
            span.first = span.first.max(through.index.next());
        }
        while self.terms.get(1).is_some_and(|(first, _)| *first <= through.index.next()) {
            self.terms.pop_front();
        }
        if self.spans.is_empty() {
            self.terms.clear();
            self.points.last = Some(through);
        }
        self.points.purged = Some((through, opaque));
    }

    /// The oldest segment that holds an entry of the group.
    fn pins(&self) -> Option<SegmentId> {
        self.spans.front().map(|span| span.segment)
    }
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) groups: BTreeMap<GroupId, GroupLedger>,
}

impl Ledger {
    /// The oldest segment that holds an entry of any group.
    pub(super) fn oldest_pinned(&self) -> Option<SegmentId> {
        self.groups.values().filter_map(GroupLedger::pins).min()
    }

    /// One group, new if it was unknown.
    pub(super) fn group(&mut self, group: GroupId) -> &mut GroupLedger {
        self.groups.entry(group).or_default()
    }
}
