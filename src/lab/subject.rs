//! A trained model whose attention is looked at: its weights, and how a text becomes its tokens.

use super::opened::Opened;
use super::train::Weights;
use crate::gpu::Category;
use crate::graph::{Data, Graph, TensorType};
use crate::model::config::Positions;
use crate::model::{Architecture, Judgement, Mixer, ModelConfig, Tokens, judgement, network};
use crate::random;
use crate::sort::IntoMap;
use crate::task::story::ALIKE;
use crate::task::text::words_of_length;
use crate::task::{Batch, Part, Split, Task};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Sequences that a loss is the mean of.
pub const JUDGED: usize = 32;
/// Of an encoder's text, every so many words one is hidden and asked for.
pub const HIDDEN: usize = 7;

/// A model that is looked at.
pub struct Subject {
    /// A name for faces: `story`, or that of a file.
    pub name: String,
    /// As it was trained.
    pub config: ModelConfig,
    /// By the names of the graph's inputs; empty where it is opened.
    pub inputs: BTreeMap<String, Data<f32>>,
    /// The file, where it is one of the lab's.
    pub weights: Option<Weights>,
    /// The weights of one that the visitor has opened, which is run layer by layer.
    pub opened: Option<Opened>,
    pub reader: Box<dyn Reader>,
    /// What it was trained on, and the seed of that.
    pub held: Option<(Box<dyn Task>, u64)>,
    /// Steps that it was trained for, and the loss then on sequences that it had not learned from, in nats.
    pub trained: Option<(u64, f64)>,
}

/// How a text becomes tokens.
pub trait Reader {
    /// Exactly `n` tokens, the text begun again as often as needed.
    ///
    /// # Errors
    /// Why it does not read such a text.
    fn read(&self, text: Option<&str>, split: Split, n: usize) -> Result<Reading, Unread>;

    /// The token that hides another, where there is one.
    fn mask(&self) -> Option<u32>;

    /// A token in words.
    fn label(&self, id: u32) -> String;
}

/// Why a model does not read a text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unread {
    /// It reads words, and the text is split into bytes.
    Bytes,
    /// It knows so many positions.
    Longer { most: usize },
    /// Its tokenizer does not take the text.
    Refused { reason: String },
}

/// A text in a model's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub ids: Vec<u32>,
    /// Where a token is not a word of the text: what an axis shows.
    pub labels: Option<Vec<String>>,
    /// Tokens of the text itself, where these are not its words.
    pub counted: Option<usize>,
    /// Words that it does not know, each with the one that it reads in its place, in the order of the text.
    pub stand_ins: Vec<(String, String)>,
}

impl Subject {
    /// The model of a file of weights.
    ///
    /// # Errors
    /// What of the file is not taken.
    pub fn of_weights(name: &str, weights: Weights) -> Result<Self, super::train::Error> {
        let mut config = weights.config.clone();
        let task = config.complete(u64::MAX)?;
        let words = Words::of(&*task);
        let real = |(name, (_, data)): (&String, &(Vec<usize>, Vec<f32>))| (name.clone(), Data::Real(data.clone()));
        let inputs = weights.tensors.iter().map(real).into_map();
        let trained = Some((weights.step, weights.loss));
        Ok(Self {
            name: name.into(),
            config: config.model,
            inputs,
            weights: Some(weights),
            opened: None,
            reader: Box::new(words),
            held: Some((task, config.seed)),
            trained,
        })
    }

    /// Whether no token sees a later one.
    pub fn causal(&self) -> bool {
        self.config.architecture != Architecture::Encoder
    }

    /// Whether it foresees words, or those that are hidden from it. Sentence models come without the head for that.
    pub fn says_words(&self) -> bool {
        self.opened.is_none() || self.causal() || self.config.says_words
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// Why it does not read them.
    pub fn read(&self, text: Option<&str>, split: Split, n: usize) -> Result<Reading, Unread> {
        let most = self.config.length;
        if self.config.positions == Positions::Learned && n > most {
            return Err(Unread::Longer { most });
        }
        self.reader.read(text, split, n)
    }

    /// Reads `tokens` u32 `[1, N]` and weights; gives `q`, `k`, `v` of a layer, f32 `[1, H, N, D]`.
    pub fn layer(&self, layer: usize, n: usize) -> Graph {
        let mut g = Graph::new();
        let tokens = g.input("tokens", TensorType::u32(&[1, n]), Category::Activations);
        let net = network(&mut g, &self.config, &Tokens { tokens, source: None, seed: None }, 0);
        let inputs = &net.mixings[layer].inputs;
        for (name, node) in [("q", inputs.q), ("k", inputs.k), ("v", inputs.v)] {
            g.output(name, node);
        }
        g
    }

    /// The model with another attention; None where that cannot be.
    fn with(&self, attention: &[Mixer], length: usize) -> Option<ModelConfig> {
        let config = ModelConfig { attention: attention.into(), length, ..self.config.clone() };
        config.check(1, u64::MAX).is_ok().then_some(config)
    }

    /// Graph and inputs that judge the model, run with one attention in all layers or with one for each, on sequences that it has not learned from: `losses`
    /// in nats where `judged` says so. What a method has of its own is drawn from a seed. None where it has no such sequences, or
    /// cannot be run so.
    pub fn on_held(&self, attention: &[Mixer]) -> Option<Exam> {
        let (task, seed) = self.held.as_ref()?;
        let config = self.with(attention, self.config.length)?;
        Some(self.exam(&config, JUDGED, task.batch(*seed, Part::Held, 0, JUDGED)))
    }

    /// The same on tokens of a text: how well a decoder foresees each next one, or an encoder one of seven that is hidden from it.
    pub fn on_text(&self, ids: &[u32], attention: &[Mixer]) -> Option<Exam> {
        let n = ids.len();
        let config = self.with(attention, n)?;
        let mut batch = Batch { inputs: ids.into(), targets: ids.into(), judged: vec![0.0; n], distance: vec![0; n] };
        if self.causal() {
            batch.targets.rotate_left(1);
            batch.judged[..n - 1].fill(1.0);
        } else {
            let mask = self.reader.mask()?;
            for i in (HIDDEN / 2..n).step_by(HIDDEN) {
                batch.inputs[i] = mask;
                batch.judged[i] = 1.0;
            }
        }
        batch.judged.contains(&1.0).then(|| self.exam(&config, 1, batch))
    }

    fn exam(&self, config: &ModelConfig, size: usize, batch: Batch) -> Exam {
        let Judgement { graph, parameters } = judgement(config, size, 1);
        let mut inputs = self.inputs.clone();
        for parameter in parameters {
            inputs.entry(parameter.name.clone()).or_insert_with(|| Data::Real(parameter.draw(1)));
        }
        let count = batch.judged.iter().sum();
        inputs.insert("tokens".into(), Data::Index(batch.inputs));
        inputs.insert("targets".into(), Data::Index(batch.targets));
        inputs.insert("judged".into(), Data::Real(batch.judged));
        Exam { graph, inputs, count }
    }
}

/// A judgement that is ready to be run.
pub struct Exam {
    /// Gives `losses`, f32 `[B, N]`, 0 where nothing is judged.
    pub graph: Graph,
    pub inputs: BTreeMap<String, Data<f32>>,
    /// Positions that are judged.
    pub count: f32,
}

/// Words of a task. Others are read as a word of the same kind, the same one wherever they stand.
struct Words {
    numbers: HashMap<String, u32>,
    mask: Option<u32>,
}

impl Words {
    fn of(task: &dyn Task) -> Self {
        let words = (0..task.vocabulary() as u32).map(|token| (task.label(token), token));
        let mut numbers: HashMap<String, u32> = words.collect();
        let mask = numbers.remove("[MASK]");
        Self { numbers, mask }
    }

    /// The word itself, or with its first letter large or small.
    fn known(&self, word: &str) -> Option<u32> {
        let mut letters = word.chars();
        let first = letters.next()?;
        let rest = letters.as_str();
        let large = || first.to_uppercase().chain(rest.chars()).collect::<String>();
        let small = || first.to_lowercase().chain(rest.chars()).collect::<String>();
        let number = |word: &str| self.numbers.get(word).copied();
        number(word).or_else(|| number(&small())).or_else(|| number(&large()))
    }

    /// A mark ends a sentence or does not. A word is a name where it begins with a large letter that no sentence's beginning
    /// asks for, and a thing elsewhere.
    fn stand_in(&self, word: &str, begins: bool, taken: &HashSet<u32>) -> u32 {
        let number = |word: &str| self.numbers.get(word).copied().unwrap_or(0);
        let first = word.chars().next().unwrap_or('.');
        if !word.chars().any(char::is_alphanumeric) {
            return number(if ".!?…。！？".contains(first) { "." } else { "," });
        }
        let list = ALIKE[usize::from(begins || !first.is_uppercase())];
        let free = list.iter().map(|candidate| number(candidate)).find(|candidate| !taken.contains(candidate));
        // More words than the list has: the word decides.
        free.unwrap_or_else(|| number(list[(random::stream(word) % list.len() as u64) as usize]))
    }
}

impl Reader for Words {
    fn read(&self, text: Option<&str>, split: Split, n: usize) -> Result<Reading, Unread> {
        if split == Split::Bytes {
            return Err(Unread::Bytes);
        }
        let text = words_of_length(text, n);
        let mut taken: HashSet<u32> = text.iter().filter_map(|word| self.known(word)).collect();
        let mut reading = Reading::default();
        let mut places: HashMap<String, u32> = HashMap::new();
        let mut begins = true;
        for word in text {
            let id = self.known(word).or_else(|| places.get(&word.to_lowercase()).copied()).unwrap_or_else(|| {
                let id = self.stand_in(word, begins, &taken);
                taken.insert(id);
                places.insert(word.to_lowercase(), id);
                let other = self.numbers.iter().find(|(_, number)| **number == id);
                reading.stand_ins.push((word.to_owned(), other.map_or_else(String::new, |(word, _)| word.clone())));
                id
            });
            begins = self.numbers.get(".") == Some(&id);
            reading.ids.push(id);
        }
        Ok(reading)
    }

    fn mask(&self) -> Option<u32> {
        self.mask
    }

    fn label(&self, id: u32) -> String {
        self.numbers.iter().find(|(_, number)| **number == id).map(|(word, _)| word.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task;

    fn words() -> Words {
        Words::of(&*task::of(&task::TaskConfig::MaskedLm(Default::default())).unwrap())
    }

    #[test]
    fn words_of_stories_are_themselves_and_others_keep_their_stand_in() {
        let words = words();
        let reading = words.read(Some("Ada saw Zeno. The zebra saw Ada! Saw zebra?"), Split::Words, 13).unwrap();
        let label = |id: &u32| words.numbers.iter().find(|(_, number)| *number == id).unwrap().0.as_str();
        let read: Vec<&str> = reading.ids.iter().map(label).collect();
        assert_eq!(read, ["Ada", "acorn", "Ben", ".", "The", "bell", "acorn", "Ada", ".", "acorn", "bell", ".", "Ada"]);
        let told: Vec<&str> = reading.stand_ins.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(told, ["saw", "Zeno", "zebra", "!", "?"]);
        assert_eq!(words.mask(), Some(104));
        assert_eq!(words.read(None, Split::Bytes, 4), Err(Unread::Bytes));
    }

    #[test]
    fn the_text_of_the_page_is_known() {
        let reading = words().read(None, Split::Words, 400).unwrap();
        assert_eq!((reading.ids.len(), reading.stand_ins), (400, vec![]));
    }

    #[test]
    fn any_text_is_read() {
        for text in ["", " \n", "🦊 9 ß İstanbul", "...", "漢字。漢字"] {
            for n in [1, 2, 50] {
                assert_eq!(words().read(Some(text), Split::Words, n).unwrap().ids.len(), n, "{text}");
            }
        }
        let many: String = (0..100).map(|i| format!("word{i} ")).collect();
        assert_eq!(words().read(Some(&many), Split::Words, 300).unwrap().stand_ins.len(), 100);
    }
}
