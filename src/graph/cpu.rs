//! The CPU interpreter: walks the graph in order, in f32 or f64.
//!
//! It is the oracle of the tests and the fallback where there is no GPU. A value is freed after its last use, so its peak
//! memory is that of the live values. Work is cut at ops: [`Run::step`] evaluates one, so that a caller may look for
//! messages in between, and stop.

use super::{Data, Dtype, Float, Graph, Kind, Node, TensorType};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Why a graph could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("input `{0}` is missing")]
    Missing(String),
    #[error("input `{name}` has {got}; the graph takes {takes}")]
    Input { name: String, got: String, takes: String },
    #[error("cancelled")]
    Cancelled,
}

/// Evaluates every named output.
///
/// # Errors
/// When an input is missing or does not fit, and when `cancelled` answers true between two ops.
pub fn run<R: Float>(
    g: &Graph,
    inputs: &BTreeMap<String, Data<R>>,
    cancelled: &dyn Fn() -> bool,
) -> Result<BTreeMap<String, Data<R>>, Error> {
    let mut run = Run::new(g, inputs)?;
    while run.step() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(run.finish())
}

/// A live value: borrowed from the caller, or computed here and shared by views.
#[derive(Clone)]
enum Held<'a, R> {
    Given(&'a Data<R>),
    Made(Rc<Data<R>>),
}

impl<R> Held<'_, R> {
    fn data(&self) -> &Data<R> {
        match self {
            Held::Given(x) => x,
            Held::Made(x) => x,
        }
    }
}

/// An evaluation under way.
pub struct Run<'a, R> {
    graph: &'a Graph,
    values: HashMap<Node, Held<'a, R>>,
    /// For each entry, the nodes that are not needed after it.
    dying: Vec<Vec<Node>>,
    needed: Vec<bool>,
    next: usize,
}

impl<'a, R: Float> Run<'a, R> {
    /// Checks the inputs; nothing is evaluated yet.
    ///
    /// # Errors
    /// When an input that the outputs depend on is missing or does not fit.
    pub fn new(graph: &'a Graph, inputs: &'a BTreeMap<String, Data<R>>) -> Result<Self, Error> {
        let needed = needed(graph);
        let mut values = HashMap::new();
        for (index, entry) in graph.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
            let node = Node { entry: index as u32, port: 0 };
            match &entry.kind {
                Kind::Input { name } => {
                    let data = inputs.get(name).ok_or_else(|| Error::Missing(name.clone()))?;
                    fits(name, data, &entry.types[0])?;
                    values.insert(node, Held::Given(data));
                }
                Kind::Constant(data) => {
                    let data = match &**data {
                        Data::Real(x) => Data::Real(x.iter().map(|&x| R::from_f64(x as f64)).collect()),
                        Data::Index(x) => Data::Index(x.clone()),
                    };
                    values.insert(node, Held::Made(Rc::new(data)));
                }
                Kind::Op(_) => {}
            }
        }
        Ok(Self { graph, values, dying: dying(graph, &needed), needed, next: 0 })
    }

    /// Evaluates the next op; false when there was none left.
    pub fn step(&mut self) -> bool {
        while let Some(entry) = self.graph.entries().get(self.next) {
            let index = self.next;
            self.next += 1;
            let Kind::Op(op) = &entry.kind else { continue };
            if !self.needed[index] {
                continue;
            }
            let outputs: Vec<Held<'a, R>> = if op.is_view() {
                vec![self.values[&entry.inputs[0]].clone()]
            } else {
                let inputs: Vec<(&TensorType, &Data<R>)> =
                    entry.inputs.iter().map(|n| (self.graph.ty(*n), self.values[n].data())).collect();
                R::eval(&**op, &inputs, &entry.types).into_iter().map(|d| Held::Made(Rc::new(d))).collect()
            };
            for (port, value) in outputs.into_iter().enumerate() {
                debug_assert_eq!(value.data().len(), entry.types[port].len(), "{}: output size", op.name());
                self.values.insert(Node { entry: index as u32, port: port as u32 }, value);
            }
            for node in &self.dying[index] {
                self.values.remove(node);
            }
            return true;
        }
        false
    }

    /// Ops evaluated or passed so far, and all of them, for progress.
    pub fn progress(&self) -> (usize, usize) {
        (self.next, self.graph.entries().len())
    }

    /// The named outputs; evaluates what is left.
    pub fn finish(self) -> BTreeMap<String, Data<R>> {
        self.finish_updated().0
    }

    /// The named outputs, and by the names of the inputs what [`Graph::update`] makes of them.
    pub fn finish_updated(mut self) -> (BTreeMap<String, Data<R>>, BTreeMap<String, Data<R>>) {
        while self.step() {}
        let updated = self.graph.updates().iter().map(|(input, value)| match &self.graph.entry(*input).kind {
            Kind::Input { name } => (name, value),
            _ => unreachable!("only inputs are updated"),
        });
        let named: Vec<(&String, &Node)> =
            self.graph.outputs().iter().map(|(name, node)| (name, node)).chain(updated).collect();
        let mut values = self.values;
        let (mut outputs, mut updates) = (BTreeMap::new(), BTreeMap::new());
        for (at, (name, node)) in named.iter().enumerate() {
            let again = named[at + 1..].iter().any(|(_, n)| n == node);
            let held = if again { values[node].clone() } else { values.remove(node).expect("a result was evaluated") };
            let data = match held {
                Held::Given(x) => x.clone(),
                Held::Made(x) => Rc::try_unwrap(x).unwrap_or_else(|x| (*x).clone()),
            };
            let results = if at < self.graph.outputs().len() { &mut outputs } else { &mut updates };
            results.insert((*name).clone(), data);
        }
        (outputs, updates)
    }
}

/// Which entries the outputs and updates depend on.
pub(super) fn needed(g: &Graph) -> Vec<bool> {
    g.ancestors(results(g).chain(g.updates().iter().map(|(input, _)| *input)))
}

/// What is read after a run: outputs, and the values of updates.
pub(super) fn results(g: &Graph) -> impl Iterator<Item = Node> {
    g.outputs().iter().map(|(_, node)| *node).chain(g.updates().iter().map(|(_, value)| *value))
}

/// For each entry the nodes whose last use it is (or that nobody uses).
fn dying(g: &Graph, needed: &[bool]) -> Vec<Vec<Node>> {
    let mut last: HashMap<Node, usize> = HashMap::new();
    for (index, entry) in g.entries().iter().enumerate().filter(|(i, _)| needed[*i]) {
        for port in 0..entry.types.len() {
            last.insert(Node { entry: index as u32, port: port as u32 }, index);
        }
        for input in &entry.inputs {
            last.insert(*input, index);
        }
    }
    for node in results(g) {
        last.remove(&node);
    }
    let mut dying = vec![Vec::new(); g.entries().len()];
    for (node, index) in last {
        dying[index].push(node);
    }
    dying
}

fn fits<R>(name: &str, data: &Data<R>, ty: &TensorType) -> Result<(), Error> {
    let right_kind =
        matches!((data, ty.dtype), (Data::Index(_), Dtype::U32) | (Data::Real(_), Dtype::F32 | Dtype::F16));
    if right_kind && data.len() == ty.len() {
        return Ok(());
    }
    let kind = if matches!(data, Data::Index(_)) { "indices" } else { "real numbers" };
    Err(Error::Input {
        name: name.into(),
        got: format!("{} {kind}", data.len()),
        takes: format!("{:?} of shape {:?}", ty.dtype, ty.shape),
    })
}
