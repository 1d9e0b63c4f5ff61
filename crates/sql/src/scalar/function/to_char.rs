//! `to_char` over dates and times, and the templates that `to_date` and `to_timestamp` share.

use rustydb_types::datetime::{self, DAY, HOUR, MINUTE, SECOND};
use rustydb_types::value::{Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY};

use crate::error::{SqlError, SqlState};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN_MONTHS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The fields of templates, longest first so that the first match is the right one.
const KEYWORDS: [&str; 61] = [
    "SSSSS", "Y,YYY", "MONTH", "IDDD", "IYYY", "HH24", "HH12", "YYYY", "SSSS", "A.D.", "B.C.", "A.M.",
    "P.M.", "DAY", "DDD", "IYY", "MON", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "TZH", "TZM", "YYY", "DY",
    "DD", "HH", "ID", "IW", "IY", "MI", "MM", "MS", "OF", "RM", "SS", "TZ", "US", "WW", "YY", "AD", "BC",
    "AM", "PM", "CC", "D", "I", "J", "Q", "W", "Y", "TH", "FM", "FX", "TM", "SP", "\u{1}", "\u{2}", "\u{3}",
];

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// Copied as it stands.
    Literal(String),
    /// One space or punctuation character.
    Separator(char),
    /// A field.
    Field(Field),
}

/// A field of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    /// Its name in upper case.
    pub(super) name: &'static str,
    /// As it was written, for the case of names.
    pub(super) written: String,
    /// `FM`: no padding.
    pub(super) fill: bool,
    /// `TH` or `th` behind it.
    pub(super) ordinal: Option<bool>,
}

/// Splits a template into its parts.
pub(super) fn parse(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    let mut fill = false;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let body = rest.get(1..).unwrap_or("");
            let mut literal = String::new();
            let mut used = 1;
            let mut chars = body.chars();
            while let Some(inner) = chars.next() {
                used += inner.len_utf8();
                match inner {
                    '"' => break,
                    '\\' => {
                        if let Some(escaped) = chars.next() {
                            used += escaped.len_utf8();
                            literal.push(escaped);
                        }
                    }
                    other => literal.push(other),
                }
            }
            parts.push(Part::Literal(literal));
            rest = rest.get(used..).unwrap_or("");
            continue;
        }
        // Outside of quotes, a backslash means something only before a quote.
        if rest.starts_with("\\\"") {
            parts.push(Part::Literal("\"".to_owned()));
            rest = rest.get(2..).unwrap_or("");
            continue;
        }
        let found = KEYWORDS.iter().find(|keyword| {
            rest.get(..keyword.len()).is_some_and(|head| head.eq_ignore_ascii_case(keyword) && cased(head))
        });
        match found {
            Some(&"FM") => fill = true,
            // Names in the words of the locale are not padded.
            Some(&"TM") => fill = true,
            Some(&("FX" | "SP")) => {}
            Some(&"TH") => {
                let upper = rest.starts_with('T');
                if let Some(Part::Field(field)) = parts.last_mut() {
                    field.ordinal = Some(upper);
                }
            }
            Some(name) => {
                let written = rest.get(..name.len()).unwrap_or(name).to_owned();
                parts.push(Part::Field(Field { name, written, fill, ordinal: None }));
                fill = false;
            }
            None => parts.push(Part::Separator(c)),
        }
        rest = rest.get(found.map_or(c.len_utf8(), |keyword| keyword.len())..).unwrap_or("");
    }
    parts
}

/// A field is written in upper case, lower case, or (names) with a capital.
fn cased(head: &str) -> bool {
    let letters = || head.chars().filter(char::is_ascii_alphabetic);
    letters().all(|c| c.is_ascii_uppercase())
        || letters().all(|c| c.is_ascii_lowercase())
        || matches!(head, "Month" | "Mon" | "Day" | "Dy")
}

/// What a moment or span is made of.
struct Moment {
    year: i32,
    month: i32,
    day: i32,
    hour: i64,
    micros: i64,
    day_number: i64,
    is_interval: bool,
    offset: i32,
    zone: String,
}

/// A local timestamp by a template; zone name and offset when it has a zone. `None` for infinities.
pub(super) fn timestamp(local: i64, zone: Option<(String, i32)>, template: &str) -> Option<String> {
    if local == TIMESTAMP_INFINITY || local == TIMESTAMP_NEGATIVE_INFINITY || template.is_empty() {
        return None;
    }
    let day_number = local.div_euclid(DAY);
    let date = datetime::civil(day_number);
    let micros = local.rem_euclid(DAY);
    let (zone, offset) = zone.unwrap_or_default();
    let moment = Moment {
        year: date.year,
        month: date.month,
        day: date.day,
        hour: micros / HOUR,
        micros,
        day_number,
        is_interval: false,
        offset,
        zone,
    };
    Some(render(&moment, template))
}

/// A span by a template; `None` for an empty one.
///
/// # Errors
/// 22007 for what a span does not have, such as the day of the week.
pub(super) fn interval(span: &Interval, template: &str) -> Result<Option<String>, SqlError> {
    if template.is_empty() {
        return Ok(None);
    }
    let lacks = |part: &Part| match part {
        Part::Field(field) => matches!(
            field.name,
            "AD" | "BC"
                | "A.D."
                | "B.C."
                | "MONTH"
                | "MON"
                | "DAY"
                | "DY"
                | "D"
                | "ID"
                | "TZ"
                | "TZH"
                | "TZM"
                | "OF"
        ),
        _ => false,
    };
    if parse(template).iter().any(lacks) {
        return Err(SqlError::new(
            SqlState::INVALID_DATETIME_FORMAT,
            "invalid format specification for an interval value",
        )
        .with_hint("Intervals are not tied to specific calendar dates."));
    }
    let moment = Moment {
        year: span.months / 12,
        month: span.months % 12,
        day: span.days,
        hour: span.micros / HOUR,
        micros: span.micros,
        day_number: span_day(span.months / 12, span.months % 12, span.days),
        is_interval: true,
        offset: 0,
        zone: String::new(),
    };
    Ok(Some(render(&moment, template)))
}

/// The day that a span's parts would be the date of, from 2000-01-01, as PostgreSQL's `date2j` has it.
fn span_day(years: i32, months: i32, days: i32) -> i64 {
    let (months, years) = if months > 2 { (months + 1, years) } else { (months + 13, years - 1) };
    // The calendar does not reach farther.
    let year = i64::from(years.clamp(-4_800, 5_000_000)) + 4800;
    let century = year / 100;
    let leap_days = year / 4 - century + century / 4;
    let julian = year * 365 - 32_167 + leap_days + i64::from(7834 * months / 256) + i64::from(days);
    julian - 2_451_545
}

fn render(moment: &Moment, template: &str) -> String {
    let mut out = String::new();
    for part in parse(template) {
        match part {
            Part::Literal(text) => out.push_str(&text),
            Part::Separator(c) => out.push(c),
            Part::Field(field) => {
                let text = moment.field(&field);
                out.push_str(&text);
                if let Some(upper) = field.ordinal {
                    let suffix = ordinal(&text);
                    out.push_str(&if upper { suffix.to_uppercase() } else { suffix.to_owned() });
                }
            }
        }
    }
    out
}

/// `st`, `nd`, `rd` or `th` for a number's text.
pub(super) fn ordinal(digits: &str) -> &'static str {
    let digits = digits.trim();
    let tens = digits.len().checked_sub(2).and_then(|at| digits.get(at..at + 1));
    match (tens, digits.chars().last()) {
        (Some("1"), _) => "th",
        (_, Some('1')) => "st",
        (_, Some('2')) => "nd",
        (_, Some('3')) => "rd",
        _ => "th",
    }
}

impl Moment {
    fn shown_year(&self) -> i32 {
        if self.is_interval || self.year > 0 { self.year } else { 1 - self.year }
    }

    fn field(&self, field: &Field) -> String {
        let number = |n: i64, width: usize| {
            if field.fill {
                n.to_string()
            } else if n < 0 {
                format!("-{:0width$}", -n)
            } else {
                format!("{n:0width$}")
            }
        };
        let year = i64::from(self.shown_year());
        let day_of_year = || self.day_number - datetime::days(self.year, 1, 1) + 1;
        let weekday = datetime::day_of_week(self.day_number);
        let (iso_year, iso_week) = datetime::iso_week(self.day_number);
        let shown_iso = i64::from(if iso_year > 0 { iso_year } else { 1 - iso_year });
        let hour12 = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
        let fraction = (self.micros % SECOND).abs();
        let name = |names: &[&str], at: usize, width: usize| {
            let full = names.get(at).copied().unwrap_or("");
            let cut = if width > 3 { full } else { full.get(..3).unwrap_or(full) };
            let cased = match field.written.as_bytes() {
                [a, b, ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => cut.to_uppercase(),
                [a, ..] if a.is_ascii_uppercase() => cut.to_owned(),
                _ => cut.to_lowercase(),
            };
            if field.fill || width <= 3 { cased } else { format!("{cased:<width$}") }
        };
        let month_at = (self.month.rem_euclid(12) + 11) as usize % 12;
        let half = |dotted: bool, names: [&str; 2], second: bool| {
            let word = names[usize::from(second)];
            let word = if dotted { format!("{}.{}.", &word[..1], &word[1..]) } else { word.to_owned() };
            if field.written.starts_with(|c: char| c.is_ascii_lowercase()) {
                word.to_lowercase()
            } else {
                word
            }
        };
        match field.name {
            "YYYY" => number(year, 4),
            "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
            "YYY" => number(year % 1000, 3),
            "YY" => number(year % 100, 2),
            "Y" => number(year % 10, 1),
            "IYYY" => number(shown_iso, 4),
            "IYY" => number(shown_iso % 1000, 3),
            "IY" => number(shown_iso % 100, 2),
            "I" => number(shown_iso % 10, 1),
            "MONTH" if self.is_interval && self.month == 0 => String::new(),
            "MON" if self.is_interval && self.month == 0 => String::new(),
            "MONTH" => name(&MONTHS, month_at, 9),
            "MON" => name(&MONTHS, month_at, 3),
            "MM" => number(i64::from(self.month), 2),
            "RM" => {
                let roman = ROMAN_MONTHS.get(month_at).copied().unwrap_or("");
                let roman =
                    if field.written.starts_with('r') { roman.to_lowercase() } else { roman.to_owned() };
                if field.fill { roman } else { format!("{roman:<4}") }
            }
            "DAY" => name(&DAYS, weekday as usize, 9),
            "DY" => name(&DAYS, weekday as usize, 3),
            // Of a negative number, the sign is one of the two places.
            "DD" if !field.fill => format!("{:02}", self.day),
            "DD" => number(i64::from(self.day), 2),
            "DDD" if self.is_interval => number(i64::from(self.year * 360 + self.month * 30 + self.day), 3),
            "DDD" => number(day_of_year(), 3),
            "IDDD" => {
                let monday = (weekday + 6) % 7;
                number(i64::from(iso_week - 1) * 7 + i64::from(monday) + 1, 3)
            }
            "D" => number(i64::from(weekday) + 1, 1),
            "ID" => number(i64::from((weekday + 6) % 7) + 1, 1),
            "WW" if self.is_interval => {
                let day = i64::from(self.year) * 360 + i64::from(self.month * 30) + i64::from(self.day);
                number((day - 1) / 7 + 1, 2)
            }
            "WW" => number((day_of_year() - 1) / 7 + 1, 2),
            "IW" => number(i64::from(iso_week), 2),
            "W" => number(i64::from((self.day - 1) / 7 + 1), 1),
            "Q" => {
                if self.month == 0 {
                    String::new()
                } else {
                    ((self.month - 1) / 3 + 1).to_string()
                }
            }
            "CC" => {
                let century = if self.year > 0 { (self.year - 1) / 100 + 1 } else { self.year / 100 - 1 };
                number(i64::from(century), 2)
            }
            "J" => (self.day_number + 2_451_545).to_string(),
            "HH24" => number(self.hour, 2),
            "HH" | "HH12" => number(hour12, 2),
            "MI" => number(self.micros / MINUTE % 60, 2),
            "SS" => number(self.micros / SECOND % 60, 2),
            "SSSS" | "SSSSS" => number(self.micros / SECOND, 1),
            "MS" => format!("{:03}", fraction / 1000),
            "US" => format!("{fraction:06}"),
            "FF1" => format!("{:01}", fraction / 100_000),
            "FF2" => format!("{:02}", fraction / 10_000),
            "FF3" => format!("{:03}", fraction / 1000),
            "FF4" => format!("{:04}", fraction / 100),
            "FF5" => format!("{:05}", fraction / 10),
            "FF6" => format!("{fraction:06}"),
            "AM" | "PM" => half(false, ["AM", "PM"], self.hour % 24 >= 12),
            "A.M." | "P.M." => half(true, ["AM", "PM"], self.hour % 24 >= 12),
            "AD" | "BC" => half(false, ["AD", "BC"], self.year <= 0),
            "A.D." | "B.C." => half(true, ["AD", "BC"], self.year <= 0),
            "TZ" if field.written.starts_with('t') => self.zone.to_lowercase(),
            "TZ" => self.zone.clone(),
            "TZH" => format!("{}{:02}", if self.offset < 0 { '-' } else { '+' }, self.offset.abs() / 3600),
            "TZM" => format!("{:02}", self.offset.abs() / 60 % 60),
            "OF" => datetime::offset_text(self.offset),
            _ => String::new(),
        }
    }
}
