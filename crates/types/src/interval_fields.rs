//! The fields that a type such as `interval day to minute` keeps.
//!
//! They are part of the type's modifier, as PostgreSQL packs it: the fields in the upper half, one bit each, the digits
//! of a second in the lower half. They say what a bare number counts, and what is cut off.

use crate::datetime::{HOUR, MINUTE};
use crate::value::Interval;

/// The upper half of a modifier without fields.
const ALL: i32 = 0x7fff;
/// The lower half of a modifier without digits of a second.
const ALL_DIGITS: i32 = 0xffff;

const MONTH: i32 = 1 << 1;
const YEAR: i32 = 1 << 2;
const DAY: i32 = 1 << 3;
const HOURS: i32 = 1 << 10;
const MINUTES: i32 = 1 << 11;
const SECONDS: i32 = 1 << 12;

const NAMES: [(&str, i32); 13] = [
    ("year", YEAR),
    ("month", MONTH),
    ("day", DAY),
    ("hour", HOURS),
    ("minute", MINUTES),
    ("second", SECONDS),
    ("year to month", YEAR | MONTH),
    ("day to hour", DAY | HOURS),
    ("day to minute", DAY | HOURS | MINUTES),
    ("day to second", DAY | HOURS | MINUTES | SECONDS),
    ("hour to minute", HOURS | MINUTES),
    ("hour to second", HOURS | MINUTES | SECONDS),
    ("minute to second", MINUTES | SECONDS),
];

/// One of the combinations of fields that SQL has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalFields(i32);

impl IntervalFields {
    /// By the words after `interval`, in lower case.
    pub fn named(words: &str) -> Option<IntervalFields> {
        NAMES.iter().find(|(name, _)| *name == words).map(|(_, mask)| IntervalFields(*mask))
    }

    /// Of a type's modifier; nothing when all fields are kept.
    pub fn of_modifier(modifier: i32) -> Option<IntervalFields> {
        let mask = modifier >> 16;
        (modifier >= 0 && mask != ALL).then_some(IntervalFields(mask))
    }

    /// The modifier of a type with these fields, or with all, and so many digits of a second, or all.
    pub fn modifier(fields: Option<IntervalFields>, digits: Option<i32>) -> i32 {
        (fields.map_or(ALL, |fields| fields.0) << 16) | digits.unwrap_or(ALL_DIGITS)
    }

    /// The words after `interval`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, mask)| *mask == self.0).map_or("", |(name, _)| name)
    }

    /// What a number without a unit counts.
    pub fn bare_unit(self) -> &'static str {
        match self.0 {
            YEAR => "year",
            mask if mask & MONTH != 0 => "month",
            mask if mask & SECONDS != 0 => "second",
            mask if mask & MINUTES != 0 => "minute",
            mask if mask & HOURS != 0 => "hour",
            _ => "day",
        }
    }

    /// Whether `2:03` is minutes and seconds.
    pub fn is_minute_to_second(self) -> bool {
        self.0 == MINUTES | SECONDS
    }

    /// Cuts off what is smaller than the last field.
    pub fn cut(self, interval: &mut Interval) {
        if self.0 & (YEAR | MONTH) != 0 {
            (interval.days, interval.micros) = (0, 0);
            if self.0 == YEAR {
                interval.months -= interval.months % 12;
            }
        } else if self.0 == DAY {
            interval.micros = 0;
        } else if self.0 & SECONDS == 0 {
            let unit = if self.0 & MINUTES != 0 { MINUTE } else { HOUR };
            interval.micros -= interval.micros % unit;
        }
    }
}
