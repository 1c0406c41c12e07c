//! The only source of chance: one number in, the same run out.

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Default)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[allow(clippy::should_implement_trait, reason = "no iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns 0 to `end` - 1; `end` is above 0.
    /// The remainder favours small numbers by nothing that matters here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }

    /// Returns one of these, or `None` if there are none.
    pub fn pick_any<T: Clone>(&mut self, choices: &[T]) -> Option<T> {
        (!choices.is_empty()).then(|| self.pick(choices))
    }

    /// Returns `count` different indexes into a list of this length, or all, in any order.
    pub fn indexes(&mut self, length: usize, count: usize) -> Vec<usize> {
        let mut left: Vec<_> = (0..length).collect();
        let count = count.min(length);
        (0..count).map(|_| left.swap_remove(self.index(left.len()))).collect()
    }

    /// Returns one of these, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut ticket = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in choices {
            match ticket.checked_sub(*weight) {
                Some(rest) => ticket = rest,
                None => return *choice,
            }
        }
        unreachable!("the ticket is below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_sequence() {
        let mut random = Random::new(1_234_567);
        let first: Vec<_> = (0..3).map(|_| random.next()).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }

    #[test]
    fn each_choice_comes_as_often_as_its_weight_says() {
        let mut random = Random::new(1);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[random.weighted(&[(0, 1), (1, 0), (2, 3)])] += 1;
        }
        assert!((2_300..2_700).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
        let mut indexes = random.indexes(5, 9);
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 1, 2, 3, 4]);
        assert!((0..100).all(|_| (3..=5).contains(&random.between(3, 5))));
    }
}
