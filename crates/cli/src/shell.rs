//! `sql`: a prompt with history, or a script on standard input. A statement ends with `;`, a command starts with `\`.

use std::io::IsTerminal as _;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::Login;
use crate::client::Addresses;
use crate::error::CliError;
use crate::output::{self, Form};
use crate::query::{self, CopySource};
use crate::script;
use crate::wire::Session;

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

pub(crate) async fn run(addresses: &Addresses, form: Form, login: &Login) -> Result<(), CliError> {
    let session = query::connect(addresses, login).await?;
    let mut shell = Shell { addresses, form, login, session, pending: String::new(), failed: 0 };
    if std::io::stdin().is_terminal() { shell.prompt().await } else { shell.script().await }
}

/// Whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Quit,
}

struct Shell<'a> {
    addresses: &'a Addresses,
    form: Form,
    login: &'a Login,
    session: Session,
    /// The beginning of a statement that has not ended.
    pending: String,
    /// Statements that failed.
    failed: u64,
}

impl Shell<'_> {
    async fn prompt(&mut self) -> Result<(), CliError> {
        let mut editor = DefaultEditor::new().map_err(|error| CliError::Refused(error.to_string()))?;
        let history =
            std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".rustydb_history"));
        if let Some(history) = &history {
            // The first session has none.
            let _ = editor.load_history(history);
        }
        output::line("type \\? for help");
        loop {
            let mark = if self.pending.is_empty() { '=' } else { '-' };
            let line = match editor.readline(&format!("{}{mark}> ", self.login.database)) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    self.pending.clear();
                    continue;
                }
                Err(_) => break,
            };
            let begun = if self.pending.is_empty() { String::new() } else { format!("{}\n", self.pending) };
            if self.take(&line).await == Next::Quit {
                break;
            }
            if self.pending.is_empty() && !line.trim().is_empty() {
                let _ = editor.add_history_entry(format!("{begun}{line}").trim());
            }
            if self.session.is_lost() {
                self.connect_again().await;
            }
        }
        if let Some(history) = &history
            && let Err(error) = editor.save_history(history)
        {
            eprintln!("the history was not saved: {error}");
        }
        Ok(())
    }

    /// Runs what standard input has, goes on after statements that fail, and fails at the end if one did. It does not
    /// go on without the connection: what follows may belong to a transaction that is gone.
    async fn script(&mut self) -> Result<(), CliError> {
        for line in std::io::stdin().lines() {
            let line = line.map_err(|error| CliError::Refused(format!("standard input: {error}")))?;
            if self.take(&line).await == Next::Quit || self.session.is_lost() {
                return self.outcome();
            }
        }
        // The last statement may come without its semicolon.
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.execute(&last).await;
        }
        self.outcome()
    }

    fn outcome(&self) -> Result<(), CliError> {
        if self.failed == 0 { Ok(()) } else { Err(CliError::Script { failed: self.failed }) }
    }

    /// Takes one more line: runs the statements that it completes, or the command that it is.
    async fn take(&mut self, line: &str) -> Next {
        if self.pending.is_empty() && line.trim_start().starts_with('\\') {
            match meta(line.trim()) {
                Meta::Quit => return Next::Quit,
                Meta::Help => output::line(HELP),
                Meta::ConnInfo => conninfo(self.addresses, self.login).await,
                Meta::Query(sql) => self.execute(&sql).await,
                Meta::Unknown => {
                    let unknown = format!("unknown command {}; \\? lists them", line.trim());
                    self.fail(&CliError::Usage(unknown));
                }
            }
            return Next::Line;
        }
        if !self.pending.is_empty() {
            self.pending.push('\n');
        }
        self.pending.push_str(line);
        let text = std::mem::take(&mut self.pending);
        let (statements, rest) = script::split(&text);
        self.pending = rest.trim_start().to_owned();
        for statement in statements {
            self.execute(statement).await;
            if self.session.is_lost() {
                break;
            }
        }
        Next::Line
    }

    async fn execute(&mut self, sql: &str) {
        let outcome = query::execute(&mut self.session, self.form, sql, CopySource::None).await;
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &CliError) {
        self.failed += 1;
        match self.form {
            Form::Json => error.report(Form::Json),
            Form::Table => eprintln!("{error}"),
        }
    }

    async fn connect_again(&mut self) {
        match query::connect(self.addresses, self.login).await {
            Ok(fresh) => {
                eprintln!(
                    "connected again; settings are back to their defaults, and an open transaction is gone"
                );
                self.session = fresh;
            }
            Err(error) => eprintln!("{error}"),
        }
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
    fn commands_are_understood() {
        assert_eq!(meta("\\q"), Meta::Quit);
        assert_eq!(meta("\\?"), Meta::Help);
        assert_eq!(meta("\\x"), Meta::Unknown);
        assert!(matches!(meta("\\d it's"), Meta::Query(sql) if sql.contains("'it''s'::regclass")));
    }
}
