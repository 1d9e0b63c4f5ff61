//! Parsing: text to sqlparser's tree, with PostgreSQL's folding of names that are not quoted.

pub mod conflict;
pub mod create_as;
mod exclusion;
pub mod like;
pub mod privilege;
pub(crate) mod sequences;
mod spelling;
pub mod view;

use sqlparser::ast::{Expr, Query, SetExpr, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};

pub use self::exclusion::window_exclusion;
pub use self::spelling::{is_symmetric, is_variadic};
use crate::error::{SqlError, SqlState};

/// Deepest nesting that the parser follows.
const DEPTH_MAX: usize = 100;

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError::new(SqlState::SYNTAX_ERROR, error.to_string()))?;
    normalise(&mut tokens);
    Ok(tokens)
}

/// Prepares the tokens of one statement for the parser.
pub fn normalise(tokens: &mut Vec<TokenWithSpan>) {
    join_strings(tokens);
    fold_names(tokens);
    normalise_vacuum(tokens);
    normalise_analyze(tokens);
    normalise_locking(tokens);
    drop_only(tokens);
    like::mark(tokens);
    conflict::mark(tokens);
    create_as::add_types(tokens);
    sequences::normalise_overriding(tokens);
    sequences::normalise_sequence_name(tokens);
    sequences::order_options(tokens);
    normalise_trim(tokens);
    exclusion::respell(tokens);
    spelling::respell(tokens);
}

/// Puts all tokens on one line, so that a column is the place in the whole text, in characters from 1. Errors of
/// analysis, which no longer has the text, know their places by that.
pub fn flatten(sql: &str, tokens: &mut [TokenWithSpan]) {
    let mut starts = vec![0_u64];
    let mut place = 0;
    for character in sql.chars() {
        place += 1;
        if character == '\n' {
            starts.push(place);
        }
    }
    let flat = |location: Location| {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX).saturating_sub(1);
        match starts.get(line) {
            Some(start) if location.line > 0 => Location { line: 1, column: start + location.column },
            _ => location,
        }
    };
    for token in tokens {
        token.span.start = flat(token.span.start);
        token.span.end = flat(token.span.end);
    }
}

/// Joins string literals with only blanks, a line's end among them, in between: they are one literal.
fn join_strings(tokens: &mut [TokenWithSpan]) {
    let mut open: Option<usize> = None;
    let mut has_newline = false;
    for at in 0..tokens.len() {
        let Some((before, [token, ..])) = tokens.split_at_mut_checked(at) else { return };
        match &mut token.token {
            Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. }) => {
                has_newline = true
            }
            // Such a comment ends a literal, whatever follows it.
            Token::Whitespace(Whitespace::MultiLineComment(_)) => open = None,
            Token::Whitespace(_) => {}
            Token::SingleQuotedString(more) => {
                match open.and_then(|first| before.get_mut(first)).map(|first| &mut first.token) {
                    Some(Token::SingleQuotedString(text)) if has_newline => text.push_str(more),
                    // Its escapes would have to be read in what follows, too.
                    Some(Token::EscapedStringLiteral(text)) if has_newline && !more.contains('\\') => {
                        text.push_str(more);
                    }
                    _ => {
                        (open, has_newline) = (Some(at), false);
                        continue;
                    }
                }
                token.token = Token::Whitespace(Whitespace::Space);
                has_newline = false;
            }
            Token::EscapedStringLiteral(_) => (open, has_newline) = (Some(at), false),
            _ => (open, has_newline) = (None, false),
        }
    }
}

/// The first string that follows another one, or a number, with nothing but blanks between. The parser takes it for
/// a name of the column; PostgreSQL does not.
#[must_use]
pub fn misplaced_string(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    let is_string =
        |token: &Token| matches!(token, Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_));
    let significant = || tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let pairs = significant().zip(significant().skip(1));
    let mut misplaced = pairs.filter(|(first, second)| {
        is_string(&second.token) && (is_string(&first.token) || matches!(first.token, Token::Number(..)))
    });
    misplaced.next().map(|(_, second)| second)
}

/// Rewrites the options of VACUUM, of which the parser knows only FULL: those without meaning here go, and ANALYZE
/// becomes REINDEX, an option of other databases that stands in the tree for it.
fn normalise_vacuum(tokens: &mut [TokenWithSpan]) {
    let mut significant =
        tokens.iter_mut().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    if !significant.next().is_some_and(|token| is_keyword(&token.token, Keyword::VACUUM)) {
        return;
    }
    let mut is_listed = false;
    let mut marked = false;
    for token in significant {
        let blank = Token::Whitespace(Whitespace::Space);
        match &token.token {
            Token::LParen => is_listed = true,
            Token::RParen => is_listed = false,
            word if is_keyword(word, Keyword::ANALYZE) && !marked => {
                marked = true;
                token.token = Token::make_keyword("REINDEX");
                continue;
            }
            Token::Comma if is_listed => {}
            Token::Word(word)
                if is_listed || matches!(word.value.as_str(), "full" | "freeze" | "verbose" | "analyze") => {}
            _ => return,
        }
        token.token = blank;
    }
}

/// Drops the options of ANALYZE, which say how much it tells and whether it waits, not what it does.
fn normalise_analyze(tokens: &mut [TokenWithSpan]) {
    let mut significant =
        tokens.iter_mut().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    if !significant.next().is_some_and(|token| is_keyword(&token.token, Keyword::ANALYZE)) {
        return;
    }
    let mut is_listed = false;
    for token in significant {
        match &token.token {
            Token::LParen if !is_listed => is_listed = true,
            Token::RParen if is_listed => {
                token.token = Token::Whitespace(Whitespace::Space);
                return;
            }
            Token::Comma if is_listed => {}
            Token::Word(word)
                if word.quote_style.is_none()
                    && matches!(
                        word.value.as_str(),
                        "verbose" | "skip_locked" | "true" | "false" | "on" | "off"
                    ) => {}
            _ => return,
        }
        token.token = Token::Whitespace(Whitespace::Space);
        if !is_listed {
            return;
        }
    }
}

/// FOR NO KEY UPDATE becomes FOR UPDATE, and FOR KEY SHARE becomes FOR SHARE: the parser has two strengths of row
/// locks, and the stronger of a pair keeps all that the weaker one promises.
fn normalise_locking(tokens: &mut [TokenWithSpan]) {
    let is_key = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value == "key");
    if !tokens.iter().any(is_key) {
        return;
    }
    let words: Vec<usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
        .map(|(at, _)| at)
        .collect();
    for (start, _) in words.iter().enumerate() {
        for (pattern, dropped) in
            [(&["for", "no", "key", "update"][..], 1..3), (&["for", "key", "share"][..], 1..2)]
        {
            let places = words.get(start..start + pattern.len()).unwrap_or_default();
            let fits = places.len() == pattern.len()
                && places.iter().zip(pattern).all(|(at, word)| {
                    matches!(tokens.get(*at).map(|token| &token.token),
                        Some(Token::Word(found)) if found.quote_style.is_none() && found.value == *word)
                });
            for at in places.get(dropped).unwrap_or_default().iter().filter(|_| fits) {
                if let Some(token) = tokens.get_mut(*at) {
                    token.token = Token::Whitespace(Whitespace::Space);
                }
            }
        }
    }
}

/// Drops ONLY before the name of a table: no table inherits from another.
fn drop_only(tokens: &mut [TokenWithSpan]) {
    let mut takes_table = false;
    let mut significant =
        tokens.iter_mut().filter(|token| !matches!(token.token, Token::Whitespace(_))).peekable();
    while let Some(token) = significant.next() {
        let followed = matches!(significant.peek().map(|next| &next.token), Some(Token::Word(_)));
        let Token::Word(word) = &token.token else {
            takes_table = false;
            continue;
        };
        if takes_table && followed && word.quote_style.is_none() && word.value == "only" {
            token.token = Token::Whitespace(Whitespace::Space);
        } else {
            takes_table = matches!(word.keyword, Keyword::FROM | Keyword::JOIN | Keyword::UPDATE);
        }
    }
}

/// Whether there is a comma before the parenthesis that is open is closed.
fn has_list(tokens: &[TokenWithSpan]) -> bool {
    let mut depth = 0;
    for token in tokens {
        match token.token {
            Token::Comma if depth == 0 => return true,
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket if depth == 0 => return false,
            Token::RParen | Token::RBracket => depth -= 1,
            _ => {}
        }
    }
    false
}

/// TRIM with a side but nothing to trim, which the parser does not know: BOTH FROM goes, and the others trim blanks.
fn normalise_trim(tokens: &mut [TokenWithSpan]) {
    let words: Vec<usize> = (tokens.iter().enumerate())
        .filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
        .map(|(at, _)| at)
        .collect();
    for part in words.windows(4) {
        let [trim, open, side, from] = part else { continue };
        let is = |at: usize, keyword| tokens.get(at).is_some_and(|token| is_keyword(&token.token, keyword));
        if !is(*trim, Keyword::TRIM)
            || !is(*from, Keyword::FROM)
            || tokens.get(*open).is_none_or(|token| token.token != Token::LParen)
            || has_list(tokens.get(*from..).unwrap_or_default())
        {
            continue;
        }
        if is(*side, Keyword::BOTH) {
            for at in [*side, *from] {
                if let Some(token) = tokens.get_mut(at) {
                    token.token = Token::Whitespace(Whitespace::Space);
                }
            }
        } else if (is(*side, Keyword::LEADING) || is(*side, Keyword::TRAILING))
            && let Some(token) = tokens.get_mut(*side + 1)
        {
            token.token = Token::SingleQuotedString(" ".into());
        }
    }
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword)
}

/// Folds words that are not quoted to lower case, as PostgreSQL does.
pub fn fold_names(tokens: &mut [TokenWithSpan]) {
    for token in tokens {
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
            && word.value.chars().any(char::is_uppercase)
        {
            word.value = word.value.to_lowercase();
        }
    }
}

fn parser(sql: &str) -> Result<Parser<'static>, SqlError> {
    Ok(Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(tokens(sql)?))
}

/// The error that a client sees for a text that does not parse.
#[must_use]
pub fn syntax_error(error: ParserError) -> SqlError {
    match error {
        ParserError::RecursionLimitExceeded => {
            SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {message}"))
        }
    }
}

/// The statements of a text.
///
/// # Errors
/// 42601 when it does not parse.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    parser(sql)?.parse_statements().map_err(syntax_error)
}

/// One expression, such as a stored default.
///
/// # Errors
/// 42601 when it does not parse.
pub fn parse_expr(sql: &str) -> Result<Expr, SqlError> {
    parser(sql)?.parse_expr().map_err(syntax_error)
}

/// One query.
///
/// # Errors
/// 42601 when it does not parse.
pub fn parse_query(sql: &str) -> Result<Query, SqlError> {
    parser(sql)?.parse_query().map(|query| *query).map_err(syntax_error)
}

/// The SELECT of a query that is nothing else.
#[must_use]
pub fn lone_select(query: &Query) -> Option<&sqlparser::ast::Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}
