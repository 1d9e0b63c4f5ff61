//! The series of random numbers that `setseed()` begins: xoroshiro128**, seeded through splitmix64, as PostgreSQL 15
//! has it in `pg_prng.c`, so that the same seed gives the same numbers.
//!
//! A series belongs to its session on one node: after a change of leader the numbers are those of no seed.

/// A series of random numbers.
#[derive(Clone, Copy, Debug)]
pub struct RandomSeries {
    first: u64,
    second: u64,
}

impl RandomSeries {
    /// The series of a seed between -1 and 1.
    #[must_use]
    pub fn new(seed: f64) -> Self {
        // As many bits as a double has digits; the sign counts, too.
        let mut state = ((((1u64 << 52) - 1) as f64 * seed) as i64).cast_unsigned();
        let mut next = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        };
        Self { first: next(), second: next() }
    }

    /// The next number, from 0 up to 1.
    pub fn next_float(&mut self) -> f64 {
        let (first, mixed) = (self.first, self.second ^ self.first);
        let value = first.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        self.first = first.rotate_left(24) ^ mixed ^ (mixed << 16);
        self.second = mixed.rotate_left(37);
        (value >> 12) as f64 / (1u64 << 52) as f64
    }
}
