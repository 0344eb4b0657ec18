//! A model that the visitor has opened: its weights in memory, as exact as its file has them, and how it reads a text.
//!
//! Such a model may be larger than a device lets one buffer be, or than it has memory. So its weights stay on the host, and whoever
//! runs it takes them part by part; what a device has room for may stay there as well.

use super::subject::{Reader, Reading, Subject, Unread};
use crate::graph::{Data, Dtype, TensorType};
use crate::model::Architecture;
use crate::model::alone::Alone;
use crate::reading::{Facts, Numbers, Tokenizer};
use crate::sort::IntoMap;
use crate::task::Split;
use crate::task::text::{DEFAULT_TEXT, piece_label};
use half::f16;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a variant draws its own tensors from, in a model that has none.
pub const DRAWN_FROM: u64 = 1;

/// Of a longer text the beginning is read.
const MOST_TEXT_BYTES: usize = 1 << 16;

/// Weights by name.
pub struct Opened {
    weights: BTreeMap<String, Numbers>,
    /// Those with a number that half precision does not hold.
    too_large: BTreeSet<String>,
}

/// What faces say of an opened model.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OpenedFacts {
    /// Of the file.
    pub name: String,
    /// `GPT-2`, `BERT` or `DistilBERT`.
    pub family: String,
    pub causal: bool,
    pub layers: usize,
    pub heads: usize,
    pub d_model: usize,
    pub vocabulary: usize,
    /// Positions that it knows.
    pub length: usize,
    /// Numbers, and the bytes that they take here.
    pub weights: u64,
    pub bytes: u64,
}

impl Opened {
    /// The model of a file, once all of its weights are there, in the order of [`Facts::weights`].
    pub fn subject(facts: &Facts, weights: Vec<Numbers>, tokenizer: Tokenizer) -> Subject {
        let names = facts.weights.iter().map(|weight| weight.name.clone());
        let weights = names.zip(weights).into_map();
        let too_large = |x: &Numbers| match x {
            Numbers::Single(x) => x.iter().any(|x| x.abs() > f16::MAX.to_f32()),
            Numbers::Half(_) => false,
        };
        let too_large = weights.iter().filter(|(_, x)| too_large(x)).map(|(name, _)| name.clone()).collect();
        Subject {
            name: facts.name.clone(),
            config: facts.config.clone(),
            inputs: BTreeMap::new(),
            weights: None,
            opened: Some(Self { weights, too_large }),
            reader: Box::new(Pieces { tokenizer }),
            held: None,
            trained: None,
        }
    }

    /// Whether there is a weight of this name; what a variant has of its own has none.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// Whether half precision holds every number of a weight that there is.
    pub fn fits_half(&self, name: &str) -> bool {
        self.has(name) && !self.too_large.contains(name)
    }

    /// Some numbers of a weight as a buffer of this type holds them: halves that are halves here are copied as they are.
    pub fn bytes(&self, name: &str, range: Range<usize>, ty: &TensorType) -> Vec<u8> {
        match (&self.weights[name], ty.dtype) {
            (Numbers::Half(x), Dtype::F16) => bytemuck::cast_slice(&x[range]).to_vec(),
            (Numbers::Single(x), _) => ty.stored(&x[range]).into_owned(),
            _ => ty.stored(&self.numbers(name, range)).into_owned(),
        }
    }

    /// Some numbers of a weight.
    ///
    /// # Panics
    /// Where there is none of this name: names were checked when the model was opened.
    pub fn numbers(&self, name: &str, range: Range<usize>) -> Vec<f32> {
        match &self.weights[name] {
            Numbers::Single(x) => x[range].to_vec(),
            Numbers::Half(x) => x[range].iter().map(|&x| f16::from_bits(x).to_f32()).collect(),
        }
    }

    /// The sum of the embeddings of tokens and places, `[N, d]`.
    pub fn embedded(&self, ids: &[u32], d: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(ids.len() * d);
        for (place, &id) in ids.iter().enumerate() {
            let word = self.numbers("embedding.weight", id as usize * d..(id as usize + 1) * d);
            let place = self.numbers("positions.weight", place * d..(place + 1) * d);
            all.extend(word.iter().zip(place).map(|(word, place)| word + place));
        }
        all
    }

    /// Everything that a part of the model reads but for what is `there` already. What a variant has of its own is drawn.
    pub fn inputs(&self, part: &Alone, x: Vec<f32>, there: &dyn Fn(&str) -> bool) -> BTreeMap<String, Data<f32>> {
        let mut inputs = BTreeMap::from([("x".to_owned(), Data::Real(x))]);
        for parameter in part.parameters.iter().filter(|parameter| !there(&parameter.name)) {
            let data = if self.has(&parameter.name) {
                self.numbers(&parameter.name, 0..parameter.len())
            } else {
                parameter.draw(DRAWN_FROM)
            };
            inputs.insert(parameter.name.clone(), Data::Real(data));
        }
        inputs
    }
}

impl OpenedFacts {
    /// What a model's files tell.
    pub fn of(facts: &Facts) -> Self {
        let config = &facts.config;
        let count = |shape: &Vec<usize>| shape.iter().map(|&size| size as u64).product::<u64>();
        Self {
            name: facts.name.clone(),
            family: facts.family.into(),
            causal: config.architecture == Architecture::Decoder,
            layers: config.layers,
            heads: config.heads,
            d_model: config.d_model,
            vocabulary: config.vocabulary,
            length: config.length,
            weights: facts.weights.iter().map(|weight| count(&weight.shape)).sum(),
            bytes: facts.bytes,
        }
    }
}

/// A model's own tokenizer.
struct Pieces {
    tokenizer: Tokenizer,
}

impl Reader for Pieces {
    /// What a model puts around every text stays around it, however often the text is begun again.
    fn read(&self, text: Option<&str>, _: Split, n: usize) -> Result<Reading, Unread> {
        let refused = |reason: String| Unread::Refused { reason };
        let encode = |text: &str| self.tokenizer.encode(text).map_err(|e| refused(e.to_string()));
        // No more than that fits any model that is read.
        let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_TEXT);
        let text = &text[..text.floor_char_boundary(MOST_TEXT_BYTES)];
        let ids = encode(text)?;
        let around = encode("")?;
        let counted = Some(ids.len());
        let (before, behind) = around.split_at(around.len().div_ceil(2));
        let inside = &ids[before.len()..ids.len() - behind.len()];
        let room = n.saturating_sub(around.len());
        let mut kept = before.to_vec();
        kept.extend(inside.iter().cycle().take(room));
        kept.extend(behind);
        kept.truncate(n);
        if kept.len() < n {
            return Err(refused("its tokenizer makes no token of this text".into()));
        }
        let labels = Some(kept.iter().map(|&id| self.label(id)).collect());
        Ok(Reading { ids: kept, labels, counted, stand_ins: vec![] })
    }

    fn mask(&self) -> Option<u32> {
        self.tokenizer.mask()
    }

    fn label(&self, id: u32) -> String {
        piece_label(&self.tokenizer.label(id))
    }
}
