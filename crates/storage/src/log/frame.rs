//! A frame: one record in a segment, with a checksum that no other place validates.
//!
//! ```text
//!   0        4          8              16        20     21         24
//!   | length | checksum | group        | batch   | kind | zero     | body ... | zero padding to 8 |
//! ```
//! The checksum covers segment number, salt and offset of the frame and then everything in it but itself, padding
//! included. All numbers little-endian.

use super::segment::{SEGMENT_HEADER_BYTES, SegmentSeed};

/// Bytes before the body.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Kinds of records are numbered from 1 to below this.
const KIND_LIMIT: u8 = 32;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: usize = 8;

/// A frame as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Whose record.
    pub(super) group: u64,
    /// Offset of the first frame that was written since the sync before this one.
    pub(super) batch: u32,
    /// Which record.
    pub(super) kind: u8,
    /// The record.
    pub(super) body: &'a [u8],
    /// Bytes from this frame to the next.
    pub(super) size: usize,
}

/// Bytes that a frame with this body takes.
pub(super) const fn frame_size(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(FRAME_ALIGNMENT)
}

/// The little-endian number at `at`; zero beyond the end.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|slice| slice.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|slice| slice.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The checksum of a whole frame.
fn checksum(seed: SegmentSeed, offset: u64, frame: &[u8]) -> u32 {
    let mut hasher = seed.hasher();
    hasher.update(&offset.to_le_bytes());
    hasher.update(frame.get(..4).unwrap_or_default());
    hasher.update(frame.get(8..).unwrap_or_default());
    hasher.finalize()
}

/// Appends a frame to `buffer`, which will be written so that the frame comes to lie at `offset`. The body is
/// given in parts that are put one behind the other.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    seed: SegmentSeed,
    offset: u64,
    (group, batch, kind): (u64, u32, u8),
    parts: &[&[u8]],
) {
    let start = buffer.len();
    let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(body_bytes).expect("bodies are bounded by half a segment");
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&group.to_le_bytes());
    buffer.extend_from_slice(&batch.to_le_bytes());
    buffer.extend_from_slice(&[kind, 0, 0, 0]);
    for part in parts {
        buffer.extend_from_slice(part);
    }
    buffer.resize(start + frame_size(body_bytes), 0);
    if let Some(frame) = buffer.get_mut(start..) {
        let checksum = checksum(seed, offset, frame);
        if let Some(field) = frame.get_mut(4..8) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// The frame at the start of `bytes`, which lie at `offset` of their segment, or `None` if there is no valid one.
pub(super) fn decode(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<Frame<'_>> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    let body_bytes = usize::try_from(u32_at(header, 0)).ok()?;
    let batch = u32_at(header, 16);
    // The cheap refusals first: what follows the end of a recycled segment is old frames, one after the other.
    let kind = *header.get(20)?;
    if kind == 0 || kind >= KIND_LIMIT || header.get(21..24)? != [0, 0, 0] {
        return None;
    }
    let batch_start = batch as usize;
    if u64::from(batch) > offset
        || batch_start < SEGMENT_HEADER_BYTES
        || !batch_start.is_multiple_of(FRAME_ALIGNMENT)
    {
        return None;
    }
    let size = frame_size(body_bytes);
    let frame = bytes.get(..size)?;
    if checksum(seed, offset, frame) != u32_at(frame, 4) {
        return None;
    }
    let body = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + body_bytes)?;
    Some(Frame { group: u64_at(frame, 8), batch, kind, body, size })
}
