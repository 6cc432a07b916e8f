//! The one source of randomness of a run: xoshiro256** (Blackman and Vigna 2018), seeded through
//! splitmix64. Written out here so that a seed means the same forever, whatever a crate changes.

use std::ops::RangeInclusive;

/// A stream of numbers determined by its seed.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

/// One step of splitmix64: turns neighbouring seeds into unrelated numbers.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        let first = mix(seed);
        let second = mix(first);
        let third = mix(second);
        Self { state: [first, second, third, mix(third)] }
    }

    /// An independent stream, so that an extra draw here does not change everything there.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number in the range, all equally likely (but for a bias below 2^-32 on ranges this size).
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        let span = high.saturating_sub(low).saturating_add(1);
        low + ((u128::from(self.next_u64()) * u128::from(span)) >> 64) as u64
    }

    /// A number in the range, log-uniform: as many around 10 as around 1000.
    pub fn log_range(&mut self, low: f64, high: f64) -> f64 {
        (low.ln() + (high.ln() - low.ln()) * self.unit()).exp()
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `true` with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of the choices, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.range(0..=choices.len() as u64 - 1) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let drawn = |seed| -> Vec<u64> {
            let mut rng = Rng::new(seed);
            (0..4).map(|_| rng.next_u64()).collect()
        };
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1), 0x910a_2dec_8902_5cc1);
        assert_eq!(
            drawn(7),
            [
                0xe31a_50a2_19a1_1335,
                0x9bdd_e32a_4e77_92c2,
                0x3f98_1c55_73a7_1280,
                0x2d46_6557_39ca_32fc
            ]
        );
        assert_eq!(drawn(0)[0], 0x1a70_a846_bd9c_c2a9);
        assert_eq!(drawn(u64::MAX)[3], 0x939e_26ae_8c3a_89e7);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // xoshiro256** from the state 1, 2, 3, 4, as in its authors' program.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let drawn = [0; 4].map(|_| rng.next_u64());
        assert_eq!(drawn, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn what_is_made_of_it_means_the_same_for_ever() {
        let mut rng = Rng::new(7);
        assert_eq!([0; 8].map(|_| rng.range(0..=999)), [887, 608, 248, 176, 644, 409, 588, 102]);
        let mut rng = Rng::new(7);
        let units = [0.887_120_284_629_080_9, 0.608_854_482_487_428_9, 0.248_414_774_763_343_84];
        assert_eq!([0; 3].map(|_| rng.unit()), units);
        let mut rng = Rng::new(7);
        let half = [0; 8].map(|_| rng.chance(0.5));
        assert_eq!(half, [false, false, true, true, false, true, false, true]);
        let mut rng = Rng::new(7);
        assert_eq!(rng.fork().next_u64(), 0x166d_5956_c1e8_9d39);
        assert_eq!(rng.next_u64(), 0x9bdd_e32a_4e77_92c2);
        assert_eq!(*Rng::new(7).pick(&["a", "b", "c", "d"]), "d");
        let mut rng = Rng::new(7);
        for exact in [594.621_446_769_890_3, 165.085_513_510_834_91, 31.392_763_591_753_926] {
            // Logarithms come from the platform and may differ in the last digit.
            let drawn = rng.log_range(10.0, 1_000.0);
            assert!((drawn / exact - 1.0).abs() < 1e-14, "{drawn} {exact}");
        }
    }

    #[test]
    fn a_range_has_both_its_ends() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 3];
        (0..1_000).for_each(|_| seen[rng.range(3..=5) as usize - 3] += 1);
        assert!(seen.iter().all(|count| (250..420).contains(count)), "{seen:?}");
        assert_eq!(rng.range(9..=9), 9);
    }
}
