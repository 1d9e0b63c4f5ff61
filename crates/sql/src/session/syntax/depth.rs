//! How deep the tree of a statement will be, from its tokens, before it is parsed.
//!
//! The parser counts how deep parentheses nest. A chain such as `1 + 1 + ...` it reads in a loop, into a tree as deep as
//! the chain is long; and statements in statements (`EXPLAIN EXPLAIN ...`) it does not count either. Whatever walks such
//! a tree, or drops it, needs stack for each level, and a stack that is used up ends the process. So chains are bounded
//! here.
//!
//! ```text
//!   SELECT a + b * (c + d), e - f      an opened parenthesis: deeper; a comma: the chain before it is over
//!            1   2    3       1        levels; the deepest counts
//! ```

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{SqlError, SqlState};

/// Levels that a tree may have. The threads that run statements have stack for it (see `serve` of the server).
const LEVELS_MAX: u32 = 4000;
/// Words behind which the parser, or the planner, takes much more stack than for an operator.
const LARGE: u32 = 10;

/// Refuses statements whose trees would be too deep.
///
/// # Errors
/// 54001.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    // Levels of the chain at each open parenthesis, and their sum.
    let mut chains: Vec<u32> = vec![0];
    let mut sum = 0_u32;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => chains.push(0),
            Token::RParen | Token::RBracket | Token::RBrace => {
                if chains.len() > 1 {
                    sum -= chains.pop().unwrap_or(0);
                }
            }
            Token::SemiColon => {
                chains = vec![0];
                sum = 0;
            }
            Token::Comma => end_chain(&mut chains, &mut sum),
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                // What the parser nests, and counts, lies between them.
                Keyword::CASE => chains.push(0),
                Keyword::END if chains.len() > 1 => sum -= chains.pop().unwrap_or(0),
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE => end_chain(&mut chains, &mut sum),
                keyword => add(&mut chains, &mut sum, weight(keyword))?,
            },
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Whitespace(_)
            | Token::Period
            | Token::EOF => {}
            _ => add(&mut chains, &mut sum, 1)?,
        }
    }
    Ok(())
}

fn end_chain(chains: &mut [u32], sum: &mut u32) {
    if let Some(chain) = chains.last_mut() {
        *sum -= *chain;
        *chain = 0;
    }
}

fn add(chains: &mut [u32], sum: &mut u32, levels: u32) -> Result<(), SqlError> {
    if let Some(chain) = chains.last_mut() {
        *chain += levels;
    }
    *sum += levels;
    if *sum <= LEVELS_MAX {
        return Ok(());
    }
    Err(SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .with_hint(format!("Simplify the statement: its operators nest deeper than {LEVELS_MAX} levels.")))
}

const fn weight(keyword: Keyword) -> u32 {
    match keyword {
        Keyword::AND
        | Keyword::OR
        | Keyword::NOT
        | Keyword::IS
        | Keyword::IN
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::SIMILAR
        | Keyword::BETWEEN
        | Keyword::COLLATE
        | Keyword::AT
        | Keyword::OVERLAPS
        | Keyword::INTERVAL
        | Keyword::PRIOR => 1,
        Keyword::EXPLAIN
        | Keyword::DESCRIBE
        | Keyword::DESC
        | Keyword::PREPARE
        | Keyword::JOIN
        | Keyword::UNION
        | Keyword::EXCEPT
        | Keyword::INTERSECT
        | Keyword::ANALYZE => LARGE,
        _ => 0,
    }
}
