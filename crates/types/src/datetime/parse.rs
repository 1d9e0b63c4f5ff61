//! Reading dates, times and intervals: ISO 8601, PostgreSQL's own output, month names,
//! `infinity`, `epoch`, `now`, `today`, `tomorrow`, `yesterday`, BC, zones and offsets.

use super::{
    DAY, HOUR, MINUTE, SECOND, UNIX_OFFSET_SECONDS, Zone, check_date, check_timestamp, days, is_valid_date,
};
use crate::interval_fields::IntervalFields;
use crate::value::{
    DATE_INFINITY, DATE_NEGATIVE_INFINITY, Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY,
};
use crate::value_error::ValueError;

/// The words whose value depends on the clock.
const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Whether reading the text needs the current time.
pub fn uses_clock(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    CLOCK_WORDS.iter().any(|word| lower.contains(word))
}

#[derive(Default)]
struct Fields {
    date: Option<(i32, i32, i32)>,
    time: Option<i64>,
    offset: Option<i32>,
    zone: Option<Zone>,
    special: Option<i64>,
    is_date_word: bool,
    bc: bool,
}

enum Failure {
    Syntax,
    Field,
    Zone(String),
}

/// Offset `+hh`, `+hhmm`, `+hh:mm`, `+hh:mm:ss` in seconds.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let parts: Vec<&str> = digits.split(':').collect();
    if parts.iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let number = |text: &str| text.parse::<i32>().ok();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [one] if one.len() <= 2 => (number(one)?, 0, 0),
        [one] if one.len() <= 4 => {
            let (hours, minutes) = one.split_at(one.len() - 2);
            (number(hours)?, number(minutes)?, 0)
        }
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        _ => return None,
    };
    (hours <= 15 && minutes < 60 && seconds < 60).then(|| sign * (hours * 3600 + minutes * 60 + seconds))
}

fn parse_clock(text: &str) -> Result<i64, Failure> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str| text.parse::<i64>().map_err(|_| Failure::Syntax);
    let (hours, minutes, seconds) = match parts.as_slice() {
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, parse_seconds(seconds)?),
        _ => return Err(Failure::Syntax),
    };
    let in_range =
        (0..=24).contains(&hours) && (0..60).contains(&minutes) && (0..=60 * SECOND).contains(&seconds);
    if !in_range {
        return Err(Failure::Field);
    }
    let total = hours * HOUR + minutes * MINUTE + seconds;
    if total <= DAY { Ok(total) } else { Err(Failure::Field) }
}

/// Seconds with a fraction, in microseconds, rounded.
fn parse_seconds(text: &str) -> Result<i64, Failure> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
        return Err(Failure::Syntax);
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| Failure::Syntax)? };
    let micros = if fraction.is_empty() {
        0
    } else {
        (format!("0.{fraction}").parse::<f64>().unwrap_or(0.0) * 1e6).round_ties_even() as i64
    };
    whole.checked_mul(SECOND).and_then(|w| w.checked_add(micros)).ok_or(Failure::Field)
}

fn month_by_name(word: &str) -> Option<i32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    if word.len() < 3 {
        return None;
    }
    MONTHS
        .iter()
        .position(|month| {
            *month == word
                || (word.len() == 3 && month.starts_with(word))
                || word == "sept" && *month == "september"
        })
        .map(|at| at as i32 + 1)
}

fn is_weekday(word: &str) -> bool {
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
        .iter()
        .any(|day| *day == word || (word.len() >= 3 && day.starts_with(word)))
}

/// `2024-01-31`, `1/31/2024` (month first), `20240131`, `2024-031`.
fn parse_numeric_date(text: &str, fields: &mut Fields) -> Result<(), Failure> {
    let separator = text.chars().find(|c| matches!(c, '-' | '/' | '.'));
    let number = |text: &str| text.parse::<i32>().map_err(|_| Failure::Syntax);
    let (year, month, day) = match separator {
        Some(separator) => {
            let parts: Vec<&str> = text.split(separator).collect();
            if let [year, day] = parts.as_slice()
                && year.len() == 4
                && day.len() == 3
            {
                // The day of the year.
                let date = super::civil(days(number(year)?, 1, 1) + i64::from(number(day)?) - 1);
                fields.date = Some((date.year, date.month, date.day));
                return Ok(());
            }
            let [a, b, c] = parts.as_slice() else { return Err(Failure::Syntax) };
            if let Some(month) = month_by_name(&b.to_ascii_lowercase()) {
                if a.len() > 2 {
                    (number(a)?, month, number(c)?)
                } else {
                    (two_digit(c, number(c)?), month, number(a)?)
                }
            } else if let Some(month) = month_by_name(&a.to_ascii_lowercase()) {
                (two_digit(c, number(c)?), month, number(b)?)
            } else if a.len() > 2 {
                (number(a)?, number(b)?, number(c)?)
            } else {
                (two_digit(c, number(c)?), number(a)?, number(b)?)
            }
        }
        None if text.len() == 8 => {
            let part =
                |range: std::ops::Range<usize>| text.get(range).ok_or(Failure::Syntax).and_then(number);
            (part(0..4)?, part(4..6)?, part(6..8)?)
        }
        None => return Err(Failure::Syntax),
    };
    fields.date = Some((year, month, day));
    Ok(())
}

fn two_digit(text: &str, year: i32) -> i32 {
    if text.len() > 2 {
        year
    } else if year < 70 {
        year + 2000
    } else {
        year + 1900
    }
}

fn scan(text: &str, now_local: i64) -> Result<Fields, Failure> {
    scan_as(text, now_local, false)
}

/// Reads the fields; six bare digits are a clock when only a time is wanted.
fn scan_as(text: &str, now_local: i64, time_only: bool) -> Result<Fields, Failure> {
    let mut fields = Fields::default();
    let mut loose: Vec<(i32, usize)> = Vec::new();
    let mut month: Option<i32> = None;
    let lowered = text.trim().to_ascii_lowercase().replace(',', " ");
    let mut words: Vec<String> = Vec::new();
    for word in lowered.split_whitespace() {
        // A zone may stand right behind a date: 2001-01-01+00.
        if let Some(at) = word.find('+')
            && at > 0
            && !word.contains(':')
            && word.starts_with(|c: char| c.is_ascii_digit())
        {
            words.extend([word.get(..at).unwrap_or("").to_owned(), word.get(at..).unwrap_or("").to_owned()]);
            continue;
        }
        // `2024-01-31t10:00:00` holds a date and a time.
        match word.find('t') {
            Some(at)
                if at > 0
                    && word.as_bytes().first().is_some_and(u8::is_ascii_digit)
                    && word
                        .get(at + 1..)
                        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) =>
            {
                words.push(word.get(..at).unwrap_or("").to_owned());
                words.push(word.get(at + 1..).unwrap_or("").to_owned());
            }
            _ => words.push(word.to_owned()),
        }
    }
    if words.is_empty() {
        return Err(Failure::Syntax);
    }
    for word in &words {
        let first = word.as_bytes().first().copied().unwrap_or(b' ');
        match word.as_str() {
            "infinity" | "inf" | "+infinity" => fields.special = Some(TIMESTAMP_INFINITY),
            "-infinity" | "-inf" => fields.special = Some(TIMESTAMP_NEGATIVE_INFINITY),
            "epoch" => fields.special = Some(-UNIX_OFFSET_SECONDS * SECOND),
            "now" => fields.special = Some(now_local),
            "today" | "tomorrow" | "yesterday" => {
                let shift = match word.as_str() {
                    "today" => 0,
                    "tomorrow" => 1,
                    _ => -1,
                };
                let date = super::civil(now_local.div_euclid(DAY) + shift);
                fields.date = Some((date.year, date.month, date.day));
                fields.is_date_word = true;
            }
            "allballs" => {
                fields.time = Some(0);
                fields.offset = Some(0);
            }
            "bc" => fields.bc = true,
            "ad" | "at" | "on" => {}
            "am" => match fields.time {
                Some(time) if (12 * HOUR..13 * HOUR).contains(&time) => fields.time = Some(time - 12 * HOUR),
                Some(time) if time < 12 * HOUR => {}
                _ => return Err(Failure::Field),
            },
            "pm" => match fields.time {
                Some(time) if time < 12 * HOUR => fields.time = Some(time + 12 * HOUR),
                Some(time) if time < 13 * HOUR => {}
                _ => return Err(Failure::Field),
            },
            _ if first.is_ascii_digit() && word.contains(':') => {
                if fields.time.is_some() {
                    return Err(Failure::Syntax);
                }
                let end =
                    word.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(word.len());
                let (clock, zone) = word.split_at(end);
                fields.time = Some(parse_clock(clock)?);
                match zone {
                    "" => {}
                    "am" | "pm" => {
                        let time = parse_clock(clock)?;
                        let hour12 = time % (12 * HOUR);
                        fields.time = Some(if zone == "am" { hour12 } else { hour12 + 12 * HOUR });
                    }
                    _ => scan_zone(zone, &mut fields)?,
                }
            }
            _ if first.is_ascii_digit() => {
                if word.bytes().all(|b| b.is_ascii_digit()) && word.len() != 8 && word.len() != 6 {
                    loose.push((word.parse().map_err(|_| Failure::Field)?, word.len()));
                } else if word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit()) {
                    let number = |range: std::ops::Range<usize>| {
                        word.get(range).and_then(|t| t.parse::<i64>().ok()).ok_or(Failure::Syntax)
                    };
                    if fields.date.is_some() || time_only {
                        let clock = format!("{}:{}:{}", number(0..2)?, number(2..4)?, number(4..6)?);
                        fields.time = Some(parse_clock(&clock)?);
                    } else {
                        let year = number(0..2)? as i32;
                        fields.date =
                            Some((two_digit("yy", year), number(2..4)? as i32, number(4..6)? as i32));
                    }
                } else {
                    if fields.date.is_some() {
                        return Err(Failure::Syntax);
                    }
                    parse_numeric_date(word, &mut fields)?;
                }
            }
            _ if first == b'j'
                && word
                    .get(1..)
                    .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())) =>
            {
                let julian: i64 = word.get(1..).and_then(|rest| rest.parse().ok()).ok_or(Failure::Field)?;
                let date = super::civil(check_date(julian - 2_451_545).map_err(|_| Failure::Field)?.into());
                fields.date = Some((date.year, date.month, date.day));
                fields.is_date_word = true;
            }
            _ if month_by_name(word).is_some() => month = month_by_name(word),
            _ if is_weekday(word) => {}
            _ if first.is_ascii_alphabetic()
                && word.contains('-')
                && fields.date.is_none()
                && month_by_name(word.split('-').next().unwrap_or("")).is_some() =>
            {
                parse_numeric_date(word, &mut fields)?;
            }
            _ => scan_zone(word, &mut fields)?,
        }
    }
    if let Some(month) = month {
        let (year, day) = match loose.as_slice() {
            [(a, a_len), (b, _)] if *a_len > 2 => (*a, *b),
            [(a, _), (b, b_len)] => (if *b_len > 2 { *b } else { two_digit("yy", *b) }, *a),
            _ => return Err(Failure::Syntax),
        };
        fields.date = Some((year, month, day));
    } else if !loose.is_empty() {
        return Err(Failure::Syntax);
    }
    if let Some((year, month, day)) = fields.date {
        if fields.bc && year <= 0 || !fields.bc && !fields.is_date_word && year == 0 {
            return Err(Failure::Field);
        }
        let year = if fields.bc { 1 - year } else { year };
        if !is_valid_date(year, month, day) {
            return Err(Failure::Field);
        }
        fields.date = Some((year, month, day));
    }
    Ok(fields)
}

fn scan_zone(word: &str, fields: &mut Fields) -> Result<(), Failure> {
    if let Some(offset) = parse_offset(word) {
        fields.offset = Some(offset);
        return Ok(());
    }
    match Zone::by_name(word) {
        Some(zone) if !word.starts_with(['+', '-']) => {
            fields.zone = Some(zone);
            Ok(())
        }
        _ if word.contains('/') => Err(Failure::Zone(word.to_owned())),
        _ => Err(Failure::Syntax),
    }
}

fn report(failure: Failure, type_name: &str, input: &str) -> ValueError {
    match failure {
        Failure::Syntax => ValueError::datetime_syntax(type_name, input),
        Failure::Field => ValueError::datetime_field(input),
        Failure::Zone(zone) => ValueError::new("22023", format!("time zone \"{zone}\" not recognized")),
    }
}

fn local_of(fields: &Fields, type_name: &str, input: &str) -> Result<i64, ValueError> {
    if let Some(special) = fields.special {
        return Ok(special);
    }
    let Some((year, month, day)) = fields.date else {
        return Err(ValueError::datetime_syntax(type_name, input));
    };
    let micros = i128::from(days(year, month, day)) * i128::from(DAY) + i128::from(fields.time.unwrap_or(0));
    check_timestamp(micros)
        .map_err(|_| ValueError::new("22008", format!("timestamp out of range: \"{input}\"")))
}

/// Reads a date; `now_local` is the current local time, for `today` and the like.
///
/// # Errors
/// 22007, 22008.
pub fn parse_date(input: &str, now_local: i64) -> Result<i32, ValueError> {
    let fields = scan(input, now_local).map_err(|failure| report(failure, "date", input))?;
    match fields.special {
        Some(TIMESTAMP_INFINITY) => return Ok(DATE_INFINITY),
        Some(TIMESTAMP_NEGATIVE_INFINITY) => return Ok(DATE_NEGATIVE_INFINITY),
        Some(other) => return check_date(other.div_euclid(DAY)),
        None => {}
    }
    let (year, month, day) = fields.date.ok_or_else(|| ValueError::datetime_syntax("date", input))?;
    check_date(days(year, month, day))
        .map_err(|_| ValueError::new("22008", format!("date out of range: \"{input}\"")))
}

/// Reads a time of day.
///
/// # Errors
/// 22007, 22008.
pub fn parse_time(input: &str, now_local: i64) -> Result<i64, ValueError> {
    let fields = scan_as(input, now_local, true).map_err(|failure| report(failure, "time", input))?;
    match (fields.time, fields.special) {
        (Some(time), _) => Ok(time),
        (None, Some(now)) if now != TIMESTAMP_INFINITY && now != TIMESTAMP_NEGATIVE_INFINITY => {
            Ok(now.rem_euclid(DAY))
        }
        _ => Err(ValueError::datetime_syntax("time", input)),
    }
}

/// Reads a timestamp without zone; a zone in the text is ignored.
///
/// # Errors
/// 22007, 22008.
pub fn parse_timestamp(input: &str, now_local: i64) -> Result<i64, ValueError> {
    let fields = scan(input, now_local).map_err(|failure| report(failure, "timestamp", input))?;
    local_of(&fields, "timestamp", input)
}

/// Reads a timestamp with zone; without one in the text it is in `zone`.
///
/// # Errors
/// 22007, 22008, 22023 for an unknown zone.
pub fn parse_timestamptz(input: &str, now_utc: i64, zone: Zone) -> Result<i64, ValueError> {
    let type_name = "timestamp with time zone";
    let fields = scan(input, zone.to_local(now_utc)).map_err(|failure| report(failure, type_name, input))?;
    let local = local_of(&fields, type_name, input)?;
    match fields.special {
        Some(TIMESTAMP_INFINITY | TIMESTAMP_NEGATIVE_INFINITY) => return Ok(local),
        Some(_) if input.trim().eq_ignore_ascii_case("epoch") => return Ok(local),
        Some(_) => return Ok(now_utc),
        None => {}
    }
    let utc = match (fields.offset, fields.zone) {
        (Some(offset), _) => local - i64::from(offset) * SECOND,
        (None, Some(named)) => named.to_utc(local),
        (None, None) => zone.to_utc(local),
    };
    check_timestamp(i128::from(utc))
        .map_err(|_| ValueError::new("22008", format!("timestamp out of range: \"{input}\"")))
}

/// Reads an interval: `1 year 2 mons 3 days 04:05:06.7`, `1-2`, `P1Y2M3DT4H5M6S`, `3 days ago`, ...
///
/// # Errors
/// 22007, 22008 and 22015.
pub fn parse_interval(input: &str) -> Result<Interval, ValueError> {
    parse_interval_of(input, None)
}

/// Reads an interval of a type that keeps only some fields: they say what a bare number counts.
///
/// # Errors
/// As [`parse_interval`].
pub fn parse_interval_of(input: &str, fields: Option<IntervalFields>) -> Result<Interval, ValueError> {
    let syntax = || ValueError::datetime_syntax("interval", input);
    let overflow = || ValueError::new("22015", format!("interval field value out of range: \"{input}\""));
    let text = input.trim().to_ascii_lowercase();
    let mut total = Total::default();
    if let Some(iso) = text.strip_prefix('p') {
        parse_iso_interval(iso, &mut total).ok_or_else(syntax)?;
        return total.finish(input);
    }
    let text = text.strip_prefix('@').unwrap_or(&text);
    let (text, ago) = match text.trim_end().strip_suffix("ago") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let tokens = interval_tokens(text);
    if tokens.is_empty() {
        return Err(syntax());
    }
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let token = token.as_str();
        if token.contains(':') {
            if !total.first_time("hour") {
                return Err(syntax());
            }
            let without_hours =
                fields.is_some_and(IntervalFields::is_minute_to_second) && token.matches(':').count() == 1;
            let token = if without_hours { with_hours(token) } else { token.to_owned() };
            let clock = parse_interval_clock(&token).ok_or_else(syntax)?;
            total.micros += clock.ok_or_else(overflow)?;
            at += 1;
            continue;
        }
        if let Some((years, months)) = year_month(token) {
            total.months += f64::from(years) * 12.0 + f64::from(months);
            at += 1;
            continue;
        }
        let number = token.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(syntax)?;
        match tokens.get(at + 1) {
            Some(unit) if !unit.contains(':') && unit.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                total.add(number, unit).ok_or_else(syntax)?;
                at += 2;
            }
            Some(clock) if clock.contains(':') => {
                // `3 04:05:06`: a bare number before a clock counts days.
                total.add(number, "day").ok_or_else(syntax)?;
                at += 1;
            }
            next => {
                // `1 2` of day to hour: the last number has the smallest unit, the one before it is of days.
                let bare = fields.map_or("second", IntervalFields::bare_unit);
                let unit = if next.is_some() && bare == "hour" { "day" } else { bare };
                total.add(number, unit).ok_or_else(syntax)?;
                at += 1;
            }
        }
    }
    if ago {
        total.months = -total.months;
        total.days = -total.days;
        total.micros = -total.micros;
    }
    total.finish(input)
}

/// `2:03`, which is minutes and seconds, with hours before it.
fn with_hours(clock: &str) -> String {
    let rest = clock.trim_start_matches(['-', '+']);
    let (sign, _) = clock.split_at(clock.len() - rest.len());
    format!("{sign}0:{rest}")
}

#[derive(Default)]
struct Total {
    months: f64,
    days: f64,
    micros: i128,
    seen: Vec<&'static str>,
}

impl Total {
    /// Notes a unit; false when it was there before, which is an error.
    fn first_time(&mut self, unit: &'static str) -> bool {
        let first = !self.seen.contains(&unit);
        self.seen.push(unit);
        first
    }

    fn add(&mut self, number: f64, unit: &str) -> Option<()> {
        let singular = unit.strip_suffix('s').filter(|u| u.len() > 1).unwrap_or(unit);
        let canonical = match singular {
            "microsecond" | "u" | "usec" | "us" | "microsec" => "microsecond",
            "millisecond" | "msec" | "millisec" | "ms" => "millisecond",
            "second" | "sec" | "s" => "second",
            "minute" | "min" | "m" => "minute",
            "hour" | "hr" | "h" => "hour",
            "day" | "d" => "day",
            "week" | "w" => "week",
            "month" | "mon" => "month",
            "year" | "yr" | "y" => "year",
            "decade" | "dec" => "decade",
            "century" | "centurie" | "c" | "cent" => "century",
            "millennium" | "millennia" | "mil" | "millenium" => "millennium",
            _ => return None,
        };
        if !self.first_time(canonical) {
            return None;
        }
        match canonical {
            "microsecond" => self.add_micros(number),
            "millisecond" => self.add_micros(number * 1e3),
            "second" => self.add_micros(number * 1e6),
            "minute" => self.add_micros(number * 6e7),
            "hour" => self.add_micros(number * 3.6e9),
            "day" => self.add_days(number),
            "week" => self.add_days(number * 7.0),
            "month" => self.add_months(number),
            "year" => self.months += (number * 12.0).round(),
            "decade" => self.months += (number * 120.0).round(),
            "century" => self.months += (number * 1200.0).round(),
            _ => self.months += (number * 12_000.0).round(),
        }
        Some(())
    }

    fn add_micros(&mut self, micros: f64) {
        self.micros += micros.round_ties_even() as i128;
    }

    fn add_days(&mut self, number: f64) {
        self.days += number.trunc();
        self.add_micros((number.fract() * 1e9).round() / 1e9 * DAY as f64);
    }

    fn add_months(&mut self, number: f64) {
        self.months += number.trunc();
        self.add_days((number.fract() * 30.0 * 1e9).round() / 1e9);
    }

    fn finish(self, input: &str) -> Result<Interval, ValueError> {
        let small = |n: f64| {
            let fits = n.abs() <= f64::from(i32::MAX);
            fits.then_some(n as i32).ok_or_else(|| {
                ValueError::new("22008", format!("interval field value out of range: \"{input}\""))
            })
        };
        let micros = i64::try_from(self.micros).map_err(|_| {
            ValueError::new("22015", format!("interval field value out of range: \"{input}\""))
        })?;
        Ok(Interval { months: small(self.months)?, days: small(self.days)?, micros })
    }
}

/// Splits numbers from units: `1day2h` is `1`, `day`, `2`, `h`.
fn interval_tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut current = String::new();
        for c in word.chars() {
            let starts_unit = c.is_ascii_alphabetic();
            let in_unit = current.chars().last().is_some_and(|last| last.is_ascii_alphabetic());
            if !current.is_empty() && starts_unit != in_unit {
                tokens.push(std::mem::take(&mut current));
            }
            current.push(c);
        }
        // A sign that stands alone belongs to the number behind it.
        if let Some(sign) = tokens.pop_if(|last| matches!(last.as_str(), "-" | "+")) {
            current.insert_str(0, &sign);
        }
        tokens.push(current);
    }
    tokens
}

fn year_month(token: &str) -> Option<(i32, i32)> {
    let (sign, rest) = match token.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, token.strip_prefix('+').unwrap_or(token)),
    };
    let (years, months) = rest.split_once('-')?;
    let months = months.parse::<i32>().ok().filter(|m| (0..12).contains(m))?;
    Some((sign * years.parse::<i32>().ok()?, sign * months))
}

/// A clock of an interval; the inner `None` is a field out of range.
fn parse_interval_clock(token: &str) -> Option<Option<i128>> {
    let (sign, rest) = match token.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, token.strip_prefix('+').unwrap_or(token)),
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [minutes, seconds] if seconds.contains('.') => ("0", *minutes, *seconds),
        [hours, minutes] => (*hours, *minutes, "0"),
        [hours, minutes, seconds] => (*hours, *minutes, *seconds),
        _ => return None,
    };
    let minutes = minutes.parse::<i128>().ok()?;
    let seconds = parse_seconds(seconds).ok()?;
    let hours = hours.parse::<i128>().ok()?;
    if !(0..60).contains(&minutes) || seconds > 60 * SECOND {
        return Some(None);
    }
    Some(Some(sign * (hours * i128::from(HOUR) + minutes * i128::from(MINUTE) + i128::from(seconds))))
}

fn parse_iso_interval(text: &str, total: &mut Total) -> Option<()> {
    let mut in_time = false;
    let mut number = String::new();
    if text.is_empty() {
        return None;
    }
    // The alternative form: P0001-02-03T04:05:06.
    let (date, clock) = text.split_once('t').unwrap_or((text, ""));
    if let [years, months, days] = date.split('-').collect::<Vec<_>>().as_slice() {
        total.months += years.parse::<f64>().ok()? * 12.0 + months.parse::<f64>().ok()?;
        total.days += days.parse::<f64>().ok()?;
        if !clock.is_empty() {
            total.micros += parse_interval_clock(clock)??;
        }
        return Some(());
    }
    for c in text.chars() {
        match c {
            't' => in_time = true,
            '0'..='9' | '.' | '-' | '+' => number.push(c),
            _ => {
                let value = std::mem::take(&mut number).parse::<f64>().ok()?;
                let unit = match (c, in_time) {
                    ('y', false) => "year",
                    ('m', false) => "month",
                    ('w', false) => "week",
                    ('d', false) => "day",
                    ('h', true) => "hour",
                    ('m', true) => "minute",
                    ('s', true) => "second",
                    _ => return None,
                };
                total.add(value, unit)?;
            }
        }
    }
    number.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_a_day_are_none() {
        for text in ["+05:77580770", "+596524:00", "-1:2:2147483648", "+16", "+05:60"] {
            assert_eq!(parse_offset(text), None, "{text}");
        }
        assert_eq!(parse_offset("-15:59:59"), Some(-57_599));
    }

    #[test]
    fn years_beyond_an_interval_are_out_of_range() {
        for text in ["200000000-0 ", "-200000000-11", "178956971-0"] {
            assert_eq!(parse_interval(text).unwrap_err().state, "22008", "{text}");
        }
        assert_eq!(parse_interval("178956970-7").unwrap().months, i32::MAX);
    }
}
