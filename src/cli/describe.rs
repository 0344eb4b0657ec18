//! `attention-lab describe`: everything about one variant.

use super::Failure;
use super::failure::find_variant;
use super::output::{print, print_json, table, wrap};
use attention_lab::attention::{Causal, Param, Variant};
use attention_lab::lab::describe::{LENGTHS, drawn, extras, fixed_tensors, in_json};

pub fn run(id: &str, as_json: bool) -> Result<(), Failure> {
    let variant = find_variant(id)?;
    if as_json { print_json(&in_json(variant)) } else { print(&in_words(variant)) }
}

fn in_words(v: &Variant) -> String {
    let exact = if v.exact { "computes softmax attention exactly" } else { "is not softmax attention over all pairs" };
    let causal = match v.causal {
        Causal::Both => "causal or bidirectional".to_owned(),
        Causal::Always => "always causal".to_owned(),
        Causal::Never(why) => format!("bidirectional only: {why}"),
    };
    let mut text = format!(
        "{} ({})\n{}\n{}; {exact}\ncost: {}\npaper: {}, {} {}{}\n\n",
        v.name,
        v.id,
        wrap(v.summary, "  ", 100),
        causal,
        v.complexity,
        v.paper.title,
        v.paper.authors,
        v.paper.year,
        v.paper.place()
    );
    if let Some(own) = v.loss {
        let told = format!(
            "own loss: {} Its weight is usually {}. Gradients take part of it where the tensor `g_loss`, F32 [1], says how much.",
            own.meaning, own.weight
        );
        text += &format!("{}\n\n", wrap(&told, "  ", 100));
    }
    if !v.params.is_empty() {
        let rows: Vec<Vec<String>> =
            v.params.iter().map(|p| vec![p.name.into(), p.takes(), default_words(p), p.meaning.into()]).collect();
        text += &table(&["parameter", "takes", "default", "meaning"], &rows);
        text += "\n";
    }
    let mut rows: Vec<Vec<String>> = fixed_tensors()
        .into_iter()
        .map(|(name, dtype, shape, role, differentiable, required)| {
            let given = if required { "required" } else { "optional" };
            vec![
                name.into(),
                dtype.into(),
                shape.into(),
                gradient_name(name, differentiable),
                given.into(),
                role.into(),
            ]
        })
        .collect();
    rows.extend(extras(v).iter().map(|(e, shape)| {
        vec![
            e.name.into(),
            e.file_dtype().into(),
            shape.clone(),
            gradient_name(e.name, e.differentiable),
            if e.optional {
                "optional".into()
            } else {
                drawn(e.init).map_or("optional".into(), |how| format!("else drawn: {how}"))
            },
            e.role.into(),
        ]
    }));
    text + &table(&["tensor", "type", "shape", "gradient", "given", "role"], &rows)
}

fn gradient_name(name: &str, differentiable: bool) -> String {
    if differentiable { format!("d{name}") } else { "-".into() }
}

fn default_words(p: &Param) -> String {
    let values = LENGTHS.map(|n| p.default(n));
    if values.iter().all(|v| *v == values[0]) {
        return values[0].to_string();
    }
    let at: Vec<String> = LENGTHS.iter().zip(&values).map(|(n, v)| format!("{v} at N = {n}")).collect();
    at.join(", ")
}
