//! The header of a `.safetensors` file, read without trust.

use crate::reading::Unfit;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// A longer header is refused.
pub const MOST_HEADER_BYTES: u64 = 100_000_000;

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[allow(clippy::upper_case_acronyms, reason = "as the format names them")]
pub enum Dtype {
    BOOL,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Dtype {
    pub fn bytes(self) -> u64 {
        match self {
            Self::BOOL | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// One tensor, as the header tells of it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Behind the header.
    pub data_offsets: [u64; 2],
}

pub type Tensors = BTreeMap<String, TensorInfo>;

/// How many bytes the header takes, with the eight in front that say so.
///
/// # Errors
/// When the first bytes of the file cannot be those of a `.safetensors` file of `file_bytes`.
pub fn header_bytes(first: &[u8], file_bytes: u64) -> Result<u64, Unfit> {
    let Some(first) = first.first_chunk::<8>() else {
        return Err(Unfit::Model("is shorter than 8 bytes; it takes a .safetensors file".into()));
    };
    let length = u64::from_le_bytes(*first);
    if length > MOST_HEADER_BYTES || length + 8 > file_bytes {
        return Err(Unfit::Model(format!(
            "says that its header has {length} bytes, of {file_bytes} in all; it takes a .safetensors file"
        )));
    }
    Ok(length + 8)
}

/// The tensors of a file of `file_bytes` whose first [`header_bytes`] are given: each as long as its shape says, one behind the
/// other, and together all that there is.
///
/// # Errors
/// What is not so.
pub fn tensors(header: &[u8], file_bytes: u64) -> Result<Tensors, Unfit> {
    let start = header_bytes(header, file_bytes)?;
    let Some(text) = header.get(8..start as usize) else {
        return Err(Unfit::Model(format!("ends inside its header, after {} of {start} bytes", header.len())));
    };
    let Header(tensors) = crate::json::read_bytes(text).map_err(|e| Unfit::Model(format!("its header: {e}")))?;
    let mut inside: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    inside.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in inside {
        let [from, to] = info.data_offsets;
        let elements = info.shape.iter().try_fold(1u64, |count, &size| count.checked_mul(size as u64));
        if elements.and_then(|count| count.checked_mul(info.dtype.bytes())) != to.checked_sub(from) {
            return Err(Unfit::Model(format!("tensor {name}: {:?} does not fill bytes {from} to {to}", info.shape)));
        }
        if from != end {
            let fault = if from < end { "lies over another" } else { "leaves bytes before it unused" };
            return Err(Unfit::Model(format!("tensor {name} {fault}")));
        }
        end = to;
    }
    if start.checked_add(end) != Some(file_bytes) {
        return Err(Unfit::Model(format!("has {file_bytes} bytes; its header tells of {start} and {end} more")));
    }
    Ok(tensors)
}

/// Tensors by name, each name once.
struct Header(Tensors);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
        let mut tensors = Tensors::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match tensors.entry(name) {
                Entry::Vacant(place) => drop(place.insert(map.next_value()?)),
                Entry::Occupied(other) => {
                    return Err(M::Error::custom(format!("tensor {} stands there twice", other.key())));
                }
            }
        }
        Ok(Header(tensors))
    }
}
