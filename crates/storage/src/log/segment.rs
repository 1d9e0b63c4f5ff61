//! A segment: a file of fixed size with a header and frames, and how its bytes are checked.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::frame::{self, FRAME_ALIGNMENT, Frame};

/// Bytes of the header; the first frame begins here.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// The format that this program writes and reads.
pub(super) const FORMAT_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"RDBLOG\r\n";

/// The number of a segment: counts up by one, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId(pub(super) u32);

impl SegmentId {
    /// The name of its file.
    pub(super) fn file_name(self) -> String {
        format!("{:016x}.log", self.0)
    }

    /// The segment that a file is, if its name is that of one.
    pub(super) fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        if name.len() != 16 {
            return None;
        }
        u32::from_str_radix(name, 16).ok().map(Self)
    }

    /// Its path.
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }
}

/// What every checksum of a segment begins with, so that bytes left by another segment never validate, not even
/// at the same offset of a file that is used again, and not even if a client put them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentSeed {
    id: SegmentId,
    salt: u64,
}

impl SegmentSeed {
    /// A hasher that has taken the seed.
    pub(super) fn hasher(self) -> crc32fast::Hasher {
        let mut seed = [0u8; 16];
        let (id, salt) = seed.split_at_mut(8);
        id.copy_from_slice(&u64::from(self.id.0).to_le_bytes());
        salt.copy_from_slice(&self.salt.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&seed);
        hasher
    }

    /// What the word of this number in the file is whitened with: splitmix64 (Steele, Lea, Flood, 2014), which comes to
    /// zero or to the same for two salts once in 2^64.
    pub(super) const fn white(self, word: u64) -> u64 {
        let mut mixed = self.salt.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The header of a segment.
///
/// ```text
///   0       8         12         16           24     32                40          48
///   | magic | version | checksum | segment no | salt | end of the one  | size in   | zero to 64 |
///   |       |         |          |            |      | before, or zero | bytes     |            |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its number.
    pub(super) id: SegmentId,
    /// Drawn at random for each use of a file.
    pub(super) salt: u64,
    /// Where the frames of the segment before end; zero in the first of all.
    pub(super) previous_end: u64,
    /// Size of the file.
    pub(super) size_bytes: u64,
}

impl SegmentHeader {
    /// The seed of all checksums in it.
    pub(super) const fn seed(&self) -> SegmentSeed {
        SegmentSeed { id: self.id, salt: self.salt }
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut fields = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        fields.extend_from_slice(&[0; 4]);
        for number in [u64::from(self.id.0), self.salt, self.previous_end, self.size_bytes] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        let checksum = header_checksum(&bytes);
        for (byte, sum) in bytes.iter_mut().skip(12).zip(checksum.to_le_bytes()) {
            *byte = sum;
        }
        bytes
    }

    /// The header at the start of a file.
    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, LogError> {
        let corrupt =
            |detail: &str| LogError::Corrupt { path: path.to_owned(), offset: 0, detail: detail.to_owned() };
        let header = bytes.get(..SEGMENT_HEADER_BYTES).ok_or_else(|| corrupt("shorter than its header"))?;
        if header.get(..8) != Some(&MAGIC[..]) {
            return Err(corrupt("not a log segment"));
        }
        let word = |at: usize| {
            let field = header.get(at..at + 8).and_then(|slice| slice.try_into().ok());
            field.map_or(0, u64::from_le_bytes)
        };
        let half = |at: usize| {
            let field = header.get(at..at + 4).and_then(|slice| slice.try_into().ok());
            field.map_or(0, u32::from_le_bytes)
        };
        if half(12) != header_checksum(header) {
            return Err(corrupt("header fails its checksum"));
        }
        if half(8) != FORMAT_VERSION {
            return Err(LogError::UnknownFormat {
                path: path.to_owned(),
                found: half(8),
                supported: FORMAT_VERSION,
            });
        }
        let id = u32::try_from(word(16)).map_err(|_| corrupt("segment number out of range"))?;
        let named = SegmentId::of_path(path);
        if named.is_some_and(|named| named.0 != id) {
            return Err(corrupt("segment number differs from the file's name"));
        }
        Ok(Self { id: SegmentId(id), salt: word(24), previous_end: word(32), size_bytes: word(40) })
    }
}

/// Over the whole header but the checksum itself.
fn header_checksum(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..12).unwrap_or_default());
    hasher.update(header.get(16..SEGMENT_HEADER_BYTES).unwrap_or_default());
    hasher.finalize()
}

/// How the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentEnd {
    /// Nothing valid and nothing that looks begun: the next frame's place is empty.
    Clean {
        /// Where the next frame goes.
        end: u64,
    },
    /// The last batch was cut off by a crash. Valid frames of that batch may lie beyond the cut.
    Torn {
        /// Where the next frame goes.
        end: u64,
        /// No valid frame reaches beyond this.
        leftovers_end: u64,
    },
    /// A bad frame that no crash has made.
    Corrupt {
        /// Where the bad frame is.
        offset: u64,
        /// How that is known.
        proof: Proof,
    },
}

/// How a damaged frame is told from one that was torn by a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A frame of a later batch lies behind it: it had been synced.
    Later {
        /// Where.
        at: u64,
    },
    /// All of it is there but for one bit.
    OneBit,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later { at } => write!(f, "a damaged frame with a later batch behind it, at byte {at}"),
            Self::OneBit => write!(f, "a frame of which one bit has changed"),
        }
    }
}

/// Where the frames of a segment lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked {
    /// Where no frame continues.
    pub(super) end: u64,
    /// Where the batch of the last frame begins.
    batch: u64,
}

/// Walks the frames of a segment from the start, gives each to `visit`, and returns where no frame continues.
pub(super) fn walk<E>(
    bytes: &[u8],
    seed: SegmentSeed,
    mut visit: impl FnMut(u64, Frame) -> Result<(), E>,
) -> Result<Walked, E> {
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut batch = SEGMENT_HEADER_BYTES as u64;
    while let Some(frame) = bytes.get(offset..).and_then(|rest| frame::decode(rest, seed, offset as u64)) {
        // A frame either continues the batch of the one before it or begins its own; anything else was left over
        // from before a crash and does not follow what is before it now.
        let own = u64::from(frame.batch);
        if !continues(own, batch, offset as u64) {
            break;
        }
        batch = own;
        let size = frame.size;
        visit(offset as u64, frame)?;
        offset += size;
    }
    Ok(Walked { end: offset as u64, batch })
}

/// Whether a frame at `offset` that belongs to the batch `own` follows one of `batch`.
const fn continues(own: u64, batch: u64, offset: u64) -> bool {
    own == batch || own == offset
}

/// What the bytes mean from where no frame continues the log.
pub(super) fn classify(bytes: &[u8], seed: SegmentSeed, Walked { end, batch }: Walked) -> SegmentEnd {
    let start = usize::try_from(end).unwrap_or(usize::MAX);
    let mut leftovers_end = end;
    let mut offset = start;
    while let Some(rest) = bytes.get(offset..).filter(|rest| rest.len() >= frame::FRAME_HEADER_BYTES) {
        if let Some(frame) = frame::decode(rest, seed, offset as u64) {
            if u64::from(frame.batch) > end {
                let proof = Proof::Later { at: offset as u64 };
                return SegmentEnd::Corrupt { offset: end, proof };
            }
            leftovers_end = leftovers_end.max((offset + frame.size) as u64);
        }
        offset += FRAME_ALIGNMENT;
    }
    let header = bytes.get(start..start.saturating_add(frame::FRAME_HEADER_BYTES));
    let begun = header.is_some_and(|header| header.iter().any(|byte| *byte != 0));
    let flipped = bytes.get(start..).filter(|_| begun).and_then(|rest| frame::flipped(rest, seed, end));
    if flipped.is_some_and(|frame| continues(u64::from(frame.batch), batch, end)) {
        return SegmentEnd::Corrupt { offset: end, proof: Proof::OneBit };
    }
    if begun || leftovers_end > end {
        SegmentEnd::Torn { end, leftovers_end }
    } else {
        SegmentEnd::Clean { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_format_is_named_and_not_called_corrupt() {
        let header = SegmentHeader { id: SegmentId(7), salt: 1, previous_end: 99, size_bytes: 4096 };
        let path = SegmentId(7).path(Path::new("/log"));
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&path, &bytes).unwrap(), header);
        assert_eq!(SegmentId::of_path(&path), Some(SegmentId(7)));
        bytes[8] = 3;
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        let refused = SegmentHeader::decode(&path, &bytes);
        assert!(
            matches!(refused, Err(LogError::UnknownFormat { found: 3, supported: 2, .. })),
            "{refused:?}"
        );
    }
}
