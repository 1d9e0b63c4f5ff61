//! Changes of valid input that decoders dislike: bits, lengths, cuts, repetitions, parts of another message.

use crate::crash::Dice;

/// Inputs do not grow beyond this.
pub const SIZE_MAX: usize = 16 << 10;

/// Numbers at which decoders turn: as lengths, counts and positions.
const LIES: [i64; 16] =
    [-1, 0, 1, 3, 4, 7, 8, 127, 128, 255, 256, 65_535, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// Words that mean something to some decoder.
const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "(((((((((((((((",
    "))))))))",
    "'",
    "\"",
    "$1",
    "$99999",
    "--",
    "/*",
    "*/",
    "NULL",
    "ARRAY[",
    "[1:2]",
    "::int",
    "::text[]",
    "CAST(",
    "interval '1 mon'",
    "1e400",
    "-9223372036854775808",
    "0x",
    "E'\\",
    "U&'\\",
    "$$",
    ";",
    "\0",
    "\u{feff}",
    "é",
    "LIMIT",
    "OFFSET -1",
    "UNION ALL",
    "WITH RECURSIVE",
    "GROUP BY",
    "OVER ()",
    "generate_series(1,3)",
    "CASE WHEN",
    "IS DISTINCT FROM",
    "RETURNING *",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COPY t FROM STDIN",
    "DECLARE c CURSOR FOR",
    "infinity",
    "NaN",
    "{",
    "}",
    "{{1},{2}}",
    "=",
    "[",
    "]",
    "9999-12-31",
    "24:00:00",
    "4713-01-01 BC",
];

/// A changed copy: one to six changes, now and then with a part of `other`.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(6) {
        change(&mut bytes, other, dice);
    }
    bytes.truncate(SIZE_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.index(bytes.len());
    let rest = bytes.len().saturating_sub(at);
    match dice.below(12) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = u8::try_from(dice.below(256)).unwrap_or(0);
            }
        }
        3 => lie(bytes, at, dice),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..at + dice.index(rest.min(16) + 1))),
        6 => {
            let part = bytes[at..at + dice.index(rest.min(64) + 1)].to_vec();
            for _ in 0..=dice.below(3) {
                splice(bytes, at, &part);
            }
        }
        7 => {
            let from = dice.index(other.len());
            let part = &other[from..from + dice.index((other.len() - from).min(200) + 1)];
            splice(bytes, at, part);
        }
        8 | 9 => splice(bytes, at, dice.pick(WORDS).as_bytes()),
        10 => {
            let count = 1 + dice.index(16);
            let byte = u8::try_from(dice.below(256)).unwrap_or(0);
            splice(bytes, at, &vec![byte; count]);
        }
        _ => {
            // Two places change their contents.
            let to = dice.index(bytes.len());
            if !bytes.is_empty() {
                bytes.swap(at, to);
            }
        }
    }
}

/// Overwrites a place with a number that is not what it says.
fn lie(bytes: &mut [u8], at: usize, dice: &mut Dice) {
    let number = *dice.pick(&LIES);
    let number = number.wrapping_add(i64::try_from(dice.below(3)).unwrap_or(0) - 1);
    let wide = number.to_be_bytes();
    let size = *dice.pick(&[1_usize, 2, 4, 8]);
    let mut field = wide[8 - size..].to_vec();
    if dice.chance(1, 2) {
        field.reverse();
    }
    for (byte, new) in bytes.iter_mut().skip(at).zip(field) {
        *byte = new;
    }
}

fn splice(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() + part.len() <= SIZE_MAX {
        bytes.splice(at..at, part.iter().copied());
    }
}
