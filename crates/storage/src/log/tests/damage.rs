//! Bytes that are not what was written: torn tails are cut, everything else is refused.

use std::fs;
use std::path::PathBuf;

use super::super::frame;
use super::super::record::Record;
use super::super::segment::{self, SEGMENT_HEADER_BYTES, SegmentEnd, SegmentHeader};
use super::*;

/// A log of several batches; returns the folder and the entries of its one group.
async fn written(size: usize, batches: u64) -> (tempfile::TempDir, Vec<LogEntry>) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    // The first note of the end, which the thread beside the log writes.
    let is_noted =
        || fs::read(dir.path().join("END")).is_ok_and(|note| note.first().is_some_and(|byte| *byte != 0));
    for _ in 0..6000 {
        if is_noted() {
            break;
        }
        Env::os().sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(is_noted());
    let one = log.group(group(1));
    for batch in 0..batches {
        append(&one, entries(1, batch * 3..batch * 3 + 3, size)).await.unwrap();
    }
    let all = all(&one);
    log.close().await;
    (dir, all)
}

fn first_file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("0000000000000001.log")
}

/// Offsets of all frames, and the end.
fn frames(bytes: &[u8]) -> (Vec<u64>, u64) {
    let header = SegmentHeader::decode(std::path::Path::new("x"), bytes).unwrap();
    let mut offsets = Vec::new();
    let end = segment::walk(bytes, header.seed(), |offset, _| {
        offsets.push(offset);
        Ok::<(), ()>(())
    });
    (offsets, end.unwrap().end)
}

/// Leaves nothing of a log but one segment.
fn only_segment(dir: &tempfile::TempDir, bytes: &[u8]) {
    for file in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    fs::write(first_file(dir), bytes).unwrap();
}

/// A log cut off at any byte of its last batch opens with the entries that are whole, in the right state, and can
/// be written again. Where so little is cut off that one bit differs, it is one that has changed since; disks cut at
/// sectors, where that cannot be.
#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let (dir, all_entries) = written(30, 4).await;
    let path = first_file(&dir);
    let bytes = fs::read(&path).unwrap();
    let (offsets, _) = frames(&bytes);
    // The last frame says that the log was closed; before it lies the last batch of three entries.
    let batch_start = usize::try_from(offsets[offsets.len() - 4]).unwrap();
    let batch_end = usize::try_from(offsets[offsets.len() - 1]).unwrap();
    for cut in batch_start..batch_end {
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        only_segment(&dir, &torn);
        let next_frame = offsets.iter().copied().find(|offset| *offset > cut as u64).unwrap();
        let changed = cut..usize::try_from(next_frame).unwrap();
        let changed_bits: u32 = bytes[changed].iter().map(|byte| byte.count_ones()).sum();
        if changed_bits == 1 {
            assert!(matches!(Log::open(&Env::os(), dir.path(), small()), Err(LogError::Corrupt { .. })));
            continue;
        }
        let log = open(dir.path());
        let one = log.group(group(1));
        let kept = all(&one);
        let whole = offsets.iter().filter(|offset| **offset <= cut as u64).count();
        assert!(kept.len() >= 9 && all_entries.starts_with(&kept), "cut at {cut}: {} entries", kept.len());
        assert!(kept.len() + 3 >= whole - 1, "cut at {cut}: {} of {whole} frames", kept.len());
        let next = kept.len() as u64;
        append(&one, vec![entry(2, next, 10)]).await.unwrap();
        log.close().await;
        drop((log, one));
        let log = open(dir.path());
        let again = all(&log.group(group(1)));
        assert_eq!(again.len() as u64, next + 1);
        assert_eq!(again.last(), Some(&entry(2, next, 10)));
        log.close().await;
    }
}

/// The pages of one write may reach the disk in any order: a hole in the last batch with whole frames of the same
/// batch behind it is a torn tail, and those frames never come back.
#[tokio::test]
async fn a_hole_in_the_last_batch_is_a_torn_tail() {
    let (dir, all_entries) = written(30, 4).await;
    let path = first_file(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let (offsets, end) = frames(&bytes);
    let hole = usize::try_from(offsets[offsets.len() - 4]).unwrap();
    let close = usize::try_from(offsets[offsets.len() - 1]).unwrap();
    bytes[close..usize::try_from(end).unwrap()].fill(0);
    bytes[hole + 24..hole + 48].fill(0);
    fs::write(&path, &bytes).unwrap();
    // As if it had crashed before it was noted how far it is.
    fs::remove_file(dir.path().join("END")).unwrap();
    let log = open(dir.path());
    let one = log.group(group(1));
    assert_eq!(all(&one), all_entries[..9]);
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is written where the torn batch was");
    // A new frame of exactly the size of the lost one ends where an old whole frame began.
    append(&one, vec![entry(2, 9, 30)]).await.unwrap();
    log.close().await;
    drop((log, one));
    let log = open(dir.path());
    assert_eq!(all(&log.group(group(1))).len(), 10);
}

/// After a good close nothing can be gone without a trace: neither frames, wherever the zeros begin, nor segments.
#[tokio::test]
async fn an_end_that_is_gone_is_refused_after_a_good_close() {
    let (dir, _) = written(30, 4).await;
    let path = first_file(&dir);
    let bytes = fs::read(&path).unwrap();
    let (offsets, _) = frames(&bytes);
    let before = fs::read(dir.path().join("END")).unwrap();
    for offset in &offsets[1..] {
        let mut cut = bytes.clone();
        cut[usize::try_from(*offset).unwrap()..].fill(0);
        fs::write(&path, &cut).unwrap();
        let refused = Log::open(&Env::os(), dir.path(), small());
        assert!(matches!(refused, Err(LogError::Corrupt { .. })), "from {offset}: {refused:?}");
        assert_eq!(fs::read(&path).unwrap(), cut, "nothing is written");
        assert_eq!(fs::read(dir.path().join("END")).unwrap(), before);
    }
    fs::write(&path, &bytes).unwrap();
    assert_eq!(all(&open(dir.path()).group(group(1))).len(), 12);

    let (dir, _) = written(4000, 12).await;
    let last = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    let last = last.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    assert_ne!(last, first_file(&dir));
    // The name may have gone back to what it was before, which would be a spare of no use.
    let spare = dir.path().join("spare-00000000000000ff");
    fs::rename(&last, &spare).unwrap();
    let content = fs::read(&spare).unwrap();
    fs::write(&spare, [&content[..], &[0; 4096]].concat()).unwrap();
    let refused = Log::open(&Env::os(), dir.path(), small());
    assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{refused:?}");
    assert!(fs::read(&spare).unwrap().starts_with(&content), "what may be the end is still there");
}

/// What stands in for it is told from it, and a note that cannot be read is none.
#[tokio::test]
async fn another_log_is_refused_and_a_note_that_is_gone_proves_nothing() {
    let ((dir, _), (other, _)) = (written(30, 4).await, written(30, 8).await);
    let note = dir.path().join("END");
    let own = fs::read(&note).unwrap();
    let is_written = |page: usize| own[page * 4096] != 0;
    assert!(is_written(0) && is_written(1), "at the start and at the close");
    fs::copy(first_file(&other), first_file(&dir)).unwrap();
    let refused = Log::open(&Env::os(), dir.path(), small());
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("not the one")), "{refused:?}");
    // Where one slot cannot be read the other counts.
    let without_first = [&[0; 4096][..], &own[4096..]].concat();
    for one_slot in [without_first, own[..4096].to_vec()] {
        fs::write(&note, one_slot).unwrap();
        Log::open(&Env::os(), dir.path(), small()).unwrap_err();
    }
    for damaged in
        [Vec::new(), vec![0; own.len()], own.iter().map(|byte| byte ^ 1).collect(), own[..30].to_vec()]
    {
        fs::write(&note, &damaged).unwrap();
        let log = open(dir.path());
        assert_eq!(all(&log.group(group(1))).len(), 24);
        log.close().await;
        drop(log);
        assert_ne!(fs::read(&note).unwrap(), damaged, "it is written again");
    }
}

#[tokio::test]
async fn damage_before_the_last_batch_is_refused_and_nothing_is_cut() {
    let (dir, _) = written(30, 4).await;
    let path = first_file(&dir);
    let bytes = fs::read(&path).unwrap();
    let (offsets, _) = frames(&bytes);
    for offset in &offsets[..offsets.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[usize::try_from(*offset).unwrap() + 9] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let refused = Log::open(&Env::os(), dir.path(), small());
        assert!(matches!(refused, Err(LogError::Corrupt { .. })), "frame at {offset}: {refused:?}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

#[tokio::test]
async fn missing_shortened_and_foreign_files_are_refused() {
    let (dir, _) = written(4000, 12).await;
    let name = |number: u32| dir.path().join(format!("{number:016x}.log"));
    assert!(name(3).exists());
    let first = fs::read(name(1)).unwrap();
    let second = fs::read(name(2)).unwrap();
    let refused = |why: &str| {
        let result = Log::open(&Env::os(), dir.path(), small());
        let Err(error) = result else { panic!("opened with {why}") };
        assert!(error.to_string().contains(why), "{error}");
    };
    fs::remove_file(name(2)).unwrap();
    refused("missing");
    fs::write(name(2), &first).unwrap();
    refused("differs from the file's name");
    fs::write(name(2), &second[..second.len() - 1]).unwrap();
    refused("its header says");
    fs::write(name(2), [0u8; 10]).unwrap();
    refused("shorter");
    let mut later = second.clone();
    later[8] = 3;
    fs::write(name(2), &later).unwrap();
    refused("checksum");
    fs::write(name(2), &second).unwrap();
    fs::rename(name(1), dir.path().join("elsewhere")).unwrap();
    refused("which is missing");
    fs::write(name(1), &first).unwrap();
    let mut damaged = first.clone();
    let (offsets, _) = frames(&first);
    damaged[usize::try_from(*offsets.last().unwrap()).unwrap() + 30] ^= 1;
    fs::write(name(1), &damaged).unwrap();
    refused("frames were written up to");
    fs::write(name(1), &first).unwrap();
    open(dir.path());
}

/// A log of 64 KiB, full of frames of several batches.
fn full_segment() -> (SegmentHeader, Vec<u8>) {
    let id = segment::SegmentId(3);
    let header = SegmentHeader { id, salt: 0x1234_5678_9abc_def0, previous_end: 0, size_bytes: 64 << 10 };
    let mut bytes = header.encode().to_vec();
    let mut at = 0;
    let mut batch = SEGMENT_HEADER_BYTES;
    while bytes.len() < 64 << 10 {
        if at % 5 == 0 {
            batch = bytes.len();
        }
        let room = (64 << 10) - bytes.len() - frame::FRAME_HEADER_BYTES;
        let mut body = vec![u8::try_from(at % 256).unwrap(); (100 + at % 61).min(room)];
        // No room may be left that holds no frame.
        if room - body.len() < 2 * frame::FRAME_HEADER_BYTES {
            body.resize(room, 7);
        }
        let offset = bytes.len() as u64;
        let head = (1, u32::try_from(batch).unwrap(), 2);
        frame::encode(&mut bytes, header.seed(), offset, head, &[&body]);
        at += 1;
    }
    assert_eq!(bytes.len(), 64 << 10);
    (header, bytes)
}

/// All 524,288 flips: the header or the frame that holds the bit no longer validates, so the walk ends before it.
#[test]
fn every_flipped_bit_of_64_kib_is_detected() {
    let (header, mut bytes) = full_segment();
    let path = std::path::Path::new("0000000000000003.log");
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(path, &bytes).is_err(), "bit {bit} of the header");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    let (mut offsets, end) = frames(&bytes);
    assert_eq!(end, 64 << 10);
    offsets.push(end);
    let mut flips = SEGMENT_HEADER_BYTES * 8;
    for pair in offsets.windows(2) {
        let (start, end) = (usize::try_from(pair[0]).unwrap(), usize::try_from(pair[1]).unwrap());
        for bit in start * 8..end * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(frame::decode(&bytes[start..], header.seed(), pair[0]), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
    }
    assert_eq!(flips, 524_288);
}

/// Wherever a bit is flipped, it is not taken for a batch that a crash has torn; sampled, since each look reads on to
/// the end.
#[test]
fn a_flipped_bit_is_corruption_in_any_batch() {
    let (header, mut bytes) = full_segment();
    for bit in (SEGMENT_HEADER_BYTES * 8..bytes.len() * 8).step_by(1009) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let walked = segment::walk(&bytes, header.seed(), |_, _| Ok::<(), ()>(())).unwrap();
        let found = segment::classify(&bytes, header.seed(), walked);
        assert!(matches!(found, SegmentEnd::Corrupt { .. }), "bit {bit}: {found:?}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Every bit of a frame that nothing follows, in a segment that was used before.
#[test]
fn every_flipped_bit_of_the_last_frame_is_told_from_a_torn_one() {
    for size in [0, 1, 7, 8, 300] {
        let header = SegmentHeader { id: segment::SegmentId(9), salt: 77, previous_end: 0, size_bytes: 4096 };
        let former = SegmentHeader { salt: 78, ..header };
        let mut bytes = full_segment().1;
        bytes.truncate(4096);
        bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
        let mut frames = Vec::new();
        frame::encode(&mut frames, header.seed(), 64, (1, 64, 2), &[b"first"]);
        let last = frames.len();
        frame::encode(
            &mut frames,
            header.seed(),
            64 + last as u64,
            (1, 64 + last as u32, 2),
            &[&vec![3; size]],
        );
        let end = frames.len();
        frame::encode(&mut frames, former.seed(), 64 + end as u64, (1, 64 + end as u32, 2), &[b"former use"]);
        bytes[64..64 + frames.len()].copy_from_slice(&frames);
        let look = |bytes: &[u8]| {
            let walked = segment::walk(bytes, header.seed(), |_, _| Ok::<(), ()>(())).unwrap();
            segment::classify(bytes, header.seed(), walked)
        };
        let sound = look(&bytes);
        assert!(
            matches!(sound, SegmentEnd::Torn { end: found, .. } if found == 64 + end as u64),
            "{sound:?}"
        );
        for bit in (64 + last) * 8..(64 + end) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = look(&bytes);
            assert!(matches!(found, SegmentEnd::Corrupt { .. }), "bit {bit}: {found:?}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // More than one bit may be what a crash has left.
        bytes[64 + last..64 + last + 20].fill(0);
        let torn = look(&bytes);
        assert!(matches!(torn, SegmentEnd::Torn { end, .. } if end == 64 + last as u64), "{torn:?}");
    }
}

/// A batch whose bodies are zeros but for one bit, wherever its frames come to lie among the sectors and whichever of
/// those a crash has left as they were, in a new file and in one that was used for the same before: that is a torn
/// batch, and not one of which a bit has changed.
#[test]
fn no_torn_batch_looks_like_one_of_which_a_bit_has_changed() {
    const SECTOR: usize = 512;
    let former = SegmentHeader { id: segment::SegmentId(4), salt: 5, previous_end: 0, size_bytes: 4096 };
    let header = SegmentHeader { id: segment::SegmentId(9), salt: 77, ..former };
    let filled = |header: SegmentHeader, before: &[u8], size: usize, bit: Option<usize>| {
        let mut bytes = header.encode().to_vec();
        frame::encode(&mut bytes, header.seed(), 64, (1, 64, 2), &[b"durable"]);
        let start = bytes.len();
        for _ in 0..2 {
            let mut body = vec![0; size];
            if let Some(bit) = bit {
                body[bit / 8] |= 1 << (bit % 8);
            }
            let offset = bytes.len() as u64;
            let batch = u32::try_from(start).unwrap();
            frame::encode(&mut bytes, header.seed(), offset, (1, batch, 2), &[&body]);
        }
        let end = bytes.len();
        bytes.extend_from_slice(&before[end..]);
        (start, end, bytes)
    };
    let mut torn_in_the_middle = 0;
    for size in (1..1100).step_by(11) {
        for bit in [0, size / 2 * 8 + 3, size * 8 - 1] {
            for used in [false, true] {
                let before = if used { filled(former, &[0; 4096], size, None).2 } else { vec![0; 4096] };
                let (start, end, bytes) = filled(header, &before, size, Some(bit));
                for kept in 0..1_u32 << end.div_ceil(SECTOR).min(6) {
                    let mut torn = bytes.clone();
                    for sector in (0..end.div_ceil(SECTOR)).filter(|sector| kept & (1 << sector) == 0) {
                        let lost = (sector * SECTOR).max(start)..((sector + 1) * SECTOR).max(start);
                        torn[lost.clone()].copy_from_slice(&before[lost]);
                    }
                    let walked = segment::walk(&torn, header.seed(), |_, _| Ok::<(), ()>(())).unwrap();
                    torn_in_the_middle += usize::from(walked.end > start as u64 && walked.end < end as u64);
                    let found = segment::classify(&torn, header.seed(), walked);
                    assert!(
                        !matches!(found, SegmentEnd::Corrupt { .. }),
                        "{size} bytes, bit {bit}, file used before: {used}, sectors {kept:b}: {found:?}"
                    );
                }
            }
        }
    }
    assert!(torn_in_the_middle > 100, "{torn_in_the_middle}");
}

#[test]
fn frames_do_not_validate_elsewhere() {
    let (header, bytes) = full_segment();
    let (offsets, _) = frames(&bytes);
    let start = usize::try_from(offsets[3]).unwrap();
    let here = frame::decode(&bytes[start..], header.seed(), offsets[3]).unwrap();
    assert!(Record::decode(&here).is_some());
    assert_eq!(frame::decode(&bytes[start..], header.seed(), offsets[3] + 8), None);
    let reused = SegmentHeader { salt: header.salt ^ 1, ..header };
    assert_eq!(frame::decode(&bytes[start..], reused.seed(), offsets[3]), None);
    let other = SegmentHeader { id: segment::SegmentId(4), ..header };
    assert_eq!(frame::decode(&bytes[start..], other.seed(), offsets[3]), None);
}

/// A frame left over from before a crash that happens to begin where a new batch ends does not continue it.
#[test]
fn a_left_over_frame_does_not_continue_a_newer_batch() {
    let id = segment::SegmentId(1);
    let header = SegmentHeader { id, salt: 5, previous_end: 0, size_bytes: 4096 };
    let mut bytes = header.encode().to_vec();
    let put = |bytes: &mut Vec<u8>, batch: u64| {
        let offset = bytes.len() as u64;
        frame::encode(bytes, header.seed(), offset, (1, u32::try_from(batch).unwrap(), 2), &[b"body"]);
        offset
    };
    let first = put(&mut bytes, 64);
    let old_batch = put(&mut bytes, first);
    let new_batch = put(&mut bytes, start_of(3));
    let stale = put(&mut bytes, old_batch);
    bytes.resize(4096, 0);
    let (offsets, end) = frames(&bytes);
    assert_eq!(offsets, vec![first, old_batch, new_batch]);
    assert_eq!(end, stale);
    let walked = segment::walk(&bytes, header.seed(), |_, _| Ok::<(), ()>(())).unwrap();
    let found = segment::classify(&bytes, header.seed(), walked);
    assert!(matches!(found, SegmentEnd::Torn { leftovers_end, .. } if leftovers_end > stale), "{found:?}");
}

/// Where the frame of this number begins, counted from 1, when all have four bytes of body.
fn start_of(number: u64) -> u64 {
    64 + (number - 1) * frame::frame_size(4) as u64
}
