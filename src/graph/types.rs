//! Dtypes, shapes, host data.

use half::f16;
use std::borrow::Cow;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    /// Storage only; arithmetic is in f32. Only where the adapter has `shader-f16`, but for weights of a product, which every
    /// adapter reads.
    F16,
    U32,
}

impl Dtype {
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::F16 => 2,
        }
    }
}

/// Dtype and shape, row-major and contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl TensorType {
    pub fn f32(shape: &[usize]) -> Self {
        Self { dtype: Dtype::F32, shape: shape.into() }
    }

    pub fn u32(shape: &[usize]) -> Self {
        Self { dtype: Dtype::U32, shape: shape.into() }
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.bytes()) as u64
    }

    /// Real numbers as a buffer of this type holds them, rounded to the nearest where it holds halves.
    pub fn stored<'a>(&self, x: &'a [f32]) -> Cow<'a, [u8]> {
        match self.dtype {
            Dtype::F16 => x.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Dtype::F32 | Dtype::U32 => Cow::Borrowed(bytemuck::cast_slice(x)),
        }
    }
}

/// Elements on the host: real numbers in the interpreter's precision, or indices.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<R> {
    Real(Vec<R>),
    Index(Vec<u32>),
}

impl<R> Data<R> {
    pub fn len(&self) -> usize {
        match self {
            Data::Real(x) => x.len(),
            Data::Index(x) => x.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The real elements.
    ///
    /// # Panics
    /// On indices: an op's shape rule has checked the dtype before it is evaluated.
    pub fn real(&self) -> &[R] {
        match self {
            Data::Real(x) => x,
            Data::Index(_) => panic!("real numbers expected, indices found"),
        }
    }

    /// The indices; panics on real numbers, see [`Data::real`].
    pub fn index(&self) -> &[u32] {
        match self {
            Data::Index(x) => x,
            Data::Real(_) => panic!("indices expected, real numbers found"),
        }
    }
}

/// Why an op does not take the shapes it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShapeError(pub String);
