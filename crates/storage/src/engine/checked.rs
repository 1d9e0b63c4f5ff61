//! A file whose every block is checked when it is read.
//!
//! redb knows the checksums of its pages and looks at them only when it opens a file that was not closed; in between a
//! page whose bytes changed at rest would be served as it is. Under redb lies this file:
//!
//! ```text
//!   page 0            head: magic "RDBBLOCK", version u32, checksum u32
//!   page 1            checksums of blocks 0 to 1023, u32 each
//!   pages 2 to 1025   blocks 0 to 1023
//!   page 1026         checksums of blocks 1024 to 2047
//!   ...
//! ```
//!
//! A page has 4 KiB; numbers are little-endian. A checksum is the CRC-32 of the block's number and its bytes; zero
//! stands for a block that was never written and holds zeros. Checksums are kept in memory once they were used, four
//! bytes for 4 KiB of the file, and go to the disk with the sync that makes their blocks durable.
//!
//! Why a crash cannot make a sound file look damaged: redb (in two phases, as it is used here) syncs the pages of a
//! commit before block 0 names them, and never writes to a page that block 0 names. Checksums of different blocks that
//! share a sector are all right in the old sector and in the new one, but for blocks that are being written. Block 0
//! itself is written in place: redb uses the first 320 bytes of it, and its checksum lies in the same sector of 512
//! bytes, so that one never reaches the disk without the other.
//!
//! A file of an earlier release begins with redb's own magic and is used without checksums.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustydb_env::File;

/// Bytes of a block and of a page of checksums.
const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Blocks whose checksums fill a page.
const GROUP_BLOCKS: u64 = BLOCK / 4;
/// Bytes of a group of blocks with their checksums.
const GROUP: u64 = (GROUP_BLOCKS + 1) * BLOCK;
const MAGIC: &[u8; 8] = b"RDBBLOCK";
const VERSION: u32 = 1;
/// The sector of block 0 that is used, and where its checksum lies in it.
const SECTOR_BYTES: usize = 512;
const SECTOR_SUM: usize = SECTOR_BYTES - 4;
/// What a file of redb itself begins with.
const REDB_MAGIC: &[u8; 4] = b"redb";

/// The file under an engine: checked, or one of an earlier release.
pub(super) enum EngineFile {
    /// Blocks with checksums.
    Checked(CheckedFile),
    /// redb's own format.
    Plain(Arc<dyn File>),
}

/// See the module.
pub(super) struct CheckedFile {
    file: Arc<dyn File>,
    sums: RwLock<Sums>,
}

/// Checksums that were used.
#[derive(Default)]
struct Sums {
    /// By number of the group; as many as the file has groups.
    groups: BTreeMap<u64, GroupSums>,
    /// Whether the head must be written.
    is_head_new: bool,
}

struct GroupSums {
    sums: Vec<u32>,
    /// Whether the disk does not have them yet.
    is_new: bool,
}

impl fmt::Debug for EngineFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Checked(_)) {
            "EngineFile(checked)"
        } else {
            "EngineFile(plain)"
        })
    }
}

impl EngineFile {
    /// Over a file, which may be empty.
    pub(super) fn open(file: Arc<dyn File>) -> io::Result<EngineFile> {
        let mut magic = [0; 4];
        if file.len()? >= BLOCK {
            file.read_at(0, &mut magic)?;
            if &magic == REDB_MAGIC {
                return Ok(EngineFile::Plain(file));
            }
        }
        CheckedFile::open(file).map(EngineFile::Checked)
    }

    /// Bytes that redb sees.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Checked(checked) => checked.len(),
            Self::Plain(file) => file.len(),
        }
    }

    /// Fills `out`; an error of the kind `InvalidData` when a block is not what was written.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Checked(checked) => checked.read(offset, out),
            Self::Plain(file) => file.read_at(offset, out),
        }
    }

    /// Changes the length.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Self::Checked(checked) => checked.set_len(len),
            Self::Plain(file) => file.set_len(len),
        }
    }

    /// Writes; durable with the next sync.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Checked(checked) => checked.write(offset, data),
            Self::Plain(file) => file.write_at(offset, data),
        }
    }

    /// Makes durable what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Checked(checked) => checked.sync(),
            Self::Plain(file) => file.sync_data(),
        }
    }
}

/// Where a byte lies in the file.
const fn physical(offset: u64) -> u64 {
    let (block, within) = (offset / BLOCK, offset % BLOCK);
    sums_at(block / GROUP_BLOCKS) + (1 + block % GROUP_BLOCKS) * BLOCK + within
}

/// Where the checksums of a group lie.
const fn sums_at(group: u64) -> u64 {
    BLOCK + group * GROUP
}

/// Bytes of the whole file for so many bytes of redb.
const fn physical_len(len: u64) -> u64 {
    let groups = len / (GROUP_BLOCKS * BLOCK);
    let rest = len % (GROUP_BLOCKS * BLOCK);
    BLOCK + groups * GROUP + if rest == 0 { 0 } else { BLOCK + rest }
}

/// The other way round.
const fn logical_len(len: u64) -> u64 {
    let inside = len.saturating_sub(BLOCK);
    (inside / GROUP) * GROUP_BLOCKS * BLOCK + (inside % GROUP).saturating_sub(BLOCK)
}

fn checksum(block: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block.to_le_bytes());
    hasher.update(bytes);
    // Zero means that nothing was written.
    hasher.finalize().max(1)
}

fn damaged(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl CheckedFile {
    fn open(file: Arc<dyn File>) -> io::Result<CheckedFile> {
        let mut sums = Sums { is_head_new: true, ..Sums::default() };
        if file.len()? >= BLOCK {
            let mut head = vec![0; BLOCK_BYTES];
            file.read_at(0, &mut head)?;
            // Made, and nothing written to it yet.
            sums.is_head_new = file.len()? == BLOCK && head.iter().all(|byte| *byte == 0);
            if !sums.is_head_new {
                check_head(&head)?;
            }
        } else {
            file.set_len(BLOCK)?;
        }
        Ok(CheckedFile { file, sums: RwLock::new(sums) })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(logical_len(self.file.len()?))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sums = self.sums.write();
        let before = self.len()?;
        if len < before {
            let kept = len.div_ceil(GROUP_BLOCKS * BLOCK);
            sums.groups.retain(|group, _| *group < kept);
            // What is written there again must not be held against what was there before.
            if let Some(group) = kept.checked_sub(1) {
                let first_gone = len.div_ceil(BLOCK) - group * GROUP_BLOCKS;
                let group = sums.group(&*self.file, group)?;
                let gone = group.sums.iter_mut().skip(usize::try_from(first_gone).unwrap_or(usize::MAX));
                gone.for_each(|sum| *sum = 0);
                group.is_new = true;
            }
        }
        self.file.set_len(physical_len(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let block = at / BLOCK;
            let within = usize::try_from(at % BLOCK).unwrap_or(0);
            if block == 0 {
                let (part, after) = rest.split_at(rest.len().min(BLOCK_BYTES - within));
                self.write_first(within, part)?;
                (at, rest) = (at + part.len() as u64, after);
                continue;
            }
            let whole_blocks = u64::try_from(rest.len()).unwrap_or(0) / BLOCK;
            // Blocks of one group lie side by side.
            let run = whole_blocks.min(GROUP_BLOCKS - block % GROUP_BLOCKS);
            if within == 0 && run > 0 {
                let (run_bytes, after) = rest.split_at(usize::try_from(run).unwrap_or(0) * BLOCK_BYTES);
                self.file.write_at(physical(at), run_bytes)?;
                let mut sums = self.sums.write();
                for (number, bytes) in (block..).zip(run_bytes.chunks(BLOCK_BYTES)) {
                    sums.set(&*self.file, number, checksum(number, bytes))?;
                }
                (at, rest) = (at + run * BLOCK, after);
                continue;
            }
            let (part, after) = rest.split_at(rest.len().min(BLOCK_BYTES - within));
            let mut bytes = self.whole_block(block)?;
            if let Some(place) = bytes.get_mut(within..within + part.len()) {
                place.copy_from_slice(part);
            }
            self.file.write_at(physical(at), part)?;
            self.sums.write().set(&*self.file, block, checksum(block, &bytes))?;
            (at, rest) = (at + part.len() as u64, after);
        }
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let is_aligned = offset.is_multiple_of(BLOCK) && out.len().is_multiple_of(BLOCK_BYTES);
        let in_one_group = offset / (GROUP_BLOCKS * BLOCK)
            == (offset + out.len().saturating_sub(1) as u64) / (GROUP_BLOCKS * BLOCK);
        if is_aligned && in_one_group && offset > 0 {
            self.file.read_at(physical(offset), out)?;
            let first = offset / BLOCK;
            return (first..)
                .zip(out.chunks(BLOCK_BYTES))
                .try_for_each(|(block, bytes)| self.check(block, bytes));
        }
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let within = usize::try_from(at % BLOCK).unwrap_or(0);
            let count = rest.len().min(BLOCK_BYTES - within);
            let bytes = self.whole_block(at / BLOCK)?;
            let (part, after) = rest.split_at_mut(count);
            part.copy_from_slice(bytes.get(within..within + count).ok_or(io::ErrorKind::UnexpectedEof)?);
            (at, rest) = (at + count as u64, after);
        }
        Ok(())
    }

    /// Writes to block 0, of which redb uses the beginning only.
    fn write_first(&self, within: usize, part: &[u8]) -> io::Result<()> {
        let mut sector = self.first_sector()?;
        let (used, beyond) = part.split_at(part.len().min(SECTOR_SUM.saturating_sub(within)));
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "block 0 is used beyond its first sector",
            ));
        }
        if let Some(place) = sector.get_mut(within..within + used.len()) {
            place.copy_from_slice(used);
        }
        let sum = checksum(0, sector.get(..SECTOR_SUM).unwrap_or_default());
        if let Some(place) = sector.get_mut(SECTOR_SUM..) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        self.file.write_at(physical(0), &sector)
    }

    /// The first sector of block 0, checked, with its checksum.
    fn first_sector(&self) -> io::Result<Vec<u8>> {
        let mut sector = vec![0; SECTOR_BYTES];
        if self.len()? < SECTOR_BYTES as u64 {
            return Ok(sector);
        }
        self.file.read_at(physical(0), &mut sector)?;
        let (used, sum) = sector.split_at(SECTOR_SUM);
        let is_unwritten = sector.iter().all(|byte| *byte == 0);
        if is_unwritten || checksum(0, used) == little_endian(sum) {
            return Ok(sector);
        }
        Err(damaged("block 0 fails its checksum"))
    }

    /// A block, checked; zeros beyond the end.
    fn whole_block(&self, block: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK_BYTES];
        if block == 0 {
            let sector = self.first_sector()?;
            let used = sector.get(..SECTOR_SUM).unwrap_or_default();
            bytes.iter_mut().zip(used).for_each(|(byte, used)| *byte = *used);
            return Ok(bytes);
        }
        let there = self.len()?.saturating_sub(block * BLOCK).min(BLOCK);
        if let Some(part) = bytes.get_mut(..usize::try_from(there).unwrap_or(0)) {
            self.file.read_at(physical(block * BLOCK), part)?;
        }
        self.check(block, &bytes)?;
        Ok(bytes)
    }

    fn check(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let found = checksum(block, bytes);
        let group = block / GROUP_BLOCKS;
        let known = self.sums.read().groups.get(&group).map(|group| group.sum(block));
        let known = match known {
            Some(known) => known,
            None => self.sums.write().group(&*self.file, group)?.sum(block),
        };
        if known == found || (known == 0 && bytes.iter().all(|byte| *byte == 0)) {
            return Ok(());
        }
        Err(damaged(format_args!("block {block} fails its checksum")))
    }

    fn sync(&self) -> io::Result<()> {
        let mut sums = self.sums.write();
        if sums.is_head_new {
            self.file.write_at(0, &head())?;
            sums.is_head_new = false;
        }
        for (number, group) in sums.groups.iter_mut().filter(|(_, group)| group.is_new) {
            let bytes: Vec<u8> = group.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            self.file.write_at(sums_at(*number), &bytes)?;
            group.is_new = false;
        }
        drop(sums);
        self.file.sync_data()
    }
}

impl Sums {
    /// The checksums of a group, read when they are not known.
    fn group(&mut self, file: &dyn File, group: u64) -> io::Result<&mut GroupSums> {
        let entry = match self.groups.entry(group) {
            std::collections::btree_map::Entry::Occupied(known) => return Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => entry,
        };
        let mut bytes = vec![0; BLOCK_BYTES];
        if file.len()? >= sums_at(group) + BLOCK {
            file.read_at(sums_at(group), &mut bytes)?;
        }
        let sums = bytes.chunks_exact(4).map(little_endian).collect();
        Ok(entry.insert(GroupSums { sums, is_new: false }))
    }

    fn set(&mut self, file: &dyn File, block: u64, sum: u32) -> io::Result<()> {
        let group = self.group(file, block / GROUP_BLOCKS)?;
        if let Some(known) = group.sums.get_mut(usize::try_from(block % GROUP_BLOCKS).unwrap_or(0)) {
            group.is_new |= *known != sum;
            *known = sum;
        }
        Ok(())
    }
}

impl GroupSums {
    fn sum(&self, block: u64) -> u32 {
        let index = usize::try_from(block % GROUP_BLOCKS).unwrap_or(0);
        self.sums.get(index).copied().unwrap_or(0)
    }
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSION.to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head.resize(BLOCK_BYTES, 0);
    head
}

fn check_head(found: &[u8]) -> io::Result<()> {
    let word = |at: usize| found.get(at..at + 4).map_or(0, little_endian);
    if found.get(..8) != Some(&MAGIC[..]) || word(12) != crc32fast::hash(found.get(..12).unwrap_or_default())
    {
        return Err(damaged("the head of the file fails its checksum"));
    }
    if word(8) != VERSION {
        return Err(damaged(format_args!("blocks of version {}, known is {VERSION}", word(8))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustydb_env::OpenMode;
    use rustydb_env::sim::{SimNode, Simulation};

    use super::super::{Direction, Durability, Engine, EngineError, KeyRange, RedbEngine, Space};
    use super::*;

    const STORE: &str = "/store";

    fn world() -> (Simulation, SimNode) {
        let simulation = Simulation::new(1);
        let node = simulation.add_node();
        (simulation, node)
    }

    fn checked(simulation: &Simulation, node: SimNode) -> CheckedFile {
        let file = simulation.env(node).disk().open(Path::new(STORE), OpenMode::Create).unwrap();
        match EngineFile::open(file).unwrap() {
            EngineFile::Checked(checked) => checked,
            EngineFile::Plain(_) => panic!("a new file is checked"),
        }
    }

    #[test]
    fn lengths_go_both_ways() {
        for len in [0, 1, 320, BLOCK, BLOCK + 1, GROUP_BLOCKS * BLOCK - 1, GROUP_BLOCKS * BLOCK, 3 * GROUP] {
            assert_eq!(logical_len(physical_len(len)), len);
        }
        assert_eq!(physical(0), 2 * BLOCK);
        assert_eq!(physical(GROUP_BLOCKS * BLOCK), physical_len(GROUP_BLOCKS * BLOCK) + BLOCK);
    }

    #[test]
    fn what_was_written_is_read_over_the_edges_of_blocks_and_groups() {
        let (simulation, node) = world();
        let file = checked(&simulation, node);
        let edge = GROUP_BLOCKS * BLOCK;
        file.set_len(2 * edge).unwrap();
        for (offset, len) in
            [(BLOCK + 17, 5000), (edge - 100, 300), (edge - BLOCK, 3 * BLOCK_BYTES), (0, 320)]
        {
            let data: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            file.write(offset, &data).unwrap();
            let mut read = vec![0; len];
            file.read(offset, &mut read).unwrap();
            assert_eq!(read, data, "at {offset}");
        }
        file.sync().unwrap();
        // What was cut off and comes again is zero and sound.
        file.set_len(edge).unwrap();
        file.set_len(2 * edge).unwrap();
        let mut read = vec![1; BLOCK_BYTES];
        file.read(edge, &mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == 0));
    }

    /// As releases before had it: redb's own file, without checksums.
    #[test]
    fn a_file_of_an_earlier_release_is_used_as_it_is() {
        #[derive(Debug)]
        struct Raw(Arc<dyn File>);
        impl redb::StorageBackend for Raw {
            fn len(&self) -> io::Result<u64> {
                self.0.len()
            }
            fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
                self.0.read_at(offset, out)
            }
            fn set_len(&self, len: u64) -> io::Result<()> {
                self.0.set_len(len)
            }
            fn sync_data(&self) -> io::Result<()> {
                self.0.sync_data()
            }
            fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
                self.0.write_at(offset, data)
            }
        }
        let (simulation, node) = world();
        let file = simulation.env(node).disk().open(Path::new(STORE), OpenMode::Create).unwrap();
        let database = redb::Builder::new().create_with_backend(Raw(file)).unwrap();
        let transaction = database.begin_write().unwrap();
        for space in 0..Space::COUNT {
            let name = format!("space{space}");
            let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(&name);
            let mut table = transaction.open_table(table).unwrap();
            table.insert(&b"key"[..], &b"value"[..]).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let engine = RedbEngine::open(&simulation.env(node), Path::new(STORE), 1 << 20).unwrap();
        let more =
            &mut |writer: &mut dyn super::super::EngineWriter| writer.put(Space::new(0), b"more", b"rows");
        engine.write(Durability::Synced, more).unwrap();
        drop(engine);
        assert_eq!(rows(&simulation, node).unwrap().len(), 3);
        let start = simulation.disk(node).content(Path::new(STORE)).unwrap();
        assert!(start.starts_with(REDB_MAGIC));
    }

    /// A small engine with many rows in one space and a few in another, closed.
    fn filled(simulation: &Simulation, node: SimNode) {
        let engine = RedbEngine::open(&simulation.env(node), Path::new(STORE), 1 << 20).unwrap();
        for batch in 0..4_u32 {
            engine
                .write(Durability::Synced, &mut |writer| {
                    for row in 0..100_u32 {
                        let key = (batch * 100 + row).to_be_bytes();
                        writer.put(Space::new(0), &key, &[u8::try_from(row).unwrap(); 60])?;
                    }
                    writer.put(Space::new(1), b"batch", &batch.to_be_bytes())
                })
                .unwrap();
        }
    }

    /// A key and its value.
    type Row = (Vec<u8>, Vec<u8>);

    fn rows(simulation: &Simulation, node: SimNode) -> Result<Vec<Row>, EngineError> {
        let engine = RedbEngine::open(&simulation.env(node), Path::new(STORE), 1 << 20)?;
        let view = engine.view()?;
        let mut rows = Vec::new();
        for space in [0, 1] {
            view.scan(Space::new(space), KeyRange::ALL, Direction::Forward, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                std::ops::ControlFlow::Continue(())
            })?;
        }
        Ok(rows)
    }

    /// Every byte of a whole engine file is changed in turn, one bit of it: what is read is what was written, or the
    /// file is called damaged. Nothing else is ever served, and nothing panics.
    #[test]
    fn a_changed_bit_of_an_engine_file_is_an_error_or_without_effect() {
        let (simulation, node) = world();
        filled(&simulation, node);
        let path = Path::new(STORE);
        let sound = rows(&simulation, node).unwrap();
        assert_eq!(sound.len(), 401);
        let disk = simulation.disk(node);
        let whole = disk.content(path).unwrap();
        let (mut detected, mut without_effect) = (0, 0);
        let used: Vec<usize> = whole
            .chunks(64)
            .enumerate()
            .filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0))
            .map(|(at, _)| at * 64)
            .collect();
        for (number, start) in used.into_iter().enumerate() {
            // One byte of every 64 that hold something, and each byte of what comes first.
            let bytes = if start < 3 * BLOCK_BYTES {
                start..start + 64
            } else {
                start + number % 64..start + number % 64 + 1
            };
            for offset in bytes {
                let bit = u8::try_from(offset % 8).unwrap();
                assert!(disk.flip_bit(path, offset, bit));
                match rows(&simulation, node) {
                    Ok(found) => {
                        assert!(found == sound, "byte {offset}, bit {bit}: wrong rows are served");
                        without_effect += 1;
                    }
                    Err(EngineError::Damaged { .. }) => detected += 1,
                    Err(other) => panic!("byte {offset}, bit {bit}: {other}"),
                }
                // As it was, whatever opening has changed.
                let file = simulation.env(node).disk().open(path, OpenMode::ReadWrite).unwrap();
                file.set_len(0).unwrap();
                file.write_at(0, &whole).unwrap();
            }
        }
        assert!(detected > 500, "{detected} detected, {without_effect} without effect");
    }
}
