//! Units as people write them: `"50ms"`, `"5s"`, `"64MiB"`.
//!
//! A bare number is refused, because `timeout = 5` says nothing about what 5 is.
//! Both types print in the form they parse, so a configuration that is written out reads back equal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Why a value with a unit could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The text has no leading number.
    #[error("`{text}` does not start with a whole number")]
    NoNumber {
        /// What was read.
        text: String,
    },
    /// The number carries no unit, or one that is not known.
    #[error("`{text}` needs one of the units {units}")]
    Unit {
        /// What was read.
        text: String,
        /// The units that would be right.
        units: &'static str,
    },
    /// The number does not fit.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was read.
        text: String,
    },
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber { text: text.to_owned() });
    }
    let value = number.parse().map_err(|_| UnitError::TooLarge { text: text.to_owned() })?;
    Ok((value, unit.trim()))
}

/// A length of time, written with its unit: `us`, `ms`, `s`, `min`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    const UNITS: [(&'static str, u64); 6] = [
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("min", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ];

    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> TimeSpan {
        TimeSpan(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> TimeSpan {
        TimeSpan(Duration::from_secs(secs))
    }

    /// The span as the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The span, or nothing when it is zero: zero switches a timeout off.
    pub fn nonzero(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<TimeSpan, UnitError> {
        let (value, unit) = split(text)?;
        let micros = TimeSpan::UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, micros)| *micros)
            .ok_or_else(|| UnitError::Unit { text: text.to_owned(), units: "us, ms, s, min, h, d" })?;
        let micros =
            value.checked_mul(micros).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })?;
        Ok(TimeSpan(Duration::from_micros(micros)))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in TimeSpan::UNITS.iter().rev() {
            let size = u128::from(*size);
            if micros.is_multiple_of(size) {
                return write!(f, "{}{unit}", micros / size);
            }
        }
        Ok(())
    }
}

/// A count of bytes, written with its unit: `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

impl ByteSize {
    const UNITS: [(&'static str, u64); 5] =
        [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

    /// A size of `bytes` bytes.
    pub const fn new(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// A size of whole mebibytes.
    pub const fn from_mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let (value, unit) = split(text)?;
        let size = ByteSize::UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, size)| *size)
            .ok_or_else(|| UnitError::Unit { text: text.to_owned(), units: "B, KiB, MiB, GiB, TiB" })?;
        value.checked_mul(size).map(ByteSize).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in ByteSize::UNITS.iter().rev() {
            if self.0 != 0 && self.0.is_multiple_of(*size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

struct Text<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeSpan, D::Error> {
        deserializer.deserialize_str(Text(
            std::marker::PhantomData,
            "a time in quotes with its unit, such as \"50ms\"",
        ))
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_str(Text(
            std::marker::PhantomData,
            "a size in quotes with its unit, such as \"64MiB\"",
        ))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much memory a node may plan with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryBudget {
    /// A quarter of the machine's memory.
    #[default]
    Auto,
    /// This many bytes.
    Bytes(ByteSize),
}

impl FromStr for MemoryBudget {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<MemoryBudget, UnitError> {
        if text.trim() == "auto" { Ok(MemoryBudget::Auto) } else { text.parse().map(MemoryBudget::Bytes) }
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryBudget::Auto => f.write_str("auto"),
            MemoryBudget::Bytes(size) => size.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MemoryBudget, D::Error> {
        deserializer.deserialize_str(Text(
            std::marker::PhantomData,
            "\"auto\" or a size in quotes with its unit, such as \"512MiB\"",
        ))
    }
}

impl Serialize for MemoryBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_they_print() {
        for text in ["50ms", "5s", "1min", "2h", "7d", "1500us", "0s"] {
            assert_eq!(text.parse::<TimeSpan>().unwrap().to_string(), text);
        }
        for text in ["1B", "64MiB", "512KiB", "1GiB", "1500B", "0B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<TimeSpan>().unwrap().to_string(), "1min");
        assert_eq!("1024MiB".parse::<ByteSize>().unwrap().to_string(), "1GiB");
        assert_eq!("auto".parse::<MemoryBudget>().unwrap(), MemoryBudget::Auto);
    }

    #[test]
    fn a_value_without_a_known_unit_is_refused() {
        assert!(matches!("50".parse::<TimeSpan>(), Err(UnitError::Unit { .. })));
        assert!(matches!("5 years".parse::<TimeSpan>(), Err(UnitError::Unit { .. })));
        assert!(matches!("fast".parse::<TimeSpan>(), Err(UnitError::NoNumber { .. })));
        assert!(matches!("-5s".parse::<TimeSpan>(), Err(UnitError::NoNumber { .. })));
        assert!(matches!("64mb".parse::<ByteSize>(), Err(UnitError::Unit { .. })));
        assert!(matches!("99999999999999999999B".parse::<ByteSize>(), Err(UnitError::TooLarge { .. })));
        assert!(matches!("99999999TiB".parse::<ByteSize>(), Err(UnitError::TooLarge { .. })));
    }
}
