//! Everything about a variant as JSON: what the command line's `describe --json` and the JavaScript API say.

use crate::attention::{Causal, Extra, Init, Param, ParamKind, Params, Setup, Value, Variant};
use serde_json::json;

/// Lengths at which defaults that depend on the length are shown.
pub const LENGTHS: [usize; 4] = [64, 512, 4096, 16_384];

const LETTERS: [&str; 5] = ["B", "H", "N", "M", "D"];
/// Sizes by which shapes are put in letters: distinct, and twice, so that what is equal by chance is not taken for a letter.
const SIZES: [[usize; 5]; 2] = [[307, 11, 2003, 2011, 58], [401, 12, 1801, 1811, 62]];
/// The same for whole-number parameters; the second time each has the next one.
const VALUES: [u32; 10] = [13, 17, 19, 23, 29, 31, 37, 41, 43, 47];
/// Letters of sizes that follow from the others by no short formula, and sizes by which such a tensor is shown.
const OTHERS: [&str; 4] = ["R", "S", "T", "U"];
const USUAL: [usize; 5] = [1, 4, 1024, 1024, 64];

/// Id, name, family, costs, paper, parameters and tensors of a variant.
pub fn in_json(v: &Variant) -> serde_json::Value {
    let params: Vec<_> = v.params.iter().map(param_json).collect();
    let tensors: Vec<_> = fixed_tensors()
        .into_iter()
        .map(|(name, dtype, shape, role, differentiable, required)| {
            json!({
                "name": name, "dtype": dtype, "shape": shape, "role": role, "differentiable": differentiable,
                "required": required,
            })
        })
        .chain(extras(v).iter().map(|(e, shape)| {
            json!({
                "name": e.name, "dtype": e.file_dtype(), "shape": shape, "role": e.role, "differentiable": e.differentiable,
                "required": false, "drawn": drawn(e.init).filter(|_| !e.optional),
            })
        }))
        .collect();
    let reason = match v.causal {
        Causal::Never(why) => Some(why),
        _ => None,
    };
    json!({
        "id": v.id, "name": v.name, "family": v.family, "summary": v.summary, "causal": causal_word(v.causal),
        "causal_reason": reason, "exact": v.exact, "complexity": v.complexity, "exponent": v.exponent, "paper": v.paper,
        "params": params, "tensors": tensors,
        "loss": v.loss.map(|own| json!({ "meaning": own.meaning, "weight": own.weight })),
    })
}

pub fn causal_word(causal: Causal) -> &'static str {
    match causal {
        Causal::Both => "both",
        Causal::Never(_) => "never",
        Causal::Always => "always",
    }
}

fn param_json(p: &Param) -> serde_json::Value {
    let defaults: serde_json::Map<String, serde_json::Value> =
        LENGTHS.iter().map(|&n| (n.to_string(), json!(p.default(n)))).collect();
    let depends = LENGTHS.iter().any(|&n| p.default(n) != p.default(LENGTHS[0]));
    let mut object = json!({
        "name": p.name, "meaning": p.meaning, "default": p.default(512), "default_depends_on_length": depends,
        "default_at_length": defaults,
    });
    let fields = match p.kind {
        ParamKind::Int { min, max, .. } => json!({ "type": "int", "min": min, "max": max }),
        ParamKind::Choice { options, .. } => json!({ "type": "choice", "options": options }),
        ParamKind::Bool { .. } => json!({ "type": "bool" }),
        ParamKind::Text { .. } => json!({ "type": "text" }),
    };
    if let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object()) {
        object.extend(fields.clone());
    }
    object
}

/// Tensors that every variant reads: name, dtype, shape, role, differentiable, required.
pub fn fixed_tensors() -> [(&'static str, &'static str, &'static str, &'static str, bool, bool); 5] {
    [
        ("q", "F32", "[B, H, N, D]", "queries", true, true),
        ("k", "F32", "[B, H, M, D]", "keys", true, true),
        ("v", "F32", "[B, H, M, D]", "values", true, true),
        ("key_padding", "U8", "[B, M]", "1 where a key is real, 0 where it is padding", false, false),
        ("g", "F32", "[B, H, N, D]", "gradient of the output, read with --grad", false, false),
    ]
}

/// Extra tensors under every choice of the parameters, each once, with the shape in letters.
pub fn extras(v: &Variant) -> Vec<(Extra, String)> {
    let mut found: Vec<(Extra, Vec<String>, Option<Vec<usize>>)> = Vec::new();
    for params in choices(v) {
        let causal = v.causal == Causal::Always;
        let usual = setup(USUAL, params, causal);
        let [first, second] =
            [0, 1].map(|at| with_telling_values(v, &setup(SIZES[at], usual.params.clone(), causal), at));
        let (others, usual) = ((v.extras)(&second), (v.extras)(&usual));
        for extra in (v.extras)(&first) {
            let same = |all: &[Extra]| all.iter().find(|e| e.name == extra.name).map(|e| e.shape.clone());
            let (shape, is_known) =
                in_letters(v, [&first, &second], [&extra.shape, &same(&others).unwrap_or_default()]);
            let example = same(&usual).filter(|_| !is_known);
            match found.iter_mut().find(|(e, ..)| e.name == extra.name) {
                Some((_, shapes, _)) if shapes.contains(&shape) => {}
                Some((_, shapes, _)) => shapes.push(shape),
                None => found.push((extra, vec![shape], example)),
            }
        }
    }
    let told = |(extra, shapes, example): (Extra, Vec<String>, Option<Vec<usize>>)| {
        let example = example.map(|e| format!(", as {e:?} at B 1, H 4, N 1024, D 64")).unwrap_or_default();
        (extra, shapes.join(" or ") + &example)
    };
    found.into_iter().map(told).collect()
}

fn setup([batch, heads, length, keys, dim]: [usize; 5], params: Params, causal: bool) -> Setup {
    Setup { batch, heads, length, keys, dim, causal, params, seed: 0, structure: Default::default() }
}

/// The same with whole numbers that tell parameters apart, where the method takes them.
fn with_telling_values(v: &Variant, setup: &Setup, turn: usize) -> Setup {
    let mut setup = setup.clone();
    if (v.check)(&setup).is_err() {
        // It takes one key for each query.
        setup.keys = setup.length;
    }
    let mut left: Vec<u32> = VALUES.to_vec();
    left.rotate_left(turn);
    for p in v.params {
        let ParamKind::Int { .. } = p.kind else { continue };
        let taken = left.iter().position(|&x| {
            let mut tried = setup.clone();
            tried.params.0.insert(p.name.into(), Value::Int(x));
            let fits = p.accept(&Value::Int(x)).is_ok() && (v.check)(&tried).is_ok();
            if fits {
                setup = tried;
            }
            fits
        });
        if let Some(at) = taken {
            left.remove(at);
        }
    }
    setup
}

/// A shape in letters, from what it is at two setups; whether these say all of it.
fn in_letters(v: &Variant, setups: [&Setup; 2], shapes: [&[usize]; 2]) -> (String, bool) {
    let mut others = OTHERS.iter();
    let mut is_known = true;
    let mut letters: Vec<String> = Vec::new();
    for (axis, &size) in shapes[0].iter().enumerate() {
        let again = shapes[1].get(axis).map(|&size| names(v, setups[1], size)).unwrap_or_default();
        let known = names(v, setups[0], size).into_iter().find(|name| again.contains(name));
        letters.push(known.unwrap_or_else(|| {
            is_known = false;
            others.next().unwrap_or(&"…").to_string()
        }));
    }
    (format!("[{}]", letters.join(", ")), is_known)
}

/// Every combination of the choice parameters, in words of `Params`.
fn choices(v: &Variant) -> Vec<Params> {
    let mut all = vec![Params::default()];
    for p in v.params {
        if let ParamKind::Choice { options, .. } = p.kind {
            all = all
                .iter()
                .flat_map(|params| {
                    options.iter().map(|&option| {
                        let mut params = params.clone();
                        params.0.insert(p.name.into(), Value::Choice(option.into()));
                        params
                    })
                })
                .collect();
        }
    }
    all
}

/// What a size may be: letters, parameters, the number itself, short formulas of the first two; the likeliest first.
fn names(v: &Variant, s: &Setup, size: usize) -> Vec<String> {
    let sizes = LETTERS.into_iter().zip([s.batch, s.heads, s.length, s.keys, s.dim]);
    let params: Vec<(&str, usize)> = v
        .params
        .iter()
        .filter_map(|p| match s.params.0.get(p.name).cloned().unwrap_or_else(|| p.default(s.length)) {
            Value::Int(x) if x > 0 => Some((p.name, x as usize)),
            _ => None,
        })
        .collect();
    let mut names: Vec<String> = sizes.clone().filter(|(_, x)| *x == size).map(|(letter, _)| letter.into()).collect();
    names.extend(params.iter().filter(|(_, x)| *x == size).map(|(name, _)| (*name).into()));
    names.extend(sizes.clone().filter(|(_, x)| x + 1 == size).map(|(letter, _)| format!("{letter} + 1")));
    names.push(size.to_string());
    for &(name, x) in &params {
        let whole = sizes.clone().filter(|(letter, whole)| ["N", "M"].contains(letter) && whole.div_ceil(x) == size);
        names.extend(whole.map(|(letter, _)| format!("⌈{letter}/{name}⌉")));
        names.extend((2 * x == size).then(|| format!("2 {name}")));
        names.extend((x.div_ceil(2) == size).then(|| format!("⌈{name}/2⌉")));
    }
    names
}

/// How an extra tensor is drawn, in a word; a mask is not.
pub fn drawn(init: Init) -> Option<&'static str> {
    match init {
        Init::Zeros => Some("zeros"),
        Init::Uniform(_) => Some("uniform"),
        Init::Normal(_) => Some("normal"),
        Init::Orthogonal => Some("rows orthogonal in groups, of normal length"),
        Init::Logistic => Some("logistic"),
        Init::Structure { .. } => Some("from the seed"),
        Init::Mask => None,
    }
}
