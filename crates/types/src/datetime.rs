//! Dates and times: the calendar, time zones, and their text in PostgreSQL's ISO style.
//!
//! Days and microseconds count from 2000-01-01. The calendar is the proleptic Gregorian one;
//! year 0 is 1 BC. Invariant: dates lie between 4714-11-24 BC and 5874897-12-31, timestamps end
//! before the year 294277; beyond that is 22008.

mod parse;

use std::fmt::Write;

use chrono::{NaiveDate, Offset, TimeZone};

use crate::value::{
    DATE_INFINITY, DATE_NEGATIVE_INFINITY, Interval, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY,
};
use crate::value_error::ValueError;

pub use parse::{
    parse_date, parse_interval, parse_interval_of, parse_time, parse_timestamp, parse_timestamptz, uses_clock,
};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds of an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds of a day.
pub const DAY: i64 = 24 * HOUR;
/// Seconds from 1970-01-01 to 2000-01-01.
pub const UNIX_OFFSET_SECONDS: i64 = 946_684_800;
/// The first date: 4714-11-24 BC.
pub const DATE_MIN: i32 = -2_451_545;
/// The first date after the last.
pub const DATE_END: i32 = 2_145_031_949;
/// The first timestamp.
pub const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// The first timestamp after the last.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;

/// Year, month and day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year; 0 is 1 BC.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
}

/// The date of a day number.
pub fn civil(days: i64) -> Civil {
    let shifted = days + 730_425;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year: year as i32, month: month as i32, day: day as i32 }
}

/// The day number of a date; month and day are trusted to be in range.
pub fn days(year: i32, month: i32, day: i32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

/// Days of a month.
pub fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Refuses dates out of range.
///
/// # Errors
/// 22008.
pub fn check_date(days: i64) -> Result<i32, ValueError> {
    i32::try_from(days)
        .ok()
        .filter(|days| (DATE_MIN..DATE_END).contains(days))
        .ok_or_else(|| ValueError::new("22008", "date out of range"))
}

/// Refuses timestamps out of range.
///
/// # Errors
/// 22008.
pub fn check_timestamp(micros: i128) -> Result<i64, ValueError> {
    i64::try_from(micros)
        .ok()
        .filter(|micros| (TIMESTAMP_MIN..TIMESTAMP_END).contains(micros))
        .ok_or_else(|| ValueError::new("22008", "timestamp out of range"))
}

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// A place of the IANA database.
    Named(chrono_tz::Tz),
    /// Seconds east of UTC.
    Fixed(i32),
}

impl Zone {
    /// Universal time.
    pub const UTC: Zone = Zone::Fixed(0);

    /// A zone by IANA name, abbreviation, or offset in POSIX style (`UTC+3` and `+3` differ in sign
    /// from ISO when given as a zone's name: POSIX counts west).
    pub fn by_name(name: &str) -> Option<Zone> {
        let name = name.trim();
        if let Some(seconds) = abbreviation(&name.to_ascii_lowercase()) {
            return Some(Zone::Fixed(seconds));
        }
        if let Ok(zone) = name.parse::<chrono_tz::Tz>() {
            return Some(Zone::Named(zone));
        }
        let lower = name.to_ascii_lowercase();
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|z| z.name().to_ascii_lowercase() == lower) {
            return Some(Zone::Named(*zone));
        }
        let offset = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let offset = offset.strip_prefix("<>").unwrap_or(offset);
        parse::parse_offset(offset).map(|seconds| Zone::Fixed(-seconds))
    }

    /// Seconds east of UTC at an instant.
    pub fn offset_at(self, utc: i64) -> i32 {
        match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(zone) => {
                let seconds = utc.div_euclid(SECOND) + UNIX_OFFSET_SECONDS;
                chrono::DateTime::from_timestamp(seconds, 0)
                    .map_or(0, |at| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
            }
        }
    }

    /// The abbreviation in force at an instant.
    pub fn abbreviation_at(self, utc: i64) -> String {
        match self {
            Zone::Fixed(0) => "UTC".to_owned(),
            Zone::Fixed(seconds) => offset_text(seconds),
            Zone::Named(zone) => {
                let seconds = utc.div_euclid(SECOND) + UNIX_OFFSET_SECONDS;
                chrono::DateTime::from_timestamp(seconds, 0)
                    .map_or_else(String::new, |at| zone.offset_from_utc_datetime(&at.naive_utc()).to_string())
            }
        }
    }

    /// Local time to UTC. In the gap of a spring change the offset before it holds; in the overlap
    /// of an autumn change the later reading (standard time) does.
    pub fn to_utc(self, local: i64) -> i64 {
        let offset = match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(zone) => {
                let seconds = local.div_euclid(SECOND) + UNIX_OFFSET_SECONDS;
                let naive = chrono::DateTime::from_timestamp(seconds, 0).map(|at| at.naive_utc());
                match naive.map(|naive| (naive, zone.offset_from_local_datetime(&naive))) {
                    Some((_, chrono::LocalResult::Single(offset))) => offset.fix().local_minus_utc(),
                    Some((_, chrono::LocalResult::Ambiguous(_, later))) => later.fix().local_minus_utc(),
                    // A gap is at most a day away from a time whose offset is known.
                    _ => self.offset_at(local.saturating_sub(DAY)),
                }
            }
        };
        local.saturating_sub(i64::from(offset) * SECOND)
    }

    /// UTC to local time.
    pub fn to_local(self, utc: i64) -> i64 {
        utc.saturating_add(i64::from(self.offset_at(utc)) * SECOND)
    }
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Zone::Named(zone) => f.write_str(zone.name()),
            Zone::Fixed(0) => f.write_str("UTC"),
            Zone::Fixed(seconds) => f.write_str(&offset_text(*seconds)),
        }
    }
}

fn abbreviation(name: &str) -> Option<i32> {
    let hours = match name {
        "utc" | "gmt" | "z" | "zulu" | "ut" => 0,
        "est" => -5,
        "edt" => -4,
        "cst" => -6,
        "cdt" => -5,
        "mst" => -7,
        "mdt" => -6,
        "pst" => -8,
        "pdt" => -7,
        "cet" | "bst" | "met" => 1,
        "cest" | "eet" | "mest" => 2,
        "eest" | "msk" => 3,
        "jst" | "kst" => 9,
        "ist" => return Some(2 * 3600),
        "wet" => 0,
        "west" => 1,
        _ => return None,
    };
    Some(hours * 3600)
}

/// `+02`, `-03:30`, `+05:30:15`.
pub fn offset_text(seconds: i32) -> String {
    let magnitude = seconds.unsigned_abs();
    let mut text = format!("{}{:02}", if seconds < 0 { '-' } else { '+' }, magnitude / 3600);
    if !magnitude.is_multiple_of(3600) {
        let _ = write!(text, ":{:02}", magnitude / 60 % 60);
        if !magnitude.is_multiple_of(60) {
            let _ = write!(text, ":{:02}", magnitude % 60);
        }
    }
    text
}

fn write_civil(out: &mut String, date: Civil) {
    let year = if date.year > 0 { date.year } else { 1 - date.year };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month, date.day);
}

fn write_clock(out: &mut String, micros: i64) {
    let seconds = micros / SECOND;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    write_fraction(out, micros % SECOND);
}

fn write_fraction(out: &mut String, micros: i64) {
    if micros != 0 {
        let digits = format!("{:06}", micros.abs());
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// A date as text.
pub fn format_date(days: i32) -> String {
    match days {
        DATE_INFINITY => return "infinity".to_owned(),
        DATE_NEGATIVE_INFINITY => return "-infinity".to_owned(),
        _ => {}
    }
    let date = civil(i64::from(days));
    let mut out = String::with_capacity(13);
    write_civil(&mut out, date);
    if date.year <= 0 {
        out.push_str(" BC");
    }
    out
}

/// A time of day as text.
pub fn format_time(micros: i64) -> String {
    let mut out = String::with_capacity(15);
    write_clock(&mut out, micros);
    out
}

/// A timestamp without zone as text.
pub fn format_timestamp(micros: i64) -> String {
    format_with_suffix(micros, "")
}

/// A timestamp with zone as text, in the given zone.
pub fn format_timestamptz(utc: i64, zone: Zone) -> String {
    if utc == TIMESTAMP_INFINITY || utc == TIMESTAMP_NEGATIVE_INFINITY {
        return format_timestamp(utc);
    }
    let offset = zone.offset_at(utc);
    format_with_suffix(utc.saturating_add(i64::from(offset) * SECOND), &offset_text(offset))
}

fn format_with_suffix(micros: i64, suffix: &str) -> String {
    match micros {
        TIMESTAMP_INFINITY => return "infinity".to_owned(),
        TIMESTAMP_NEGATIVE_INFINITY => return "-infinity".to_owned(),
        _ => {}
    }
    let date = civil(micros.div_euclid(DAY));
    let mut out = String::with_capacity(32);
    write_civil(&mut out, date);
    out.push(' ');
    write_clock(&mut out, micros.rem_euclid(DAY));
    out.push_str(suffix);
    if date.year <= 0 {
        out.push_str(" BC");
    }
    out
}

/// An interval as text in style `postgres`.
pub fn format_interval(interval: &Interval) -> String {
    let mut out = String::new();
    let years = interval.months / 12;
    let months = interval.months % 12;
    let mut before_negative = false;
    let mut part = |out: &mut String, number: i32, unit: &str| {
        if number == 0 {
            return;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let sign = if before_negative && number > 0 { "+" } else { "" };
        let _ = write!(out, "{sign}{number} {unit}{}", if number == 1 { "" } else { "s" });
        before_negative = number < 0;
    };
    part(&mut out, years, "year");
    part(&mut out, months, "mon");
    part(&mut out, interval.days, "day");
    if interval.micros != 0 || out.is_empty() {
        if !out.is_empty() {
            out.push(' ');
        }
        if interval.micros < 0 {
            out.push('-');
        } else if before_negative {
            out.push('+');
        }
        let magnitude = interval.micros.unsigned_abs();
        let seconds = magnitude / SECOND as u64;
        let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        write_fraction(&mut out, (magnitude % SECOND as u64) as i64);
    }
    out
}

/// Rounds microseconds to a number of digits of a second.
pub fn round_micros(micros: i64, precision: u32) -> i64 {
    let Some(unit) = 6u32.checked_sub(precision).map(|digits| 10i64.pow(digits)) else { return micros };
    let half = unit / 2;
    if micros >= 0 {
        micros.saturating_add(half) / unit * unit
    } else {
        -(micros.saturating_neg().saturating_add(half) / unit * unit)
    }
}

/// The day of the week of a day number: 0 is Sunday.
pub fn day_of_week(days: i64) -> i32 {
    (days + 6).rem_euclid(7) as i32
}

/// ISO year and week of a day number.
pub fn iso_week(day_number: i64) -> (i32, i32) {
    let weekday = (day_of_week(day_number) + 6) % 7;
    let thursday = day_number - i64::from(weekday) + 3;
    let year = civil(thursday).year;
    let week = (thursday - days(year, 1, 1)) / 7 + 1;
    (year, week as i32)
}

/// Whether a date exists.
pub fn is_valid_date(year: i32, month: i32, day: i32) -> bool {
    (1..=12).contains(&month)
        && day >= 1
        && day <= days_in_month(year, month)
        && (year < 9999 || NaiveDate::from_ymd_opt(2000, month as u32, 1).is_some())
}

/// A timestamp moved by an interval: months first (the day clipped to the month), then days, then
/// microseconds.
///
/// # Errors
/// 22008.
pub fn add_interval(micros: i64, interval: &Interval) -> Result<i64, ValueError> {
    if micros == TIMESTAMP_INFINITY || micros == TIMESTAMP_NEGATIVE_INFINITY {
        return Ok(micros);
    }
    let mut day_number = micros.div_euclid(DAY);
    if interval.months != 0 {
        let date = civil(day_number);
        let month_number = i64::from(date.year) * 12 + i64::from(date.month - 1) + i64::from(interval.months);
        let year = i32::try_from(month_number.div_euclid(12))
            .map_err(|_| ValueError::new("22008", "timestamp out of range"))?;
        let month = month_number.rem_euclid(12) as i32 + 1;
        day_number = days(year, month, date.day.min(days_in_month(year, month)));
    }
    day_number += i64::from(interval.days);
    check_timestamp(
        i128::from(day_number) * i128::from(DAY)
            + i128::from(micros.rem_euclid(DAY))
            + i128::from(interval.micros),
    )
}
