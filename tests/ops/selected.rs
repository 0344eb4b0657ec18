//! Attention to chosen blocks.

use crate::check::{Check, Random};
use attention_lab::graph::ops::selected_attention::Selection;

/// Sizes of a call: B, H, N, M, D, heads of a list, keys of a block, blocks of a query.
type Sizes = [usize; 8];

/// Ascending lists of blocks, some of them short, some empty, filled up with numbers beyond the last block.
fn lists([b, h, n, m, _, group, block, chosen]: Sizes, random: &mut Random) -> Vec<u32> {
    let count = m.div_ceil(block) as u32;
    let mut all = Vec::new();
    for _ in 0..b * h.div_ceil(group) * n {
        let wanted = [0, 1, chosen / 2, chosen][random.below(4) as usize];
        let mut list: Vec<u32> = (0..wanted).map(|_| random.below(count)).collect();
        list.sort_unstable();
        list.dedup();
        let missing = [u32::MAX, count][random.below(2) as usize];
        list.resize(chosen, missing);
        all.extend(list);
    }
    all
}

fn check(sizes: Sizes, causal: bool, padded: bool) {
    let [b, h, n, m, d, group, block, chosen] = sizes;
    let mut random = Random(sizes.iter().fold(7, |seed, &x| seed * 31 + x as u64));
    let lists = lists(sizes, &mut random);
    let mut check = Check::new(&format!("selected attention {sizes:?} causal {causal} padded {padded}"))
        .real(&[b, h, n, d])
        .real(&[b, h, m, d])
        .real(&[b, h, m, d])
        .indices(&[b, h.div_ceil(group), n, chosen], lists);
    if padded {
        check = check.indices(&[b, m], (0..b * m).map(|_| u32::from(random.below(3) > 0)).collect());
    }
    check.run(|g, x| {
        let selection = Selection { blocks: x[3], group, block, causal, padding: x.get(4).copied() };
        let (o, lse) = g.selected_attention(x[0], x[1], x[2], &selection);
        // That of an empty row stands far below all others.
        let lse = g.tanh(lse);
        vec![o, lse]
    });
}

#[test]
fn lists_of_every_kind() {
    for causal in [false, true] {
        check([1, 1, 1, 1, 1, 1, 1, 1], causal, false);
        check([2, 3, 13, 13, 3, 2, 4, 3], causal, false);
        check([2, 2, 37, 37, 4, 1, 5, 4], causal, true);
        check([1, 4, 33, 50, 8, 4, 16, 3], causal, true);
    }
    check([1, 2, 20, 9, 5, 2, 2, 4], false, false);
}
