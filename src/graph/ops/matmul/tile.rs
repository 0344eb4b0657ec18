//! Which kernel computes a product: the tile's shape, how a long K is split, and the choice among them.

use super::Geometry;
use crate::graph::LowerContext;
use crate::graph::ops::kernel::can_broadcast;
use std::fmt;
use std::str::FromStr;

/// How a tile gets its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Each invocation reads storage into registers.
    Direct,
    /// The same, with A loaded once by four lanes and broadcast in the subgroup.
    Subgroup,
    /// Through workgroup memory.
    Tiled,
}

/// A kernel with its tile: rows × columns of C of one invocation (direct, subgroup) or one workgroup (tiled), and into how
/// many parts the contracted work is cut, to be added up afterwards.
///
/// Written and parsed as `direct 16x8` or `tiled 64x64 split 4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub family: Family,
    pub rows: usize,
    pub cols: usize,
    pub splits: usize,
}

/// Register tiles, an entry point each.
const REGISTER_TILES: [(usize, usize); 4] = [(4, 4), (8, 8), (16, 8), (16, 16)];
/// Workgroup tiles.
const WORKGROUP_TILES: [(usize, usize); 4] = [(32, 32), (64, 64), (128, 64), (128, 128)];
/// Splits are worth it from this many k each.
const LEAST_SPLIT: usize = 128;

impl Tile {
    pub fn new(family: Family, rows: usize, cols: usize) -> Self {
        Self { family, rows, cols, splits: 1 }
    }

    /// Whether there is a kernel for it on this adapter.
    pub fn is_known(&self, context: &LowerContext) -> bool {
        let shape = (self.rows, self.cols);
        let shape_known = match self.family {
            Family::Direct => REGISTER_TILES.contains(&shape),
            Family::Subgroup => REGISTER_TILES.contains(&shape) && can_broadcast(context),
            Family::Tiled => WORKGROUP_TILES.contains(&shape),
        };
        shape_known && self.splits >= 1
    }

    /// The choice made by measuring where there is one for such products (or for `matmul`, which stands for all), else the
    /// built-in one.
    pub fn choose(geometry: &Geometry, context: &LowerContext) -> Self {
        let choice = context.choices.get(&geometry.class()).or_else(|| context.choices.get("matmul"));
        let measured = choice.and_then(|text| text.parse::<Tile>().ok());
        measured.filter(|tile| tile.is_known(context)).unwrap_or_else(|| Self::built_in(geometry, context))
    }

    /// The choice without measuring.
    pub fn built_in(geometry: &Geometry, context: &LowerContext) -> Self {
        let Geometry { m, n, .. } = *geometry;
        let tile = if context.software {
            // SwiftShader, four lanes wide: a load costs as much as ten multiply-adds, so the largest tile that the result
            // fills. The largest of all takes half a second to compile, which only a product that long repays. lavapipe,
            // eight lanes wide: a larger tile than 8x8 leaves the processor's registers.
            let family = if can_broadcast(context) { Family::Subgroup } else { Family::Direct };
            let (rows, cols) = match (m, n) {
                (..=4, _) | (_, ..=16) => (4, 4),
                (..=8, _) => (8, 8),
                _ if context.subgroup.is_some_and(|width| width >= 8) => (8, 8),
                _ if m >= 256 && n >= 256 => (16, 16),
                _ => (16, 8),
            };
            Self::new(family, rows, cols)
        } else {
            let side = m.min(n);
            match side {
                ..=8 => Self::new(Family::Direct, 4, 4),
                9..=32 => Self::new(Family::Tiled, 32, 32),
                _ if m >= 1024 && n >= 1024 && m * n >= 1 << 22 => Self::new(Family::Tiled, 128, 128),
                _ => Self::new(Family::Tiled, 64, 64),
            }
        };
        tile.with_splits_for(geometry, context)
    }

    /// Splits the contracted work where the result alone does not fill the adapter.
    pub fn with_splits_for(self, geometry: &Geometry, context: &LowerContext) -> Self {
        let wanted = if context.software { 16 } else { 256 };
        let groups = self.groups(geometry, context).iter().product::<usize>();
        let inner: usize = geometry.inner().map(|x| x.extent).product();
        let most = (geometry.k * inner / LEAST_SPLIT).max(1);
        Self { splits: wanted_splits(wanted, groups).min(most), ..self }
    }

    /// What is worth measuring for such a product on this adapter.
    pub fn candidates(geometry: &Geometry, context: &LowerContext) -> Vec<Self> {
        let fits = |&(rows, cols): &(usize, usize)| rows < 2 * geometry.m.max(4) && cols < 2 * geometry.n.max(4);
        let mut all = Vec::new();
        let broadcast = can_broadcast(context).then_some(Family::Subgroup);
        for family in [Some(Family::Direct), broadcast].into_iter().flatten() {
            all.extend(REGISTER_TILES.iter().filter(|t| fits(t)).map(|&(r, c)| Self::new(family, r, c)));
        }
        // Workgroup memory loses by an order of magnitude on a software adapter: not worth the wait.
        if !context.software {
            all.extend(WORKGROUP_TILES.iter().filter(|t| fits(t)).map(|&(r, c)| Self::new(Family::Tiled, r, c)));
        }
        all.into_iter().map(|tile| tile.with_splits_for(geometry, context)).collect()
    }

    /// Invocations of a register tile's workgroup, side by side along N: as many as N fills, and whole subgroups. Each
    /// number is a pipeline of its own, which a software adapter compiles for up to a second, so there are few there.
    pub fn lanes(&self, geometry: &Geometry, context: &LowerContext) -> usize {
        let least = if self.family == Family::Subgroup { context.subgroup.unwrap_or(4) as usize } else { 4 };
        let most = if context.software { 16 } else { 32 };
        geometry.n.div_ceil(self.cols).next_power_of_two().clamp(4, most).max(least)
    }

    /// Workgroups along N and M and over the batch, without splits.
    pub fn groups(&self, geometry: &Geometry, context: &LowerContext) -> [usize; 3] {
        let wide = match self.family {
            Family::Tiled => self.cols,
            Family::Direct | Family::Subgroup => self.cols * self.lanes(geometry, context),
        };
        [geometry.n.div_ceil(wide), geometry.m.div_ceil(self.rows), geometry.batch()]
    }
}

fn wanted_splits(wanted: usize, groups: usize) -> usize {
    if groups * 2 > wanted { 1 } else { wanted / groups.max(1) }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Direct => "direct",
            Family::Subgroup => "subgroup",
            Family::Tiled => "tiled",
        };
        write!(f, "{family} {}x{}", self.rows, self.cols)?;
        if self.splits > 1 {
            write!(f, " split {}", self.splits)?;
        }
        Ok(())
    }
}

/// The text is not one that [`Tile`] writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no tile; one is written like `direct 16x8` or `tiled 64x64 split 4`")]
pub struct ParseTileError(String);

impl FromStr for Tile {
    type Err = ParseTileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let words: Vec<&str> = text.split(' ').collect();
            let family = match *words.first()? {
                "direct" => Family::Direct,
                "subgroup" => Family::Subgroup,
                "tiled" => Family::Tiled,
                _ => return None,
            };
            let (rows, cols) = words.get(1)?.split_once('x')?;
            let splits = match words.get(2..)? {
                [] => 1,
                ["split", splits] => splits.parse().ok()?,
                _ => return None,
            };
            Some(Tile { family, rows: rows.parse().ok()?, cols: cols.parse().ok()?, splits })
        };
        parse().ok_or_else(|| ParseTileError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_written_and_read_back() {
        for text in ["direct 16x8", "subgroup 16x16 split 12", "tiled 64x64 split 4"] {
            assert_eq!(text.parse::<Tile>().unwrap().to_string(), text);
        }
        for text in ["", "direct", "direct 16", "direct 16x", "cube 4x4", "tiled 64x64 split", "tiled 64x64 cut 4"] {
            assert!(text.parse::<Tile>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_remembered_choice_counts_only_where_its_kernel_exists() {
        let geometry = super::super::Matmul::default().geometry(&[64, 64], &[64, 64]).unwrap();
        let mut context = LowerContext { software: true, max_invocations: 256, ..LowerContext::default() };
        context.choices.insert(geometry.class(), "direct 8x8".into());
        assert_eq!(Tile::choose(&geometry, &context), Tile::new(Family::Direct, 8, 8));
        context.choices.insert(geometry.class(), "subgroup 8x8".into());
        assert_eq!(Tile::choose(&geometry, &context).family, Family::Direct, "no subgroups here");
        context.subgroup = Some(8);
        assert_eq!(Tile::choose(&geometry, &context), Tile::new(Family::Subgroup, 8, 8));
        context.choices.insert(geometry.class(), "direct 5x5".into());
        assert_eq!(Tile::choose(&geometry, &context), Tile::built_in(&geometry, &context));
    }

    #[test]
    fn a_long_product_with_a_small_result_is_split() {
        let op = super::super::Matmul { trans_a: true, ..Default::default() };
        let long = op.geometry(&[16384, 64], &[16384, 64]).unwrap();
        for software in [false, true] {
            let context = LowerContext { software, max_invocations: 256, ..LowerContext::default() };
            assert!(Tile::built_in(&long, &context).splits > 1, "software: {software}");
        }
    }
}
