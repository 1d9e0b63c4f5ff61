//! The same statements on RustyDB and on a PostgreSQL of the machine: rows, types, counts and SQLSTATEs must be equal.
//!
//! A seed gives a schema, its data and statements over it. Rows whose order no ORDER BY tells are compared without it.
//! Where exactly one of both raises a data exception while it runs (class 22, and 0A000 of some functions), none is wrong:
//! PostgreSQL does not say in which order conditions and columns are computed, nor whether one is that decides nothing. Such statements are counted.
//! What differs is undone on both sides, so that the data stay equal.

mod generate;
mod values;

use anyhow::{Context, Result};
use tokio_postgres::error::Error;
use tokio_postgres::{Client, SimpleQueryMessage};

use self::generate::{Generator, Statement};

/// What a statement did.
#[derive(Clone, Debug)]
enum Answer {
    /// Names and types of its columns, its rows, and how many it counts.
    Done { columns: Vec<(String, u32)>, rows: Vec<Vec<Option<String>>>, count: u64 },
    /// Its SQLSTATE, what was said, and whether that was when it ran rather than when it was analysed.
    Failed { state: String, said: String, was_running: bool },
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed { state, .. }, Self::Failed { state: other, .. }) => state == other,
            (
                Self::Done { columns, rows, count },
                Self::Done { columns: other_columns, rows: other_rows, count: other_count },
            ) => columns == other_columns && rows == other_rows && count == other_count,
            _ => false,
        }
    }
}

/// Two answers that are not equal.
#[derive(Debug)]
pub struct Difference {
    /// The changes of the seed so far, and the statement.
    pub statements: Vec<String>,
    /// What PostgreSQL answered.
    pub theirs: String,
    /// What RustyDB answered.
    pub ours: String,
}

/// What came of a seed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Statements that were compared.
    pub compared: u64,
    /// Of these, those that failed on both sides alike.
    pub failed_alike: u64,
    /// Statements in which one side alone raised a data exception.
    pub unsettled: u64,
    /// The differences.
    pub differences: Vec<Difference>,
}

/// Runs the statements of a seed on both sides.
///
/// # Errors
/// A connection broke.
pub async fn run(seed: u64, statements: usize, ours: &Client, theirs: &Client) -> Result<Outcome> {
    for client in [ours, theirs] {
        client
            .batch_execute(
                "drop schema if exists differ cascade; create schema differ; set search_path to differ;
                 set timezone to 'UTC'; set statement_timeout to '20s'; set extra_float_digits to 1",
            )
            .await
            .context("the schema cannot be made")?;
    }
    let mut generator = Generator::new(seed);
    let mut outcome = Outcome::default();
    let mut history: Vec<String> = Vec::new();
    let schema = generator.schema();
    let rest = (0..statements).map(|_| None);
    for statement in schema.into_iter().map(Some).chain(rest) {
        let statement = statement.unwrap_or_else(|| generator.statement());
        if !statement.is_query {
            both(ours, theirs, "begin").await?;
        }
        let (left, right) = (answer(&statement, theirs).await?, answer(&statement, ours).await?);
        outcome.compared += 1;
        if !statement.is_query {
            // What one side alone has done is undone, so that the data stay equal.
            let is_kept = left == right && matches!(left, Answer::Done { .. });
            both(ours, theirs, if is_kept { "commit" } else { "rollback" }).await?;
            if is_kept {
                history.push(statement.sql.clone());
            }
        }
        if left == right {
            outcome.failed_alike += u64::from(matches!(left, Answer::Failed { .. }));
            continue;
        }
        // Sorts that PostgreSQL spills end here at a limit of memory (docs/sql.md).
        let is_too_large = matches!(&right, Answer::Failed { state, .. } if state == "53200");
        if is_too_large || left.has_equal_values(&right) {
            outcome.unsettled += 1;
            continue;
        }
        let is_data = |answer: &Answer| match answer {
            Answer::Failed { state, was_running, .. } => {
                *was_running && (state.starts_with("22") || state == "0A000")
            }
            Answer::Done { .. } => false,
        };
        if is_data(&left) || is_data(&right) {
            outcome.unsettled += 1;
            continue;
        }
        let statements = history.iter().chain([&statement.sql]).cloned().collect();
        outcome.differences.push(Difference { statements, theirs: shown(&left), ours: shown(&right) });
    }
    Ok(outcome)
}

impl Answer {
    /// Whether the values are equal though some of them are written in other ways, as those of a group may be: which of
    /// several equal values stands for it is not told.
    fn has_equal_values(&self, other: &Self) -> bool {
        let (
            Self::Done { columns, rows, count },
            Self::Done { columns: other_columns, rows: other_rows, count: other_count },
        ) = (self, other)
        else {
            return false;
        };
        let plain = |rows: &[Vec<Option<String>>]| {
            let mut rows: Vec<Vec<Option<String>>> = rows
                .iter()
                .map(|row| {
                    let value = |(value, (_, ty)): (&Option<String>, &(String, u32))| {
                        value.as_ref().map(|text| plain_value(text, *ty))
                    };
                    row.iter().zip(columns).map(value).collect()
                })
                .collect();
            rows.sort();
            rows
        };
        columns == other_columns && count == other_count && plain(rows) == plain(other_rows)
    }
}

/// A value of a type whose equal values are written in several ways, in one way.
fn plain_value(text: &str, ty: u32) -> String {
    match ty {
        FLOAT8 if text == "-0" => "0".to_owned(),
        NUMERIC if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        INTERVAL => {
            let mut micros = 0_i128;
            let mut words = text.split(' ');
            while let Some(word) = words.next() {
                let (sign, time) = match word.strip_prefix('-') {
                    Some(time) => (-1, time),
                    None => (1, word),
                };
                if time.contains(':') {
                    let (whole, part) = time.split_once('.').unwrap_or((time, ""));
                    let seconds = whole
                        .split(':')
                        .fold(0_i128, |sum, part| sum * 60 + part.parse::<i128>().unwrap_or(0));
                    let part = format!("{part:0<6}").parse::<i128>().unwrap_or(0);
                    micros += sign * (seconds * 1_000_000 + part);
                } else {
                    let days = match words.next() {
                        Some("year" | "years") => 360,
                        Some("mon" | "mons") => 30,
                        _ => 1,
                    };
                    micros += word.parse::<i128>().unwrap_or(0) * days * 86_400_000_000;
                }
            }
            micros.to_string()
        }
        _ => text.to_owned(),
    }
}

/// Object ids of types.
const FLOAT8: u32 = 701;
const NUMERIC: u32 = 1700;
const INTERVAL: u32 = 1186;

async fn both(ours: &Client, theirs: &Client, sql: &str) -> Result<()> {
    for client in [ours, theirs] {
        client.batch_execute(sql).await.with_context(|| format!("{sql} failed"))?;
    }
    Ok(())
}

async fn answer(statement: &Statement, client: &Client) -> Result<Answer> {
    let failed = |error: Error, was_running: bool| match error.code() {
        Some(code) => {
            let said = error.as_db_error().map_or_else(String::new, |error| error.message().to_owned());
            Ok(Answer::Failed { state: code.code().to_owned(), said, was_running })
        }
        None => Err(error).with_context(|| format!("the connection broke at {}", statement.sql)),
    };
    let columns = match client.prepare(&statement.sql).await {
        Ok(prepared) => {
            prepared.columns().iter().map(|column| (column.name().to_owned(), column.type_().oid())).collect()
        }
        Err(error) => return failed(error, false),
    };
    let messages = match client.simple_query(&statement.sql).await {
        Ok(messages) => messages,
        Err(error) => return failed(error, true),
    };
    let (mut rows, mut count) = (Vec::new(), 0);
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect::<Vec<_>>());
            }
            SimpleQueryMessage::CommandComplete(rows) => count = rows,
            _ => {}
        }
    }
    if !statement.is_ordered {
        rows.sort();
    }
    Ok(Answer::Done { columns, rows, count })
}

fn shown(answer: &Answer) -> String {
    let mut text = match answer {
        Answer::Failed { state, said, .. } => format!("{state} {said}"),
        Answer::Done { columns, rows, count } => format!("{count} of {columns:?}: {rows:?}"),
    };
    if text.len() > 1500 {
        let cut = (0..=1500).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}
