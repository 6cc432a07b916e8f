//! The bytes sent: pseudo-random from a seed, checked at every offset.
//!
//! Checking costs little more than a `memcmp`: each block is a stamp that depends on seed and block
//! number, followed by a slice of one shared random table at a place that depends on them too. No
//! lost, duplicated, moved or altered byte can go unnoticed.

use std::sync::OnceLock;

const BLOCK: usize = 16 * 1024;
const STAMP: usize = 16;
/// Small enough to stay in the second-level cache beside the socket buffers' working set.
const TABLE: usize = 256 * 1024;

/// One step of the SplitMix64 generator (Steele, Lea, Flood 2014): a well mixed hash of `x`.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A SplitMix64 generator: the source of all the lab's randomness, from seeds.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose entire output is fixed by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `low..high`, log-uniform.
    pub fn log_range(&mut self, low: f64, high: f64) -> f64 {
        (low.ln() + self.unit() * (high.ln() - low.ln())).exp()
    }
}

fn table() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut rng = Rng::new(0x696d_7578);
        (0..(TABLE + BLOCK) / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
    })
}

/// One seeded stream of unbounded length.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Writes the stream's bytes from `offset` on into `out`.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let part = self.part(offset + done as u64, out.len() - done);
            out[done..done + part.len()].copy_from_slice(part.bytes());
            done += part.len();
        }
    }

    /// Compares `data` with the stream's bytes from `offset` on; the error is the offset of the
    /// first difference (to within a block).
    pub fn verify(&self, offset: u64, data: &[u8]) -> Result<(), u64> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let part = self.part(at, data.len() - done);
            if data[done..done + part.len()] != *part.bytes() {
                return Err(at);
            }
            done += part.len();
        }
        Ok(())
    }

    fn part(&self, offset: u64, limit: usize) -> Part {
        let block = offset / BLOCK as u64;
        let within = (offset % BLOCK as u64) as usize;
        let key = mix(self.seed ^ mix(block));
        if within < STAMP {
            let mut stamp = [0; STAMP];
            stamp[..8].copy_from_slice(&key.to_le_bytes());
            stamp[8..].copy_from_slice(&mix(key).to_le_bytes());
            return Part::Stamp { stamp, from: within, to: STAMP.min(within + limit) };
        }
        let start = (key % TABLE as u64) as usize + within;
        Part::Table(&table()[start..start + limit.min(BLOCK - within)])
    }
}

enum Part {
    Stamp { stamp: [u8; STAMP], from: usize, to: usize },
    Table(&'static [u8]),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Stamp { stamp, from, to } => &stamp[*from..*to],
            Self::Table(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let pattern = Pattern::new(7);
        let mut whole = vec![0; 100_000];
        pattern.fill(0, &mut whole);
        let mut rng = Rng::new(1);
        let mut at = 0;
        while at < whole.len() {
            let n = (1 + rng.next_u64() as usize % 9000).min(whole.len() - at);
            let mut cut = vec![0; n];
            pattern.fill(at as u64, &mut cut);
            assert_eq!(cut, whole[at..at + n]);
            assert_eq!(pattern.verify(at as u64, &whole[at..at + n]), Ok(()));
            at += n;
        }
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let pattern = Pattern::new(7);
        let mut bytes = vec![0; 3 * BLOCK];
        pattern.fill(0, &mut bytes);
        let mut flipped = bytes.clone();
        flipped[40_000] ^= 1;
        assert!(pattern.verify(0, &flipped).is_err());
        let mut swapped = bytes.clone();
        swapped[..2 * BLOCK].rotate_left(BLOCK);
        assert!(pattern.verify(0, &swapped).is_err());
        assert!(pattern.verify(1, &bytes).is_err(), "one byte lost");
        assert!(Pattern::new(8).verify(0, &bytes).is_err(), "another stream's bytes");
    }
}
