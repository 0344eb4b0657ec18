//! Links every kernel under `ops/`, `attention/` and `view/`, validates it with naga, and writes the table of kernels that
//! `gpu::kernel` includes.
//!
//! A file that uses `@if(f16)`, `@if(packed)`, `@if(subgroups)` or `@if(scalar)` gives one kernel for each combination of those that make a
//! difference, named `ops/matmul`, `ops/matmul+subgroups`, `ops/matmul+scalar`, `ops/matmul+subgroups+scalar`.

#[path = "build/link.rs"]
mod link;
#[path = "build/reflect.rs"]
mod reflect;
#[path = "build/table.rs"]
mod table;

use std::path::{Path, PathBuf};
use std::process::exit;

/// Folders whose files hold entry points; `lib/` is only imported from.
const KERNEL_FOLDERS: [&str; 3] = ["ops", "attention", "view"];

fn main() {
    println!("cargo:rerun-if-changed=shaders");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("shaders");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));

    let mut names = Vec::new();
    for folder in KERNEL_FOLDERS {
        find(&root, &root.join(folder), &mut names);
    }
    names.sort();

    let mut kernels = Vec::new();
    let mut errors = Vec::new();
    for name in &names {
        match link::variants(&root, name)
            .and_then(|variants| variants.iter().map(|v| reflect::kernel(&root, v)).collect::<Result<Vec<_>, _>>())
        {
            Ok(found) => kernels.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        for error in &errors {
            eprintln!("{error}\n");
        }
        eprintln!("{} of {} shader files do not build", errors.len(), names.len());
        exit(1);
    }
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    table::write(&out, &kernels);
}

/// Collects the kernels below `folder`, named by their path under `root` without the suffix.
fn find(root: &Path, folder: &Path, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            find(root, &path, names);
        } else if path.extension().is_some_and(|e| e == "wesl") {
            let inside = path.strip_prefix(root).expect("found below it").with_extension("");
            names.push(inside.to_string_lossy().replace('\\', "/"));
        }
    }
}
