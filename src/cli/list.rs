//! `attention-lab list`: variants, techniques, tasks, adapters.

use super::output::{print, print_json, table};
use super::{Failure, backend};
use attention_lab::attention::ALL;
use attention_lab::lab::describe::causal_word;
use attention_lab::task::{self, Task, TaskConfig};
use serde_json::json;

/// Every task with its defaults.
fn tasks() -> impl Iterator<Item = (TaskConfig, Box<dyn Task>)> {
    TaskConfig::all().into_iter().filter_map(|config| Some((config.clone(), task::of(&config).ok()?)))
}

/// Losses of players without a model by name.
fn baselines(task: &dyn Task) -> serde_json::Value {
    task.baselines()
        .into_iter()
        .map(|(name, loss)| (name.to_owned(), json!(loss)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

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
        let tasks: Vec<_> = tasks()
            .map(|(config, task)| {
                json!({
                    "id": task.id(), "vocabulary": task.vocabulary(), "length": task.length(), "causal": task.causal(),
                    "chance": task.chance(), "baselines": baselines(&*task), "config": config,
                })
            })
            .collect();
        return print_json(&json!({ "variants": variants, "techniques": [], "tasks": tasks, "adapters": adapters }));
    }
    let rows: Vec<Vec<String>> = ALL
        .iter()
        .map(|v| {
            let paper = format!("{} {}{}", v.paper.authors, v.paper.year, v.paper.place());
            [v.id, v.name, causal_word(v.causal), v.complexity, &paper].map(str::to_owned).into()
        })
        .collect();
    let tasks: Vec<Vec<String>> = tasks()
        .map(|(config, task)| {
            let chance = format!("{:.1} %", 100.0 * task.chance());
            let config = serde_json::to_string(&config).unwrap_or_default();
            [task.id(), &task.vocabulary().to_string(), &task.length().to_string(), &chance, &config]
                .map(str::to_owned)
                .into()
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
        "{}\n{}\n{}",
        table(&["variant", "name", "causal", "cost", "paper"], &rows),
        table(&["task", "tokens", "length", "chance", "as in a run's configuration"], &tasks),
        table(&["adapter", "backend", "kind", "driver"], &adapters),
    ))
}
