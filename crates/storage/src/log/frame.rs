//! A frame: one record in a segment, with a checksum that no other place validates.
//!
//! ```text
//!   0        4          8              16        20     21         24
//!   | length | checksum | group        | batch   | kind | zero     | body ... | zero padding to 8 |
//!                       └ whitened from here on
//! ```
//! The checksum covers segment number, salt and offset of the frame and then everything in it but itself, padding
//! included, as it lies there. All numbers little-endian.
//!
//! Whitened: combined by XOR with numbers that depend on the segment's salt and on the place, so that a sector which a
//! crash has left as it was before differs from what should be there in about half of its bits. Without that the end
//! of a frame, a small number and zeros, can differ from the zeros before it in a single bit, and a torn frame looks
//! like one that was written whole and damaged since.

use super::segment::{SEGMENT_HEADER_BYTES, SegmentSeed};

/// Bytes before the body.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Kinds of records are numbered from 1 to below this.
const KIND_LIMIT: u8 = 32;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: usize = 8;

/// A frame as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Whose record.
    pub(super) group: u64,
    /// Offset of the first frame that was written since the sync before this one.
    pub(super) batch: u32,
    /// Which record.
    pub(super) kind: u8,
    /// The record.
    pub(super) body: Vec<u8>,
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

/// Longer frames are not looked at by [`flipped`]. Of frames of this size that were torn in a file that was used before, one
/// in some eight thousand, and fewer of smaller ones, looks by chance as if it had one changed bit.
const FLIPPED_BYTES_MAX: usize = 64 << 10;
/// CRC-32 (IEEE 802.3), the lowest bit first.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// Where the whitened part begins, behind length and checksum.
const WHITE_START: usize = 8;

/// Whitens bytes that lie at `offset`, a multiple of 8, of their segment, or undoes it. Whole words only.
fn whiten(seed: SegmentSeed, offset: u64, bytes: &mut [u8]) {
    for (number, word) in (offset / 8..).zip(bytes.chunks_exact_mut(8)) {
        for (byte, white) in word.iter_mut().zip(seed.white(number).to_le_bytes()) {
            *byte ^= white;
        }
    }
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
        whiten(seed, offset + WHITE_START as u64, frame.get_mut(WHITE_START..).unwrap_or_default());
        let checksum = checksum(seed, offset, frame);
        if let Some(field) = frame.get_mut(4..8) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// The frame at the start of `bytes`, which lie at `offset` of their segment, or `None` if there is no valid one.
pub(super) fn decode(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<Frame> {
    let mut header = [0; FRAME_HEADER_BYTES];
    header.copy_from_slice(bytes.get(..FRAME_HEADER_BYTES)?);
    whiten(seed, offset + WHITE_START as u64, header.get_mut(WHITE_START..)?);
    let body_bytes = usize::try_from(u32_at(&header, 0)).ok()?;
    let batch = u32_at(&header, 16);
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
    let mut body = frame.get(FRAME_HEADER_BYTES..)?.to_vec();
    whiten(seed, offset + FRAME_HEADER_BYTES as u64, &mut body);
    body.truncate(body_bytes);
    Some(Frame { group: u64_at(&header, 8), batch, kind, body, size })
}

/// The frame at the start of `bytes`, where [`decode`] finds none, if it takes but one changed bit to make it valid: then
/// it was written whole, and has changed since. A crash does not do that, and a checksum of 32 bits tells which bit it is.
/// The result is for looking at, not for use: by chance it may be of a frame that was never written.
pub(super) fn flipped(bytes: &[u8], seed: SegmentSeed, offset: u64) -> Option<FlippedFrame> {
    let length = u32_at(bytes.get(..FRAME_HEADER_BYTES)?, 0);
    let as_read = whole(bytes, length).and_then(|frame| {
        let difference = checksum(seed, offset, frame) ^ u32_at(frame, 4);
        let bit = changed_bit(difference, frame.len())?;
        let mut frame = frame.to_vec();
        *frame.get_mut(bit / 8)? ^= 1 << (bit % 8);
        Some(frame)
    });
    // A changed length says nothing of where the frame ends, so each is tried.
    let other_lengths = (0..u32::BITS).filter_map(|bit| {
        let length = length ^ (1 << bit);
        let mut frame = whole(bytes, length)?.to_vec();
        frame.get_mut(..4)?.copy_from_slice(&length.to_le_bytes());
        Some(frame)
    });
    as_read.into_iter().chain(other_lengths).find_map(|frame| {
        let decoded = decode(&frame, seed, offset)?;
        Some(FlippedFrame { batch: decoded.batch })
    })
}

/// A frame of which one bit has changed, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlippedFrame {
    /// As of [`Frame`].
    pub(super) batch: u32,
}

/// The bytes of a frame with a body of this length, if there are as many and not too many, and all of them were written
/// to: no word of a whitened frame is zero (but for one in 2^64).
fn whole(bytes: &[u8], length: u32) -> Option<&[u8]> {
    let body_bytes = usize::try_from(length).ok().filter(|length| *length <= FLIPPED_BYTES_MAX)?;
    let frame = bytes.get(..frame_size(body_bytes))?;
    let mut words = frame.get(WHITE_START..)?.chunks_exact(8);
    words.all(|word| word.iter().any(|byte| *byte != 0)).then_some(frame)
}

/// The bit of a frame, its length excepted, whose change makes its checksum differ by so much.
fn changed_bit(difference: u32, size: usize) -> Option<usize> {
    if difference.is_power_of_two() {
        return Some(4 * 8 + usize::try_from(difference.trailing_zeros()).ok()?);
    }
    // By how much the last bit, the one before it, and so on change the checksum.
    let mut change = POLYNOMIAL;
    for bit in (8 * 8..size * 8).rev() {
        if change == difference {
            return Some(bit);
        }
        change = (change >> 1) ^ if change & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    None
}
