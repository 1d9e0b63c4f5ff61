//! PostgreSQL's hash functions over text, which applications call to spread rows: Bob Jenkins' lookup3, as
//! `hash_bytes` and `hash_bytes_extended` of `hashfn.c` have it, so that the numbers are the same.

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::FunctionFn;
use super::{int, text};

pub(super) fn find(name: &str, _: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "hashtext" => |a, _| {
            let (_, low) = hash(text(a, 0)?.as_bytes(), 0);
            Ok(Value::Int4(low.cast_signed()))
        },
        "hashtextextended" => |a, _| {
            let (high, low) = hash(text(a, 0)?.as_bytes(), int(a, 1)?.cast_unsigned());
            Ok(Value::Int8((u64::from(high) << 32 | u64::from(low)).cast_signed()))
        },
        _ => return None,
    })
}

/// Two words of hash.
fn hash(bytes: &[u8], seed: u64) -> (u32, u32) {
    let start = 0x9e37_79b9u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let mut state = [start; 3];
    if seed != 0 {
        state[0] = state[0].wrapping_add((seed >> 32) as u32);
        state[1] = state[1].wrapping_add(seed as u32);
        mix(&mut state);
    }
    let chunks = bytes.chunks_exact(12);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (word, part) in state.iter_mut().zip(chunk.chunks(4)) {
            *word = word.wrapping_add(little_endian(part));
        }
        mix(&mut state);
    }
    for (at, (word, part)) in state.iter_mut().zip(rest.chunks(4)).enumerate() {
        // The lowest byte of the last word is the length's.
        let shift = if at == 2 { 8 } else { 0 };
        *word = word.wrapping_add(little_endian(part) << shift);
    }
    finish(&mut state);
    (state[1], state[2])
}

fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let round = |x: &mut u32, y: &mut u32, z: u32, by: u32| {
        *x = x.wrapping_sub(*y) ^ y.rotate_left(by);
        *y = y.wrapping_add(z);
    };
    round(a, c, *b, 4);
    round(b, a, *c, 6);
    round(c, b, *a, 8);
    round(a, c, *b, 16);
    round(b, a, *c, 19);
    round(c, b, *a, 4);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    let round = |x: &mut u32, y: u32, by: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
    round(c, *b, 14);
    round(a, *c, 11);
    round(b, *a, 25);
    round(c, *b, 16);
    round(a, *c, 4);
    round(b, *a, 14);
    round(c, *b, 24);
}
