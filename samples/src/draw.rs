//! Draws that are the same on every machine. Not cryptography: whoever knows the seed knows every draw,
//! and whoever sees a few can find the seed.
//!
//! Everything comes from SplitMix64 (Steele, Lea and Flood, 2014). Its n-th output is a function of the
//! seed and n alone, and that is why record k needs none of the records before it.

/// The increment of SplitMix64: 2^64 over the golden ratio, odd.
pub(crate) const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64: a bijection in which every input bit moves half of the output.
#[inline]
pub(crate) fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Scales `bits` to a number below `bound`; with 32 bits the bias is at most `bound` in 2^32.
#[inline]
pub(crate) fn scaled(bits: u32, bound: u32) -> u32 {
    high(u64::from(bits) * u64::from(bound))
}

/// The upper half.
#[inline]
pub(crate) fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The lower half.
#[inline]
pub(crate) fn low(word: u64) -> u32 {
    (word & 0xFFFF_FFFF) as u32
}

/// Draws one after the other, for tables that are built once.
pub(crate) struct Draw {
    state: u64,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number in `from..to`; `from` if that is empty.
    pub(crate) fn between(&mut self, from: u32, to: u32) -> u32 {
        from + scaled(high(self.word()), to.saturating_sub(from))
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.word() >> 63 == 1
    }

    /// One of `choices`; the empty text if there are none.
    pub(crate) fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let index = scaled(high(self.word()), u32::try_from(choices.len()).unwrap_or(u32::MAX));
        choices.get(index as usize).copied().unwrap_or_default()
    }

    /// A number around `middle`: half of all draws are below it, one in twenty is more than ten times as much.
    ///
    /// Two to the power of a sum of four uniform numbers: near enough to the log-normal spread that
    /// durations have, and without floating point, which rounds differently from one libm to the next.
    pub(crate) fn around(&mut self, middle: u64) -> u64 {
        let word = self.word();
        let uniform = |n: u32| (word >> (16 * n)) & 0xFFFF;
        // A sum of 0 to 4 in units of 2^-16, stretched to the exponents 0 to 10; its middle is 5.
        let exponent = (uniform(0) + uniform(1) + uniform(2) + uniform(3)) * 5 / 2;
        let fraction = 0x1_0000 + (exponent & 0xFFFF);
        let power = fraction << (exponent >> 16);
        middle.saturating_mul(power) >> (16 + 5)
    }
}

/// A choice among numbered things of unequal weight in constant time: Walker's alias method, in integers.
pub(crate) struct Weighted {
    slots: Vec<Slot>,
    count: u32,
}

/// One of equally likely slots: its own number below the threshold, another one from there on.
#[derive(Clone, Copy)]
struct Slot {
    threshold: u32,
    other: u32,
}

impl Weighted {
    /// Things 0, 1, 2… by `weights`, of which one at least should not be zero.
    pub(crate) fn new(weights: &[u64]) -> Self {
        let count = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum::<u128>().max(1);
        // What each still has to give away, in units in which a whole slot is `total`.
        let mut shares: Vec<u128> =
            weights.iter().map(|&weight| u128::from(weight) * u128::from(count)).collect();
        let mut slots: Vec<Slot> = (0..count).map(|own| Slot { threshold: u32::MAX, other: own }).collect();
        let (mut poor, mut rich): (Vec<u32>, Vec<u32>) =
            (0..count).partition(|&own| shares.get(own as usize).is_some_and(|&share| share < total));
        while let (Some(own), Some(&giver)) = (poor.pop(), rich.last()) {
            let share = shares.get(own as usize).copied().unwrap_or_default();
            if let Some(slot) = slots.get_mut(own as usize) {
                *slot = Slot {
                    threshold: u32::try_from((share << 32) / total).unwrap_or(u32::MAX),
                    other: giver,
                };
            }
            if let Some(left) = shares.get_mut(giver as usize) {
                *left = left.saturating_sub(total - share);
                if *left < total {
                    rich.pop();
                    poor.push(giver);
                }
            }
        }
        Self { slots, count }
    }

    /// Things 0 to `count` - 1, of which thing n is as likely as 1 in n + 1 of thing 0 (Zipf's law).
    pub(crate) fn zipf(count: u32) -> Self {
        let weights: Vec<u64> = (1..=u64::from(count)).map(|rank| (1 << 40) / rank).collect();
        Self::new(&weights)
    }

    /// The number of the thing that `bits` stand for.
    #[inline]
    pub(crate) fn pick(&self, bits: u32) -> u32 {
        let scaled = u64::from(bits) * u64::from(self.count);
        let own = high(scaled);
        match self.slots.get(own as usize) {
            Some(slot) if low(scaled) >= slot.threshold => slot.other,
            _ => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference implementation.
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        let drawn: Vec<u64> =
            (1..=3).map(|n: u64| mix(STEP.wrapping_mul(n).wrapping_add(1_234_567))).collect();
        assert_eq!(drawn, published);
    }

    #[test]
    fn weights_are_kept() {
        let weighted = Weighted::new(&[5, 0, 1, 2]);
        let mut seen = [0_u32; 4];
        let mut draw = Draw::new(1);
        for _ in 0..80_000 {
            seen[weighted.pick(high(draw.word())) as usize] += 1;
        }
        assert_eq!(seen[1], 0, "{seen:?}");
        for (thing, expected) in [(0, 50_000_u32), (2, 10_000), (3, 20_000)] {
            assert!(seen[thing].abs_diff(expected) < 500, "{seen:?}");
        }
    }

    #[test]
    fn the_first_of_a_thousand_gets_one_in_seven_or_eight() {
        let weighted = Weighted::zipf(1000);
        let mut draw = Draw::new(2);
        let first = (0..100_000).filter(|_| weighted.pick(high(draw.word())) == 0).count();
        assert!((13_000..13_800).contains(&first), "{first}"); // 1 in 7.49, the thousandth harmonic number
    }

    #[test]
    fn durations_spread_around_their_middle() {
        let mut draw = Draw::new(3);
        let mut drawn: Vec<u64> = (0..10_001).map(|_| draw.around(95_000)).collect();
        drawn.sort_unstable();
        assert!(drawn[5_000].abs_diff(95_000) < 8_000, "{}", drawn[5_000]);
        assert!(drawn[0] >= 95_000 / 32 && drawn[10_000] <= 95_000 * 32);
    }
}
