//! From the bytes of a tensor to a weight.

use super::Unfit;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use std::collections::BTreeMap;
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
    pub(super) fn check(&self, tensors: &BTreeMap<String, TensorInfo>) -> Result<Option<String>, Unfit> {
        let added = self.origin.plus_first_row_of.as_ref();
        for name in self.tensors() {
            let Some(info) = tensors.get(name) else { return Ok(Some(name.to_owned())) };
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(Unfit::File(format!("tensor {name} is {:?}; it takes F32, F16 or BF16", info.dtype)));
            }
            let fits = if Some(name) == added.map(String::as_str) {
                info.shape.len() == 2 && info.shape[0] >= 1 && info.shape[1] == *self.shape.last().expect("a matrix")
            } else {
                info.shape == self.stored()
            };
            if !fits {
                return Err(Unfit::File(format!("tensor {name} is {:?}; it takes {:?}", info.shape, self.stored())));
            }
        }
        Ok(None)
    }

    /// Notes where the bytes are, with the data beginning at `start`.
    pub(super) fn at(mut self, tensors: &BTreeMap<String, TensorInfo>, start: u64) -> Self {
        let place = |name: &str| {
            let info = &tensors[name];
            let (from, to) = info.data_offsets;
            (start + from as u64..start + to as u64, info.dtype)
        };
        self.sources = self.tensors().map(place).collect();
        self
    }

    /// The parts of the file that [`Piece::convert`] wants, in its order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.sources.iter().map(|(range, _)| range.clone())
    }

    /// The weight's numbers, row by row, from the bytes of [`Piece::ranges`].
    ///
    /// # Errors
    /// Bytes that are too few or too many, and numbers that are not finite.
    pub fn convert(&self, parts: &[&[u8]]) -> Result<Vec<f32>, Unfit> {
        let wrong = |what: &str| Unfit::File(format!("tensor {} {what}", self.origin.tensor));
        let lengths = self.sources.iter().map(|(range, _)| range.end - range.start);
        if !lengths.eq(parts.iter().map(|part| part.len() as u64)) {
            return Err(wrong("was not read whole"));
        }
        let mut numbers = Vec::new();
        for (part, (_, dtype)) in parts.iter().zip(&self.sources) {
            let read = reals(part, *dtype);
            if read.iter().any(|x| !x.is_finite()) {
                return Err(wrong("holds numbers that are not finite"));
            }
            numbers.push(read);
        }
        let mut values = self.laid_out(std::mem::take(&mut numbers[0]));
        if let Some(rows) = numbers.get(1) {
            let width = *self.shape.last().expect("a matrix");
            for (i, x) in values.iter_mut().enumerate() {
                *x += rows[i % width];
            }
        }
        Ok(values)
    }

    fn laid_out(&self, x: Vec<f32>) -> Vec<f32> {
        let width = *self.shape.last().expect("weights have axes");
        let count = self.shape.iter().product::<usize>();
        let rows = count / width.max(1);
        match self.origin.layout {
            Layout::AsIs => x,
            Layout::Transposed => (0..count).map(|i| x[i % width * rows + i / width]).collect(),
            Layout::Third(third) => {
                x.chunks_exact(3 * width).flat_map(|row| &row[third * width..][..width]).copied().collect()
            }
        }
    }
}

fn reals(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let halves = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        Dtype::F16 => halves().map(|x| half::f16::from_bits(x).to_f32()).collect(),
        Dtype::BF16 => halves().map(|x| half::bf16::from_bits(x).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}
