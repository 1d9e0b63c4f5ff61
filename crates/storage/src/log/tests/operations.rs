//! What the log does when nothing goes wrong, and what it refuses.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::{LogErrorKind, dump};
use super::*;

#[tokio::test]
async fn entries_votes_and_positions_come_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let one = log.group(group(1));
    assert_eq!(one.state(), super::super::GroupLogState::default());
    append(&one, entries(1, 0..5, 20)).await.unwrap();
    done(|completion| one.save_vote(Bytes::from_static(b"vote 1"), completion)).await.unwrap();
    one.save_committed(Bytes::from_static(b"at 3"));
    append(&one, entries(2, 5..7, 20)).await.unwrap();
    let state = one.state();
    let written = all(&one);
    log.close().await;
    drop((log, one));
    let log = open(dir.path());
    let one = log.group(group(1));
    assert_eq!(one.state(), state);
    assert_eq!(state.last, Some(position(2, 6)));
    assert_eq!(state.committed.as_deref(), Some(&b"at 3"[..]));
    assert_eq!(all(&one), written);
    assert_eq!(written.len(), 7);
    assert_eq!(log.groups(), vec![group(1)]);
}

#[tokio::test]
async fn completions_come_in_the_order_of_submission_over_all_groups() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..200u64 {
        let order = Arc::clone(&order);
        let completion: Completion = Box::new(move |result| {
            result.unwrap();
            order.lock().push(number);
        });
        let one = log.group(group(1 + number % 3));
        match number % 4 {
            0 => one.save_vote(Bytes::from(number.to_string()), completion),
            _ => one.append(
                vec![entry(1, one.state().last.map_or(0, |last| last.index.get() + 1), 10)],
                completion,
            ),
        }
    }
    done(|completion| log.remove_group(group(9), completion)).await.unwrap();
    assert_eq!(*order.lock(), (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_groups_over_many_segments_are_read_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for round in 0..60u64 {
        for id in 1..=8 {
            append(&log.group(group(id)), entries(1 + round / 20, round * 5..round * 5 + 5, 60))
                .await
                .unwrap();
        }
    }
    assert!(log.stats().segment_count > 3);
    let before: Vec<_> = (1..=8).map(|id| all(&log.group(group(id)))).collect();
    assert!(before.iter().all(|entries| entries.len() == 300));
    log.close().await;
    let log = open(dir.path());
    for id in 1..=8u64 {
        assert_eq!(all(&log.group(group(id))), before[usize::try_from(id).unwrap() - 1]);
    }
    let tail = log.group(group(3)).read(index(290)..index(295), 1).unwrap();
    assert_eq!(tail, vec![entry(3, 290, 60)]);
}

#[tokio::test]
async fn truncated_entries_are_replaced_and_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let one = log.group(group(1));
    append(&one, entries(1, 0..10, 30)).await.unwrap();
    done(|completion| one.truncate_after(Some(index(5)), completion)).await.unwrap();
    assert_eq!(one.state().last, Some(position(1, 5)));
    append(&one, entries(4, 6..8, 30)).await.unwrap();
    let expected: Vec<_> = entries(1, 0..6, 30).into_iter().chain(entries(4, 6..8, 30)).collect();
    assert_eq!(all(&one), expected);
    log.close().await;
    let log = open(dir.path());
    let one = log.group(group(1));
    assert_eq!(all(&one), expected);
    done(|completion| one.truncate_after(None, completion)).await.unwrap();
    assert_eq!(one.state().last, None);
    append(&one, entries(5, 0..1, 30)).await.unwrap();
    assert_eq!(all(&one), entries(5, 0..1, 30));
}

#[tokio::test]
async fn purged_segments_are_used_again_and_an_idle_group_pins_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (idle, busy) = (log.group(group(1)), log.group(group(2)));
    append(&idle, entries(1, 0..3, 50)).await.unwrap();
    done(|completion| idle.save_vote(Bytes::from_static(b"idle"), completion)).await.unwrap();
    let opaque = Bytes::from_static(b"membership");
    for round in 0..80u64 {
        append(&busy, entries(1, round * 20..round * 20 + 20, 400)).await.unwrap();
        let through = position(1, round * 20 + 18);
        done(|completion| busy.purge_through(through, opaque.clone(), completion)).await.unwrap();
    }
    assert!(log.stats().segment_count > 5);
    assert_eq!(log.stats().oldest_group, Some(group(1)));
    assert_eq!(idle.last_behind(1), Some(index(2)));
    assert_eq!(idle.last_behind(log.stats().segment_bytes + 1), None, "the log is shorter");
    done(|completion| idle.purge_through(position(1, 2), opaque.clone(), completion)).await.unwrap();
    assert!(log.stats().segment_count <= 2, "{:?}", log.stats());
    assert_eq!(idle.last_behind(1), None);
    let first = one_error(busy.read(index(5)..index(6), 1));
    assert_eq!(first.kind(), LogErrorKind::Misuse);
    log.close().await;
    let log = open(dir.path());
    let (idle, busy) = (log.group(group(1)), log.group(group(2)));
    assert_eq!(idle.state().vote.as_deref(), Some(&b"idle"[..]));
    assert_eq!(idle.state().purged, Some((position(1, 2), opaque.clone())));
    assert_eq!(idle.state().last, Some(position(1, 2)));
    assert_eq!(all(&busy), entries(1, 1599..1600, 400));
    append(&idle, entries(2, 3..4, 50)).await.unwrap();
    // A snapshot from elsewhere: the purge lies behind everything.
    done(|completion| busy.purge_through(position(7, 9000), opaque.clone(), completion)).await.unwrap();
    assert_eq!(busy.state().last, Some(position(7, 9000)));
    append(&busy, entries(8, 9001..9002, 50)).await.unwrap();
    log.close().await;
    let log = open(dir.path());
    assert_eq!(all(&log.group(group(2))), entries(8, 9001..9002, 50));
    assert_eq!(all(&log.group(group(1))), entries(2, 3..4, 50));
}

fn one_error<T: std::fmt::Debug>(result: Result<T, LogError>) -> LogError {
    result.unwrap_err()
}

#[tokio::test]
async fn a_removed_group_is_gone_and_may_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let one = log.group(group(1));
    append(&one, entries(1, 0..3, 50)).await.unwrap();
    done(|completion| log.remove_group(group(1), completion)).await.unwrap();
    assert!(log.groups().is_empty());
    append(&one, entries(9, 40..42, 50)).await.unwrap();
    log.close().await;
    let log = open(dir.path());
    assert_eq!(all(&log.group(group(1))), entries(9, 40..42, 50));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let one = log.group(group(1));
    append(&one, entries(1, 0..3, 50)).await.unwrap();
    let gap = append(&one, entries(1, 4..5, 50)).await;
    assert!(matches!(gap, Err(LogError::Gap { expected, .. }) if expected == index(3)), "{gap:?}");
    let large = append(&one, entries(1, 3..4, 33 << 10)).await;
    assert!(matches!(large, Err(LogError::TooLarge { .. })), "{large:?}");
    let inner = append(&one, vec![entry(1, 3, 5), entry(1, 5, 5)]).await;
    assert!(matches!(inner, Err(LogError::Gap { .. })), "{inner:?}");
    append(&one, entries(1, 3..4, 32 << 10)).await.unwrap();
    assert_eq!(all(&one).len(), 4);
    log.close().await;
    let closed = append(&one, entries(1, 4..5, 5)).await;
    assert!(matches!(closed, Err(LogError::Closed)), "{closed:?}");
}

#[tokio::test]
async fn the_queue_has_a_bound_and_ready_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { queue_bytes_max: 1, ..small() };
    let log = Log::open(&Env::os(), dir.path(), config).unwrap();
    let one = log.group(group(1));
    let mut answers = Vec::new();
    for at in 0..50 {
        one.ready().await;
        let (sender, receiver) = oneshot::channel();
        one.append(vec![entry(1, at, 50)], Box::new(move |result| drop(sender.send(result))));
        answers.push(receiver);
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_second_opening_of_the_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let second = one_error(Log::open(&Env::os(), dir.path(), small()));
    assert!(second.to_string().ends_with("is in use by another process"), "{second}");
    log.close().await;
    open(dir.path());
}

#[tokio::test]
async fn a_dump_names_every_frame() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let one = log.group(group(4));
    append(&one, entries(2, 0..1, 5)).await.unwrap();
    done(|completion| one.save_vote(Bytes::from_static(b"v"), completion)).await.unwrap();
    log.close().await;
    let lines = dump(&Env::os(), &dir.path().join("0000000000000001.log")).unwrap().join("\n");
    for expected in
        ["segment 1", "checkpoint end, 0 groups", "group 4", "entry 2-0 [5 bytes", "vote [1", "closed"]
    {
        assert!(lines.contains(expected), "no {expected:?} in\n{lines}");
    }
}

#[test]
fn sizes_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for config in [
        LogConfig { segment_bytes: 4096, ..small() },
        LogConfig { segment_bytes: 100_001, ..small() },
        LogConfig { spare_count: 0, ..small() },
    ] {
        let error = one_error(Log::open(&Env::os(), dir.path(), config));
        assert!(matches!(error, LogError::InvalidConfig { .. }), "{error}");
    }
}

/// The first segment is smaller than the others; an entry too large for it goes into the second.
#[tokio::test]
async fn an_entry_larger_than_the_first_segment_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 16 << 20, ..small() };
    let log = Log::open(&Env::os(), dir.path(), config).unwrap();
    let one = log.group(group(1));
    append(&one, vec![entry(1, 0, 10), entry(1, 1, 8 << 20), entry(1, 2, 8 << 20)]).await.unwrap();
    let written = all(&one);
    log.close().await;
    let log = Log::open(&Env::os(), dir.path(), config).unwrap();
    assert_eq!(all(&log.group(group(1))), written);
    assert_eq!(written.len(), 3);
}
