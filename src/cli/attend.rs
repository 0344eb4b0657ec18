//! `attention-lab attend`: one variant on the tensors of a file.

use super::failure::{find_variant, in_words};
use super::output::{print, print_json, table};
use super::{Failure, backend, tensors};
use attention_lab::attention::{EffectiveFactors, Init, Params, Request, Setup, Variant};
use attention_lab::graph::{Data, Dtype, TensorType};
use safetensors::SafeTensors;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Id of the variant, as `list` names it
    id: String,
    /// Tensors to read: q, k, v [B, H, N, D]; key_padding, g and the variant's extra tensors where given
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// Where `out` and whatever else is asked for goes
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Parameters and `seed` as a JSON object, e.g. '{"window": 64}'
    #[arg(long, value_name = "JSON", default_value = "{}")]
    params: String,
    /// No query sees a key behind it
    #[arg(long)]
    causal: bool,
    /// Also compute gradients, for the gradient `g` of the output
    #[arg(long)]
    grad: bool,
    /// Also write the effective matrix [B, H, N, M]
    #[arg(long)]
    effective: bool,
    #[command(flatten)]
    backend: backend::Choice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let variant = find_variant(&arguments.id)?;
    let (params, seed) = read_params(variant, &arguments.params)?;
    tensors::check_output("--output", &arguments.output)?;
    let bytes = tensors::read_bytes("--input", &arguments.input)?;
    let file = tensors::parse(&bytes, &arguments.input)?;
    let mut setup = read_setup(&file, params, seed, arguments.causal)?;
    read_structure(variant, &file, &mut setup)?;
    // What no device could do is the request's fault; what this one can't is said below, when it is known.
    if let Some(refusal) = variant.refusal(&setup, u64::MAX) {
        return Err(Failure::Request(in_words(&refusal)));
    }
    let backend = backend::Backend::choose(&arguments.backend)?;
    if let Some(refusal) = variant.refusal(&setup, backend.max_tensor_bytes()) {
        return Err(Failure::Adapter(in_words(&refusal)));
    }
    let cells = setup.instances() as u128 * setup.length as u128 * setup.keys as u128;
    if arguments.effective && cells * 4 > u128::from(backend::HOST_TENSOR_BYTES) {
        let reason = format!("--effective would write {cells} cells; shorten the sequence or leave it out");
        return Err(Failure::Request(reason));
    }
    if let Some(reason) = variant.no_matrix().filter(|_| arguments.effective) {
        return Err(Failure::Request(format!("--effective: {reason}")));
    }
    let request = Request {
        grad: arguments.grad,
        // The method's own loss takes part where the file says with what weight.
        loss: variant.loss.is_some() && file.names().contains(&"g_loss"),
        effective: arguments.effective,
        key_padding: file.names().contains(&"key_padding"),
        decisions: false,
        optional: (variant.extras)(&setup).iter().any(|e| e.optional && file.names().contains(&e.name)),
    };
    let inputs = read_inputs(variant, &file, &setup, request)?;
    note_unknown(&file, variant, &setup);

    let (graph, factors) = variant.build(&setup, request);
    let began = Instant::now();
    let mut results = backend.run(&graph, &inputs)?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let mut outputs: Tensors = BTreeMap::new();
    for (name, node) in graph.outputs().iter().filter(|(name, _)| !name.starts_with("effective_")) {
        let data = results.remove(name).unwrap_or_default();
        outputs.insert(name.clone(), (graph.shape(*node).to_vec(), data));
    }
    if let Some(factors) = factors {
        let dense = EffectiveFactors {
            left: &results["effective_left"],
            right: &results["effective_right"],
            row: results.get("effective_row").map(Vec::as_slice),
            bias: factors.bias.map(|_| inputs["bias"].real()),
            kind: factors.kind,
            rule: &factors.rule,
        }
        .dense(&setup, inputs.get("key_padding").map(Data::index));
        outputs.insert("effective".into(), (vec![setup.batch, setup.heads, setup.length, setup.keys], dense));
    }
    let metadata = HashMap::from([
        ("variant".to_owned(), variant.id.to_owned()),
        ("params".to_owned(), serde_json::to_string(&setup.params).unwrap_or_default()),
        ("seed".to_owned(), setup.seed.to_string()),
        ("causal".to_owned(), setup.causal.to_string()),
    ]);
    tensors::write(&arguments.output, &outputs, metadata)?;
    report(arguments, variant, &setup, &backend, &outputs, ms)
}

/// Parameters, and the seed among them.
fn read_params(variant: &Variant, text: &str) -> Result<(Params, u64), Failure> {
    let wrong = |what: String| Failure::Request(format!("--params: {what}"));
    let json: serde_json::Value = serde_json::from_str(text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    let serde_json::Value::Object(mut object) = json else {
        return Err(wrong(format!("{json} is not an object; it takes e.g. {{\"seed\": 1}}")));
    };
    let seed = match object.remove("seed") {
        None => 1,
        Some(value) => {
            value.as_u64().ok_or_else(|| wrong(format!("seed: {value} is not allowed; it takes a whole number")))?
        }
    };
    Params::from_json(&object, variant.params).map(|params| (params, seed)).map_err(|e| wrong(e.to_string()))
}

/// Shapes and settings, from the shapes of q, k and v.
fn read_setup(file: &SafeTensors, params: Params, seed: u64, causal: bool) -> Result<Setup, Failure> {
    let q = tensors::shape_of(file, "q", "F32 [B, H, N, D]")?;
    let [batch, heads, length, dim] = q;
    let takes = format!("F32 [{batch}, {heads}, M, {dim}], to fit q's {q:?}");
    let k = tensors::shape_of(file, "k", &takes)?;
    if [k[0], k[1], k[3]] != [batch, heads, dim] {
        return Err(Failure::Request(format!("tensor `k` is F32 {k:?}; it takes {takes}")));
    }
    let v = tensors::shape_of(file, "v", &format!("F32 {k:?}, k's shape"))?;
    if v != k {
        return Err(Failure::Request(format!("tensor `v` is F32 {v:?}; it takes F32 {k:?}, k's shape")));
    }
    Ok(Setup { batch, heads, length, keys: k[2], dim, causal, params, seed, structure: Default::default() })
}

/// Extra tensors that the graph is built from, where the file has them. What they mean is for the variant to check.
fn read_structure(variant: &Variant, file: &SafeTensors, setup: &mut Setup) -> Result<(), Failure> {
    // Shapes follow from sizes that a variant may refuse; then there is nothing to read.
    if variant.refusal(setup, u64::MAX).is_some() {
        return Ok(());
    }
    for extra in (variant.extras)(setup).iter().filter(|e| e.is_structure() && file.names().contains(&e.name)) {
        let values: Arc<[u32]> = if extra.init == Init::Mask {
            // A mask, of bytes; what texts or heads share may be left out in front.
            let shape = file.tensor(extra.name).map(|t| t.shape().to_vec()).unwrap_or_default();
            let shape = if extra.takes_shape(&shape) { shape } else { extra.shape.clone() };
            tensors::read(file, extra.name, &TensorType::u32(&shape))?.index().into()
        } else {
            let data = tensors::read(file, extra.name, &TensorType::f32(&extra.shape))?;
            extra.structure_of(data.real()).map_err(|what| Failure::Request(format!("tensor {what}")))?
        };
        setup.structure.given.insert(extra.name.to_owned(), values);
    }
    Ok(())
}

/// Every input of the graph: from the file, or drawn.
fn read_inputs(
    variant: &Variant,
    file: &SafeTensors,
    setup: &Setup,
    request: Request,
) -> Result<BTreeMap<String, Data<f32>>, Failure> {
    let extras = (variant.extras)(setup);
    let names = file.names();
    let mut inputs = BTreeMap::new();
    for (name, ty) in variant.input_types(setup, request) {
        let data = match extras.iter().find(|e| e.name == name) {
            Some(extra) if !extra.optional && !names.contains(&name.as_str()) => Data::Real(extra.draw(setup.seed)),
            _ => tensors::read(file, &name, &ty)?,
        };
        debug_assert!(ty.dtype != Dtype::F16, "files hold F32 and U8");
        inputs.insert(name, data);
    }
    Ok(inputs)
}

/// Says which tensors of the file nobody reads: a misspelt name would otherwise be drawn in silence.
fn note_unknown(file: &SafeTensors, variant: &Variant, setup: &Setup) {
    let all = Request { grad: true, loss: true, effective: true, key_padding: true, optional: true, decisions: false };
    let mut known: Vec<String> = variant.input_types(setup, all).into_keys().collect();
    known.extend((variant.extras)(setup).iter().filter(|e| e.is_structure()).map(|e| e.name.to_owned()));
    for name in file.names() {
        if !known.iter().any(|k| k == name) {
            eprintln!("note: tensor `{name}` is not read; {} reads {}", variant.id, known.join(", "));
        }
    }
}

fn report(
    arguments: &Arguments,
    variant: &Variant,
    setup: &Setup,
    backend: &backend::Backend,
    outputs: &Tensors,
    ms: f64,
) -> Result<(), Failure> {
    if arguments.json {
        let shapes: serde_json::Map<String, serde_json::Value> =
            outputs.iter().map(|(name, (shape, _))| (name.clone(), json!(shape))).collect();
        return print_json(&json!({
            "variant": variant.id, "params": setup.params, "seed": setup.seed, "causal": setup.causal,
            "batch": setup.batch, "heads": setup.heads, "length": setup.length, "keys": setup.keys, "dim": setup.dim,
            "backend": backend.name(), "adapter": backend.adapter(), "output": arguments.output, "tensors": shapes,
            "first_run_ms": ms,
        }));
    }
    let rows: Vec<Vec<String>> = outputs
        .iter()
        .map(|(name, (shape, data))| {
            let not_finite = data.iter().filter(|x| !x.is_finite()).count();
            vec![name.clone(), format!("{shape:?}"), not_finite.to_string()]
        })
        .collect();
    print(&format!(
        "{} on {} ({}), first run {ms:.1} ms, written to {}\n\n{}",
        variant.name,
        backend.name(),
        backend.adapter(),
        arguments.output.display(),
        table(&["tensor", "shape", "not finite"], &rows)
    ))
}
