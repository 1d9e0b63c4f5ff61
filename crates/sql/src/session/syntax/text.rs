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

use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::depth;
use super::refused;
use super::size;
use super::words::Words;
use crate::error::{SqlError, SqlState};
use crate::session::statement::Statement;

/// How deep expressions and queries may nest.
const RECURSION_DEPTH_MAX: usize = 200;

/// Parses SQL text.
///
/// # Errors
/// 42601 with the position, 54001 for what nests too deeply or is too large, 0A000 for what is not supported.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let dialect = PostgreSqlDialect {};
    size::check(sql)?;
    let mut tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| {
        let message = if error.message.to_ascii_lowercase().contains("unterminated") {
            error.message.clone()
        } else {
            format!("syntax error: {}", error.message)
        };
        SqlError::new(SqlState::SYNTAX_ERROR, message).at(offset_of(sql, error.location))
    })?;
    depth::check(&tokens)?;
    crate::parse::flatten(sql, &mut tokens);
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| tokens.iter().any(|token| !is_blank(&token.token)))
        .map(|tokens| parse_one(sql, tokens, &dialect))
        .collect()
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

/// Place in the text, in characters from 1, of a token on its one line.
pub(super) fn position(location: Location) -> u32 {
    u32::try_from(location.column).unwrap_or(u32::MAX)
}

/// Place in the text, in characters from 1, of a line and a column.
fn offset_of(sql: &str, location: Location) -> u32 {
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

pub(super) fn byte_offset(sql: &str, location: Location) -> usize {
    let place = usize::try_from(position(location)).unwrap_or(usize::MAX).saturating_sub(1);
    sql.char_indices().nth(place).map_or(sql.len(), |(offset, _)| offset)
}

fn parse_one(
    sql: &str,
    tokens: &[TokenWithSpan],
    dialect: &PostgreSqlDialect,
) -> Result<Statement, SqlError> {
    let mut words =
        Words { sql, tokens: tokens.iter().filter(|token| !is_blank(&token.token)).collect(), next: 0 };
    let parsed = match words.utility(dialect) {
        Ok(Some(_)) if words.peek().is_some() => Err(words.unexpected()),
        Ok(Some(statement)) => Ok(statement),
        Ok(None) => plan_statement(sql, tokens.to_vec(), dialect)
            .map(|statement| Statement::Plan(Arc::new(statement))),
        Err(error) => Err(error),
    };
    parsed.map_err(|error| match refused::feature(&words.tokens) {
        Some(feature) if error.state() == SqlState::SYNTAX_ERROR => {
            SqlError::not_supported(format!("{feature} is not supported"))
        }
        _ => error,
    })
}

pub(super) fn plan_statement(
    sql: &str,
    mut tokens: Vec<TokenWithSpan>,
    dialect: &PostgreSqlDialect,
) -> Result<ast::Statement, SqlError> {
    crate::copy::normalise_tokens(&mut tokens);
    crate::parse::normalise(&mut tokens);
    let view = crate::parse::view::take(sql, &mut tokens);
    let alters_view = crate::parse::view::normalise_alter(&mut tokens);
    if let Some(misplaced) = crate::parse::misplaced_string(&tokens) {
        return Err(near(sql, misplaced));
    }
    let mut parser =
        Parser::new(dialect).with_recursion_limit(RECURSION_DEPTH_MAX).with_tokens_with_locations(tokens);
    let own = match super::sequence::alter(&mut parser) {
        Ok(None) => super::types::statement(&mut parser),
        other => other,
    };
    let mut statement = match own.map_err(|error| parser_error(sql, error))? {
        Some(statement) => statement,
        None => parser.parse_statement().map_err(|error| parser_error(sql, error))?,
    };
    match (&mut statement, view) {
        (ast::Statement::CreateView(create), Some(view)) => crate::parse::view::put(view, create),
        (ast::Statement::AlterTable(alter), _) if alters_view => {
            alter.table_type = Some(ast::AlterTableType::External);
        }
        _ => {}
    }
    let rest = parser.peek_token();
    if rest.token == Token::EOF { Ok(statement) } else { Err(near(sql, &rest)) }
}

pub(super) fn near(sql: &str, token: &TokenWithSpan) -> SqlError {
    let (start, end) = (byte_offset(sql, token.span.start), byte_offset(sql, token.span.end));
    let text = sql.get(start..end.max(start)).filter(|text| !text.is_empty());
    let text = text.map_or_else(|| token.token.to_string(), str::to_owned);
    SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{text}\""))
        .at(position(token.span.start))
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
                .at(position(location))
        }
        (_, Some(location)) => {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")).at(position(location))
        }
        _ => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")),
    }
}
