//! What the parser does not know of sequences and identity columns.

use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// What parts the parts of a name that stands where the parser knows only simple ones; no text has it.
pub(crate) const NAME_PARTS: &str = "\0";

/// The words of a statement with their places, blanks left out; names in quotes are no words.
fn plain_words(tokens: &[TokenWithSpan]) -> Vec<(usize, &str)> {
    let significant =
        tokens.iter().enumerate().filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)));
    significant
        .map(|(at, token)| match &token.token {
            Token::Word(word) if word.quote_style.is_none() => (at, word.value.as_str()),
            _ => (at, ""),
        })
        .collect()
}

/// Rewrites `OVERRIDING SYSTEM VALUE` and `OVERRIDING USER VALUE` of an INSERT, for which the parser has no word: they
/// become OVERWRITE before INTO, or TABLE behind it, which are words of other databases that stand in the tree for
/// them.
pub(super) fn normalise_overriding(tokens: &mut Vec<TokenWithSpan>) {
    let words = plain_words(tokens);
    let Some(clause) = words
        .windows(3)
        .position(|words| matches!(words, [(_, "overriding"), (_, "system" | "user"), (_, "value")]))
    else {
        return;
    };
    let Some(into) = words.get(..clause).and_then(|before| {
        before.windows(2).rposition(|words| matches!(words, [(_, "insert"), (_, "into")])).map(|at| at + 1)
    }) else {
        return;
    };
    let is_system = words.get(clause + 1).is_some_and(|(_, word)| *word == "system");
    let Some((into_at, _)) = words.get(into).copied() else { return };
    let places: Vec<usize> = words.iter().skip(clause).take(3).map(|(at, _)| *at).collect();
    let Some(span) = tokens.get(into_at).map(|token| token.span) else { return };
    for at in places {
        if let Some(token) = tokens.get_mut(at) {
            token.token = Token::Whitespace(Whitespace::Space);
        }
    }
    let marker = Token::make_keyword(if is_system { "OVERWRITE" } else { "TABLE" });
    tokens.insert(if is_system { into_at } else { into_at + 1 }, TokenWithSpan { token: marker, span });
}

/// Takes `SEQUENCE NAME s.n` out of the options of an identity that ALTER TABLE adds, for which the parser has no word:
/// the name becomes that of an ON CLUSTER behind the table's, with its parts parted by [`NAME_PARTS`].
pub(super) fn normalise_sequence_name(tokens: &mut Vec<TokenWithSpan>) {
    let words = plain_words(tokens);
    let word = |at: usize| words.get(at).map_or("", |(_, word)| *word);
    if (word(0), word(1)) != ("alter", "table") {
        return;
    }
    let is_clause = |at: &usize| {
        (word(*at), word(at + 1)) == ("sequence", "name")
            && at.checked_sub(2).is_some_and(|before| word(before) == "identity")
    };
    let Some(clause) = (0..words.len()).find(is_clause) else { return };
    let Some(alter) = (2..words.len()).find(|at| word(*at) == "alter") else { return };
    let token_at = |at: usize| words.get(at).and_then(|(at, _)| tokens.get(*at)).map(|token| &token.token);
    let mut parts = Vec::new();
    let mut at = clause + 2;
    while let Some(Token::Word(part)) = token_at(at) {
        parts.push(part.value.clone());
        at += 1;
        if token_at(at) != Some(&Token::Period) {
            break;
        }
        at += 1;
    }
    if parts.is_empty() {
        return;
    }
    let blanked: Vec<usize> = words.iter().take(at).skip(clause).map(|(at, _)| *at).collect();
    let Some((alter_at, _)) = words.get(alter).copied() else { return };
    let Some(span) = tokens.get(alter_at).map(|token| token.span) else { return };
    for at in blanked {
        if let Some(token) = tokens.get_mut(at) {
            token.token = Token::Whitespace(Whitespace::Space);
        }
    }
    let name = Token::make_word(&parts.join(NAME_PARTS), Some('"'));
    for token in [name, Token::make_keyword("CLUSTER"), Token::make_keyword("ON")] {
        tokens.insert(alter_at, TokenWithSpan { token: Token::Whitespace(Whitespace::Space), span });
        tokens.insert(alter_at, TokenWithSpan { token, span });
    }
}

/// Puts the options of a sequence into the one order that the parser knows; PostgreSQL takes them in any.
pub(super) fn order_options(tokens: &mut [TokenWithSpan]) {
    let words = plain_words(tokens);
    let word = |at: usize| words.get(at).map_or("", |(_, word)| *word);
    let of_statement = match (word(0), word(1), word(2)) {
        ("create", "sequence", _) => Some(2),
        ("create", "temp" | "temporary" | "unlogged", "sequence") => Some(3),
        _ => None,
    };
    let starts: Vec<usize> = match of_statement {
        Some(mut name) => {
            // The name is no option, whatever it is.
            name +=
                if (word(name), word(name + 1), word(name + 2)) == ("if", "not", "exists") { 3 } else { 0 };
            let is_dot = |at: usize| {
                words
                    .get(at)
                    .and_then(|(at, _)| tokens.get(*at))
                    .is_some_and(|dot| dot.token == Token::Period)
            };
            while is_dot(name + 1) {
                name += 2;
            }
            vec![name + 1]
        }
        None => {
            let identity = (0..words.len()).filter(|at| {
                word(*at) == "identity"
                    && at.checked_sub(2).is_some_and(|before| {
                        matches!((word(before), word(before + 1)), ("always" | "default", "as"))
                    })
            });
            identity.map(|at| at + 1).collect()
        }
    };
    let mut ranges = Vec::new();
    for start in starts {
        let is_option = |at: usize| match (word(at), word(at + 1)) {
            ("as", _) if of_statement.is_some() => Some(0),
            ("increment", _) => Some(1),
            ("minvalue", _) | ("no", "minvalue") => Some(2),
            ("maxvalue", _) | ("no", "maxvalue") => Some(3),
            ("start", _) => Some(4),
            ("cache", _) => Some(5),
            ("cycle", _) | ("no", "cycle") => Some(6),
            ("owned", "by") if of_statement.is_some() => Some(7),
            _ => None,
        };
        // `NO` begins its option; the word behind it does not begin another one.
        let mut clauses: Vec<(usize, usize)> = Vec::new();
        let mut at = start;
        let mut end = words.len();
        while at < words.len() {
            let token = words.get(at).and_then(|(at, _)| tokens.get(*at)).map(|token| &token.token);
            if matches!(token, Some(Token::SemiColon | Token::EOF))
                || (of_statement.is_none() && token == Some(&Token::RParen))
            {
                end = at;
                break;
            }
            if of_statement.is_none() && at == start && token != Some(&Token::LParen) {
                end = at;
                break;
            }
            if let Some(rank) = is_option(at) {
                clauses.push((rank, at));
                at += usize::from(words.get(at).is_some_and(|(_, word)| *word == "no"));
            }
            at += 1;
        }
        if clauses.len() < 2 {
            continue;
        }
        ranges.push((clauses, end));
    }
    let ordered: Vec<(Vec<usize>, Vec<usize>)> = ranges
        .into_iter()
        .map(|(clauses, end)| {
            let bounds: Vec<usize> =
                clauses.iter().map(|(_, at)| *at).skip(1).chain(std::iter::once(end)).collect();
            let mut sorted: Vec<(usize, usize, usize)> =
                clauses.iter().zip(bounds).map(|((rank, at), end)| (*rank, *at, end)).collect();
            let place = |at: usize| words.get(at).map(|(at, _)| *at);
            let places: Vec<usize> =
                sorted.iter().flat_map(|(_, from, to)| (*from..*to).filter_map(place)).collect();
            sorted.sort_by_key(|(rank, _, _)| *rank);
            let order = sorted.iter().flat_map(|(_, from, to)| (*from..*to).filter_map(place)).collect();
            (places, order)
        })
        .collect();
    for (places, order) in ordered {
        let moved: Vec<TokenWithSpan> = order.iter().filter_map(|at| tokens.get(*at).cloned()).collect();
        for (place, token) in places.into_iter().zip(moved) {
            if let Some(slot) = tokens.get_mut(place) {
                *slot = token;
            }
        }
    }
}
