//! `attention-lab list`: variants, techniques, tasks, adapters.

use super::output::{print, print_json, table};
use super::{Failure, backend};
use attention_lab::attention::ALL;
use attention_lab::lab::describe::causal_word;
use serde_json::json;

pub fn run(as_json: bool) -> Result<(), Failure> {
    let adapters = backend::adapters();
    if as_json {
        let variants: Vec<_> = ALL
            .iter()
            .map(|v| {
                json!({
                    "id": v.id, "name": v.name, "family": v.family, "causal": causal_word(v.causal), "exact": v.exact,
                    "complexity": v.complexity, "paper": v.paper,
                })
            })
            .collect();
        return print_json(&json!({ "variants": variants, "techniques": [], "tasks": [], "adapters": adapters }));
    }
    let rows: Vec<Vec<String>> = ALL
        .iter()
        .map(|v| {
            let paper = format!("{} {}{}", v.paper.authors, v.paper.year, v.paper.place());
            [v.id, v.name, causal_word(v.causal), v.complexity, &paper].map(str::to_owned).into()
        })
        .collect();
    let adapters: Vec<Vec<String>> = adapters
        .iter()
        .map(|a| {
            let kind = if a.software { "software" } else { "hardware" };
            vec![a.name.clone(), a.backend.clone(), kind.to_owned(), a.driver.clone()]
        })
        .collect();
    print(&format!(
        "{}\n{}",
        table(&["variant", "name", "causal", "cost", "paper"], &rows),
        table(&["adapter", "backend", "kind", "driver"], &adapters),
    ))
}
