//! `to_date` and `to_timestamp`: reading dates and times by a template.

use rustydb_types::datetime::{self, DAY, HOUR, MINUTE, SECOND};

use super::to_char::{DAYS, Field, MONTHS, Part, parse};
use crate::error::{SqlError, SqlState};

/// No field of a date or time is larger, so that sums of fields cannot overflow.
const FIELD_MAX: i64 = 9_999_999;

#[derive(Default)]
struct Read {
    /// Numbers of the fields that may stand only once.
    seen: Vec<(&'static str, i64)>,
    year: Option<i32>,
    month: Option<i32>,
    day: Option<i32>,
    day_of_year: Option<i32>,
    julian: Option<i64>,
    century: Option<i32>,
    iso_week: Option<i32>,
    iso_day: Option<i32>,
    is_iso: bool,
    hour: i64,
    is_hour12: bool,
    minute: i64,
    second: i64,
    millis: i64,
    micros: i64,
    seconds_of_day: Option<i64>,
    pm: Option<bool>,
    bc: bool,
    offset: Option<i32>,
}

fn bad(message: String) -> SqlError {
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, message)
}

fn out_of_range(input: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{input}\""),
    )
}

/// A local timestamp and, when the template had one, the offset east of UTC in seconds.
pub(super) fn read(input: &str, template: &str) -> Result<(i64, Option<i32>), SqlError> {
    let mut read = Read::default();
    let mut rest = input;
    let parts = parse(template);
    check_conventions(&parts)?;
    // FX: blanks and separators stand for themselves alone.
    let exact = template.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("FX"));
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Literal(text) => {
                for _ in text.chars() {
                    rest = advance(rest);
                }
            }
            Part::Separator(c) if c.is_alphanumeric() => rest = advance(rest),
            Part::Separator(_) if exact => rest = advance(rest),
            Part::Separator(_) => {
                // A separator matches any run of separators, or none.
                rest = rest.trim_start_matches(|c: char| c.is_whitespace());
                if rest.starts_with(|c: char| c.is_ascii_punctuation() && !matches!(c, '+' | '-'))
                    || (rest.starts_with('-')
                        && !matches!(parts.get(at + 1), Some(Part::Field(f)) if f.name == "TZH"))
                {
                    rest = advance(rest);
                }
            }
            Part::Field(field) => {
                if !exact {
                    rest = rest.trim_start();
                }
                if rest.is_empty() {
                    break;
                }
                let next_is_digit = matches!(parts.get(at + 1), Some(Part::Field(next)) if !matches!(next.name, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM" | "A.M." | "P.M." | "AD" | "BC" | "A.D." | "B.C." | "RM"));
                read.set_once(field, rest)?;
                rest = read.field(field, rest, next_is_digit && !field.fill)?;
                if field.ordinal.is_some() {
                    rest = rest.get(2..).unwrap_or("");
                }
            }
        }
    }
    read.finish(input).map(|local| (local, read.offset))
}

/// Fields of the calendar and of the calendar of weeks do not go together.
fn check_conventions(parts: &[Part]) -> Result<(), SqlError> {
    let has = |names: &[&str]| {
        parts.iter().any(|part| matches!(part, Part::Field(field) if names.contains(&field.name)))
    };
    let by_week = ["IYYY", "IYY", "IY", "I", "IW", "ID", "IDDD"];
    let by_month = [
        "YYYY", "Y,YYY", "YYY", "YY", "Y", "MONTH", "MON", "MM", "DD", "DDD", "D", "DAY", "DY", "WW", "W",
        "RM", "CC", "Q", "J", "AD", "BC", "A.D.", "B.C.",
    ];
    if has(&by_week) && has(&by_month) {
        return Err(bad("invalid combination of date conventions".to_owned())
            .with_hint("Do not mix Gregorian and ISO week date conventions in a formatting template."));
    }
    Ok(())
}

fn advance(rest: &str) -> &str {
    let mut chars = rest.chars();
    chars.next();
    chars.as_str()
}

impl Read {
    /// Notes the number that a field is to have; twice the same field must be twice the same number.
    fn set_once(&mut self, field: &Field, rest: &str) -> Result<(), SqlError> {
        let kind = match field.name {
            "YYYY" | "IYYY" => "YYYY",
            "MM" | "DD" | "DDD" | "MI" | "SS" | "MS" | "US" | "IW" | "ID" => field.name,
            "HH" | "HH12" | "HH24" => "HH",
            _ => return Ok(()),
        };
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some(number) = rest.get(..end).and_then(|digits| digits.parse::<i64>().ok()) else {
            return Ok(());
        };
        match self.seen.iter().find(|(known, _)| *known == kind) {
            Some((_, known)) if *known != number => {
                Err(bad(format!("conflicting values for \"{}\" field in formatting string", field.written))
                    .with_detail("This value contradicts a previous setting for the same field type."))
            }
            Some(_) => Ok(()),
            None => {
                self.seen.push((kind, number));
                Ok(())
            }
        }
    }

    fn field<'t>(&mut self, field: &Field, rest: &'t str, fixed: bool) -> Result<&'t str, SqlError> {
        let name = field.name;
        let width = match name {
            "YYYY" | "IYYY" => 4,
            "YYY" | "IYY" | "DDD" | "IDDD" | "MS" => 3,
            "US" => 6,
            "Y" | "I" | "D" | "ID" | "Q" | "W" => 1,
            "SSSS" | "SSSSS" => 5,
            "J" => 7,
            _ => 2,
        };
        let number = |limit: usize| -> Result<(i64, usize, &'t str), SqlError> {
            let sign = usize::from(rest.starts_with(['-', '+']));
            let digits =
                rest.get(sign..).unwrap_or("").bytes().take_while(u8::is_ascii_digit).count().min(limit);
            let (text, tail) = rest.split_at(sign + digits);
            let n = text.parse::<i64>().map_err(|_| {
                let shown: String = rest.chars().take(limit.min(width)).collect();
                bad(format!("invalid value \"{shown}\" for \"{}\"", field.written))
                    .with_detail("Value must be an integer.")
            })?;
            Ok((n, digits, tail))
        };
        let limit = if fixed || matches!(name, "MS" | "US") { width } else { usize::MAX };
        let small = |n: i64| {
            i32::try_from(n).map_err(|_| {
                SqlError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    format!("value for \"{}\" in source string is out of range", field.written),
                )
            })
        };
        match name {
            "MONTH" | "MON" => {
                let (at, tail) =
                    word(rest, &MONTHS, name == "MON").ok_or_else(|| unknown_word(rest, field))?;
                self.month = Some(at as i32 + 1);
                return Ok(tail);
            }
            "DAY" | "DY" => {
                return word(rest, &DAYS, name == "DY")
                    .map(|(_, tail)| tail)
                    .ok_or_else(|| unknown_word(rest, field));
            }
            "AM" | "PM" | "A.M." | "P.M." | "AD" | "BC" | "A.D." | "B.C." => {
                let head = rest.get(..name.len()).unwrap_or("").to_ascii_uppercase();
                match head.replace('.', "").as_str() {
                    "AM" => self.pm = Some(false),
                    "PM" => self.pm = Some(true),
                    "AD" => self.bc = false,
                    "BC" => self.bc = true,
                    _ => return Err(unknown_word(rest, field)),
                }
                return Ok(rest.get(name.len()..).unwrap_or(""));
            }
            "Y,YYY" => {
                let (thousands, tail) = rest
                    .split_once(',')
                    .ok_or_else(|| bad(format!("invalid input string for \"{name}\"")))?;
                let digits = tail.bytes().take_while(u8::is_ascii_digit).count().min(3);
                let (last, tail) = tail.split_at(digits);
                let year = format!("{thousands}{last}")
                    .parse::<i32>()
                    .map_err(|_| bad(format!("invalid input string for \"{name}\"")))?;
                self.year = Some(year);
                return Ok(tail);
            }
            "TZH" | "OF" => {
                let (n, _, tail) = number(2)?;
                let negative = rest.starts_with('-');
                self.offset = Some(small(n)? * 3600);
                if name == "OF"
                    && let Some(minutes) =
                        tail.strip_prefix(':').and_then(|t| t.get(..2)).and_then(|t| t.parse::<i32>().ok())
                {
                    self.offset =
                        self.offset.map(|o| if negative { o - minutes * 60 } else { o + minutes * 60 });
                    return Ok(tail.get(3..).unwrap_or(""));
                }
                return Ok(tail);
            }
            "TZM" => {
                let (n, _, tail) = number(2)?;
                self.offset = self.offset.map(|o| if o < 0 { o - n as i32 * 60 } else { o + n as i32 * 60 });
                return Ok(tail);
            }
            "TZ" => {
                return Err(SqlError::not_supported("formatting field \"TZ\" is only supported in to_char"));
            }
            _ => {}
        }
        let (n, digits, tail) = number(limit)?;
        if n.abs() > FIELD_MAX {
            return Err(SqlError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("value for \"{}\" in source string is out of range", field.written),
            ));
        }
        match name {
            "YYYY" | "IYYY" => self.year = Some(small(n)?),
            "YYY" | "YY" | "Y" | "IYY" | "IY" | "I" => {
                let n = small(n)?;
                self.year = Some(match digits {
                    1 | 2 if n < 70 => n + 2000,
                    1 | 2 => n + 1900,
                    3 if n >= 520 => n + 1000,
                    3 => n + 2000,
                    _ => n,
                });
            }
            "MM" => self.month = Some(small(n)?),
            "DD" => self.day = Some(small(n)?),
            "DDD" | "IDDD" => self.day_of_year = Some(small(n)?),
            "J" => self.julian = Some(n),
            "CC" => self.century = Some(small(n)?),
            "IW" => self.iso_week = Some(small(n)?),
            "ID" => self.iso_day = Some(small(n)?),
            "WW" => self.day_of_year = Some((small(n)? - 1) * 7 + 1),
            "W" => self.day = self.day.or(Some((small(n)? - 1) * 7 + 1)),
            "HH24" => self.hour = n,
            "HH" | "HH12" => {
                self.hour = n;
                self.is_hour12 = true;
            }
            "MI" => self.minute = n,
            "SS" => self.second = n,
            "SSSS" | "SSSSS" => self.seconds_of_day = Some(n),
            "MS" => self.millis = n * 10i64.pow(3u32.saturating_sub(digits as u32)) * 1000,
            "US" => self.micros = n * 10i64.pow(6u32.saturating_sub(digits as u32)),
            _ => {}
        }
        self.is_iso |= name.starts_with('I');
        Ok(tail)
    }

    fn finish(&self, input: &str) -> Result<i64, SqlError> {
        let mut hour = self.hour;
        if self.is_hour12 || self.pm.is_some() {
            if !(1..=12).contains(&hour) {
                return Err(SqlError::new(
                    SqlState::INVALID_DATETIME_FORMAT,
                    format!("hour \"{hour}\" is invalid for the 12-hour clock"),
                )
                .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            hour = hour % 12 + if self.pm == Some(true) { 12 } else { 0 };
            if self.pm.is_none() && self.hour == 12 {
                hour = 0;
            }
        }
        let year = match (self.year, self.century) {
            (Some(year), Some(century)) if year < 100 => (century - 1) * 100 + year,
            (Some(year), _) => year,
            (None, Some(century)) => (century - 1) * 100 + 1,
            (None, None) => 0,
        };
        let year = if self.bc && year > 0 { 1 - year } else { year };
        let day_number = if let Some(julian) = self.julian {
            julian - 2_451_545
        } else if self.is_iso
            && let Some(week) = self.iso_week
        {
            let january_4 = datetime::days(year, 1, 4);
            let monday = january_4 - i64::from((datetime::day_of_week(january_4) + 6) % 7);
            monday + i64::from(week - 1) * 7 + i64::from(self.iso_day.unwrap_or(1) - 1)
        } else if let Some(day) = self.day_of_year.filter(|_| self.month.is_none()) {
            if !(1..=366).contains(&day) {
                return Err(out_of_range(input));
            }
            datetime::days(year, 1, 1) + i64::from(day) - 1
        } else {
            let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
            if !datetime::is_valid_date(year, month, day) {
                return Err(out_of_range(input));
            }
            // Without a year it is 1 BC, as PostgreSQL has it.
            datetime::days(year, month, day)
        };
        let clock = match self.seconds_of_day {
            Some(seconds) => seconds * SECOND,
            None => hour * HOUR + self.minute * MINUTE + self.second * SECOND,
        } + self.millis
            + self.micros;
        let valid =
            (0..24).contains(&hour) && (0..60).contains(&self.minute) && (0..60).contains(&self.second);
        if !valid || clock > DAY {
            return Err(out_of_range(input));
        }
        Ok(datetime::check_timestamp(i128::from(day_number) * i128::from(DAY) + i128::from(clock))?)
    }
}

fn unknown_word(rest: &str, field: &Field) -> SqlError {
    let shown: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    bad(format!("invalid value \"{shown}\" for \"{}\"", field.written))
        .with_detail("The given value did not match any of the allowed values for this field.")
}

fn word<'t>(rest: &'t str, names: &[&str], short: bool) -> Option<(usize, &'t str)> {
    names.iter().enumerate().find_map(|(at, name)| {
        let wanted = if short { name.get(..3)? } else { name };
        let head = rest.get(..wanted.len())?;
        head.eq_ignore_ascii_case(wanted).then(|| (at, rest.get(wanted.len()..).unwrap_or("")))
    })
}
