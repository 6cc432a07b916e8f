//! The few statistics behind the lab's tables.

/// The value below which the share `q` (0 to 1) of the samples lies, by the nearest-rank rule.
/// `None` without samples.
#[must_use]
pub fn percentile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The median; for an even number of samples, the mean of the middle two.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mid = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[mid]),
        _ => Some(f64::midpoint(sorted[mid - 1], sorted[mid])),
    }
}

/// Jain's fairness index (Jain, Chiu, Hawe 1984): 1 when all shares are equal, 1/n when one has
/// all.
#[must_use]
pub fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|x| x * x).sum();
    (squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// Aggregation benefit (Paasch, Khalili, Bonaventure 2013): 0 if the whole only matches the best
/// path alone, 1 if it reaches the sum, below 0 if it is slower than the best path. For `goodput`
/// below the best path, the loss is relative to that path, so that -1 is a standstill.
#[must_use]
pub fn aggregation_benefit(goodput: f64, singles: &[f64]) -> Option<f64> {
    let best = singles.iter().copied().fold(0.0, f64::max);
    let sum: f64 = singles.iter().sum();
    if best <= 0.0 || sum <= best {
        return None;
    }
    let scale = if goodput >= best { sum - best } else { best };
    Some((goodput - best) / scale)
}

/// The least time in seconds in which `bytes` can cross paths of (bytes per second, one-way delay
/// in seconds) that all start empty at time 0: the smallest T with `sum rate_i * max(0, T -
/// delay_i) >= bytes`.
#[must_use]
pub fn ideal_time(bytes: f64, paths: &[(f64, f64)]) -> Option<f64> {
    let mut by_delay: Vec<(f64, f64)> = paths.iter().copied().filter(|p| p.0 > 0.0).collect();
    by_delay.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut rate, mut carried, mut now) = (0.0, 0.0, by_delay.first()?.1);
    for (i, path) in by_delay.iter().enumerate() {
        carried += rate * (path.1 - now);
        now = path.1;
        rate += path.0;
        let next = by_delay.get(i + 1).map_or(f64::INFINITY, |p| p.1);
        let done = now + (bytes - carried) / rate;
        if done <= next {
            return Some(done);
        }
    }
    None
}

/// A number with the digits that matter.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_infinite() => "never".to_owned(),
        0.0 => "0".to_owned(),
        a if a < 9.995 => format!("{value:.2}"),
        a if a < 999.5 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_nearest_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), Some(50.0));
        assert_eq!(percentile(&samples, 0.99), Some(99.0));
        assert_eq!(percentile(&samples, 1.0), Some(100.0));
        assert_eq!(percentile(&samples, 0.0), Some(1.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn jain_from_one_to_one_nth() {
        assert_eq!(jain(&[5.0; 8]), Some(1.0));
        assert_eq!(jain(&[9.0, 0.0, 0.0]), Some(1.0 / 3.0));
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[]), None);
    }

    #[test]
    fn benefit_is_zero_at_the_best_path_and_one_at_the_sum() {
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        close(aggregation_benefit(50.0, &[50.0, 10.0]), 0.0);
        close(aggregation_benefit(60.0, &[50.0, 10.0]), 1.0);
        close(aggregation_benefit(55.0, &[50.0, 10.0]), 0.5);
        close(aggregation_benefit(25.0, &[50.0, 10.0]), -0.5);
        assert_eq!(aggregation_benefit(25.0, &[50.0]), None);
    }

    #[test]
    fn ideal_time_waits_for_a_slow_path_only_when_it_helps() {
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        close(ideal_time(1000.0, &[(1000.0, 0.1)]), 1.1);
        // Both from 0.1 s on.
        close(ideal_time(2000.0, &[(1000.0, 0.1), (1000.0, 0.1)]), 1.1);
        // The second path's first byte would arrive after everything is through.
        close(ideal_time(100.0, &[(1000.0, 0.1), (1000.0, 0.5)]), 0.2);
        // 400 bytes by 0.5 s, then both.
        close(ideal_time(1400.0, &[(1000.0, 0.1), (1000.0, 0.5)]), 1.0);
        assert_eq!(ideal_time(1.0, &[]), None);
    }
}
