//! Tensor files (safetensors), read without trust and written whole or not at all.

use super::Failure;
use attention_lab::graph::{Data, Dtype, TensorType};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Files above this are not read into memory.
const LARGEST_FILE: u64 = 16 << 30;

/// The bytes of the file that an option names.
pub fn read_bytes(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: String| Failure::Request(format!("{option} {}: {what}", path.display()));
    let facts = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if !facts.is_file() {
        return Err(wrong("is not a file".into()));
    }
    if facts.len() > LARGEST_FILE {
        return Err(wrong(format!("has {} bytes; at most {LARGEST_FILE} are read", facts.len())));
    }
    fs::read(path).map_err(|e| wrong(e.to_string()))
}

/// The tensors of a file's bytes.
pub fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>, Failure> {
    SafeTensors::deserialize(bytes)
        .map_err(|e| Failure::Request(format!("--input {}: is not a safetensors file: {e}", path.display())))
}

/// The shape of F32 tensor `name`, which must have four axes.
pub fn shape_of(file: &SafeTensors, name: &str, takes: &str) -> Result<[usize; 4], Failure> {
    let tensor = find(file, name)?;
    let shape: Result<[usize; 4], _> = tensor.shape().try_into();
    match shape {
        Ok(shape) if tensor.dtype() == FileDtype::F32 => Ok(shape),
        _ => Err(mismatch(name, &tensor, takes)),
    }
}

fn find<'a>(file: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>, Failure> {
    file.tensor(name).map_err(|_| {
        let mut there = file.names();
        there.sort_unstable();
        Failure::Request(format!("tensor `{name}` is missing from the input; it has {}", list(&there)))
    })
}

/// Elements of tensor `name`, whose type must be `ty`; masks are U8 in files and u32 in graphs.
pub fn read(file: &SafeTensors, name: &str, ty: &TensorType) -> Result<Data<f32>, Failure> {
    let tensor = find(file, name)?;
    let in_file = match ty.dtype {
        Dtype::U32 => FileDtype::U8,
        _ => FileDtype::F32,
    };
    if tensor.dtype() != in_file || tensor.shape() != ty.shape {
        return Err(mismatch(name, &tensor, &format!("{in_file:?} {:?}", ty.shape)));
    }
    if in_file == FileDtype::U8 {
        if let Some(other) = tensor.data().iter().find(|&&x| x > 1) {
            return Err(Failure::Request(format!("tensor `{name}` holds {other}; it takes 1 and 0")));
        }
        return Ok(Data::Index(tensor.data().iter().map(|&x| x.into()).collect()));
    }
    let words = tensor.data().chunks_exact(4);
    Ok(Data::Real(words.map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()))
}

fn mismatch(name: &str, tensor: &TensorView, takes: &str) -> Failure {
    Failure::Request(format!("tensor `{name}` is {:?} {:?}; it takes {takes}", tensor.dtype(), tensor.shape()))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no tensors".into() } else { names.join(", ") }
}

/// Writes F32 tensors for `--output`.
pub fn write(
    path: &Path,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
) -> Result<(), Failure> {
    let wrong = |what: String| Failure::Request(format!("--output {}: {what}", path.display()));
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, (shape, data))| {
            TensorView::new(FileDtype::F32, shape.clone(), bytemuck::cast_slice(data)).map(|view| (name.as_str(), view))
        })
        .collect();
    let bytes =
        views.and_then(|views| safetensors::serialize(views, Some(metadata))).map_err(|e| wrong(e.to_string()))?;
    write_bytes("--output", path, &bytes)
}

/// Writes the file that an option names; it appears under its name only once it is complete.
pub fn write_bytes(option: &str, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let wrong = |what: String| Failure::Request(format!("{option} {}: {what}", path.display()));
    let name = path.file_name().ok_or_else(|| wrong("is not the name of a file".into()))?;
    let mut partial = name.to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let partial = path.with_file_name(partial);
    let written = fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    written.map_err(|e| {
        // What failed may have left the partial file behind, or never made it.
        let _ = fs::remove_file(&partial);
        wrong(e.to_string())
    })
}

/// Refuses an output that could not be written, before anything is computed.
pub fn check_output(option: &str, path: &Path) -> Result<(), Failure> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::Request(format!("{option} {}: is not the name of a file", path.display())));
    }
    if !folder.is_dir() {
        return Err(Failure::Request(format!("{option} {}: there is no folder {}", path.display(), folder.display())));
    }
    Ok(())
}
