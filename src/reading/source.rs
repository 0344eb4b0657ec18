//! Files that are read in parts.

use crate::reading::Unfit;
use std::ops::Range;
use std::rc::Rc;

/// A file that is never read as a whole.
#[derive(Debug)]
pub enum Source {
    /// Bytes in memory, of which it says that there are `told`: for tests.
    Memory { name: String, told: u64, bytes: Rc<[u8]> },
    #[cfg(not(target_arch = "wasm32"))]
    File { name: String, bytes: u64, file: std::fs::File },
    /// What a visitor chose or dropped.
    #[cfg(target_arch = "wasm32")]
    Chosen(web_sys::File),
}

impl Source {
    /// Bytes in memory, under a name.
    pub fn of(name: &str, bytes: &[u8]) -> Self {
        Self::Memory { name: name.into(), told: bytes.len() as u64, bytes: bytes.into() }
    }

    /// A file on disk.
    ///
    /// # Errors
    /// Why it cannot be opened.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn on_disk(path: &std::path::Path) -> std::io::Result<Self> {
        let file = std::fs::File::open(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self::File { name, bytes: file.metadata()?.len(), file })
    }

    pub fn name(&self) -> String {
        match self {
            Self::Memory { name, .. } => name.clone(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::File { name, .. } => name.clone(),
            #[cfg(target_arch = "wasm32")]
            Self::Chosen(file) => file.name(),
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Self::Memory { told, .. } => *told,
            #[cfg(not(target_arch = "wasm32"))]
            Self::File { bytes, .. } => *bytes,
            #[cfg(target_arch = "wasm32")]
            Self::Chosen(file) => file.size() as u64,
        }
    }

    /// Some of its bytes, exactly these.
    ///
    /// # Errors
    /// When they are not there any more, or cannot be held.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Unfit> {
        let read = match self {
            Self::Memory { bytes, .. } => {
                let end = range.end.min(bytes.len() as u64) as usize;
                Ok(bytes.get(range.start as usize..end).unwrap_or_default().to_vec())
            }
            #[cfg(not(target_arch = "wasm32"))]
            Self::File { file, .. } => from_disk(file, &range).map_err(|e| e.to_string()),
            #[cfg(target_arch = "wasm32")]
            Self::Chosen(file) => chosen(file, &range).await,
        };
        let wanted = range.end - range.start;
        match read {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(bytes) => Err(Unfit::Files(format!(
                "{}: ends while it is read, {} of {wanted} bytes after byte {}; is it still being copied?",
                self.name(),
                bytes.len(),
                range.start
            ))),
            Err(reason) => Err(Unfit::Files(format!("{}: cannot be read: {reason}", self.name()))),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn from_disk(mut file: &std::fs::File, range: &Range<u64>) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact((range.end - range.start) as usize)?;
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(target_arch = "wasm32")]
async fn chosen(file: &web_sys::File, range: &Range<u64>) -> Result<Vec<u8>, String> {
    let said = |error: wasm_bindgen::JsValue| String::from(js_sys::Object::from(error).to_string());
    let part = file.slice_with_f64_and_f64(range.start as f64, range.end as f64).map_err(said)?;
    let read = wasm_bindgen_futures::JsFuture::from(part.array_buffer()).await.map_err(said)?;
    Ok(js_sys::Uint8Array::new(&read).to_vec())
}
