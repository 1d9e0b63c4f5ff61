//! `sql`: a prompt with history. A statement ends with `;`, a command starts with `\`.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio_postgres::Client;

use crate::Login;
use crate::client::{Addresses, CliError};
use crate::output::{self, Form};
use crate::query;

const HELP: &str = "\
\\d          tables and indexes
\\d NAME     columns of a table
\\dt         tables
\\di         indexes
\\du         roles
\\l          databases
\\conninfo   this connection
\\?          this help
\\q          quit
A statement ends with a semicolon and may span lines; Ctrl-C drops what was typed, Ctrl-D quits.";

const RELATIONS: &str = "SELECT n.nspname AS schema, c.relname AS name, \
    CASE c.relkind WHEN 'r' THEN 'table' WHEN 'i' THEN 'index' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' \
    ELSE 'other' END AS kind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// What a line starting with `\` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Meta {
    Quit,
    Help,
    ConnInfo,
    Query(String),
    Unknown,
}

fn meta(line: &str) -> Meta {
    let mut words = line.trim().trim_end_matches(';').split_whitespace();
    let (command, argument) = (words.next().unwrap_or_default(), words.next());
    let query = |sql: &str| Meta::Query(sql.to_owned());
    match (command, argument) {
        ("\\q", _) => Meta::Quit,
        ("\\?" | "\\h", _) => Meta::Help,
        ("\\conninfo", _) => Meta::ConnInfo,
        ("\\d", Some(name)) => Meta::Query(format!(
            "SELECT a.attname AS column, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, \
             CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS nullable FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            literal(name)
        )),
        ("\\d", None) => Meta::Query(format!("{RELATIONS} ORDER BY 1, 2")),
        ("\\dt", _) => Meta::Query(format!("{RELATIONS} AND c.relkind = 'r' ORDER BY 1, 2")),
        ("\\di", _) => Meta::Query(format!("{RELATIONS} AND c.relkind = 'i' ORDER BY 1, 2")),
        ("\\du", _) => query(
            "SELECT rolname AS role, rolsuper AS superuser, rolcanlogin AS login FROM pg_catalog.pg_roles ORDER BY 1",
        ),
        ("\\l", _) => query("SELECT datname AS database FROM pg_catalog.pg_database ORDER BY 1"),
        _ => Meta::Unknown,
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether the text ends a statement: its last `;` is outside quotes and comments.
fn complete(text: &str) -> bool {
    let mut ended = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            quote @ ('\'' | '"') => {
                ended = false;
                if !characters.by_ref().any(|inside| inside == quote) {
                    return false;
                }
            }
            '-' if characters.peek() == Some(&'-') => {
                characters.by_ref().find(|inside| *inside == '\n');
            }
            ';' => ended = true,
            space if space.is_whitespace() => {}
            _ => ended = false,
        }
    }
    ended
}

pub(crate) async fn run(addresses: &Addresses, form: Form, login: &Login) -> Result<(), CliError> {
    let mut client = query::connect(addresses, login).await?;
    let mut editor = DefaultEditor::new().map_err(|error| CliError::Refused(error.to_string()))?;
    let history = std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".rustydb_history"));
    if let Some(history) = &history {
        // The first session has none.
        let _ = editor.load_history(history);
    }
    output::line("type \\? for help");
    let mut pending = String::new();
    loop {
        let mark = if pending.is_empty() { '=' } else { '-' };
        let line = match editor.readline(&format!("{}{mark}> ", login.database)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(_) => break,
        };
        if pending.is_empty() && line.trim_start().starts_with('\\') {
            let _ = editor.add_history_entry(line.trim());
            match meta(line.trim()) {
                Meta::Quit => break,
                Meta::Help => output::line(HELP),
                Meta::ConnInfo => conninfo(addresses, login).await,
                Meta::Query(sql) => show(addresses, login, &mut client, form, &sql).await,
                Meta::Unknown => eprintln!("unknown command {}; \\? lists them", line.trim()),
            }
            continue;
        }
        if !pending.is_empty() {
            pending.push('\n');
        }
        pending.push_str(&line);
        if complete(&pending) {
            let statement = std::mem::take(&mut pending);
            let _ = editor.add_history_entry(statement.trim());
            show(addresses, login, &mut client, form, &statement).await;
        } else if pending.trim().is_empty() {
            pending.clear();
        }
    }
    if let Some(history) = &history
        && let Err(error) = editor.save_history(history)
    {
        eprintln!("the history was not saved: {error}");
    }
    Ok(())
}

async fn show(addresses: &Addresses, login: &Login, client: &mut Client, form: Form, sql: &str) {
    if client.is_closed() {
        match query::connect(addresses, login).await {
            Ok(fresh) => {
                eprintln!("the connection was lost; connected again, settings are back to their defaults");
                *client = fresh;
            }
            Err(error) => return eprintln!("{error}"),
        }
    }
    match query::execute(client, sql).await {
        Ok(results) => query::print(form, &results),
        Err(error) => eprintln!("{error}"),
    }
}

async fn conninfo(addresses: &Addresses, login: &Login) {
    match addresses.first().await {
        Ok((_, status)) => output::line(&format!(
            "database \"{}\" as role \"{}\" on node {} at {}",
            login.database, login.user, status.node_id, status.postgres_address
        )),
        Err(error) => eprintln!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_quotes() {
        for text in ["SELECT 1;", "SELECT ';';", "SELECT 1; -- done", "SELECT 'it''s';\n", "SELECT \"a;b\";"]
        {
            assert!(complete(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "-- ;", ""] {
            assert!(!complete(text), "{text}");
        }
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(meta("\\q"), Meta::Quit);
        assert_eq!(meta("\\?"), Meta::Help);
        assert_eq!(meta("\\x"), Meta::Unknown);
        assert!(matches!(meta("\\d it's"), Meta::Query(sql) if sql.contains("'it''s'::regclass")));
    }
}
