//! Opening: read all segments in order, check every byte that was written, rebuild what the groups were.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustydb_env::{Bug, Disk, Env, OpenMode};
use rustydb_types::ids::GroupId;
use rustydb_types::position::LogPosition;

use super::config::LogConfig;
use super::end;
use super::error::LogError;
use super::frame::Frame;
use super::group::{GroupState, Location};
use super::ledger::{GroupLedger, Ledger};
use super::queue::{OpenSegment, Shared, State};
use super::record::{self, Record};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader, SegmentId};
use super::space::{self, Spares};
use super::tail::{self, Tail};
use super::writer::{Current, Writer};

/// The file whose lock says that a process uses the folder.
const LOCK_FILE: &str = "LOCK";

/// A segment file and its header.
struct Found {
    path: PathBuf,
    header: SegmentHeader,
}

/// What replaying has found so far.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) ledger: Ledger,
    entries: BTreeMap<GroupId, VecDeque<(LogPosition, Location)>>,
    /// The last record says that the log was closed in good order.
    is_closed: bool,
}

/// Opens the log in a folder.
pub(super) fn open(env: &Env, dir: &Path, config: LogConfig) -> Result<(Shared, Writer), LogError> {
    if let Some(fault) = config.fault() {
        return Err(LogError::InvalidConfig { fault });
    }
    let disk = env.disk();
    let at_dir = |error| LogError::io(dir, error);
    disk.create_dir_all(dir).map_err(at_dir)?;
    let lock = disk.lock_exclusive(&dir.join(LOCK_FILE)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { path: dir.to_owned() },
        _ => at_dir(error),
    })?;
    // A process that was killed may have begun a segment whose name is in memory only. What is written to that from now
    // on must not be lost with it.
    if !env.has_bug(Bug::NamesNotSynced) {
        disk.sync_dir(dir).map_err(at_dir)?;
    }
    let Inspected { found, spares, useless } = inspect(&**disk, dir, &config)?;
    let mut replay = Replay::default();
    let mut segments = BTreeMap::new();
    let mut last = None;
    for (number, segment) in found.iter().enumerate() {
        let bytes = read_all(&**disk, segment)?;
        let next = found.get(number + 1);
        let (end, leftovers_end) =
            replay.segment(&bytes, segment, number == 0, next.map(|next| &next.header))?;
        let file = disk.open(&segment.path, OpenMode::ReadWrite).map_err(at_dir)?;
        if next.is_none() {
            let (header, path) = (segment.header, segment.path.clone());
            let current = Current { header, path, file: Arc::clone(&file), end };
            last = Some(Tail { current, bytes, leftovers_end, is_closed: replay.is_closed });
        }
        let seed = segment.header.seed();
        let size_bytes = segment.header.size_bytes;
        segments
            .insert(segment.header.id, OpenSegment { path: segment.path.clone(), file, seed, size_bytes });
    }
    if let Some((group, _)) = replay.ledger.groups.iter().find(|(_, group)| group.misses_entries()) {
        let path = found.first().map_or_else(|| dir.to_owned(), |first| first.path.clone());
        let detail = format!("entries of group {group} lie in a segment before this one, which is missing");
        return Err(LogError::Corrupt { path, offset: 0, detail });
    }
    if let Some(reached) = end::read(&**disk, dir).filter(|_| !env.has_bug(Bug::EndNotCompared)) {
        let found = last.as_ref().map(|last| last.current.reached());
        if let Some(detail) = reached.missing_from(found) {
            let path = last.as_ref().map_or_else(|| dir.to_owned(), |last| last.current.path.clone());
            let offset = last.as_ref().map_or(0, |last| last.current.end);
            return Err(LogError::Corrupt { path, offset, detail });
        }
    }
    // Nothing is removed before the log is known to be whole.
    for spare in useless {
        disk.remove_file(&spare).map_err(at_dir)?;
    }
    let is_unclean = last.as_ref().is_some_and(|last| !last.is_clean());
    let current = match last {
        Some(tail) => tail.go_on(env, dir, &config, &spares, &replay.ledger)?,
        None => tail::first_segment(env, dir, &config, &spares).map_err(at_dir)?,
    };
    segments.insert(current.header.id, current.open());
    let Replay { ledger, entries, .. } = replay;
    let groups = rebuild(&ledger, entries).map_err(|group| LogError::Corrupt {
        path: current.path.clone(),
        offset: 0,
        detail: format!("two ways to read the log of group {group} differ"),
    })?;
    let state = State::new(groups, segments);
    let shared = Shared::new(env, dir.to_owned(), config, state, spares, current.reached());
    Ok((shared, Writer::new(current, ledger, lock, is_unclean)))
}

/// The groups as readers see them; as an error a group whose entries are not those that its ledger tells of.
fn rebuild(
    ledger: &Ledger,
    mut entries: BTreeMap<GroupId, VecDeque<(LogPosition, Location)>>,
) -> Result<BTreeMap<GroupId, GroupState>, GroupId> {
    let mut groups = BTreeMap::new();
    for (id, group) in &ledger.groups {
        let mut points = group.points.clone();
        let entries = entries.remove(id).unwrap_or_default();
        if !entries.is_empty() {
            points.last = None;
        }
        let mut state = GroupState::new(points);
        for (position, location) in entries {
            state.recovered(position, location);
        }
        if state.points.last != group.points.last {
            return Err(*id);
        }
        groups.insert(*id, state);
    }
    Ok(groups)
}

/// What is in the folder of a log.
struct Inspected {
    found: Vec<Found>,
    spares: Spares,
    /// Spares of another size, or too many.
    useless: Vec<PathBuf>,
}

/// Finds segments and spares.
fn inspect(disk: &dyn Disk, dir: &Path, config: &LogConfig) -> Result<Inspected, LogError> {
    let at_dir = |error| LogError::io(dir, error);
    let mut found: Vec<Found> = Vec::new();
    let paths = disk.list(dir).map_err(at_dir)?;
    for path in paths.iter().filter(|path| !space::is_spare(path)) {
        let path = path.clone();
        let Some(id) = SegmentId::of_path(&path) else { continue };
        let at_path = |error| LogError::io(&path, error);
        let file = disk.open(&path, OpenMode::Read).map_err(at_path)?;
        let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES];
        let corrupt = |detail: String| LogError::Corrupt { path: path.clone(), offset: 0, detail };
        let len = file.len().map_err(at_path)?;
        if len < SEGMENT_HEADER_BYTES as u64 {
            return Err(corrupt("shorter than its header".to_owned()));
        }
        file.read_at(0, &mut bytes).map_err(|error| LogError::unreadable(&path, error))?;
        let header = SegmentHeader::decode(&path, &bytes)?;
        if len != header.size_bytes {
            return Err(corrupt(format!("{len} bytes long, its header says {}", header.size_bytes)));
        }
        if let Some(before) = found.last().filter(|before| before.header.id.0.checked_add(1) != Some(id.0)) {
            let before = before.header.id.0;
            return Err(corrupt(format!("follows segment {before:x}: one between them is missing")));
        }
        found.push(Found { path, header });
    }
    let (mut spares, mut useless) = (VecDeque::new(), Vec::new());
    for path in paths.into_iter().filter(|path| space::is_spare(path)) {
        let useful = is_useful_spare(disk, &path, &found, config).map_err(at_dir)?;
        if useful && spares.len() < config.spare_count {
            spares.push_back(path);
        } else {
            useless.push(path);
        }
    }
    Ok(Inspected { found, spares: Spares::new(spares), useless })
}

/// Whether a spare can become a segment: it has the right size, and is not a second name of a segment, which some
/// file systems leave behind when the power fails during a rename.
fn is_useful_spare(disk: &dyn Disk, path: &Path, found: &[Found], config: &LogConfig) -> io::Result<bool> {
    let file = disk.open(path, OpenMode::Read)?;
    if file.len()? != u64::from(config.segment_bytes) {
        return Ok(false);
    }
    let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES];
    file.read_at(0, &mut bytes)?;
    let Ok(header) = SegmentHeader::decode(path, &bytes) else { return Ok(true) };
    Ok(!found.iter().any(|segment| segment.header == header))
}

fn read_all(disk: &dyn Disk, segment: &Found) -> Result<Vec<u8>, LogError> {
    let at_path = |error| LogError::io(&segment.path, error);
    let file = disk.open(&segment.path, OpenMode::Read).map_err(at_path)?;
    let mut bytes = vec![0u8; usize::try_from(segment.header.size_bytes).unwrap_or(0)];
    file.read_at(0, &mut bytes).map_err(|error| LogError::unreadable(&segment.path, error))?;
    Ok(bytes)
}

impl Replay {
    /// Replays one segment; returns its end and how far leftovers of a crash reach beyond it.
    fn segment(
        &mut self,
        bytes: &[u8],
        segment: &Found,
        oldest: bool,
        next: Option<&SegmentHeader>,
    ) -> Result<(u64, u64), LogError> {
        let corrupt =
            |offset: u64, detail: String| LogError::Corrupt { path: segment.path.clone(), offset, detail };
        let seed = segment.header.seed();
        let mut checkpoint = Checkpoint { oldest, seen: 0, ended: false };
        // What a crash left behind the end that the next header names is no part of the log.
        let limit = next.map_or(usize::MAX, |next| usize::try_from(next.previous_end).unwrap_or(usize::MAX));
        let walked = bytes.get(..limit).unwrap_or(bytes);
        let read = segment::walk(walked, seed, |offset, frame| {
            let record = Record::decode(&frame);
            let record =
                record.ok_or_else(|| corrupt(offset, format!("unknown record kind {}", frame.kind)))?;
            let location = locate(segment.header.id, offset, &frame);
            self.record(&mut checkpoint, record::group_of(&frame), record, location)
                .map_err(|detail| corrupt(offset, detail))
        })?;
        let end = read.end;
        if !checkpoint.ended {
            return Err(corrupt(end, "the checkpoint at its start is damaged".to_owned()));
        }
        match next {
            Some(next) if next.previous_end == end => Ok((end, end)),
            Some(next) => {
                let written = next.previous_end;
                Err(corrupt(end, format!("a damaged frame; frames were written up to byte {written}")))
            }
            None => match segment::classify(bytes, seed, read) {
                SegmentEnd::Clean { end } => Ok((end, end)),
                SegmentEnd::Torn { end, leftovers_end } => Ok((end, leftovers_end)),
                SegmentEnd::Corrupt { offset, proof } => Err(corrupt(offset, proof.to_string())),
            },
        }
    }

    /// Replays one record.
    fn record(
        &mut self,
        checkpoint: &mut Checkpoint,
        group: GroupId,
        record: Record<'_>,
        location: Location,
    ) -> Result<(), String> {
        if checkpoint.ended == matches!(record, Record::Checkpoint(_) | Record::CheckpointEnd { .. }) {
            return Err("a record on the wrong side of the checkpoint's end".to_owned());
        }
        self.is_closed = matches!(record, Record::Close);
        match record {
            Record::Checkpoint(points) => {
                checkpoint.seen += 1;
                if checkpoint.oldest {
                    self.ledger.groups.insert(group, GroupLedger::from_checkpoint(points));
                } else if !self.ledger.groups.get_mut(&group).is_some_and(|known| known.agrees(&points)) {
                    return Err(format!("the checkpoint of group {group} differs from what is before it"));
                }
            }
            Record::CheckpointEnd { group_count } => {
                checkpoint.ended = true;
                if group_count != checkpoint.seen || group_count != self.ledger.groups.len() as u64 {
                    return Err(format!(
                        "the checkpoint is of {group_count} groups, not of as many as there are"
                    ));
                }
            }
            Record::Entry { position, .. } => {
                let known = self.ledger.group(group);
                if let Some(expected) = known.expected().filter(|expected| *expected != position.index) {
                    return Err(format!("entry {position} of group {group} where {expected} was due"));
                }
                known.entry(position, location.segment);
                self.entries.entry(group).or_default().push_back((position, location));
            }
            Record::Vote(vote) => {
                self.ledger.group(group).points.vote = Some(Bytes::copy_from_slice(vote));
            }
            Record::Committed(committed) => {
                self.ledger.group(group).points.committed = Some(Bytes::copy_from_slice(committed));
            }
            Record::Truncate { keep } => {
                self.ledger.group(group).truncate(keep);
                let entries = self.entries.entry(group).or_default();
                while entries.back().is_some_and(|(last, _)| keep.is_none_or(|keep| last.index > keep)) {
                    entries.pop_back();
                }
            }
            Record::Purge { through, opaque } => {
                self.ledger.group(group).purge(through, Bytes::copy_from_slice(opaque));
                let entries = self.entries.entry(group).or_default();
                while entries.front().is_some_and(|(first, _)| first.index <= through.index) {
                    entries.pop_front();
                }
            }
            Record::Remove => {
                self.ledger.groups.remove(&group);
                self.entries.remove(&group);
            }
            Record::Close => {}
        }
        Ok(())
    }
}

/// How far the checkpoint at the start of a segment is read.
struct Checkpoint {
    /// It is the first there is: nothing to compare it with.
    oldest: bool,
    /// Groups so far.
    seen: u64,
    ended: bool,
}

/// Where a frame lies. Segments are below 4 GiB, which their header's reader has seen to by reading them whole.
fn locate(segment: SegmentId, offset: u64, frame: &Frame) -> Location {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Location { segment, offset: narrow(offset), size: narrow(frame.size as u64) }
}
