//! Opening a model: sorts out the files that were chosen together, checks them, and hands the weights over part by part.

use crate::model::ModelConfig;
use crate::reading::model::header::header_bytes;
use crate::reading::model::{MOST_CONFIG_BYTES, Model, Numbers, Piece};
use crate::reading::tokenizer::{MOST_FILE_BYTES, Tokenizer};
use crate::reading::{Source, Unfit};
use std::ops::Range;

/// At most so many bytes of a file are read at once.
pub const CHUNK_BYTES: u64 = 16 << 20;

/// A model that is being read.
#[derive(Debug)]
pub struct Opener {
    model: Source,
    pieces: Vec<Piece>,
    pub facts: Facts,
    pub tokenizer: Tokenizer,
    /// The weight that comes next, and how many of its numbers were handed over.
    next: (usize, usize),
}

/// What is known before any weight is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Of the file with the weights.
    pub name: String,
    /// `GPT-2`, `BERT` or `DistilBERT`.
    pub family: &'static str,
    pub config: ModelConfig,
    pub weights: Vec<WeightFacts>,
    /// That the weights take in memory.
    pub bytes: u64,
}

/// One weight that will come.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightFacts {
    /// In a model of the lab.
    pub name: String,
    pub shape: Vec<usize>,
    /// Stored in half precision.
    pub half: bool,
}

/// Some numbers of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Index in [`Facts::weights`].
    pub weight: usize,
    /// Of the first number.
    pub at: usize,
    pub numbers: Numbers,
}

impl Opener {
    /// Reads what is small: the header, the configuration and the tokenizer.
    ///
    /// # Errors
    /// What is missing, or what of a file is not taken.
    pub async fn open(files: Vec<Source>) -> Result<Self, Unfit> {
        let Chosen { model, config, tokenizer } = Chosen::of(files)?;
        let config = match config {
            Some(file) => Some(text(&file, MOST_CONFIG_BYTES, Unfit::Config).await?),
            None => None,
        };
        let tokenizer = Tokenizer::parse(&text(&tokenizer, MOST_FILE_BYTES, Unfit::Tokenizer).await?)?;
        let first = model.read(0..model.bytes().min(8)).await?;
        let header = model.read(0..header_bytes(&first, model.bytes())?).await?;
        let Model { family, config, pieces, .. } = Model::open(&header, model.bytes(), config.as_deref())?;
        if tokenizer.vocabulary() > config.vocabulary {
            return Err(Unfit::Tokenizer(format!(
                "has {} tokens and the model {}; it takes the one that was saved with the model",
                tokenizer.vocabulary(),
                config.vocabulary
            )));
        }
        let weights: Vec<WeightFacts> = (pieces.iter())
            .map(|piece| WeightFacts { name: piece.name.clone(), shape: piece.shape.clone(), half: piece.is_half() })
            .collect();
        let bytes = pieces.iter().map(|piece| piece.len() as u64 * if piece.is_half() { 2 } else { 4 }).sum();
        let facts = Facts { name: model.name(), family: family.name(), config, weights, bytes };
        Ok(Self { model, pieces, facts, tokenizer, next: (0, 0) })
    }

    /// The next numbers, in the order of the weights; none when all were handed over.
    ///
    /// # Errors
    /// Numbers that are not finite, and a file that is not there any more.
    pub async fn next(&mut self) -> Result<Option<Part>, Unfit> {
        let (weight, at) = self.next;
        let Some(piece) = self.pieces.get(weight) else { return Ok(None) };
        let numbers = if piece.runs_alone() {
            let run = at..piece.len().min(at + (CHUNK_BYTES / 4) as usize);
            let numbers = piece.run(&self.model.read(piece.range_of_run(&run)).await?)?;
            self.next = if run.end < piece.len() { (weight, run.end) } else { (weight + 1, 0) };
            numbers
        } else {
            let mut parts = Vec::new();
            for range in piece.ranges() {
                parts.push(whole(&self.model, range).await?);
            }
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let numbers = piece.convert(&parts)?;
            self.next = (weight + 1, 0);
            numbers
        };
        Ok(Some(Part { weight, at, numbers }))
    }
}

/// A part of a file that is wanted as a whole, read in chunks.
async fn whole(file: &Source, range: Range<u64>) -> Result<Vec<u8>, Unfit> {
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact((range.end - range.start) as usize).is_err() {
        return Err(Unfit::Files(format!("{}: there is no memory for {} bytes", file.name(), range.end - range.start)));
    }
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + CHUNK_BYTES);
        bytes.extend(file.read(at..end).await?);
        at = end;
    }
    Ok(bytes)
}

/// A small file's text.
async fn text(file: &Source, most: usize, unfit: fn(String) -> Unfit) -> Result<String, Unfit> {
    if file.bytes() > most as u64 {
        return Err(unfit(format!("has {} bytes; at most {most} are read", file.bytes())));
    }
    String::from_utf8(file.read(0..file.bytes()).await?).map_err(|_| unfit("is no text in UTF-8".into()))
}

/// The files of one model.
struct Chosen {
    model: Source,
    config: Option<Source>,
    tokenizer: Source,
}

/// What a file is, by its name: a browser puts numbers into names of files that it has saved before, `config (1).json`.
#[derive(PartialEq)]
enum Kind {
    Model,
    Config,
    Tokenizer,
    /// Of several files with weights, which is where.
    Index,
    /// Weights in another format.
    Foreign,
    /// Belongs to a model, and nothing in it is needed.
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let name = name.to_lowercase();
        let json = name.strip_suffix(".json");
        let is =
            |start: &str| json.is_some_and(|stem| stem.strip_prefix(start).is_some_and(|rest| !rest.starts_with('_')));
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if name.ends_with(".safetensors") {
            Self::Model
        } else if name.ends_with(".index.json") {
            Self::Index
        } else if ends(&[
            ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".tflite", ".npz", ".pkl",
        ]) {
            Self::Foreign
        } else if is("config") {
            Self::Config
        } else if is("tokenizer") {
            Self::Tokenizer
        } else {
            Self::Other
        }
    }
}

impl Chosen {
    fn of(files: Vec<Source>) -> Result<Self, Unfit> {
        let names: Vec<String> = files.iter().map(Source::name).collect();
        let of_kind = |kind: Kind| names.iter().filter(|name| Kind::of(name) == kind).cloned().collect::<Vec<_>>();
        let refused = |reason: String| Err(Unfit::Files(reason));
        let models = of_kind(Kind::Model);
        let nearest = "choose model.safetensors, config.json and tokenizer.json together";
        if models.is_empty() {
            if let Some(name) = of_kind(Kind::Foreign).first() {
                return refused(format!("{name}: weights in this format are not read; {nearest}"));
            }
            return refused(format!("there is no .safetensors file among what was chosen; {nearest}"));
        }
        if let Some(name) = of_kind(Kind::Index).first() {
            return refused(format!(
                "{name}: weights in several files are not read; it takes a model whose weights are one file"
            ));
        }
        if models.len() > 1 {
            let why = if models.iter().any(|name| name.contains("-of-")) {
                "weights in several files are not read; "
            } else {
                ""
            };
            return refused(format!("{}: {why}choose one .safetensors file", models.join(", ")));
        }
        let (mut model, mut config, mut tokenizer) = (None, None, None);
        for file in files {
            let name = file.name();
            let place = match Kind::of(&name) {
                Kind::Model => &mut model,
                Kind::Config => &mut config,
                Kind::Tokenizer => &mut tokenizer,
                _ => continue,
            };
            if place.replace(file).is_some() {
                return refused(format!("{name}: there are two such files; {nearest}"));
            }
        }
        match (model, tokenizer) {
            (Some(model), Some(tokenizer)) => Ok(Self { model, config, tokenizer }),
            _ => refused(format!("tokenizer.json is missing, which turns a text into the model's tokens; {nearest}")),
        }
    }
}
