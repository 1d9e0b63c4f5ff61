//! Randomness: from the operating system outside, from the seed of the run inside the simulator.

use std::convert::Infallible;
use std::fmt;
use std::ops::Range;

use rand::TryRng;

use crate::runtime::Env;

/// A source of random numbers. It implements `rand::Rng`, so anything that draws from that draws from here.
///
/// Drawing never fails: the operating-system form is a per-thread generator seeded from the kernel.
#[derive(Clone)]
pub struct Rng {
    env: Env,
}

impl Rng {
    pub(crate) const fn new(env: Env) -> Self {
        Self { env }
    }

    /// Any number, each equally likely.
    pub fn u64(&mut self) -> u64 {
        self.env.backend().random_u64()
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.u64().to_le_bytes();
            chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
        }
    }

    /// A number of the half-open range; the start of the range if it is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        range.start + below(self.u64(), range.end.saturating_sub(range.start))
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.range(0..denominator) < numerator
    }
}

/// Maps a random number onto `0..bound` by multiplication; the bias is below 2^-32 for the bounds used here.
pub(crate) fn below(random: u64, bound: u64) -> u64 {
    let product = u128::from(random) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(0)
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.u64() >> 32).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_empty_ones_give_their_start() {
        let mut rng = Env::os().rng();
        for _ in 0..1000 {
            assert!((3..7).contains(&rng.range(3..7)));
        }
        assert_eq!(rng.range(5..5), 5);
        let mut bytes = [0u8; 13];
        rng.fill(&mut bytes);
        assert!(bytes.iter().any(|byte| *byte != 0));
    }
}
