//! Compiled patterns, and which of several matches is theirs.
//!
//! The `regex` crate prefers alternatives in their order; PostgreSQL takes the longest match from the leftmost place on
//! (or the shortest one). So the crate finds where a match begins, a second automaton without preferences finds where
//! it ends, and the groups are those of the crate's match over just that text.

use std::ops::Range;
use std::rc::Rc;

use regex::{Regex, RegexBuilder};
use regex_automata::nfa::thompson::{self, pikevm::PikeVM};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

use super::are::{self, Translated};
use crate::error::{SqlError, SqlState};

/// Largest compiled pattern.
const PATTERN_SIZE_MAX: usize = 10 << 20;

/// Patterns that a thread keeps compiled.
const CACHED_MAX: usize = 16;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// Absent where the leftmost match is the same either way.
    extent: Option<Extent>,
}

/// Finds where a match ends that begins at a known place.
#[derive(Debug)]
struct Extent {
    automaton: PikeVM,
    shortest: bool,
    /// The pattern up to the end of the text.
    to_end: Regex,
}

/// A match with its groups.
#[derive(Debug)]
pub(super) struct Captured<'t> {
    whole: &'t str,
    groups: Vec<Option<Range<usize>>>,
}

impl<'t> Captured<'t> {
    /// How many groups there are, the whole match among them.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Where a group is; 0 is the whole match.
    pub(super) fn span(&self, group: usize) -> Option<Range<usize>> {
        self.groups.get(group).cloned().flatten()
    }

    /// The text of a group.
    pub(super) fn text(&self, group: usize) -> Option<&'t str> {
        self.whole.get(self.span(group)?)
    }
}

impl Pattern {
    /// Whether it matches anywhere.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match.
    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<Captured<'t>> {
        self.captures_at(text, 0)
    }

    /// The first match from a byte on.
    pub(super) fn captures_at<'t>(&self, text: &'t str, from: usize) -> Option<Captured<'t>> {
        let first = self.regex.captures_at(text, from)?;
        let spans = |found: &regex::Captures<'_>| -> Vec<Option<Range<usize>>> {
            found.iter().map(|group| group.map(|group| group.range())).collect()
        };
        let start = first.get(0)?.start();
        let Some(extent) = &self.extent else { return Some(Captured { whole: text, groups: spans(&first) }) };
        let end = extent.end(text, start)?;
        if first.get(0).is_some_and(|found| found.end() == end) {
            return Some(Captured { whole: text, groups: spans(&first) });
        }
        let head = text.get(..end)?;
        let within = extent.to_end.captures_at(head, start);
        let groups =
            match within.filter(|found| found.get(0).is_some_and(|found| found.range() == (start..end))) {
                Some(found) => spans(&found),
                // What follows the match decides on it: the groups are not known then, the match is.
                None => std::iter::once(Some(start..end))
                    .chain(spans(&first).into_iter().skip(1).map(|_| None))
                    .collect(),
            };
        Some(Captured { whole: text, groups })
    }
}

impl Extent {
    fn end(&self, text: &str, start: usize) -> Option<usize> {
        let input = Input::new(text).span(start..text.len()).anchored(Anchored::Yes).earliest(self.shortest);
        let mut cache = self.automaton.create_cache();
        let mut slots = [None; 2];
        self.automaton.search_slots(&mut cache, &input, &mut slots)?;
        slots[1].map(|end| end.get())
    }
}

fn build(translated: &Translated, wanted: Wanted) -> Result<Pattern, SqlError> {
    let options = translated.options;
    let failed = |reason: &str| {
        let last = reason.lines().last().unwrap_or("").trim().to_owned();
        SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {last}"))
    };
    let regex = |pattern: &str| {
        RegexBuilder::new(pattern)
            .case_insensitive(options.fold)
            .multi_line(options.newline_anchors)
            .dot_matches_new_line(!options.newline_stops)
            .size_limit(PATTERN_SIZE_MAX)
            .build()
            .map_err(|error| failed(&error.to_string()))
    };
    let extent = if translated.is_plain || wanted == Wanted::Existence {
        None
    } else {
        let automaton = PikeVM::builder()
            .configure(PikeVM::config().match_kind(MatchKind::All))
            .thompson(thompson::Config::new().nfa_size_limit(Some(PATTERN_SIZE_MAX)))
            .syntax(
                syntax::Config::new()
                    .case_insensitive(options.fold)
                    .multi_line(options.newline_anchors)
                    .dot_matches_new_line(!options.newline_stops),
            )
            .build(&translated.pattern)
            .map_err(|error| failed(&error.to_string()))?;
        let to_end = regex(&format!(r"(?:{})\z", translated.pattern))?;
        Some(Extent { automaton, shortest: translated.shortest, to_end })
    };
    Ok(Pattern { regex: regex(&translated.pattern)?, extent })
}

/// What is asked of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Whether there is a match.
    Existence,
    /// Where it is, and its groups.
    Place,
}

/// A pattern with its options, and what it was compiled for.
type Key = (String, String, Wanted);

thread_local! {
    static LAST: std::cell::RefCell<Vec<(Key, Rc<Pattern>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Compiles a regular expression, with PostgreSQL's letters for options; the last few of a thread stay compiled.
///
/// # Errors
/// 2201B when it is malformed, 22023 for an unknown option, 0A000 for what is not supported.
pub(super) fn compile(pattern: &str, flags: &str) -> Result<Rc<Pattern>, SqlError> {
    cached(pattern, flags, Wanted::Place)
}

/// As [`compile`], of a pattern that is only asked whether it matches.
///
/// # Errors
/// As [`compile`].
pub(super) fn compile_test(pattern: &str, flags: &str) -> Result<Rc<Pattern>, SqlError> {
    cached(pattern, flags, Wanted::Existence)
}

fn cached(pattern: &str, flags: &str, wanted: Wanted) -> Result<Rc<Pattern>, SqlError> {
    LAST.with_borrow_mut(|cache| {
        let is_it = |key: &Key| key.0 == pattern && key.1 == flags && key.2 == wanted;
        if let Some((_, found)) = cache.iter().find(|(key, _)| is_it(key)) {
            return Ok(Rc::clone(found));
        }
        let compiled = Rc::new(build(&are::translate(pattern, flags)?, wanted)?);
        if cache.len() >= CACHED_MAX {
            cache.remove(0);
        }
        cache.push(((pattern.to_owned(), flags.to_owned(), wanted), Rc::clone(&compiled)));
        Ok(compiled)
    })
}
