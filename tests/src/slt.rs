//! SQL logic tests over the Postgres wire: the files of `tests/slt`, run against any server.
//!
//! Every expected value was recorded from PostgreSQL 15 (`slt --record`), so a file that passes on RustyDB says
//! that the two agree. An error is compared by its SQLSTATE, and by its place in the statement where the file gives one;
//! values by their text form.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, MakeConnection, Runner};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A connection that sends each statement as a simple query.
pub struct WireDatabase {
    client: Client,
}

/// Why a statement failed: its SQLSTATE, or what broke the connection.
#[derive(Debug)]
pub struct StatementError(String);

impl std::fmt::Display for StatementError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StatementError {}

impl WireDatabase {
    /// Connects to the server of a connection string.
    ///
    /// # Errors
    /// Whatever keeps the connection from being made.
    pub async fn connect(target: &str) -> Result<WireDatabase> {
        let (client, connection) = tokio_postgres::connect(target, NoTls).await?;
        tokio::spawn(connection);
        Ok(WireDatabase { client })
    }
}

#[async_trait::async_trait]
impl AsyncDB for WireDatabase {
    type Error = StatementError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StatementError> {
        let messages = self.client.simple_query(sql).await.map_err(|error| match error.code() {
            Some(state) => {
                let place = match error.as_db_error().and_then(|error| error.position()) {
                    Some(ErrorPosition::Original(place)) => format!(" at {place}"),
                    _ => String::new(),
                };
                StatementError(format!("SQLSTATE {}{place}", state.code()))
            }
            None => StatementError(error.to_string()),
        })?;
        let mut rows = Vec::new();
        let mut types = None;
        let mut count = 0;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    types = Some(vec![DefaultColumnType::Text; columns.len()]);
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|index| shown(row.get(index))).collect());
                }
                SimpleQueryMessage::CommandComplete(affected) => count = affected,
                _ => {}
            }
        }
        Ok(match types {
            Some(types) => DBOutput::Rows { types, rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {}
}

/// A value on one line: NULL, the empty string and ends of line must be told apart.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n").replace(' ', "\u{b7}"),
    }
}

/// The folder of the files.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")
}

/// All files of the folder, in order of name.
///
/// # Errors
/// When the folder cannot be read.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    Ok(files)
}

/// Runs one file.
///
/// # Errors
/// The first statement whose outcome differs, with its place.
pub async fn run(target: &str, file: &Path) -> Result<()> {
    let mut runner = runner(target);
    runner.run_file_async(file).await.map_err(|error| anyhow::anyhow!("{}", error.display(false)))
}

/// Runs one file and writes down what the server answers.
///
/// # Errors
/// When the file or the server fails.
pub async fn record(target: &str, file: &Path) -> Result<()> {
    let mut runner = runner(target);
    let recorded = runner
        .update_test_file(
            file,
            " ",
            sqllogictest::default_validator,
            sqllogictest::default_normalizer,
            sqllogictest::default_column_validator,
        )
        .await;
    if let Err(error) = recorded {
        bail!("{}: {error}", file.display());
    }
    Ok(())
}

fn runner(target: &str) -> Runner<WireDatabase, impl MakeConnection<Conn = WireDatabase>> {
    let target = target.to_owned();
    Runner::new(move || {
        let target = target.clone();
        async move {
            WireDatabase::connect(&target)
                .await
                .context("no connection")
                .map_err(|error| StatementError(format!("{error:#}")))
        }
    })
}
