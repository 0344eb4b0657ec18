//! From the bytes of a tensor to a weight.

use super::header::{Dtype, Tensors};
use crate::reading::Unfit;
use std::ops::Range;

/// How a tensor of a file becomes a weight of a model here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    AsIs,
    /// Stored `[out, in]`.
    Transposed,
    /// Columns of this third of a matrix, or numbers of this third of a vector: queries, keys and values lie side by side.
    Third(usize),
}

/// The tensor that a weight comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub tensor: String,
    pub layout: Layout,
    /// A matrix whose first row is added to every row.
    pub plus_first_row_of: Option<String>,
}

/// A weight, and where its numbers are.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The weight's name in a model here.
    pub name: String,
    pub shape: Vec<usize>,
    pub(super) origin: Origin,
    /// Where each tensor lies in the file, and its type; filled by `at`.
    pub(super) sources: Vec<(Range<u64>, Dtype)>,
}

impl Piece {
    pub(super) fn new(name: String, shape: Vec<usize>, origin: Origin) -> Self {
        Self { name, shape, origin, sources: Vec::new() }
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.origin.tensor.as_str()).chain(self.origin.plus_first_row_of.as_deref())
    }

    /// The shape that the file's tensor must have.
    fn stored(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        match self.origin.layout {
            Layout::AsIs => {}
            Layout::Transposed => shape.reverse(),
            Layout::Third(_) => *shape.last_mut().expect("weights have axes") *= 3,
        }
        shape
    }

    /// The name of a tensor that is not there.
    ///
    /// # Errors
    /// A tensor of another shape or type.
    pub(super) fn check(&self, tensors: &Tensors) -> Result<Option<String>, Unfit> {
        let added = self.origin.plus_first_row_of.as_ref();
        for name in self.tensors() {
            let Some(info) = tensors.get(name) else { return Ok(Some(name.to_owned())) };
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(Unfit::Model(format!("tensor {name} is {:?}; it takes F32, F16 or BF16", info.dtype)));
            }
            let fits = if Some(name) == added.map(String::as_str) {
                info.shape.len() == 2 && info.shape[0] >= 1 && info.shape[1] == *self.shape.last().expect("a matrix")
            } else {
                info.shape == self.stored()
            };
            if !fits {
                return Err(Unfit::Model(format!("tensor {name} is {:?}; it takes {:?}", info.shape, self.stored())));
            }
        }
        Ok(None)
    }

    /// Notes where the bytes are, with the data beginning at `start`.
    pub(super) fn at(mut self, tensors: &Tensors, start: u64) -> Self {
        let place = |name: &str| {
            let info = &tensors[name];
            let [from, to] = info.data_offsets;
            (start + from..start + to, info.dtype)
        };
        self.sources = self.tensors().map(place).collect();
        self
    }

    /// Numbers of the weight.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its numbers stay in half precision.
    pub fn is_half(&self) -> bool {
        matches!(self.sources[..], [(_, Dtype::F16)])
    }

    /// Whether it is stored as it is used, so that any run of its numbers can be had alone.
    pub fn runs_alone(&self) -> bool {
        self.origin.layout == Layout::AsIs && self.sources.len() == 1
    }

    /// The parts of the file that [`Piece::convert`] wants, in its order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.sources.iter().map(|(range, _)| range.clone())
    }

    /// The part of the file that [`Piece::run`] wants.
    pub fn range_of_run(&self, run: &Range<usize>) -> Range<u64> {
        let (range, dtype) = &self.sources[0];
        range.start + run.start as u64 * dtype.bytes()..range.start + run.end as u64 * dtype.bytes()
    }

    /// Some of the weight's numbers, where it [`Piece::runs_alone`], from the bytes of [`Piece::range_of_run`].
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn run(&self, bytes: &[u8]) -> Result<Numbers, Unfit> {
        let (_, dtype) = self.sources[0];
        let numbers = if dtype == Dtype::F16 {
            Numbers::Half(halves(bytes).collect())
        } else {
            Numbers::Single(reals(bytes, dtype))
        };
        self.finite(numbers)
    }

    /// All of the weight's numbers, row by row, from the bytes of [`Piece::ranges`].
    ///
    /// # Errors
    /// Bytes that are too few or too many, and numbers that are not finite.
    pub fn convert(&self, parts: &[&[u8]]) -> Result<Numbers, Unfit> {
        let lengths = self.sources.iter().map(|(range, _)| range.end - range.start);
        if !lengths.eq(parts.iter().map(|part| part.len() as u64)) {
            return Err(self.wrong("was not read whole"));
        }
        if self.is_half() {
            let all = self.finite(Numbers::Half(halves(parts[0]).collect()))?;
            let Numbers::Half(all) = all else { unreachable!("they are halves") };
            return Ok(Numbers::Half(self.laid_out(all)));
        }
        let mut all = Vec::new();
        for (part, (_, dtype)) in parts.iter().zip(&self.sources) {
            let Numbers::Single(read) = self.finite(Numbers::Single(reals(part, *dtype)))? else {
                unreachable!("they are of single precision")
            };
            all.push(read);
        }
        let mut values = self.laid_out(std::mem::take(&mut all[0]));
        if let Some(rows) = all.get(1) {
            let width = *self.shape.last().expect("a matrix");
            for (i, x) in values.iter_mut().enumerate() {
                *x += rows[i % width];
            }
        }
        Ok(Numbers::Single(values))
    }

    fn finite(&self, numbers: Numbers) -> Result<Numbers, Unfit> {
        let are_finite = match &numbers {
            Numbers::Single(x) => x.iter().all(|x| x.is_finite()),
            Numbers::Half(x) => x.iter().all(|&x| half::f16::from_bits(x).is_finite()),
        };
        if are_finite { Ok(numbers) } else { Err(self.wrong("holds numbers that are not finite")) }
    }

    fn wrong(&self, what: &str) -> Unfit {
        Unfit::Model(format!("tensor {} {what}", self.origin.tensor))
    }

    fn laid_out<T: Copy>(&self, x: Vec<T>) -> Vec<T> {
        let width = *self.shape.last().expect("weights have axes");
        let (count, rows) = (self.len(), self.len() / width.max(1));
        match self.origin.layout {
            Layout::AsIs => x,
            Layout::Transposed => (0..count).map(|i| x[i % width * rows + i / width]).collect(),
            Layout::Third(third) => {
                x.chunks_exact(3 * width).flat_map(|row| &row[third * width..][..width]).copied().collect()
            }
        }
    }
}

/// Numbers as they are handed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    Single(Vec<f32>),
    /// The bits of half precision.
    Half(Vec<u16>),
}

impl Numbers {
    /// Room for so many; None where there is none.
    pub fn with_room(count: usize, half: bool) -> Option<Self> {
        let (mut single, mut halves) = (Vec::new(), Vec::new());
        if half {
            halves.try_reserve_exact(count).ok().map(|()| Self::Half(halves))
        } else {
            single.try_reserve_exact(count).ok().map(|()| Self::Single(single))
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Single(x) => x.len(),
            Self::Half(x) => x.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds more of the same precision.
    ///
    /// # Panics
    /// If they are of another.
    pub fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Single(all), Self::Single(more)) => all.extend(more),
            (Self::Half(all), Self::Half(more)) => all.extend(more),
            _ => panic!("a weight has one precision"),
        }
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn reals(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F16 => halves(bytes).map(|x| half::f16::from_bits(x).to_f32()).collect(),
        Dtype::BF16 => halves(bytes).map(|x| half::bf16::from_bits(x).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}
