//! Cuts a dispatch that is too large on an axis, or would hold the device too long, into parts.

/// A part of a dispatch: the workgroup it starts at, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub origin: [u32; 3],
    pub groups: [u32; 3],
}

/// Parts of a dispatch of `groups` workgroups: none above `max_per_axis` on an axis, and so many that each takes at most
/// `budget` of the `flops` of the whole, as far as whole workgroups allow. Empty where an axis is empty.
pub fn split(groups: [u32; 3], flops: u64, max_per_axis: u32, budget: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    if groups.iter().all(|&g| g > 0) {
        cut(Part { origin: [0; 3], groups }, flops as f64, max_per_axis, budget.max(1) as f64, &mut parts);
    }
    parts
}

fn cut(part: Part, flops: f64, max_per_axis: u32, budget: f64, parts: &mut Vec<Part>) {
    let longest = (0..3).max_by_key(|&a| part.groups[a]).unwrap_or(0);
    let length = part.groups[longest];
    let for_size = length.div_ceil(max_per_axis);
    // Parts are of whole groups and so not all equal: a twentieth above the budget is borne.
    let for_time = ((flops / budget - 0.05).ceil().min(f64::from(u32::MAX)) as u32).clamp(1, length);
    let pieces = for_size.max(for_time);
    if pieces <= 1 {
        parts.push(part);
        return;
    }
    let each = length.div_ceil(pieces);
    let mut start = 0;
    while start < length {
        let size = each.min(length - start);
        let mut piece = part;
        piece.origin[longest] += start;
        piece.groups[longest] = size;
        cut(piece, flops * f64::from(size) / f64::from(length), max_per_axis, budget, parts);
        start += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn covered(parts: &[Part]) -> HashSet<[u32; 3]> {
        let mut seen = HashSet::new();
        for p in parts {
            for x in 0..p.groups[0] {
                for y in 0..p.groups[1] {
                    for z in 0..p.groups[2] {
                        let at = [p.origin[0] + x, p.origin[1] + y, p.origin[2] + z];
                        assert!(seen.insert(at), "{at:?} twice");
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn every_group_is_in_exactly_one_part() {
        for (groups, flops, max, budget) in
            [([7, 3, 2], 1000, 4, 100), ([100, 1, 1], 0, 7, 1), ([5, 5, 5], 10_000, 65_535, 1), ([1, 1, 1], 9, 1, 1)]
        {
            let parts = split(groups, flops, max, budget);
            assert_eq!(covered(&parts).len() as u32, groups.iter().product::<u32>(), "{groups:?}");
            assert!(parts.iter().all(|p| p.groups.iter().all(|&g| g <= max)));
        }
    }

    #[test]
    fn no_part_exceeds_the_budget_unless_it_is_one_group() {
        let (groups, flops, budget) = ([64, 8, 2], 1_000_000, 5_000);
        for part in split(groups, flops, 65_535, budget) {
            let size: u32 = part.groups.iter().product();
            assert!(size == 1 || u64::from(size) * flops / 1024 <= budget * 21 / 20, "{part:?}");
        }
    }

    #[test]
    fn a_small_dispatch_stays_whole_and_an_empty_one_is_none() {
        assert_eq!(split([9, 2, 1], 10, 65_535, 10), [Part { origin: [0; 3], groups: [9, 2, 1] }]);
        assert!(split([9, 0, 1], 10, 65_535, 10).is_empty());
    }
}
