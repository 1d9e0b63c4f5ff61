//! What ANALYZE found out: numbers of rows and distinct values, the most common values, and a histogram of the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value by its encoding as a key, whose order is that of values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyBytes(pub Vec<u8>);

impl Serialize for KeyBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for KeyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bytes = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a value of statistics is no hexadecimal number"))
    }
}

/// What ANALYZE found out about a column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnStatistics {
    /// Distinct values: a count when positive, minus a share of the rows when negative, as `pg_stats.n_distinct`.
    pub distinct: f64,
    /// The share of rows that hold NULL.
    pub null_fraction: f64,
    /// Mean stored size in bytes.
    pub width: u32,
    /// The most common values with their shares of the rows, the most common one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub common: Vec<(KeyBytes, f64)>,
    /// Values that divide the others into parts with as many rows each, in order, the least and the greatest included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<KeyBytes>,
}

/// What ANALYZE found out about a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableStatistics {
    /// The number of rows, estimated.
    pub rows: f64,
    /// Bytes of the rows, estimated.
    pub bytes: f64,
    /// By column number.
    pub columns: BTreeMap<u32, ColumnStatistics>,
}

/// Where a value lies between two others, from 0 to 1.
fn between(value: &[u8], low: &[u8], high: &[u8]) -> f64 {
    let shared = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let digits = (0..8).map(|place| f64::from(bytes.get(shared + place).copied().unwrap_or(0)));
        digits.fold(0.0, |number, digit| number * 256.0 + digit)
    };
    let (value, low, high) = (number(value), number(low), number(high));
    if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
}

impl ColumnStatistics {
    /// How many distinct values a table of so many rows has.
    #[must_use]
    pub fn distinct_of(&self, rows: f64) -> f64 {
        let count = if self.distinct < 0.0 { -self.distinct * rows } else { self.distinct };
        count.max(1.0)
    }

    /// The share of rows that hold none of the common values, and no NULL.
    fn uncommon(&self) -> f64 {
        let common: f64 = self.common.iter().map(|(_, share)| share).sum();
        (1.0 - self.null_fraction - common).max(0.0)
    }

    /// The share of rows that hold a value; any one when it is not known.
    #[must_use]
    pub fn equal_to(&self, value: Option<&[u8]>, rows: f64) -> f64 {
        let distinct = self.distinct_of(rows);
        let Some(value) = value else { return (1.0 - self.null_fraction) / distinct };
        if let Some((_, share)) = self.common.iter().find(|(common, _)| common.0 == value) {
            return *share;
        }
        let others = (distinct - self.common.len() as f64).max(1.0);
        let share = self.uncommon() / others;
        // It is no more common than the least of those that are.
        self.common.last().map_or(share, |(_, least)| share.min(*least))
    }

    /// The share of rows that hold a value below another one.
    #[must_use]
    pub fn below(&self, value: &[u8]) -> Option<f64> {
        if self.common.is_empty() && self.bounds.len() < 2 {
            return None;
        }
        let common: f64 = self
            .common
            .iter()
            .filter(|(common, _)| common.0.as_slice() < value)
            .map(|(_, share)| share)
            .sum();
        let place = self.bounds.partition_point(|bound| bound.0.as_slice() < value);
        let parts = self.bounds.len().saturating_sub(1) as f64;
        let share =
            match (place.checked_sub(1).and_then(|before| self.bounds.get(before)), self.bounds.get(place)) {
                (None, _) => 0.0,
                (Some(_), None) => 1.0,
                (Some(low), Some(high)) => ((place - 1) as f64 + between(value, &low.0, &high.0)) / parts,
            };
        Some(common + share * self.uncommon())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> KeyBytes {
        KeyBytes(vec![byte, 0])
    }

    #[test]
    fn shares_come_from_common_values_and_the_histogram() {
        let column = ColumnStatistics {
            distinct: 52.0,
            null_fraction: 0.1,
            common: vec![(key(7), 0.3), (key(200), 0.1)],
            bounds: vec![key(0), key(50), key(100)],
            ..ColumnStatistics::default()
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(column.equal_to(Some(&[7, 0]), 1000.0), 0.3);
        near(column.equal_to(Some(&[8, 0]), 1000.0), 0.01);
        near(column.equal_to(None, 1000.0), 0.9 / 52.0);
        near(column.below(&[0, 0]).unwrap(), 0.0);
        near(column.below(&[25, 0]).unwrap(), 0.3 + 0.25 * 0.5);
        near(column.below(&[100, 0]).unwrap(), 0.3 + 0.5);
        near(column.below(&[255, 0]).unwrap(), 0.9);
        assert_eq!(ColumnStatistics::default().below(&[1]), None);
        near(ColumnStatistics { distinct: -0.5, ..ColumnStatistics::default() }.distinct_of(1000.0), 500.0);
        let text = serde_json::to_string(&column).unwrap();
        assert!(text.contains("\"0700\""), "{text}");
        assert_eq!(serde_json::from_str::<ColumnStatistics>(&text).unwrap(), column);
        assert!(
            serde_json::from_str::<KeyBytes>("\"0g\"").is_err()
                && serde_json::from_str::<KeyBytes>("\"012\"").is_err()
        );
    }
}
