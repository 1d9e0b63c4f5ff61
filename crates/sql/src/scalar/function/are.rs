//! PostgreSQL's advanced regular expressions in the spelling of the `regex` crate.
//!
//! The two languages differ in escapes (`\m`, `\y`, `\b`), in brackets, in what a brace means, in options, and in which
//! of several matches is taken: PostgreSQL's is the longest one, or the shortest one where the first quantifier with a
//! preference is a lazy one. What the crate cannot do, back references and lookaround, is refused (0A000).
//! Source: chapter 9.7.3 of PostgreSQL's manual.

use std::iter::Peekable;
use std::str::Chars;

use crate::error::{SqlError, SqlState};

/// Largest number in braces.
const REPETITION_MAX: u32 = 255;

/// The options of a pattern.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Letters match in either case.
    pub(super) fold: bool,
    /// `.` and brackets that begin with `^` do not match a line's end.
    pub(super) newline_stops: bool,
    /// `^` and `$` match at the ends of lines, too.
    pub(super) newline_anchors: bool,
    /// Blanks and comments mean nothing.
    expanded: bool,
    /// The pattern is the text to be found.
    literal: bool,
}

/// A pattern in the other spelling.
#[derive(Debug)]
pub(super) struct Translated {
    /// The pattern.
    pub(super) pattern: String,
    /// Its options.
    pub(super) options: Options,
    /// Of several matches from one place on, the shortest is taken.
    pub(super) shortest: bool,
    /// There is no choice between matches that the two languages would make differently.
    pub(super) is_plain: bool,
}

impl Options {
    /// Takes in option letters.
    fn add(&mut self, letters: &str) -> Result<(), SqlError> {
        for letter in letters.chars() {
            match letter {
                'i' => self.fold = true,
                'c' => self.fold = false,
                'n' | 'm' => (self.newline_stops, self.newline_anchors) = (true, true),
                'p' => (self.newline_stops, self.newline_anchors) = (true, false),
                'w' => (self.newline_stops, self.newline_anchors) = (false, true),
                's' => (self.newline_stops, self.newline_anchors) = (false, false),
                'q' => self.literal = true,
                'x' => self.expanded = true,
                't' => self.expanded = false,
                'g' => {}
                'b' | 'e' => {
                    return Err(SqlError::not_supported(format!(
                        "regular expression option \"{letter}\" is not supported"
                    )));
                }
                other => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("invalid regular expression option: \"{other}\""),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn invalid(reason: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {reason}"))
}

/// Which match a part of a pattern prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preference {
    Longest,
    Shortest,
}

/// A group that is open, or the whole pattern.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// What the branch prefers, once a part of it has a preference.
    branch: Option<Preference>,
    has_branches: bool,
}

/// Translates a pattern with PostgreSQL's letters for options.
///
/// # Errors
/// 2201B when it is malformed, 22023 for an unknown option, 0A000 for what is not supported.
pub(super) fn translate(pattern: &str, flags: &str) -> Result<Translated, SqlError> {
    let mut options = Options::default();
    options.add(flags)?;
    let mut body = pattern;
    if let Some(rest) = body.strip_prefix("***=") {
        options.literal = true;
        body = rest;
    } else if let Some(rest) = body.strip_prefix("***:") {
        body = rest;
    } else if body.starts_with("***") {
        return Err(invalid("quantifier operand invalid"));
    }
    if !options.literal
        && let Some((letters, rest)) = body.strip_prefix("(?").and_then(|rest| rest.split_once(')'))
        && !letters.is_empty()
        && letters.bytes().all(|letter| letter.is_ascii_alphabetic())
    {
        options.add(letters).map_err(|error| match error.state() {
            SqlState::INVALID_PARAMETER_VALUE => invalid("invalid embedded option"),
            _ => error,
        })?;
        body = rest;
    }
    if options.literal {
        let pattern = regex::escape(body);
        return Ok(Translated { pattern, options, shortest: false, is_plain: true });
    }
    let mut translator = Translator {
        rest: body.chars().peekable(),
        options,
        out: String::with_capacity(body.len() + 8),
        levels: vec![Level::default()],
        atom: Atom::None,
        choices: 0,
        has_branches: false,
    };
    translator.run()?;
    let whole = translator.levels.last().copied().unwrap_or_default();
    Ok(Translated {
        shortest: !whole.has_branches && whole.branch == Some(Preference::Shortest),
        is_plain: !translator.has_branches && translator.choices <= 1,
        pattern: translator.out,
        options,
    })
}

/// What stands before the place that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Atom {
    /// Nothing that could be repeated.
    None,
    /// Something that could, with the preference that it has.
    Plain(Option<Preference>),
    /// Something that is repeated already.
    Quantified(Option<Preference>),
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    options: Options,
    out: String,
    levels: Vec<Level>,
    atom: Atom,
    /// Quantifiers that leave a choice.
    choices: usize,
    has_branches: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), SqlError> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.bracket()?,
                '(' => self.open()?,
                ')' => {
                    self.settle();
                    let Some(level) = self.levels.pop().filter(|_| !self.levels.is_empty()) else {
                        return Err(invalid("parentheses () not balanced"));
                    };
                    let preference =
                        if level.has_branches { Some(Preference::Longest) } else { level.branch };
                    self.out.push(')');
                    self.atom = Atom::Plain(preference);
                }
                '|' => {
                    self.settle();
                    self.has_branches = true;
                    if let Some(level) = self.levels.last_mut() {
                        *level = Level { branch: None, has_branches: true };
                    }
                    self.out.push('|');
                    self.atom = Atom::None;
                }
                '*' | '+' | '?' => self.quantifier(&c.to_string(), false)?,
                '{' if self.rest.peek().is_some_and(char::is_ascii_digit) => self.braces()?,
                '^' | '$' => {
                    self.settle();
                    self.out.push(c);
                    self.atom = Atom::None;
                }
                '.' => self.part("."),
                c if self.options.expanded && c.is_whitespace() => {}
                '#' if self.options.expanded => while self.rest.next_if(|c| *c != '\n').is_some() {},
                c => self.literal(c),
            }
        }
        self.settle();
        if self.levels.len() > 1 { Err(invalid("parentheses () not balanced")) } else { Ok(()) }
    }

    /// The part before is complete: the branch takes over its preference if it has none of its own.
    fn settle(&mut self) {
        if let (Atom::Plain(preference) | Atom::Quantified(preference), Some(level)) =
            (self.atom, self.levels.last_mut())
        {
            level.branch = level.branch.or(preference);
        }
    }

    fn part(&mut self, text: &str) {
        self.settle();
        self.out.push_str(text);
        self.atom = Atom::Plain(None);
    }

    fn literal(&mut self, c: char) {
        self.part(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    /// A constraint, which cannot be repeated.
    fn constraint(&mut self, text: &str) {
        self.settle();
        self.out.push_str(text);
        self.atom = Atom::None;
    }

    fn open(&mut self) -> Result<(), SqlError> {
        let mut opening = "(";
        if self.rest.next_if_eq(&'?').is_some() {
            match self.rest.next() {
                Some(':') => opening = "(?:",
                Some('#') => {
                    for c in self.rest.by_ref() {
                        if c == ')' {
                            break;
                        }
                    }
                    return Ok(());
                }
                Some('=' | '!' | '<') => {
                    return Err(SqlError::not_supported(
                        "lookahead and lookbehind in a regular expression are not supported",
                    ));
                }
                _ => return Err(invalid("quantifier operand invalid")),
            }
        }
        self.settle();
        self.out.push_str(opening);
        self.levels.push(Level::default());
        self.atom = Atom::None;
        Ok(())
    }

    fn quantifier(&mut self, text: &str, is_fixed: bool) -> Result<(), SqlError> {
        let Atom::Plain(own) = self.atom else { return Err(invalid("quantifier operand invalid")) };
        self.out.push_str(text);
        let lazy = self.rest.next_if_eq(&'?').is_some();
        if lazy {
            self.out.push('?');
        }
        let preference = match (is_fixed, lazy) {
            (true, _) => own,
            (false, true) => Some(Preference::Shortest),
            (false, false) => Some(Preference::Longest),
        };
        self.choices += usize::from(!is_fixed);
        self.atom = Atom::Quantified(preference);
        Ok(())
    }

    /// `{m}`, `{m,}` or `{m,n}`; a brace before anything but a digit stands for itself.
    fn braces(&mut self) -> Result<(), SqlError> {
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c) => text.push(c),
                None => return Err(invalid("braces {} not balanced")),
            }
        }
        let count = |digits: &str| match digits.parse::<u32>() {
            Ok(n) if n <= REPETITION_MAX => Ok(n),
            _ => Err(invalid("invalid repetition count(s)")),
        };
        let is_fixed = match text.split_once(',') {
            None => {
                count(&text)?;
                true
            }
            Some((from, "")) => {
                count(from)?;
                false
            }
            Some((from, to)) => {
                if count(from)? > count(to)? {
                    return Err(invalid("invalid repetition count(s)"));
                }
                false
            }
        };
        self.quantifier(&format!("{{{text}}}"), is_fixed)
    }

    fn escape(&mut self) -> Result<(), SqlError> {
        let Some(c) = self.rest.next() else { return Err(invalid("invalid escape \\ sequence")) };
        match c {
            'A' => self.constraint(r"\A"),
            'Z' => self.constraint(r"\z"),
            'm' => self.constraint(r"\b{start}"),
            'M' => self.constraint(r"\b{end}"),
            'y' => self.constraint(r"\b"),
            'Y' => self.constraint(r"\B"),
            'd' | 's' | 'w' | 'D' | 'S' | 'W' => {
                let text: String = ['\\', c].iter().collect();
                self.part(&text);
            }
            '1'..='9' => {
                return Err(SqlError::not_supported(
                    "back references in a regular expression are not supported",
                ));
            }
            c if c.is_ascii_alphanumeric() => {
                let found = self.character(c)?;
                self.literal(found);
            }
            c => self.literal(c),
        }
        Ok(())
    }

    /// The character that an escape with a letter or digit stands for.
    fn character(&mut self, c: char) -> Result<char, SqlError> {
        let bad = || invalid("invalid escape \\ sequence");
        let number = match c {
            'a' => 0x07,
            'b' => 0x08,
            'B' => u32::from('\\'),
            'e' => 0x1b,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            'c' => u32::from(self.rest.next().ok_or_else(bad)?) & 0x1f,
            'u' => self.digits(16, 4, 4).ok_or_else(bad)?,
            'U' => self.digits(16, 8, 8).ok_or_else(bad)?,
            'x' => self.digits(16, 1, usize::MAX).ok_or_else(bad)?,
            '0' => self.digits(8, 0, 2).ok_or_else(bad)?,
            _ => return Err(bad()),
        };
        char::from_u32(number).ok_or_else(bad)
    }

    fn digits(&mut self, radix: u32, count_min: usize, count_max: usize) -> Option<u32> {
        let mut number = 0u32;
        let mut count = 0;
        while count < count_max
            && let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(radix))
        {
            self.rest.next();
            number = number.checked_mul(radix)?.checked_add(digit)?;
            count += 1;
        }
        (count >= count_min).then_some(number)
    }

    fn bracket(&mut self) -> Result<(), SqlError> {
        let unbalanced = || invalid("brackets [] not balanced");
        let mut out = String::from("[");
        let is_negated = self.rest.next_if_eq(&'^').is_some();
        if is_negated {
            out.push('^');
            if self.options.newline_stops {
                out.push_str("\\n");
            }
        }
        let mut is_first = true;
        loop {
            let Some(c) = self.rest.next() else { return Err(unbalanced()) };
            match c {
                ']' if !is_first => break,
                '[' => match self.rest.peek().copied() {
                    Some(':') => {
                        self.rest.next();
                        let mut name = String::new();
                        loop {
                            match self.rest.next() {
                                Some(':') if self.rest.next_if_eq(&']').is_some() => break,
                                Some(c) => name.push(c),
                                None => return Err(unbalanced()),
                            }
                        }
                        match name.as_str() {
                            // Brackets around these alone are the ends of a word.
                            "<" | ">" if is_first && !is_negated => {
                                if self.rest.next() != Some(']') {
                                    return Err(invalid("invalid character class"));
                                }
                                self.constraint(if name == "<" { r"\b{start}" } else { r"\b{end}" });
                                return Ok(());
                            }
                            "alnum" | "alpha" | "ascii" | "blank" | "cntrl" | "digit" | "graph" | "lower"
                            | "print" | "punct" | "space" | "upper" | "word" | "xdigit" => {
                                out.push_str(&format!("[:{name}:]"));
                            }
                            _ => return Err(invalid("invalid character class")),
                        }
                    }
                    Some('.' | '=') => {
                        return Err(SqlError::not_supported(
                            "collating elements in a regular expression are not supported",
                        ));
                    }
                    _ => out.push_str("\\["),
                },
                '\\' => match self.rest.next() {
                    None => return Err(unbalanced()),
                    Some(class @ ('d' | 's' | 'w' | 'D' | 'S' | 'W')) => {
                        out.push('\\');
                        out.push(class);
                    }
                    Some(c) if c.is_ascii_alphanumeric() => {
                        let found = self.character(c)?;
                        out.push_str(&bracketed(found));
                    }
                    Some(c) => out.push_str(&bracketed(c)),
                },
                // Between two characters it is a range, else it stands for itself.
                '-' if is_first || self.rest.peek() == Some(&']') => out.push_str("\\-"),
                '-' => out.push('-'),
                c => out.push_str(&bracketed(c)),
            }
            is_first = false;
        }
        out.push(']');
        self.part(&out);
        Ok(())
    }
}

/// A character as it stands for itself between brackets.
fn bracketed(c: char) -> String {
    if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() }
}
