//! What takes resources: readers that do not read, thousands of connections, messages that are large or say so,
//! expressions that are deep. Memory stays within a bound, others are served, and afterwards all is as before.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::live::Victim;
use super::memory::{mib, resident_bytes};
use crate::raw::{self, Raw};

/// Bytes of a message that is almost as large as it may be.
const LARGE: usize = 40 << 20;

/// Sessions that ask for gigabytes and read nothing.
///
/// # Errors
/// Memory grows with what they do not read, or others wait.
pub fn slow_readers(victim: &Victim) -> Result<Value> {
    const READERS: usize = 24;
    let (asked, longest) = victim.beside(|| {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut reader = Raw::session(victim.server.postgres)?;
            reader.say(&raw::query("SELECT repeat('x', 10000) FROM generate_series(1, 200000)"));
            readers.push(reader);
        }
        std::thread::sleep(Duration::from_secs(4));
        // They go without having read.
        Ok(readers.len())
    })?;
    victim.serves()?;
    Ok(json!({ "readers": asked, "growth_mib": victim.growth_mib(), "longest_wait_ms": millis(longest) }))
}

/// Ten thousand connections at once. Beyond what the server takes they are told so or ended, and when they have gone
/// the next one is served.
///
/// # Errors
/// Memory or patience of others runs out.
pub fn connections(victim: &Victim, count: usize) -> Result<Value> {
    // Both ends of each are files.
    for pid in [std::process::id(), victim.server.pid()?] {
        let limit = format!("--nofile={}:{}", count + 2000, count + 2000);
        let output = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).output()?;
        ensure!(output.status.success(), "prlimit: {}", crate::cluster::text(&output));
    }
    let (open, longest) = victim.beside(|| {
        let mut connections = Vec::new();
        let start = raw::startup("postgres", "postgres");
        for number in 0..count {
            let mut connection = Raw::connect(victim.server.postgres)
                .with_context(|| format!("connection {number}: {}", victim.tail()))?;
            // A third says nothing at all, a third half of its first packet, a third all of it.
            match number % 3 {
                0 => {}
                1 => connection.say(&start[..start.len() / 2]),
                _ => connection.say(&start),
            }
            connections.push(connection);
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(connections.len())
    })?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = victim.serves() {
        ensure!(Instant::now() < deadline, "nobody is served after {count} connections have gone: {error:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(json!({ "connections": open, "growth_mib": victim.growth_mib(), "longest_wait_ms": millis(longest) }))
}

/// Messages that say they are large, and some that are.
///
/// # Errors
/// A length is believed before its bytes have come, or memory is not given back.
pub fn giant_messages(victim: &Victim) -> Result<Value> {
    let before = resident_bytes(Some(victim.server.pid()?))?;
    let (with_claims, longest) = victim.beside(|| {
        // Claims of almost the largest message that is taken, with little behind them.
        let mut liars = Vec::new();
        for _ in 0..60 {
            let mut liar = Raw::session(victim.server.postgres)?;
            liar.say(&[&b"Q"[..], &(60_u32 << 20).to_be_bytes(), b"SELECT"].concat());
            liars.push(liar);
        }
        for claim in [0x7fff_ffff_u32, u32::MAX, 0x8000_0000, 0, 3] {
            let mut liar = Raw::session(victim.server.postgres)?;
            liar.say(&[&b"Q"[..], &claim.to_be_bytes(), b"SELECT"].concat());
            let (state, fatal) = liar.error()?;
            ensure!(state == "08P01" && fatal, "a length of {claim} is answered with {state}");
        }
        // Before the login ten thousand bytes are all that is taken.
        for claim in [10_001_u32, 1 << 20, 0x7fff_ffff, u32::MAX, 0, 7] {
            let mut liar = Raw::connect(victim.server.postgres)?;
            liar.say(&claim.to_be_bytes());
            let (state, fatal) = liar.error()?;
            ensure!(state == "08P01" && fatal, "a start-up packet of {claim} bytes is answered with {state}");
        }
        std::thread::sleep(Duration::from_millis(300));
        resident_bytes(Some(victim.server.pid()?))
    })?;
    let claims_growth = mib(with_claims.saturating_sub(before));
    ensure!(claims_growth < 64, "claims alone make memory grow by {claims_growth} MiB");
    // Text of many words and signs, each of which takes much more than its bytes: it is refused before that, and what is
    // just not refused stays within the bound.
    let ((), longest_words) = victim.beside(|| {
        for count in [50_000, 120_000, 400_000, LARGE / 4] {
            let many = |text: &str| text.repeat(count);
            for sql in [
                format!("SELECT 1 WHERE 1 IN (1{})", many(",1")),
                format!("SELECT 1 WHERE 1 IN (1{})", many(" , 1")),
                format!("SELECT 1{}", many(",1")),
                format!("INSERT INTO t (a) VALUES (1){}", many(",(1)")),
                format!("SELECT {}", many("a.")),
            ] {
                let mut session = Raw::session(victim.server.postgres)?;
                session.run("SET statement_timeout = 10000")?;
                let (tags, error) = session.run(&sql)?;
                let is_large = count >= 400_000;
                ensure!(
                    !is_large || error.as_deref() == Some("54001"),
                    "a statement of {} MiB with {count} elements: {error:?} ({tags})",
                    sql.len() >> 20
                );
            }
        }
        Ok(())
    })?;
    let longest = longest.max(longest_words);
    // One that is as large as it says: it may take what it says, for as long as it lasts.
    let mut session = Raw::session(victim.server.postgres)?;
    let text = format!("SELECT length('{}')", "x".repeat(LARGE));
    let (tags, error) = session.run(&text)?;
    ensure!(
        error.is_none() || error.as_deref() == Some("54000"),
        "a statement of {} MiB: {error:?} ({tags})",
        LARGE >> 20
    );
    drop(session);
    victim.serves()?;
    // And it is given back when the session is over, not some time later.
    let after = resident_bytes(Some(victim.server.pid()?))?;
    let kept = mib(after.saturating_sub(before));
    ensure!(kept < 64, "a statement of {} MiB leaves {kept} MiB in use", LARGE >> 20);
    Ok(json!({
        "growth_by_claims_mib": claims_growth, "longest_wait_ms": millis(longest),
        "resident_after_mib": mib(after), "kept_mib": kept,
    }))
}

/// SQL that is deep or long where a parser or a planner recurses.
#[must_use]
pub fn deep_statements(depth: usize) -> Vec<(&'static str, String)> {
    let many = |text: &str| text.repeat(depth);
    let around = |before: &str, middle: &str, after: &str| format!("{}{middle}{}", many(before), many(after));
    vec![
        ("parentheses", format!("SELECT {}", around("(", "1", ")"))),
        ("subqueries", around("SELECT * FROM (", "SELECT 1", ") AS x")),
        ("scalar subqueries", format!("SELECT {}", around("(SELECT ", "1", ")"))),
        ("exists", format!("SELECT {}", around("EXISTS (SELECT 1 WHERE ", "true", ")"))),
        ("minus", format!("SELECT {}1", many("- "))),
        ("not", format!("SELECT {}true", many("NOT "))),
        ("sum", format!("SELECT 1{}", many(" + 1"))),
        ("and", format!("SELECT a FROM t WHERE a = 1{}", many(" AND a = 1"))),
        ("or", format!("SELECT a FROM t WHERE a = 1{}", many(" OR a = 2"))),
        ("concatenation", format!("SELECT 'a'{}", many(" || 'a'"))),
        ("case", format!("SELECT {}", around("CASE WHEN true THEN ", "1", " END"))),
        ("functions", format!("SELECT {}", around("abs(", "1", ")"))),
        ("rows", format!("SELECT {}", around("ROW(1, ", "1", ")"))),
        ("cast functions", format!("SELECT {}", around("CAST(", "1", " AS int)"))),
        ("casts", format!("SELECT 1{}", many("::int"))),
        ("arrays", format!("SELECT {}", around("ARRAY[", "1", "]"))),
        ("array text", format!("SELECT '{}'::int[]", around("{", "1", "}"))),
        ("unions", format!("SELECT 1{}", many(" UNION ALL SELECT 1"))),
        ("joins", format!("SELECT 1 FROM t{}", many(" CROSS JOIN t"))),
        ("nested joins", format!("SELECT 1 FROM {}", around("(", "t", " CROSS JOIN t)"))),
        ("in list", format!("SELECT a FROM t WHERE a IN (1{})", many(", 1"))),
        ("values", format!("VALUES (1){}", many(", (1)"))),
        ("columns", format!("SELECT 1{}", many(", 1"))),
        ("with", format!("{}SELECT 1{}", many("WITH x AS ("), many(") SELECT * FROM x"))),
        ("explain", format!("{}SELECT 1", many("EXPLAIN "))),
        ("comments", format!("SELECT {}1{}", many("/*"), many("*/"))),
        ("brackets", format!("SELECT (ARRAY[1]){}", many("[1]"))),
        ("like any", format!("SELECT 'a' ~ '{}'", around("(", "a", ")"))),
        ("statements", format!("SELECT 1{}", many(";"))),
        ("savepoints", format!("BEGIN{}; ROLLBACK", many("; SAVEPOINT a"))),
        ("is null", format!("SELECT 1{}", many(" IS NULL"))),
        ("collate", format!("SELECT 'a'{}", many(" COLLATE \"C\""))),
        ("between", format!("SELECT {}1", many("1 BETWEEN 0 AND "))),
        ("interval", format!("SELECT {}", around("interval ", "'1 day'", ""))),
        ("open parentheses", format!("SELECT {}", many("("))),
        ("open brackets", format!("SELECT ARRAY{}", many("["))),
    ]
}

/// Every deep statement at several depths, as a Query and as a Parse: the session answers.
///
/// # Errors
/// The server is gone, a session ends, or others wait.
pub fn deep_nesting(victim: &Victim, deadline: Instant) -> Result<Value> {
    let mut refused = std::collections::BTreeMap::<String, u64>::new();
    let mut grew = std::collections::BTreeMap::<String, u64>::new();
    let (count, longest) = victim.beside(|| {
        let mut count = 0_u64;
        for depth in [40, 400, 4_000, 40_000] {
            for (name, sql) in deep_statements(depth) {
                if Instant::now() > deadline {
                    return Ok(count);
                }
                let mut session = Raw::session(victim.server.postgres)?;
                session.run("SET statement_timeout = 3000")?;
                let what = || format!("{name}, {depth} deep: {}", victim.tail());
                let before = victim.growth_mib();
                let (_, error) = session.run(&sql).with_context(what)?;
                *refused.entry(error.unwrap_or_else(|| "none".to_owned())).or_default() += 1;
                session.say(
                    &[raw::parse("", &sql), raw::message(b'D', b"S\0"), raw::message(b'S', &[])].concat(),
                );
                session.until(b"Z").with_context(what)?;
                count += 1;
                victim.look()?;
                let more = victim.growth_mib().saturating_sub(before);
                if more > 0 {
                    grew.insert(format!("{name}, {depth}"), more);
                }
            }
        }
        Ok(count)
    })?;
    victim.serves()?;
    Ok(
        json!({ "statements": count, "answers": refused, "peaks_mib": grew, "growth_mib": victim.growth_mib(), "longest_wait_ms": millis(longest) }),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
