//! Splitting text into statements where psql does: at `;` outside quotes, comments and parentheses.

use std::str::CharIndices;

/// The statements of a text that are complete, each with its semicolon, and what is left: the beginning of the next
/// one, empty when there are only blanks and comments.
pub(crate) fn split(text: &str) -> (Vec<&str>, &str) {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut depth = 0_usize;
    // Whether anything but blanks and comments was seen since `start`.
    let mut begun = false;
    let mut previous = ' ';
    let mut rest = text.char_indices();
    while let Some((at, character)) = rest.next() {
        let following = rest.as_str();
        match character {
            '\'' if matches!(previous, 'e' | 'E') && !before_is_word(text, at.saturating_sub(1)) => {
                begun = true;
                if !skip_quoted(&mut rest, '\'', Escape::Backslash) {
                    return (statements, rest_of(text, start));
                }
            }
            '\'' | '"' => {
                begun = true;
                if !skip_quoted(&mut rest, character, Escape::None) {
                    return (statements, rest_of(text, start));
                }
            }
            '$' if !before_is_word(text, at) => {
                begun = true;
                if let Some(tag) = dollar_tag(rest_of(text, at)) {
                    let body = at + tag.len();
                    let Some(end) = rest_of(text, body).find(tag) else {
                        return (statements, rest_of(text, start));
                    };
                    skip_to(&mut rest, text, body + end + tag.len());
                }
            }
            '-' if following.starts_with('-') => match following.find('\n') {
                Some(end) => skip_to(&mut rest, text, at + 1 + end),
                // Its end may come with the next line.
                None if begun => return (statements, rest_of(text, start)),
                None => return (statements, ""),
            },
            '/' if following.starts_with('*') => {
                let Some(length) = block_comment(rest_of(text, at)) else {
                    return (statements, rest_of(text, start));
                };
                skip_to(&mut rest, text, at + length);
            }
            ';' if depth == 0 => {
                let end = at + character.len_utf8();
                if begun {
                    statements.push(text.get(start..end).unwrap_or_default().trim());
                }
                (start, begun) = (end, false);
            }
            blank if blank.is_whitespace() => {}
            other => {
                begun = true;
                match other {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        previous = character;
    }
    (statements, if begun { rest_of(text, start) } else { "" })
}

fn rest_of(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

/// Whether a letter, a digit or the like stands directly before a place, so that what is there belongs to a name.
fn before_is_word(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    before.is_some_and(|character| character.is_alphanumeric() || matches!(character, '_' | '$'))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
}

/// Goes behind the closing quote; false when there is none. A doubled quote ends one literal and begins the next.
fn skip_quoted(rest: &mut CharIndices<'_>, quote: char, escape: Escape) -> bool {
    while let Some((_, character)) = rest.next() {
        if character == quote {
            if escape == Escape::None || !rest.as_str().starts_with(quote) {
                return true;
            }
            rest.next();
        } else if character == '\\' && escape == Escape::Backslash {
            rest.next();
        }
    }
    false
}

/// `$tag$` at the beginning of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('$')?;
    let end = inside.find('$')?;
    let name = inside.get(..end)?;
    let fits = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if fits { text.get(..end + 2) } else { None }
}

/// Length in bytes of the comment at the beginning of a text; comments nest.
fn block_comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
}

fn skip_to(rest: &mut CharIndices<'_>, text: &str, end: usize) {
    while rest.as_str().len() > text.len().saturating_sub(end) && rest.next().is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_quotes_comments_and_parentheses() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("select 1;", &["select 1;"], ""),
            ("select 1; select 2;\n", &["select 1;", "select 2;"], ""),
            ("select ';'; select", &["select ';';"], " select"),
            ("select 'it''s;';", &["select 'it''s;';"], ""),
            (r"select E'\';';", &[r"select E'\';';"], ""),
            (r"select '\'; select 2;", &[r"select '\';", "select 2;"], ""),
            ("select \"a;b\";", &["select \"a;b\";"], ""),
            ("select $$;$$; select $x$;$$;$x$;", &["select $$;$$;", "select $x$;$$;$x$;"], ""),
            ("select $1; select a$b$;", &["select $1;", "select a$b$;"], ""),
            ("select 1 -- ;\n;", &["select 1 -- ;\n;"], ""),
            ("-- nothing;\n", &[], ""),
            ("/* a; /* b; */ c; */ select 1;", &["/* a; /* b; */ c; */ select 1;"], ""),
            ("/* open;", &[], "/* open;"),
            ("create rule r as (a; b);", &["create rule r as (a; b);"], ""),
            (";;", &[], ""),
            ("select 'open;", &[], "select 'open;"),
            ("select 1 -- ;", &[], "select 1 -- ;"),
            ("", &[], ""),
        ];
        for (text, statements, rest) in cases {
            assert_eq!(split(text), (statements.to_vec(), *rest), "{text}");
        }
    }
}
