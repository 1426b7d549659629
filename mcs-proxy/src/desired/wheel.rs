//! The wheel: the order and repetition of slots that gives every endpoint its share of new flows.

/// Endpoints that count alike, and what they get together, against the other groups.
#[derive(Clone, Debug)]
pub(super) struct Group<T> {
    pub(super) share: u64,
    pub(super) members: Vec<T>,
}

/// A turn that gives everyone exactly its share is made only up to this length.
const LONGEST_EXACT: u64 = 4096;
/// No turn is longer, unless there are more endpoints than that and all count alike. Then there may be more endpoints
/// than a group has slots, and the last ones of it get none.
const LONGEST: u64 = 65_536;

/// One turn. Every group has its share of it, and every member of a group has as much as the others, both to within
/// one slot; and at every point of the turn every group has had its share so far to within one slot, so that none
/// comes in bursts.
///
/// Groups without members get nothing, and their share goes to the others.
pub(super) fn turn<T: Copy>(groups: &[Group<T>]) -> Vec<T> {
    let groups: Vec<&Group<T>> =
        groups.iter().filter(|group| group.share > 0 && !group.members.is_empty()).collect();
    let counts = counts(&groups);
    let total: u64 = counts.iter().sum();
    let mut taken = vec![0_u64; groups.len()];
    let mut turn = Vec::with_capacity(total as usize);
    for position in 0..total {
        let Some(next) = next(&counts, &taken, total, position) else { break };
        if let Some((group, taken)) = groups.get(next).zip(taken.get_mut(next)) {
            turn.extend(group.members.get((*taken % group.members.len() as u64) as usize));
            *taken += 1;
        }
    }
    turn
}

/// The group whose slot is due first. The j-th slot of a group with `count` slots of `total` may stand from
/// (j-1)/count of the turn on and must before j/count of it. To take what is due first of what may be taken meets
/// every such date if that can be done at all (Liu and Layland, 1973), and it can, as the rates add up to one.
fn next(counts: &[u64], taken: &[u64], total: u64, position: u64) -> Option<usize> {
    let mut first: Option<(u64, usize)> = None;
    for (group, (&count, &taken)) in counts.iter().zip(taken).enumerate() {
        if taken == count || taken * total / count > position {
            continue;
        }
        let due = ((taken + 1) * total).div_ceil(count);
        if first.is_none_or(|(earliest, _)| due < earliest) {
            first = Some((due, group));
        }
    }
    first.map(|(_, group)| group)
}

/// How many slots each group gets.
fn counts<T>(groups: &[&Group<T>]) -> Vec<u64> {
    if let Some(counts) = exact(groups) {
        return counts;
    }
    let shares: u64 = groups.iter().map(|group| group.share).sum();
    let one_each = groups.iter().map(|group| (group.members.len() as u64 * shares).div_ceil(group.share));
    let total = one_each.max().unwrap_or(0).clamp(LONGEST_EXACT, LONGEST);
    // Rounded so that every sum from the first group on is: then each is within one slot, and the total is met.
    let mut before = 0;
    let counts = groups.iter().map(|group| {
        let start = total * before / shares;
        before += group.share;
        total * before / shares - start
    });
    counts.collect()
}

/// The least numbers of slots that give everyone exactly its share, if that makes no long turn. Where all endpoints
/// count alike that is one slot each, however many there are.
fn exact<T>(groups: &[&Group<T>]) -> Option<Vec<u64>> {
    if groups.iter().all(|group| group.share == group.members.len() as u64) {
        return Some(groups.iter().map(|group| group.share).collect());
    }
    let multiple = groups.iter().try_fold(1_u64, |multiple, group| {
        let members = group.members.len() as u64;
        let multiple = multiple / gcd(multiple, members) * members;
        (multiple <= LONGEST_EXACT).then_some(multiple)
    })?;
    let each: Vec<u64> =
        groups.iter().map(|group| group.share * multiple / group.members.len() as u64).collect();
    let common = each.iter().copied().fold(0, gcd).max(1);
    let counts: Vec<u64> =
        groups.iter().zip(&each).map(|(group, each)| each / common * group.members.len() as u64).collect();
    (counts.iter().sum::<u64>() <= LONGEST_EXACT).then_some(counts)
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
