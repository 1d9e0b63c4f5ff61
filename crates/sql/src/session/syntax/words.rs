//! The words of one statement, taken one after the other.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::text::near;
use crate::error::{SqlError, SqlState};

/// Walks over the tokens of one statement.
pub(super) struct Words<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: Vec<&'a TokenWithSpan>,
    pub(super) next: usize,
}

impl<'a> Words<'a> {
    pub(super) fn peek(&self) -> Option<&'a TokenWithSpan> {
        self.tokens.get(self.next).copied()
    }

    pub(super) fn unexpected(&self) -> SqlError {
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
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = matches!(self.peek().map(|token| &token.token),
            Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    pub(super) fn take_all(&mut self, words: &[&str]) -> bool {
        let start = self.next;
        let found = words.iter().all(|word| self.take(word));
        if !found {
            self.next = start;
        }
        found
    }

    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek().is_some_and(|next| next.token == *token);
        self.next += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.take(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// A name: as written when quoted, else in lower case.
    pub(super) fn name(&mut self) -> Result<String, SqlError> {
        match self.peek().map(|token| &token.token) {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn string(&mut self) -> Option<String> {
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

    pub(super) fn integer(&mut self) -> Result<i32, SqlError> {
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
}
