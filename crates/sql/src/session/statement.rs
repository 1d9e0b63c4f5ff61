//! From SQL text to statements, and which of them the session runs itself.
//!
//! ```text
//! text --tokens--> split at ';' --first word--> transaction control, settings, prepared statements, databases, roles
//!                                          \--> everything else: an ast for the planner
//! ```
//!
//! The whole text is parsed before anything of it runs, as PostgreSQL does: a syntax error in the last statement
//! keeps the first from running.

use std::sync::Arc;

use rustydb_types::datatype::DataType;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::settings::Scope;
use crate::error::{SqlError, SqlState};
use crate::system::RoleChange;

/// How deep expressions and queries may nest.
const RECURSION_DEPTH_MAX: usize = 200;

/// How a transaction is isolated from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it; READ UNCOMMITTED is this too, as in PostgreSQL.
    ReadCommitted,
    /// All statements see the same snapshot.
    RepeatableRead,
    /// As if one transaction ran after the other.
    Serializable,
}

impl Isolation {
    /// As `transaction_isolation` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// Of a value of `transaction_isolation`.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "serializable" => Self::Serializable,
            "repeatable read" => Self::RepeatableRead,
            _ => Self::ReadCommitted,
        }
    }
}

/// What BEGIN or SET TRANSACTION says of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

/// Whether the next transaction begins at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// AND CHAIN.
    Chain,
    /// AND NO CHAIN, or nothing said.
    NoChain,
}

/// A statement of the cluster's system group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemStatement {
    /// CREATE DATABASE.
    CreateDatabase {
        /// Its name.
        name: String,
        /// OWNER.
        owner: Option<String>,
    },
    /// DROP DATABASE.
    DropDatabase {
        /// Its name.
        name: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// ALTER DATABASE .. RENAME TO.
    RenameDatabase {
        /// Its name.
        name: String,
        /// The new one.
        to: String,
    },
    /// CREATE ROLE or CREATE USER.
    CreateRole {
        /// Its name.
        name: String,
        /// Properties but the password.
        properties: RoleChange,
        /// PASSWORD.
        password: Password,
    },
    /// ALTER ROLE or ALTER USER.
    AlterRole {
        /// Its name.
        name: String,
        /// Changes but of the password.
        change: RoleChange,
        /// PASSWORD.
        password: Password,
    },
    /// DROP ROLE or DROP USER.
    DropRole {
        /// Their names.
        names: Vec<String>,
        /// IF EXISTS.
        if_exists: bool,
    },
}

impl SystemStatement {
    /// The command tag.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::CreateDatabase { .. } => "CREATE DATABASE",
            Self::DropDatabase { .. } => "DROP DATABASE",
            Self::RenameDatabase { .. } => "ALTER DATABASE",
            Self::CreateRole { .. } => "CREATE ROLE",
            Self::AlterRole { .. } => "ALTER ROLE",
            Self::DropRole { .. } => "DROP ROLE",
        }
    }
}

/// What a statement says of a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Nothing.
    Unchanged,
    /// PASSWORD NULL.
    None,
    /// In clear, or a verifier already.
    Given(String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "Unchanged",
            Self::None => "None",
            Self::Given(_) => "Given(..)",
        })
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// For the planner.
    Plan(Arc<ast::Statement>),
    /// BEGIN or START TRANSACTION (the flag says which, for the tag).
    Begin {
        /// Its modes.
        modes: Modes,
        /// `BEGIN` or `START TRANSACTION`.
        tag: &'static str,
    },
    /// COMMIT or END.
    Commit(Chain),
    /// ROLLBACK or ABORT.
    Rollback(Chain),
    /// SAVEPOINT.
    Savepoint(String),
    /// ROLLBACK TO.
    RollbackTo(String),
    /// RELEASE.
    Release(String),
    /// SET TRANSACTION.
    SetTransaction(Modes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetCharacteristics(Modes),
    /// SET; without a value, to the default.
    Set {
        /// How long it lasts.
        scope: Scope,
        /// Of which setting.
        name: String,
        /// The value.
        value: Option<String>,
    },
    /// RESET; without a name, of all.
    Reset(Option<String>),
    /// SHOW; without a name, of all.
    Show(Option<String>),
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES or TEMP, with its tag.
    Discard(&'static str),
    /// DEALLOCATE; without a name, of all.
    Deallocate(Option<String>),
    /// PREPARE.
    Prepare {
        /// Its name.
        name: String,
        /// Types given for its parameters.
        param_types: Vec<u32>,
        /// What is prepared.
        statement: Arc<ast::Statement>,
        /// Its text.
        sql: String,
    },
    /// EXECUTE, with parameters in text form.
    Execute {
        /// Its name.
        name: String,
        /// Its parameters; `None` is NULL.
        params: Vec<Option<String>>,
    },
    /// Of the system group.
    System(SystemStatement),
}

impl Statement {
    /// Whether a failed transaction block accepts it.
    #[must_use]
    pub const fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit(_) | Self::Rollback(_) | Self::RollbackTo(_))
    }

    /// Whether, by its looks, it only reads: then it begins in a read-only transaction.
    #[must_use]
    pub fn looks_read_only(&self) -> bool {
        match self {
            Self::Plan(statement) => match &**statement {
                ast::Statement::Query(query) => query.locks.is_empty() && query.with.is_none(),
                ast::Statement::Explain { analyze, .. } => !analyze,
                ast::Statement::Copy { to, .. } => *to,
                _ => false,
            },
            _ => true,
        }
    }
}

/// Parses SQL text.
///
/// # Errors
/// 42601 with the position, 54001 for what nests too deeply, 0A000 for what is not supported.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| {
        let message = if error.message.to_ascii_lowercase().contains("unterminated") {
            error.message.clone()
        } else {
            format!("syntax error: {}", error.message)
        };
        SqlError::new(SqlState::SYNTAX_ERROR, message).at(position(sql, error.location))
    })?;
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| tokens.iter().any(|token| !is_blank(&token.token)))
        .map(|tokens| parse_one(sql, tokens, &dialect))
        .collect()
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// Place in the text, in characters from 1.
fn position(sql: &str, location: Location) -> u32 {
    let mut line = 1;
    let mut column = 0;
    let mut place = 0;
    for character in sql.chars() {
        place += 1;
        column += 1;
        if line == location.line && column == location.column {
            return place;
        }
        if character == '\n' {
            line += 1;
            column = 0;
        }
    }
    place + 1
}

fn byte_offset(sql: &str, location: Location) -> usize {
    let place = usize::try_from(position(sql, location)).unwrap_or(usize::MAX).saturating_sub(1);
    sql.char_indices().nth(place).map_or(sql.len(), |(offset, _)| offset)
}

fn parse_one(
    sql: &str,
    tokens: &[TokenWithSpan],
    dialect: &PostgreSqlDialect,
) -> Result<Statement, SqlError> {
    let mut words =
        Words { sql, tokens: tokens.iter().filter(|token| !is_blank(&token.token)).collect(), next: 0 };
    if let Some(statement) = words.utility(dialect)? {
        if words.peek().is_some() {
            return Err(words.unexpected());
        }
        return Ok(statement);
    }
    plan_statement(sql, tokens.to_vec(), dialect).map(|statement| Statement::Plan(Arc::new(statement)))
}

fn plan_statement(
    sql: &str,
    mut tokens: Vec<TokenWithSpan>,
    dialect: &PostgreSqlDialect,
) -> Result<ast::Statement, SqlError> {
    crate::copy::normalise_tokens(&mut tokens);
    crate::parse::normalise(&mut tokens);
    let mut parser =
        Parser::new(dialect).with_recursion_limit(RECURSION_DEPTH_MAX).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(|error| parser_error(sql, error))?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF { Ok(statement) } else { Err(near(sql, &rest)) }
}

fn near(sql: &str, token: &TokenWithSpan) -> SqlError {
    let (start, end) = (byte_offset(sql, token.span.start), byte_offset(sql, token.span.end));
    let text = sql.get(start..end.max(start)).filter(|text| !text.is_empty());
    let text = text.map_or_else(|| token.token.to_string(), str::to_owned);
    SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{text}\""))
        .at(position(sql, token.span.start))
}

/// Turns the parser's message, "Expected: .., found: X at Line: 1, Column: 8", into PostgreSQL's.
fn parser_error(sql: &str, error: ParserError) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_hint("Simplify the statement: it nests too deeply.");
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    let (text, place) = message.rsplit_once(" at Line: ").unwrap_or((&message, ""));
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    match (text.rsplit_once("found: "), location) {
        (Some((_, "EOF")), _) => SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input")
            .at(u32::try_from(sql.chars().count()).unwrap_or(u32::MAX).saturating_add(1)),
        (Some((_, found)), Some(location)) => {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{found}\""))
                .at(position(sql, location))
        }
        (_, Some(location)) => {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")).at(position(sql, location))
        }
        _ => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")),
    }
}

/// Walks over the tokens of one statement.
struct Words<'a> {
    sql: &'a str,
    tokens: Vec<&'a TokenWithSpan>,
    next: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a TokenWithSpan> {
        self.tokens.get(self.next).copied()
    }

    fn unexpected(&self) -> SqlError {
        match self.peek() {
            Some(token) => near(self.sql, token),
            None => SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input").at(u32::try_from(
                self.sql.chars().count(),
            )
            .unwrap_or(u32::MAX)
            .saturating_add(1)),
        }
    }

    /// Takes a word if it is the next one. Quoted names are no words.
    fn take(&mut self, word: &str) -> bool {
        let found = matches!(self.peek().map(|token| &token.token),
            Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn take_all(&mut self, words: &[&str]) -> bool {
        let start = self.next;
        let found = words.iter().all(|word| self.take(word));
        if !found {
            self.next = start;
        }
        found
    }

    fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek().is_some_and(|next| next.token == *token);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.take(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn is_at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// A name: as written when quoted, else in lower case.
    fn name(&mut self) -> Result<String, SqlError> {
        match self.peek().map(|token| &token.token) {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
            }
            _ => Err(self.unexpected()),
        }
    }

    fn string(&mut self) -> Option<String> {
        match self.peek().map(|token| &token.token) {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => {
                self.next += 1;
                Some(text.clone())
            }
            Some(Token::DollarQuotedString(text)) => {
                self.next += 1;
                Some(text.value.clone())
            }
            _ => None,
        }
    }

    fn integer(&mut self) -> Result<i32, SqlError> {
        let negative = self.take_token(&Token::Minus);
        match self.peek().map(|token| &token.token) {
            Some(Token::Number(digits, false)) => {
                let number: i32 = digits.parse().map_err(|_| self.unexpected())?;
                self.next += 1;
                Ok(if negative { -number } else { number })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// The statements that the session runs itself; `None` leaves it to the planner.
    fn utility(&mut self, dialect: &PostgreSqlDialect) -> Result<Option<Statement>, SqlError> {
        let Some(Token::Word(first)) = self.peek().map(|token| &token.token) else { return Ok(None) };
        if first.quote_style.is_some() {
            return Ok(None);
        }
        let start = self.next;
        let statement = match first.keyword {
            Keyword::BEGIN => {
                self.next += 1;
                self.optional_transaction_word();
                Some(Statement::Begin { modes: self.modes()?, tag: "BEGIN" })
            }
            Keyword::START => {
                self.next += 1;
                self.expect("transaction")?;
                Some(Statement::Begin { modes: self.modes()?, tag: "START TRANSACTION" })
            }
            Keyword::COMMIT | Keyword::END => {
                self.next += 1;
                if self.take("prepared") {
                    return Err(SqlError::not_supported("two-phase commit is not supported"));
                }
                self.optional_transaction_word();
                Some(Statement::Commit(self.chain()?))
            }
            Keyword::ROLLBACK | Keyword::ABORT => {
                self.next += 1;
                if self.take("prepared") {
                    return Err(SqlError::not_supported("two-phase commit is not supported"));
                }
                self.optional_transaction_word();
                if self.take("to") {
                    self.take("savepoint");
                    Some(Statement::RollbackTo(self.name()?))
                } else {
                    Some(Statement::Rollback(self.chain()?))
                }
            }
            Keyword::SAVEPOINT => {
                self.next += 1;
                Some(Statement::Savepoint(self.name()?))
            }
            Keyword::RELEASE => {
                self.next += 1;
                self.take("savepoint");
                Some(Statement::Release(self.name()?))
            }
            Keyword::SET => {
                self.next += 1;
                Some(self.set()?)
            }
            Keyword::RESET => {
                self.next += 1;
                Some(self.reset()?)
            }
            Keyword::SHOW => {
                self.next += 1;
                Some(self.show()?)
            }
            Keyword::DISCARD => {
                self.next += 1;
                Some(self.discard()?)
            }
            Keyword::DEALLOCATE => {
                self.next += 1;
                self.take("prepare");
                let name = if self.take("all") { None } else { Some(self.name()?) };
                Some(Statement::Deallocate(name))
            }
            Keyword::PREPARE => {
                self.next += 1;
                Some(self.prepare(dialect)?)
            }
            Keyword::EXECUTE => {
                self.next += 1;
                Some(self.execute()?)
            }
            Keyword::CREATE | Keyword::ALTER | Keyword::DROP => self.system()?.map(Statement::System),
            _ => None,
        };
        if statement.is_none() {
            self.next = start;
        }
        Ok(statement)
    }

    fn optional_transaction_word(&mut self) {
        let _found = self.take("work") || self.take("transaction");
    }

    fn chain(&mut self) -> Result<Chain, SqlError> {
        if !self.take("and") {
            return Ok(Chain::NoChain);
        }
        let chain = if self.take("no") { Chain::NoChain } else { Chain::Chain };
        self.expect("chain")?;
        Ok(chain)
    }

    fn modes(&mut self) -> Result<Modes, SqlError> {
        let mut modes = Modes::default();
        while !self.is_at_end() {
            if self.take_all(&["isolation", "level"]) {
                modes.isolation = Some(self.isolation()?);
            } else if self.take_all(&["read", "only"]) {
                modes.read_only = Some(true);
            } else if self.take_all(&["read", "write"]) {
                modes.read_only = Some(false);
            } else if self.take_all(&["not", "deferrable"]) {
                modes.deferrable = Some(false);
            } else if self.take("deferrable") {
                modes.deferrable = Some(true);
            } else {
                return Err(self.unexpected());
            }
            self.take_token(&Token::Comma);
        }
        Ok(modes)
    }

    fn isolation(&mut self) -> Result<Isolation, SqlError> {
        if self.take("serializable") {
            Ok(Isolation::Serializable)
        } else if self.take_all(&["repeatable", "read"]) {
            Ok(Isolation::RepeatableRead)
        } else if self.take_all(&["read", "committed"]) || self.take_all(&["read", "uncommitted"]) {
            Ok(Isolation::ReadCommitted)
        } else {
            Err(self.unexpected())
        }
    }

    fn setting_name(&mut self) -> Result<String, SqlError> {
        let mut name = self.name()?;
        while self.take_token(&Token::Period) {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name)
    }

    fn set(&mut self) -> Result<Statement, SqlError> {
        if self.take_all(&["session", "characteristics", "as", "transaction"]) {
            return Ok(Statement::SetCharacteristics(self.modes()?));
        }
        let scope = if self.take("local") {
            Scope::Local
        } else {
            self.take("session");
            Scope::Session
        };
        if self.take("transaction") {
            if self.take("snapshot") {
                return Err(SqlError::not_supported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            return Ok(Statement::SetTransaction(self.modes()?));
        }
        if self.take("constraints") {
            return Err(SqlError::not_supported("SET CONSTRAINTS is not supported"));
        }
        let name = if self.take_all(&["time", "zone"]) {
            let value = self.values()?;
            return Ok(Statement::Set { scope, name: "TimeZone".to_owned(), value });
        } else if self.take("names") {
            let value = if self.is_at_end() { None } else { self.values()? };
            return Ok(Statement::Set { scope, name: "client_encoding".to_owned(), value });
        } else {
            self.setting_name()?
        };
        if !self.take_token(&Token::Eq) {
            self.expect("to")?;
        }
        Ok(Statement::Set { scope, name, value: self.values()? })
    }

    /// The value of a SET: words, strings and numbers, separated by commas; `None` for DEFAULT.
    fn values(&mut self) -> Result<Option<String>, SqlError> {
        if self.take("default") {
            return Ok(None);
        }
        let mut values = Vec::new();
        loop {
            let negative = self.take_token(&Token::Minus);
            let value = match self.peek().map(|token| &token.token) {
                Some(Token::Number(digits, _)) => {
                    self.next += 1;
                    format!("{}{digits}", if negative { "-" } else { "" })
                }
                Some(Token::Word(_)) if !negative => self.name()?,
                _ if !negative => self.string().ok_or_else(|| self.unexpected())?,
                _ => return Err(self.unexpected()),
            };
            values.push(value);
            if !self.take_token(&Token::Comma) {
                return Ok(Some(values.join(", ")));
            }
        }
    }

    fn special_setting(&mut self) -> Option<String> {
        if self.take_all(&["time", "zone"]) {
            Some("TimeZone".to_owned())
        } else if self.take_all(&["transaction", "isolation", "level"]) {
            Some("transaction_isolation".to_owned())
        } else if self.take_all(&["session", "authorization"]) {
            Some("session_authorization".to_owned())
        } else {
            None
        }
    }

    fn reset(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            return Ok(Statement::Reset(None));
        }
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(Statement::Reset(Some(name)))
    }

    fn show(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            return Ok(Statement::Show(None));
        }
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(Statement::Show(Some(name)))
    }

    fn discard(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            Ok(Statement::DiscardAll)
        } else if self.take("plans") {
            Ok(Statement::Discard("DISCARD PLANS"))
        } else if self.take("sequences") {
            Ok(Statement::Discard("DISCARD SEQUENCES"))
        } else if self.take("temp") || self.take("temporary") {
            Ok(Statement::Discard("DISCARD TEMP"))
        } else {
            Err(self.unexpected())
        }
    }

    fn prepare(&mut self, dialect: &PostgreSqlDialect) -> Result<Statement, SqlError> {
        if self.take("transaction") {
            return Err(SqlError::not_supported("two-phase commit is not supported"));
        }
        let name = self.name()?;
        let mut param_types = Vec::new();
        if self.take_token(&Token::LParen) {
            let mut text = String::new();
            let mut depth = 0;
            loop {
                let token = self.peek().ok_or_else(|| self.unexpected())?;
                match &token.token {
                    Token::Comma | Token::RParen if depth == 0 => {
                        let data_type = DataType::parse(text.trim()).ok_or_else(|| {
                            SqlError::new(
                                SqlState::UNDEFINED_OBJECT,
                                format!("type \"{}\" does not exist", text.trim()),
                            )
                        })?;
                        param_types.push(data_type.oid());
                        text.clear();
                        self.next += 1;
                        if token.token == Token::RParen {
                            break;
                        }
                        continue;
                    }
                    Token::LParen => depth += 1,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
                text.push_str(&token.token.to_string());
                text.push(' ');
                self.next += 1;
            }
        }
        self.expect("as")?;
        let rest: Vec<TokenWithSpan> =
            self.tokens.get(self.next..).unwrap_or_default().iter().map(|token| (*token).clone()).collect();
        let (Some(first), Some(last)) = (rest.first(), rest.last()) else { return Err(self.unexpected()) };
        let (start, end) = (byte_offset(self.sql, first.span.start), byte_offset(self.sql, last.span.end));
        let sql = self.sql.get(start..end).unwrap_or_default().to_owned();
        self.next = self.tokens.len();
        let statement = Arc::new(plan_statement(self.sql, rest, dialect)?);
        Ok(Statement::Prepare { name, param_types, statement, sql })
    }

    fn execute(&mut self) -> Result<Statement, SqlError> {
        let name = self.name()?;
        let mut params = Vec::new();
        if self.take_token(&Token::LParen) {
            loop {
                params.push(self.constant()?);
                if self.take_token(&Token::RParen) {
                    break;
                }
                if !self.take_token(&Token::Comma) {
                    return Err(self.unexpected());
                }
            }
        }
        Ok(Statement::Execute { name, params })
    }

    fn constant(&mut self) -> Result<Option<String>, SqlError> {
        let negative = self.take_token(&Token::Minus);
        if let Some(Token::Number(digits, _)) = self.peek().map(|token| &token.token) {
            self.next += 1;
            return Ok(Some(format!("{}{digits}", if negative { "-" } else { "" })));
        }
        if negative {
            return Err(self.unexpected());
        }
        if self.take("null") {
            return Ok(None);
        }
        if let Some(value) = ["true", "false"].into_iter().find(|word| self.take(word)) {
            return Ok(Some(value.to_owned()));
        }
        match self.string() {
            Some(text) => Ok(Some(text)),
            None => Err(SqlError::not_supported("parameters of EXECUTE must be constants")),
        }
    }

    fn system(&mut self) -> Result<Option<SystemStatement>, SqlError> {
        if self.take_all(&["create", "database"]) {
            return self.create_database().map(Some);
        }
        if self.take_all(&["drop", "database"]) {
            let if_exists = self.take_all(&["if", "exists"]);
            let name = self.name()?;
            self.take("with");
            if self.take_token(&Token::LParen) {
                self.expect("force")?;
                if !self.take_token(&Token::RParen) {
                    return Err(self.unexpected());
                }
            }
            return Ok(Some(SystemStatement::DropDatabase { name, if_exists }));
        }
        if self.take_all(&["alter", "database"]) {
            let name = self.name()?;
            if !self.take_all(&["rename", "to"]) {
                return Err(SqlError::not_supported("only ALTER DATABASE .. RENAME TO is supported"));
            }
            return Ok(Some(SystemStatement::RenameDatabase { name, to: self.name()? }));
        }
        for (kind, login) in [("role", None), ("user", Some(true)), ("group", None)] {
            if self.take_all(&["create", kind]) {
                let name = self.name()?;
                let (mut properties, password) = self.role_options()?;
                properties.login = properties.login.or(login);
                return Ok(Some(SystemStatement::CreateRole { name, properties, password }));
            }
            if self.take_all(&["alter", kind]) {
                let name = self.name()?;
                if self.take_all(&["rename", "to"]) {
                    let change = RoleChange { name: Some(self.name()?), ..RoleChange::default() };
                    return Ok(Some(SystemStatement::AlterRole {
                        name,
                        change,
                        password: Password::Unchanged,
                    }));
                }
                let (change, password) = self.role_options()?;
                return Ok(Some(SystemStatement::AlterRole { name, change, password }));
            }
            if self.take_all(&["drop", kind]) {
                let if_exists = self.take_all(&["if", "exists"]);
                let mut names = vec![self.name()?];
                while self.take_token(&Token::Comma) {
                    names.push(self.name()?);
                }
                return Ok(Some(SystemStatement::DropRole { names, if_exists }));
            }
        }
        Ok(None)
    }

    fn create_database(&mut self) -> Result<SystemStatement, SqlError> {
        let name = self.name()?;
        let mut owner = None;
        self.take("with");
        while !self.is_at_end() {
            let option = self.name()?;
            self.take_token(&Token::Eq);
            match option.as_str() {
                "owner" => owner = Some(self.name()?),
                // One encoding and one collation exist; asking for them by their names is granted.
                "encoding" => {
                    let value = self.string().map_or_else(|| self.name(), Ok)?;
                    if !matches!(
                        value.to_ascii_lowercase().as_str(),
                        "utf8" | "utf-8" | "unicode" | "default"
                    ) {
                        return Err(SqlError::not_supported(format!(
                            "encoding \"{value}\" is not supported"
                        )));
                    }
                }
                "template" => {
                    let value = self.name()?;
                    if !matches!(value.as_str(), "template0" | "template1" | "default") {
                        return Err(SqlError::not_supported("a template database is not supported"));
                    }
                }
                "lc_collate" | "lc_ctype" | "locale" => {
                    let value = self.string().map_or_else(|| self.name(), Ok)?;
                    if !matches!(
                        value.to_ascii_lowercase().as_str(),
                        "c" | "posix" | "c.utf-8" | "c.utf8" | "default"
                    ) {
                        return Err(SqlError::not_supported(format!("locale \"{value}\" is not supported")));
                    }
                }
                _ => {
                    return Err(SqlError::not_supported(format!(
                        "database option \"{option}\" is not supported"
                    )));
                }
            }
        }
        Ok(SystemStatement::CreateDatabase { name, owner })
    }

    fn role_options(&mut self) -> Result<(RoleChange, Password), SqlError> {
        let mut change = RoleChange::default();
        let mut password = Password::Unchanged;
        self.take("with");
        while !self.is_at_end() {
            let at = self.next;
            let option = self.name()?;
            match option.as_str() {
                "superuser" => change.superuser = Some(true),
                "nosuperuser" => change.superuser = Some(false),
                "login" => change.login = Some(true),
                "nologin" => change.login = Some(false),
                "createdb" => change.create_database = Some(true),
                "nocreatedb" => change.create_database = Some(false),
                "createrole" => change.create_role = Some(true),
                "nocreaterole" => change.create_role = Some(false),
                // These are what a role is anyway.
                "inherit" | "noreplication" | "nobypassrls" | "encrypted" => {}
                "password" => {
                    password = if self.take("null") {
                        Password::None
                    } else {
                        Password::Given(self.string().ok_or_else(|| self.unexpected())?)
                    };
                }
                "connection" => {
                    self.expect("limit")?;
                    change.connection_limit = Some(self.integer()?);
                }
                "noinherit" | "replication" | "bypassrls" | "valid" | "in" | "role" | "admin" | "sysid" => {
                    return Err(SqlError::not_supported(format!(
                        "role option {} is not supported",
                        option.to_uppercase()
                    )));
                }
                _ => {
                    self.next = at;
                    return Err(self.unexpected());
                }
            }
        }
        Ok((change, password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str) -> Statement {
        let mut statements = parse(sql).unwrap();
        assert_eq!(statements.len(), 1, "{sql}");
        statements.remove(0)
    }

    fn error(sql: &str) -> (String, String, Option<u32>) {
        let error = parse(sql).unwrap_err();
        (error.state().to_string(), error.message().to_owned(), error.fields().position)
    }

    #[test]
    fn transaction_control_is_understood_in_all_spellings() {
        let modes =
            Modes { isolation: Some(Isolation::Serializable), read_only: Some(true), deferrable: Some(true) };
        for sql in [
            "begin isolation level serializable, read only, deferrable",
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
        ] {
            assert_eq!(one(sql), Statement::Begin { modes, tag: "BEGIN" });
        }
        assert_eq!(
            one("start transaction read write"),
            Statement::Begin {
                modes: Modes { read_only: Some(false), ..Modes::default() },
                tag: "START TRANSACTION"
            }
        );
        assert_eq!(one("END WORK AND NO CHAIN"), Statement::Commit(Chain::NoChain));
        assert_eq!(one("commit and chain"), Statement::Commit(Chain::Chain));
        assert_eq!(one("abort"), Statement::Rollback(Chain::NoChain));
        assert_eq!(one("rollback work to savepoint \"A b\""), Statement::RollbackTo("A b".into()));
        assert_eq!(one("release S"), Statement::Release("s".into()));
        assert_eq!(
            one("set transaction isolation level repeatable read"),
            Statement::SetTransaction(Modes {
                isolation: Some(Isolation::RepeatableRead),
                ..Modes::default()
            })
        );
    }

    #[test]
    fn settings_are_understood_in_all_spellings() {
        let set = |scope, name: &str, value: Option<&str>| Statement::Set {
            scope,
            name: name.into(),
            value: value.map(str::to_owned),
        };
        assert_eq!(one("set search_path = a, \"B\""), set(Scope::Session, "search_path", Some("a, B")));
        assert_eq!(one("SET LOCAL work_mem TO '8MB'"), set(Scope::Local, "work_mem", Some("8MB")));
        assert_eq!(one("set session time zone default"), set(Scope::Session, "TimeZone", None));
        assert_eq!(one("set names 'utf8'"), set(Scope::Session, "client_encoding", Some("utf8")));
        assert_eq!(one("set a.b to -1.5"), set(Scope::Session, "a.b", Some("-1.5")));
        assert_eq!(
            one("show transaction isolation level"),
            Statement::Show(Some("transaction_isolation".into()))
        );
        assert_eq!(one("show all"), Statement::Show(None));
        assert_eq!(one("reset all"), Statement::Reset(None));
    }

    #[test]
    fn prepared_statements_keep_their_text() {
        let Statement::Prepare { name, param_types, sql, .. } =
            one("prepare p (int, varchar(3)) as select $1,  $2 ")
        else {
            panic!("not a PREPARE")
        };
        assert_eq!((name.as_str(), sql.as_str()), ("p", "select $1,  $2"));
        assert_eq!(param_types, vec![23, 1043]);
        assert_eq!(
            one("execute p(-1, 'x', null, true)"),
            Statement::Execute {
                name: "p".into(),
                params: vec![Some("-1".into()), Some("x".into()), None, Some("true".into())]
            }
        );
    }

    #[test]
    fn roles_and_databases_are_understood() {
        let Statement::System(SystemStatement::CreateRole { name, properties, password }) =
            one("create user Ann with createdb password 'secret' connection limit 3")
        else {
            panic!("not a role")
        };
        assert_eq!(name, "ann");
        assert_eq!((properties.login, properties.create_database), (Some(true), Some(true)));
        assert_eq!(properties.connection_limit, Some(3));
        assert_eq!(password, Password::Given("secret".into()));
        assert!(!format!("{password:?}").contains("secret"));
        assert_eq!(
            one("create database d with owner = ann encoding 'UTF8'"),
            Statement::System(SystemStatement::CreateDatabase {
                name: "d".into(),
                owner: Some("ann".into())
            })
        );
        assert_eq!(
            one("drop database if exists d with (force)"),
            Statement::System(SystemStatement::DropDatabase { name: "d".into(), if_exists: true })
        );
        assert_eq!(error("create database d tablespace x").0, "0A000");
    }

    #[test]
    fn what_the_planner_gets_is_split_at_semicolons() {
        let statements = parse("select 1; ;insert into t values (';');-- end\n").unwrap();
        assert_eq!(statements.len(), 2);
        assert!(statements[0].looks_read_only());
        assert!(!statements[1].looks_read_only());
        assert!(!one("select * from t for update").looks_read_only());
        assert!(parse(" ; ").unwrap().is_empty());
    }

    #[test]
    fn syntax_errors_say_where() {
        assert_eq!(error("selec 1").1, "syntax error at or near \"selec\"");
        assert_eq!(error("selec 1").2, Some(1));
        assert_eq!(
            error("select 1; select 2 frm x y"),
            ("42601".into(), "syntax error at or near \"x\"".into(), Some(24))
        );
        assert_eq!(error("select 1 +").1, "syntax error at end of input");
        assert_eq!(error("begin foo").1, "syntax error at or near \"foo\"");
        assert_eq!(error("commit; rollback to").1, "syntax error at end of input");
        let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(error(&deep).0, "54001");
    }
}
