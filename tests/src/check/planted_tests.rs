//! Planted anomalies: small histories of which each shows one, and the levels that forbid it. Both checkers must say so.
//!
//! A transaction is written `BEGAN-ENDED steps`, with `!` before it when it was refused and `?` when its end is unknown:
//! `ax1` appends 1 to list x, `rx12` finds 1 and 2 in it. Each has a process of its own unless `@N` names one.

use super::history::{Operation, Step, Told};
use super::lists::{Level, check};
use super::second;

/// Reads the notation.
fn history(text: &[&str]) -> Vec<Operation> {
    text.iter().enumerate().map(|(at, line)| operation(at, line)).collect()
}

fn operation(at: usize, line: &str) -> Operation {
    let (told, line) = match line.split_at(1) {
        ("!", rest) => (Told::Refused, rest),
        ("?", rest) => (Told::Unknown, rest),
        _ => (Told::Acknowledged, line),
    };
    let mut words = line.split(' ');
    let (began, ended) = words.next().unwrap().split_once('-').unwrap();
    let mut process = u64::try_from(at).unwrap() + 100;
    let mut steps = Vec::new();
    for word in words {
        let (kind, rest) = word.split_at(1);
        let digits: Vec<u64> = rest.chars().filter_map(|c| Some(u64::from(c.to_digit(10)?))).collect();
        let key = u64::from(rest.as_bytes()[0]);
        match kind {
            "@" => process = digits[0],
            "a" => steps.push(Step::Append { key, value: digits[0] }),
            _ => steps.push(Step::List { key, found: digits }),
        }
    }
    Operation { process, began: began.parse().unwrap(), ended: ended.parse().unwrap(), told, steps }
}

/// The history, the name of what is wrong with it, and the weakest level that forbids it.
fn planted() -> Vec<(&'static str, Level, Vec<Operation>)> {
    use Level::{ReadCommitted, Serializable, Snapshot};
    let planted: &[(&str, Level, &[&str])] = &[
        ("G0", ReadCommitted, &["0-9 ax1 ay1", "1-8 ax2 ay2", "20-21 rx12 ry21"]),
        ("G1a", ReadCommitted, &["!0-3 ax1", "4-5 rx1"]),
        ("G1b", ReadCommitted, &["0-9 ax1 ax2", "1-8 rx1", "20-21 rx12"]),
        ("G1c", ReadCommitted, &["0-9 ax1 ry1", "1-8 ay1 rx1"]),
        ("duplicate", ReadCommitted, &["0-3 ax1", "4-5 rx11"]),
        ("phantom", ReadCommitted, &["0-3 ax1", "4-5 rx17"]),
        ("incompatible-order", ReadCommitted, &["0-9 ax1", "1-8 ax2", "20-21 rx12", "22-23 rx21"]),
        ("lost-append", ReadCommitted, &["0-3 ax1", "4-5 ax2", "20-21 rx1"]),
        ("internal", ReadCommitted, &["0-3 ax1 rx"]),
        ("internal", Snapshot, &["0-9 rx rx1", "1-2 ax1"]),
        ("G1c-realtime", ReadCommitted, &["5-9 ax1", "0-3 rx1"]),
        ("G-single", Snapshot, &["0-9 rx ry1", "1-8 ax1 ay1", "20-21 rx1 ry1"]),
        ("G-single", Snapshot, &["0-9 rx ax1", "1-8 rx ax2", "20-21 rx12"]),
        ("G-single-process", Snapshot, &["0-3 @1 ax1", "5-6 @1 rx", "20-21 rx1"]),
        ("G-single-realtime", Snapshot, &["0-3 ax1", "5-6 rx", "20-21 rx1"]),
        ("G-nonadjacent", Snapshot, &["0-9 rx1 ry", "0-9 ry1 rx", "1-8 ax1", "1-8 ay1", "20-21 rx1 ry1"]),
        ("G2", Serializable, &["0-9 rx ry ax1", "1-8 rx ry ay1", "20-21 rx1 ry1"]),
        ("G2", Serializable, &["0-9 rx ay1", "1-8 ry az1", "2-7 rz ax1", "20-21 rx1 ry1 rz1"]),
        // What nobody knows happened, as it was seen, and then it was gone.
        ("G-single-realtime", Snapshot, &["?0-3 ax1", "5-6 rx1", "10-11 rx", "20-21 rx1"]),
    ];
    planted.iter().map(|(name, level, text)| (*name, *level, history(text))).collect()
}

#[test]
fn planted_anomalies_are_found_at_their_levels() {
    for (name, weakest, history) in planted() {
        for level in Level::ALL {
            let found: Vec<String> = check(&history, level).into_iter().map(|anomaly| anomaly.name).collect();
            if level >= weakest {
                assert!(
                    found.iter().any(|found| found == name),
                    "{name} at {level:?}: {found:?}\n{history:#?}"
                );
            } else {
                assert!(found.is_empty(), "{name} is allowed at {level:?}: {found:?}\n{history:#?}");
            }
        }
    }
}

#[test]
fn adya_finds_them_too() {
    for (name, weakest, history) in planted() {
        // It gives no such verdicts: a value that is never read again is in no order of versions, one that nobody
        // appended is taken as given, and READ COMMITTED is not asked to see its own appends.
        if ["lost-append", "phantom"].contains(&name) || (name, weakest) == ("internal", Level::ReadCommitted)
        {
            continue;
        }
        for level in Level::ALL {
            let found = second::check(&history, second::Kind::Lists, level).unwrap();
            assert_eq!(!found.is_empty(), level >= weakest, "{name} at {level:?}: {found:?}");
        }
    }
}

#[test]
fn right_histories_pass() {
    let right: &[&[&str]] = &[
        &["0-5 rx ax1", "1-4 rx", "6-9 rx1 ax2 ay1", "7-8 rx1 ry", "20-21 rx12 ry1"],
        &["?0-3 ax1", "5-6 rx", "7-8 rx1", "9-10 rx1"],
        &["?0-3 ax1", "5-6 rx", "20-21 rx"],
        &["!0-3 ax1", "5-6 ax2", "20-21 rx2"],
        &["0-3 ax1 ax2 rx12", "20-21 rx12"],
    ];
    for text in right {
        let history = history(text);
        for level in Level::ALL {
            assert_eq!(check(&history, level), [], "{text:?}");
            assert_eq!(second::check(&history, second::Kind::Lists, level).unwrap(), [""; 0], "{text:?}");
        }
    }
}
