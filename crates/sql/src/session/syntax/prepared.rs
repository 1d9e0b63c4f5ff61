//! PREPARE and EXECUTE.

use std::sync::Arc;

use rustydb_types::datatype::DataType;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::text::{byte_offset, plan_statement};
use super::words::Words;
use crate::error::{SqlError, SqlState};
use crate::session::statement::Statement;

impl Words<'_> {
    pub(super) fn prepare(&mut self, dialect: &PostgreSqlDialect) -> Result<Statement, SqlError> {
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
                        let data_type = DataType::parse(text.trim().trim_start_matches("pg_catalog . "))
                            .ok_or_else(|| {
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

    pub(super) fn execute(&mut self) -> Result<Statement, SqlError> {
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
}
