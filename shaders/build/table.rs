//! Writes `kernels.rs` and the WGSL texts it includes.

use super::reflect::{Access, Kernel};
use std::fmt::Write;
use std::path::Path;

pub fn write(out: &Path, kernels: &[Kernel]) {
    let texts = out.join("wgsl");
    // Texts of kernels that are gone must not stay behind.
    let _ = std::fs::remove_dir_all(&texts);
    std::fs::create_dir_all(&texts).expect("OUT_DIR is writable");
    let mut code = String::from("/// Every kernel, sorted by name.\npub static KERNELS: &[Kernel] = &[\n");
    for kernel in kernels {
        let file = format!("{}.wgsl", kernel.name.replace('/', "."));
        std::fs::write(texts.join(&file), &kernel.wgsl).expect("OUT_DIR is writable");
        entry(&mut code, kernel, &file).expect("writing to a string");
    }
    code.push_str("];\n");
    std::fs::write(out.join("kernels.rs"), code).expect("OUT_DIR is writable");
}

fn entry(code: &mut String, k: &Kernel, file: &str) -> std::fmt::Result {
    writeln!(code, "Kernel {{ name: {:?}, f16: {}, subgroups: {},", k.name, k.f16, k.subgroups)?;
    writeln!(code, "  wgsl: include_str!(concat!(env!(\"OUT_DIR\"), \"/wgsl/{file}\")),")?;
    writeln!(code, "  consts: &{:?}, overrides: &{:?}, uniform_bytes: {},", k.consts, k.overrides, k.uniform_bytes)?;
    writeln!(code, "  bindings: &[")?;
    for b in &k.bindings {
        let access = match b.access {
            Access::Read => "Read",
            Access::ReadWrite => "ReadWrite",
            Access::Uniform => "Uniform",
        };
        let (name, group, binding) = (&b.name, b.group, b.binding);
        writeln!(
            code,
            "    Binding {{ name: {name:?}, group: {group}, binding: {binding}, access: Access::{access} }},"
        )?;
    }
    writeln!(code, "  ], entries: &[")?;
    for e in &k.entries {
        let (name, stage, workgroup, uses) = (&e.name, e.stage, e.workgroup, &e.uses);
        writeln!(
            code,
            "    Entry {{ name: {name:?}, stage: Stage::{stage}, workgroup: {workgroup:?}, uses: &{uses:?} }},"
        )?;
    }
    writeln!(code, "  ] }},")
}
