//! The choice of a slot: the kernel only indexes, the order and repetition of slots is all the policy there is.

use crate::abi::Algorithm;

/// The slot (0-based) that a new flow gets, or `None` if there is none.
///
/// `cursor` is called for round robin only and must return each value once, over all CPUs; `random` and `hash` are
/// called for the algorithm they serve only.
#[inline(always)]
pub fn select(
    algorithm: Algorithm,
    count: u32,
    cursor: impl FnOnce() -> Option<u64>,
    random: impl FnOnce() -> u32,
    hash: impl FnOnce() -> u32,
) -> Option<u32> {
    if count == 0 {
        return None;
    }
    match algorithm {
        Algorithm::RoundRobin => cursor().map(|value| (value % u64::from(count)) as u32),
        Algorithm::Random => Some(random() % count),
        Algorithm::Maglev => Some(hash() % count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_takes_turns_wherever_the_cursor_starts() {
        for start in [0, 1, 28, u64::from(u32::MAX)] {
            let mut turns = [0; 2];
            for i in 0..29 {
                let slot = select(Algorithm::RoundRobin, 2, || Some(start + i), || 0, || 0).unwrap();
                turns[slot as usize] += 1;
            }
            turns.sort_unstable();
            assert_eq!(turns, [14, 15]);
        }
    }

    #[test]
    fn no_slots_no_choice_and_no_turn() {
        let nothing = select(Algorithm::RoundRobin, 0, || panic!("a turn was taken"), || 0, || 0);
        assert_eq!(nothing, None);
    }

    #[test]
    fn random_and_maglev_stay_in_range() {
        for value in [0, 1, 2, 3, u32::MAX] {
            assert!(select(Algorithm::Random, 3, || None, || value, || 0).unwrap() < 3);
            assert!(select(Algorithm::Maglev, 3, || None, || 0, || value).unwrap() < 3);
        }
    }
}
