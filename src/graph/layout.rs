//! Index arithmetic of row-major tensors: broadcasting, strides, and walks over several operands at once.

use super::{ShapeError, TensorType};

/// Shape of two operands broadcast against each other: aligned at the last axis, sizes equal or one of them 1.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, ShapeError> {
    let rank = a.len().max(b.len());
    let size = |s: &[usize], axis: usize| if axis + s.len() < rank { 1 } else { s[axis + s.len() - rank] };
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(ShapeError(format!("shapes {a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// Element strides of a contiguous tensor.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Element strides of a contiguous tensor of `shape` seen as `out`: 0 on the axes along which it is repeated.
pub fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let missing = out.len() - shape.len();
    (0..out.len())
        .map(|axis| if axis < missing || shape[axis - missing] == 1 { 0 } else { own[axis - missing] })
        .collect()
}

/// Sizes before, on and behind a range of axes: any such range of a contiguous tensor is a `[outer, middle, inner]`.
pub fn split(shape: &[usize], from: usize, to: usize) -> [usize; 3] {
    [shape[..from].iter().product(), shape[from..to].iter().product(), shape[to..].iter().product()]
}

/// Rows and row length of a tensor seen as a matrix of its last axis; a scalar is one row of one.
pub fn rows(ty: &TensorType) -> (usize, usize) {
    let len = ty.shape.last().copied().unwrap_or(1);
    (ty.len() / len, len)
}

/// A nest of loops over several operands: sizes from the outermost in, and for each operand its strides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub dims: Vec<usize>,
    pub strides: Vec<Vec<usize>>,
}

impl Walk {
    /// Axes of size 1 dropped and neighbours merged where every operand allows it; at least one axis remains.
    pub fn new(dims: &[usize], operands: &[Vec<usize>]) -> Self {
        let mut walk = Self { dims: Vec::new(), strides: vec![Vec::new(); operands.len()] };
        for (axis, &size) in dims.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let merges = !walk.dims.is_empty()
                && operands.iter().zip(&walk.strides).all(|(own, so_far)| so_far.last() == Some(&(own[axis] * size)));
            if merges {
                *walk.dims.last_mut().expect("not empty") *= size;
            } else {
                walk.dims.push(size);
            }
            for (own, so_far) in operands.iter().zip(&mut walk.strides) {
                if merges {
                    so_far.pop();
                }
                so_far.push(own[axis]);
            }
        }
        if walk.dims.is_empty() {
            walk.dims.push(1);
            walk.strides.iter_mut().for_each(|s| s.push(0));
        }
        walk
    }

    /// The walk over `out` of operands broadcast to it.
    pub fn broadcast(out: &[usize], operands: &[&[usize]]) -> Self {
        let strides: Vec<_> = operands.iter().map(|shape| broadcast_strides(shape, out)).collect();
        Self::new(out, &strides)
    }

    /// Size of the innermost loop.
    pub fn inner(&self) -> usize {
        self.dims[self.dims.len() - 1]
    }

    /// Innermost stride of an operand.
    pub fn inner_stride(&self, operand: usize) -> usize {
        self.strides[operand][self.dims.len() - 1]
    }

    /// Calls `row` for each innermost loop with the operands' offsets at its beginning.
    pub fn each_row(&self, mut row: impl FnMut(&[usize])) {
        let outer = self.dims.len() - 1;
        let mut at = vec![0; outer];
        let mut offsets = vec![0; self.strides.len()];
        loop {
            row(&offsets);
            let Some(axis) = (0..outer).rev().find(|&axis| at[axis] + 1 < self.dims[axis]) else { return };
            at[axis] += 1;
            at[axis + 1..].fill(0);
            for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                *offset = at.iter().zip(strides).map(|(c, s)| c * s).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_last_axis() {
        assert_eq!(broadcast(&[3, 1, 5], &[4, 1]).unwrap(), [3, 4, 5]);
        assert_eq!(broadcast(&[], &[2]).unwrap(), [2]);
        assert!(broadcast(&[3], &[4]).is_err());
        assert_eq!(broadcast_strides(&[4, 1], &[3, 4, 5]), [0, 1, 0]);
    }

    #[test]
    fn walks_merge_what_is_contiguous_in_every_operand() {
        let walk = Walk::broadcast(&[2, 3, 4, 5], &[&[2, 3, 4, 5], &[4, 5]]);
        assert_eq!(walk.dims, [6, 20]);
        assert_eq!(walk.strides, [vec![20, 1], vec![0, 1]]);
        let walk = Walk::broadcast(&[2, 3, 4], &[&[2, 1, 4], &[3, 1]]);
        assert_eq!(walk.dims, [2, 3, 4]);
        let walk = Walk::broadcast(&[7, 9], &[&[1]]);
        assert_eq!((walk.dims, walk.strides), (vec![63], vec![vec![0]]));
    }

    #[test]
    fn rows_of_a_walk_visit_every_offset() {
        let walk = Walk::broadcast(&[2, 3, 4], &[&[2, 3, 4], &[3, 1]]);
        let mut seen = Vec::new();
        walk.each_row(|o| seen.push((o[0], o[1])));
        assert_eq!(seen, [(0, 0), (4, 1), (8, 2), (12, 0), (16, 1), (20, 2)]);
    }
}
