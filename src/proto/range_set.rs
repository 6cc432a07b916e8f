//! A set of `u64`s kept as disjoint, non-touching, half-open ranges.

use std::collections::BTreeMap;
use std::ops::Range;

use super::count::{Count, end_of, span};

/// A set of numbers as sorted ranges. Every operation costs O(log n) in the number of ranges,
/// plus the ranges it merges or removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end. Invariant: start < end, and the next start is above this end.
    ranges: BTreeMap<u64, u64>,
    /// Numbers in the set: the sum of end - start.
    len: Count,
}

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new(), len: Count::ZERO }
    }

    /// How many numbers are in the set.
    pub const fn len(&self) -> u64 {
        self.len.get()
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many separate ranges the set consists of.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first_key_value().map(|(&start, &end)| start..end)
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    /// The first number above `number` for which `contains` differs; `u64::MAX` without one.
    pub fn next_change(&self, number: u64) -> u64 {
        match self.ranges.range(..=number).next_back() {
            Some((_, &end)) if number < end => end,
            _ => self.ranges.range(number..).next().map_or(u64::MAX, |(&start, _)| start),
        }
    }

    /// Adds a range; returns how many numbers were not in the set before.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { mut start, mut end } = range;
        if start >= end {
            return 0;
        }
        let before = self.len();
        // The new range absorbs everything it overlaps or touches.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            self.len.take(span(s, e));
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        self.len.add(span(start, end));
        span(before, self.len())
    }

    /// Removes a range; returns how many numbers were in the set before.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        let before = self.len();
        while let Some((&s, &e)) = self.ranges.range(..end).next_back() {
            if e <= start {
                break;
            }
            self.ranges.remove(&s);
            self.len.take(span(s, e));
            if e > end {
                self.ranges.insert(end, e);
                self.len.add(span(end, e));
            }
            if s < start {
                self.ranges.insert(s, start);
                self.len.add(span(s, start));
            }
        }
        span(self.len(), before)
    }

    /// Removes everything below `bound`.
    pub fn remove_below(&mut self, bound: u64) {
        self.remove(0..bound);
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn gaps_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let first = self.ranges.range(..=at).next_back().map_or(at, |(&s, _)| s);
        for (&s, &e) in self.ranges.range(first..range.end.max(first)) {
            if s > at {
                gaps.push(at..s.min(range.end));
            }
            at = at.max(e);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Skips the first `skip` numbers of the set and returns what follows of that range, at most
    /// `max` numbers; `None` if the set holds no more than `skip`.
    pub fn nth_chunk(&self, skip: u64, max: u64) -> Option<Range<u64>> {
        let mut left = skip;
        for (&s, &e) in &self.ranges {
            let size = span(s, e);
            if left < size {
                let start = end_of(s, left);
                return Some(start..e.min(start.saturating_add(max)));
            }
            left = span(size, left);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn touching_ranges_become_one() {
        let mut set = RangeSet::new();
        assert_eq!(set.insert(0..4), 4);
        assert_eq!(set.insert(8..12), 4);
        assert_eq!(set.insert(4..8), 4);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0..12]);
        assert_eq!(set.nth_chunk(5, 100), Some(5..12));
        assert_eq!(set.nth_chunk(12, 1), None);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (add, start, len) in ops {
                let range = start..start + len;
                let before = model.len() as u64;
                if add {
                    model.extend(range.clone());
                    prop_assert_eq!(set.insert(range.clone()), model.len() as u64 - before);
                } else {
                    model.retain(|n| !range.contains(n));
                    prop_assert_eq!(set.remove(range.clone()), before - model.len() as u64);
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert_eq!(set.iter().flatten().collect::<BTreeSet<_>>(), model.clone());
                let ends: Vec<_> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].end < w[1].start));
                let gaps: BTreeSet<u64> = set.gaps_in(5..50).into_iter().flatten().collect();
                let expected: BTreeSet<u64> = (5..50).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(gaps, expected);
                let sorted: Vec<u64> = model.iter().copied().collect();
                for skip in [0usize, 1, 7] {
                    let chunk = set.nth_chunk(skip as u64, 3);
                    prop_assert_eq!(chunk.map(|c| c.start), sorted.get(skip).copied());
                }
                prop_assert_eq!(set.contains(start), model.contains(&start));
                let change = (start..100).find(|n| model.contains(n) != model.contains(&start));
                prop_assert_eq!(set.next_change(start), change.unwrap_or(u64::MAX));
            }
        }
    }
}
