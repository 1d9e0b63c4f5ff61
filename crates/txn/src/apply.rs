//! Apply: what a committed log entry does to the state, equally on every replica.
//!
//! Nothing here depends on a clock, on randomness, on the order of a hash map or on who leads. An entry is skipped,
//! everywhere alike, when its header names another term than its place in the log, when its sequence is not the
//! last plus one, or when its request was answered before. An entry that cannot be understood stops the node.
//!
//! What an entry overwrites is compared where it is in memory; of one entry in
//! [`base_check_interval`](crate::KvConfig::base_check_interval) wherever it is. Where another row is found
//! than the entry names, this replica and the one that led then differ, and which of them is wrong cannot be told
//! here: the entry is applied as on every replica, and the [suspicion](crate::StateMachine::suspicion) is for who can ask the others.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::Bug;
use rustydb_types::ids::{RequestId, Version};
use rustydb_types::position::LogPosition;

use crate::audit::audit_of;
use crate::core::Core;
use crate::entry::{Base, Entry, EntryError, EntryKind, Write};
use crate::error::{ApplyError, Suspicion};
use crate::feed::Change;
use crate::hash;
use crate::layer::{LayerSet, Provisional, ScanBounds, staged_key};
use crate::machine::{ApplyEntry, ApplyPayload};
use crate::marks::{Mark, Marks};
use crate::ranges;
use crate::sequencer::Resolution;
use crate::staged::StagedTxn;

/// How many rows a replica with [`Bug::RowLeftOut`] applies for each that it leaves out.
const ROWS_LEFT_OUT_ONE_IN: u64 = 200;

/// What apply keeps from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct ApplyState {
    /// The last entry applied.
    pub(crate) position: Option<LogPosition>,
    /// The same as consensus encodes it.
    pub(crate) opaque: Bytes,
    /// The last membership, as consensus encodes it, with the position it came with.
    pub(crate) membership: Option<Bytes>,
    /// The last sequence applied.
    pub(crate) sequence: Version,
    /// The sum over all live rows.
    pub(crate) rows_hash: u128,
    /// The hashes at the last positions.
    pub(crate) marks: Marks,
    /// The first row since this was last asked for that is not what an entry overwrites.
    pub(crate) suspicion: Option<Suspicion>,
    /// Set by a fatal error: nothing is applied any more.
    pub(crate) stopped: bool,
}

/// What a batch has gathered and not yet published.
#[derive(Default)]
struct Batch {
    versions: Vec<(Bytes, Version, Option<Bytes>)>,
    /// The newest of them by key.
    newest: HashMap<Bytes, (Version, Option<Bytes>)>,
    staged: Vec<(Bytes, Provisional)>,
    /// Keys of the rows that came with the commit of a staged transaction, which readers saw in flight.
    committed: Vec<Bytes>,
    resolved: Vec<(Version, Version)>,
    resolutions: Vec<Resolution>,
    changes: Vec<Change>,
    /// Commits with attachments, without their writes.
    attached: Vec<Change>,
}

impl Core {
    /// Applies entries in order.
    pub(crate) fn apply_entries(self: &Arc<Core>, entries: &[ApplyEntry]) -> Result<(), ApplyError> {
        let mut guard = self.apply.lock();
        if guard.stopped {
            return Err(ApplyError::Stopped);
        }
        let result = self.apply_locked(&mut guard, entries);
        // A state whose engine is damaged is replaced as a whole; nothing of it is applied to or flushed before.
        let ends = result.is_err() && self.stores.damage().reason().is_none();
        if ends {
            guard.stopped = true;
        }
        drop(guard);
        if ends {
            self.stopping.set();
        }
        result
    }

    fn apply_locked(
        self: &Arc<Core>,
        state: &mut ApplyState,
        entries: &[ApplyEntry],
    ) -> Result<(), ApplyError> {
        let mut batch = Batch::default();
        let mut set = self.layers.current();
        let feeds = self.feed.has_subscribers();
        for entry in entries {
            if let Some(applied) = state.position
                && applied.index >= entry.position.index
            {
                return Err(ApplyError::OutOfOrder { position: entry.position, applied });
            }
            match &entry.payload {
                ApplyPayload::Blank => {}
                ApplyPayload::Membership(membership) => state.membership = Some(membership.clone()),
                ApplyPayload::Command(command) => {
                    let decoded = decode(entry.position, command)?;
                    let staged = matches!(decoded.header.kind, EntryKind::Stage | EntryKind::CommitStaged);
                    let audit = audit_of(&decoded.header.request);
                    self.apply_command(state, &set, &mut batch, entry.position, decoded, feeds)?;
                    if staged || audit.is_some() {
                        // What follows must find the provisional rows.
                        state.position = Some(entry.position);
                        self.publish(state, &mut batch);
                        set = self.layers.current();
                    }
                    if let Some(audit) = audit {
                        self.pin_for_audit(state, audit);
                    }
                }
            }
            state.position = Some(entry.position);
            state.opaque = entry.opaque_position.clone();
            let hash = self.hash_of(state);
            state.marks.note(Mark { position: entry.position, hash });
        }
        self.publish(state, &mut batch);
        Ok(())
    }

    /// The state hash.
    pub(crate) fn hash_of(&self, state: &ApplyState) -> u128 {
        let outcomes = self.outcomes.read().hash();
        let staged = self.staged.table.read().hash();
        state.rows_hash.wrapping_add(outcomes).wrapping_add(staged)
    }

    fn apply_command(
        &self,
        state: &mut ApplyState,
        set: &LayerSet,
        batch: &mut Batch,
        position: LogPosition,
        entry: Entry,
        feeds: bool,
    ) -> Result<(), ApplyError> {
        let header = entry.header;
        let commits = matches!(header.kind, EntryKind::Commit | EntryKind::CommitStaged);
        let in_order = header.term == position.term && header.sequence == state.sequence.next();
        let applied = in_order && !(commits && self.refuses(&header.request));
        batch.resolutions.push(Resolution {
            term: header.term,
            version: header.sequence,
            attempt: header.attempt,
            applied,
        });
        if !applied {
            return Ok(());
        }
        match header.kind {
            EntryKind::Commit => self.apply_commit(state, set, batch, position, &entry)?,
            EntryKind::Fence => {}
            EntryKind::Stage => {
                let staged = if entry.staged == Version::ZERO { header.sequence } else { entry.staged };
                if entry.staged == Version::ZERO {
                    let opened = StagedTxn::new(header.term);
                    self.staged.table.write().rows.insert(staged, opened);
                }
                self.apply_staged(state, set, batch, position, staged, &entry)?;
            }
            EntryKind::CommitStaged => {
                self.apply_staged(state, set, batch, position, entry.staged, &entry)?;
                let mut table = self.staged.table.write();
                if let Some(txn) = table.rows.get_mut(&entry.staged) {
                    txn.committed = Some(header.sequence);
                    state.rows_hash = state.rows_hash.wrapping_add(txn.hash_at(header.sequence));
                }
                batch.resolved.push((entry.staged, header.sequence));
                batch.committed.extend(entry.writes.iter().map(|write| write.key.clone()));
            }
            EntryKind::AbortStaged => {
                let mut table = self.staged.table.write();
                if table.rows.get(&entry.staged).is_some_and(|txn| txn.committed.is_none()) {
                    table.rows.remove(&entry.staged);
                    table.garbage.insert(entry.staged);
                }
            }
        }
        self.record_outcome(&entry);
        state.sequence = header.sequence;
        let is_commit = matches!(header.kind, EntryKind::Commit | EntryKind::CommitStaged);
        if is_commit && !entry.attachments.is_empty() {
            let attachments = entry.attachments.clone();
            batch.attached.push(Change { version: header.sequence, writes: Vec::new(), attachments });
        }
        if header.kind == EntryKind::CommitStaged {
            self.feed.lag_all();
        } else if feeds && header.kind == EntryKind::Commit {
            let (writes, attachments) = (entry.writes, entry.attachments);
            batch.changes.push(Change { version: header.sequence, writes, attachments });
        }
        Ok(())
    }

    /// Whether a commit under this request must not take place: it was answered before.
    pub(crate) fn refuses(&self, request: &RequestId) -> bool {
        !self.env.has_bug(Bug::CopyCommitted) && self.outcomes.read().refuses(request)
    }

    fn record_outcome(&self, entry: &Entry) {
        let sequence = entry.header.sequence;
        let mut outcomes = self.outcomes.write();
        match entry.header.kind {
            EntryKind::Commit | EntryKind::CommitStaged => {
                outcomes.record(&entry.header.request, sequence, sequence);
            }
            EntryKind::Fence if self.env.has_bug(Bug::FenceForgotten) => {}
            EntryKind::Fence if !outcomes.refuses(&entry.header.request) => {
                outcomes.record(&entry.header.request, Version::ZERO, sequence);
            }
            _ => {}
        }
    }

    /// Whether what an entry overwrites is looked up in the engine too.
    fn looks_everywhere(&self, sequence: Version) -> bool {
        sequence.get().is_multiple_of(self.config.base_check_interval)
    }

    fn apply_commit(
        &self,
        state: &mut ApplyState,
        set: &LayerSet,
        batch: &mut Batch,
        position: LogPosition,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let sequence = entry.header.sequence;
        let everywhere = self.looks_everywhere(sequence);
        for (run, bounds) in ranges::runs(&entry.writes, |write| &write.key) {
            let vacant = everywhere && is_vacant(set, bounds.as_ref())?;
            for write in run {
                if self.env.has_bug(Bug::RowLeftOut) && self.env.rng().chance(1, ROWS_LEFT_OUT_ONE_IN) {
                    continue;
                }
                let found = current(set, batch, &write.key, vacant, everywhere)?;
                let share = state.replaced_share(position, write, &found);
                state.rows_hash = state.rows_hash.wrapping_sub(share);
                if let Some(value) = &write.value {
                    state.rows_hash = state.rows_hash.wrapping_add(hash::row(&write.key, sequence, value));
                }
                batch.versions.push((write.key.clone(), sequence, write.value.clone()));
                batch.newest.insert(write.key.clone(), (sequence, write.value.clone()));
            }
        }
        Ok(())
    }

    fn apply_staged(
        &self,
        state: &mut ApplyState,
        set: &LayerSet,
        batch: &mut Batch,
        position: LogPosition,
        staged: Version,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let mut table = self.staged.table.write();
        let txn = table
            .rows
            .get_mut(&staged)
            .filter(|txn| txn.committed.is_none())
            .ok_or(ApplyError::UnknownStaged { position, staged })?;
        // Rows of this entry, where the order of its keys leaves it possible that one comes twice.
        let mut here: HashMap<&Bytes, &Option<Bytes>> = HashMap::new();
        let once = entry.writes.is_sorted_by(|a, b| a.key < b.key);
        let everywhere = self.looks_everywhere(entry.header.sequence);
        for (run, bounds) in ranges::runs(&entry.writes, |write| &write.key) {
            let vacant = everywhere && is_vacant(set, bounds.as_ref())?;
            let fresh = match &bounds {
                Some(bounds) => set.is_vacant_of(staged, bounds)?,
                None => false,
            };
            for write in run {
                let earlier = match here.get(&write.key) {
                    Some(value) => Some((*value).clone()),
                    None if fresh => None,
                    None => set.get_staged(staged, &write.key)?.map(|row| row.value),
                };
                match earlier {
                    Some(Some(value)) => {
                        txn.content = txn.content.wrapping_sub(hash::content(&write.key, &value));
                        txn.place = txn.place.wrapping_sub(hash::place(&write.key));
                    }
                    Some(None) => {}
                    None => {
                        txn.rows += 1;
                        let found = current(set, batch, &write.key, vacant, everywhere)?;
                        let share = state.replaced_share(position, write, &found);
                        txn.replaced = txn.replaced.wrapping_add(share);
                    }
                }
                if let Some(value) = &write.value {
                    txn.content = txn.content.wrapping_add(hash::content(&write.key, value));
                    txn.place = txn.place.wrapping_add(hash::place(&write.key));
                }
                if !once {
                    here.insert(&write.key, &write.value);
                }
                let row = Provisional { command: entry.command, value: write.value.clone() };
                batch.staged.push((staged_key(staged, &write.key), row));
            }
        }
        Ok(())
    }

    /// Makes what the batch has gathered visible, and tells those who wait for it.
    fn publish(self: &Arc<Core>, state: &mut ApplyState, batch: &mut Batch) {
        let batch = std::mem::take(batch);
        let set = self.layers.current();
        let keys: Vec<Bytes> = batch.newest.into_keys().chain(batch.committed).collect();
        set.active.extend(batch.versions, batch.staged, batch.resolved);
        self.layers.publish(state.sequence);
        self.overlay.applied(&keys, state.sequence);
        self.resolved(&batch.resolutions, state.sequence);
        if !batch.changes.is_empty() {
            self.feed.publish(batch.changes);
        }
        if !batch.attached.is_empty() {
            self.attached.publish(batch.attached);
        }
        let sequence = state.sequence;
        self.applied.send_if_modified(|applied| std::mem::replace(applied, sequence) != sequence);
        if set.active.size_bytes() >= self.config.flush_size_bytes {
            self.layers.freeze();
            self.flush_wanted.notify_one();
        }
    }
}

fn decode(position: LogPosition, command: &Bytes) -> Result<Entry, ApplyError> {
    Entry::decode(command).map_err(|error| match error {
        EntryError::Version(version) => ApplyError::UnknownVersion { position, version },
        EntryError::Kind(kind) => ApplyError::UnknownKind { position, kind },
        EntryError::Damaged(what) => ApplyError::Damaged { position, what },
    })
}

/// Whether a range is known to hold nothing.
fn is_vacant(set: &LayerSet, bounds: Option<&ScanBounds>) -> Result<bool, ApplyError> {
    match bounds {
        Some(bounds) => Ok(set.is_vacant(bounds, &[])?),
        None => Ok(false),
    }
}

/// What is known of the row at a key.
enum Present {
    /// The live row, or that there is none.
    Known(Option<(Version, Bytes)>),
    /// It is not in memory, and was not looked up elsewhere.
    Unknown,
}

/// The row at a key, with what the batch has done so far. `vacant`: the set has nothing there.
fn current(
    set: &LayerSet,
    batch: &Batch,
    key: &Bytes,
    vacant: bool,
    everywhere: bool,
) -> Result<Present, ApplyError> {
    if let Some((version, value)) = batch.newest.get(key) {
        return Ok(Present::Known(value.clone().map(|value| (*version, value))));
    }
    if vacant {
        return Ok(Present::Known(None));
    }
    let found = if everywhere { set.get(key, Version::MAX, &[])? } else { set.get_unflushed(key)? };
    Ok(match found {
        Some(found) => Present::Known(found.value.map(|value| (found.version, value))),
        None if everywhere => Present::Known(None),
        None => Present::Unknown,
    })
}

impl ApplyState {
    /// The share of the row that a write replaces. Notes where that is another row than the entry names; then it is
    /// the share of the row that is here, so that the hash stays that of what is stored. An absent row and a tombstone
    /// are both version zero.
    fn replaced_share(&mut self, position: LogPosition, write: &Write, present: &Present) -> u128 {
        let Present::Known(row) = present else { return write.base.share };
        let found = row.as_ref().map_or(Base::NONE, |(version, value)| Base::of(&write.key, *version, value));
        if found != write.base && self.suspicion.is_none() {
            let (expected, version) = (write.base.version, found.version);
            self.suspicion = Some(Suspicion { position, expected, found: version });
        }
        found.share
    }
}
