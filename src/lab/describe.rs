//! Everything about a variant as JSON: what the command line's `describe --json` and the JavaScript API say.

use crate::attention::{Causal, Extra, Init, Param, ParamKind, Params, Setup, Value, Variant};
use serde_json::json;

/// Lengths at which defaults that depend on the length are shown.
pub const LENGTHS: [usize; 4] = [64, 512, 4096, 16_384];

/// Sizes by which shapes are put in letters: distinct, so that a size says which letter it is.
const BATCH: usize = 7;
const HEADS: usize = 11;
const LENGTH: usize = 2003;
const KEYS: usize = 2011;
const DIM: usize = 58;

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
                "name": e.name, "dtype": if e.init == (Init::Structure { below: 2 }) { "U8" } else { "F32" }, "shape": shape, "role": e.role, "differentiable": e.differentiable,
                "required": false, "drawn": (!e.optional).then(|| drawn(e.init)),
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
    let mut found: Vec<(Extra, String)> = Vec::new();
    for params in choices(v) {
        let setup = Setup {
            batch: BATCH,
            heads: HEADS,
            length: LENGTH,
            keys: KEYS,
            dim: DIM,
            causal: false,
            params,
            seed: 0,
            structure: Default::default(),
        };
        for extra in (v.extras)(&setup) {
            let shape =
                format!("[{}]", extra.shape.iter().map(|&n| letter(v, &setup, n)).collect::<Vec<_>>().join(", "));
            match found.iter_mut().find(|(e, _)| e.name == extra.name) {
                Some((_, shapes)) if !shapes.contains(&shape) => *shapes += &format!(" or {shape}"),
                Some(_) => {}
                None => found.push((extra, shape)),
            }
        }
    }
    found
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

/// The letter or parameter that a size stands for.
fn letter(v: &Variant, setup: &Setup, size: usize) -> String {
    let param = v.params.iter().find(|p| p.default(setup.length) == Value::Int(size as u32));
    match (size, param) {
        (BATCH, _) => "B".into(),
        (LENGTH, _) => "N".into(),
        (KEYS, _) => "M".into(),
        (HEADS, _) => "H".into(),
        (DIM, _) => "D".into(),
        (_, Some(param)) => param.name.into(),
        _ => size.to_string(),
    }
}

/// How an extra tensor is drawn, in a word.
pub fn drawn(init: Init) -> String {
    match init {
        Init::Zeros => "zeros".into(),
        Init::Uniform(_) => "uniform".into(),
        Init::Normal(_) => "normal".into(),
        Init::Orthogonal => "rows orthogonal in groups, of normal length".into(),
        Init::Logistic => "logistic".into(),
        Init::Structure { .. } => "from the seed".into(),
    }
}
