//! LIKE within CREATE TABLE, which the parser knows alone in the parentheses only. In the tree it stands as a column
//! with a name that none can have.

use sqlparser::ast::ColumnDef;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// What the name of such a column begins with; what follows is parted by it, too.
const MARK: char = '\u{1}';

/// What LIKE copies beside the columns with their types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Including {
    /// INCLUDING COMMENTS.
    pub comments: bool,
    /// INCLUDING CONSTRAINTS: those of CHECK.
    pub constraints: bool,
    /// INCLUDING DEFAULTS.
    pub defaults: bool,
    /// INCLUDING GENERATED.
    pub generated: bool,
    /// INCLUDING IDENTITY.
    pub identity: bool,
    /// INCLUDING INDEXES, with their constraints.
    pub indexes: bool,
}

/// A table whose columns another one gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like {
    /// Its name, with its schema before it if that is written.
    pub name: Vec<String>,
    /// What is copied.
    pub including: Including,
}

impl Including {
    /// Takes `INCLUDING word` or `EXCLUDING word`; whether there is such a word.
    fn take(&mut self, word: &str, is_in: bool) -> bool {
        match word {
            "all" => {
                *self = Self {
                    comments: is_in,
                    constraints: is_in,
                    defaults: is_in,
                    generated: is_in,
                    identity: is_in,
                    indexes: is_in,
                };
            }
            "comments" => self.comments = is_in,
            "constraints" => self.constraints = is_in,
            "defaults" => self.defaults = is_in,
            "generated" => self.generated = is_in,
            "identity" => self.identity = is_in,
            "indexes" => self.indexes = is_in,
            // How values are stored, and what more ANALYZE is to find out, is not said of tables here.
            "statistics" | "storage" | "compression" => {}
            _ => return false,
        }
        true
    }

    fn letters(self) -> String {
        [
            (self.comments, 'c'),
            (self.constraints, 'k'),
            (self.defaults, 'd'),
            (self.generated, 'g'),
            (self.identity, 'i'),
            (self.indexes, 'x'),
        ]
        .into_iter()
        .filter_map(|(is_in, letter)| is_in.then_some(letter))
        .collect()
    }

    fn of_letters(letters: &str) -> Self {
        let has = |letter| letters.contains(letter);
        Self {
            comments: has('c'),
            constraints: has('k'),
            defaults: has('d'),
            generated: has('g'),
            identity: has('i'),
            indexes: has('x'),
        }
    }
}

/// The LIKE that a column stands for.
#[must_use]
pub fn of_column(column: &ColumnDef) -> Option<Like> {
    let text = column.name.value.strip_prefix(MARK)?;
    let mut parts: Vec<String> = text.split(MARK).map(str::to_owned).collect();
    let letters = parts.pop()?;
    Some(Like { name: parts, including: Including::of_letters(&letters) })
}

fn word(token: Option<&TokenWithSpan>) -> &str {
    match token.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.as_str(),
        _ => "",
    }
}

/// Puts a column in the place of each LIKE of a CREATE TABLE.
pub(super) fn mark(tokens: &mut Vec<TokenWithSpan>) {
    let significant: Vec<usize> = (0..tokens.len())
        .filter(|at| !matches!(tokens.get(*at).map(|token| &token.token), Some(Token::Whitespace(_)) | None))
        .collect();
    let at = |place: usize| significant.get(place).and_then(|at| tokens.get(*at));
    if word(at(0)) != "create" || !(1..4).any(|place| word(at(place)) == "table") {
        return;
    }
    let mut found = Vec::new();
    let mut depth = 0_usize;
    for place in 0..significant.len() {
        let opens = match at(place).map(|token| &token.token) {
            Some(Token::LParen) => {
                depth += 1;
                depth == 1
            }
            Some(Token::RParen) => {
                depth = depth.saturating_sub(1);
                false
            }
            Some(Token::Comma) => depth == 1,
            _ => false,
        };
        if opens
            && word(at(place + 1)) == "like"
            && let Some((like, end)) = like_at(&at, place + 2)
        {
            found.push((place + 1, end, like));
        }
    }
    for (start, end, like) in found.into_iter().rev() {
        let (Some(first), Some(last)) = (significant.get(start), significant.get(end - 1)) else { continue };
        // It stands where the name of the table does.
        let named = significant.get(start + 1).and_then(|at| tokens.get(*at));
        let Some(span) = named.map(|token| token.span) else { continue };
        let parts = like.name.iter().map(String::as_str);
        let letters = like.including.letters();
        let name: String =
            parts.chain([letters.as_str()]).map(|part| format!("{MARK}{part}")).collect::<Vec<_>>().concat();
        let name = Word { value: name, quote_style: Some('"'), keyword: Keyword::NoKeyword };
        let new = |token| TokenWithSpan { token, span };
        let _replaced =
            tokens.splice(*first..=*last, [new(Token::Word(name)), new(Token::make_keyword("INT"))]);
    }
}

/// The LIKE whose word stands before this place, and where it has ended.
fn like_at<'t>(at: &impl Fn(usize) -> Option<&'t TokenWithSpan>, start: usize) -> Option<(Like, usize)> {
    let mut place = start;
    let mut name = Vec::new();
    loop {
        match at(place).map(|token| &token.token) {
            Some(Token::Word(part)) => name.push(part.value.clone()),
            _ => return None,
        }
        place += 1;
        match at(place).map(|token| &token.token) {
            Some(Token::Period) => place += 1,
            _ => break,
        }
    }
    let mut including = Including::default();
    loop {
        let is_in = match word(at(place)) {
            "including" => true,
            "excluding" => false,
            _ => break,
        };
        if !including.take(word(at(place + 1)), is_in) {
            return None;
        }
        place += 2;
    }
    Some((Like { name, including }, place))
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::Statement;

    use super::*;

    #[test]
    fn like_stands_as_a_column() {
        let statements = crate::parse::parse(
            "create table t (a int, like s.\"U\" including all excluding indexes, b int)",
        );
        let statements = statements.unwrap();
        let [Statement::CreateTable(create)] = statements.as_slice() else { panic!("{statements:?}") };
        let likes: Vec<Option<Like>> = create.columns.iter().map(of_column).collect();
        let [None, Some(like), None] = likes.as_slice() else { panic!("{likes:?}") };
        assert_eq!(like.name, ["s", "U"]);
        assert!(like.including.defaults && like.including.comments && !like.including.indexes);
    }
}
