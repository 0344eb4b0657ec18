//! What the device layer must know of a linked kernel, read off by naga: bindings, uniform size, entry points.

use super::link::Linked;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner, VectorSize};
use std::path::Path;

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Access {
    Read,
    ReadWrite,
    Uniform,
}

pub struct Binding {
    pub name: String,
    pub group: u32,
    pub binding: u32,
    pub access: Access,
}

pub struct Entry {
    pub name: String,
    pub stage: &'static str,
    pub workgroup: [u32; 3],
    /// Indices of the bindings it really uses.
    pub uses: Vec<usize>,
}

pub struct Kernel {
    pub name: String,
    pub f16: bool,
    pub subgroups: bool,
    pub wgsl: String,
    pub consts: Vec<String>,
    pub overrides: Vec<String>,
    pub bindings: Vec<Binding>,
    pub uniform_bytes: u32,
    pub entries: Vec<Entry>,
}

/// Validates a linked kernel and reads its interface.
pub fn kernel(root: &Path, linked: &Linked) -> Result<Kernel, String> {
    let file = format!("shaders/{}.wesl", linked.file);
    let fail = |why: String| format!("error: {file} ({})\n{why}", linked.name());
    let source = &linked.wgsl;
    let module = naga::front::wgsl::parse_str(source).map_err(|e| {
        let line = e.location(source).map(|l| l.line_number);
        fail(format!("{}{}", guess(root, linked, line), e.emit_to_string_with_path(source, "linked")))
    })?;
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SHADER_FLOAT16, linked.f16);
    // Every WebGPU adapter takes halves apart.
    capabilities.insert(Capabilities::SHADER_FLOAT16_IN_FLOAT32);
    capabilities.set(Capabilities::SUBGROUP, linked.subgroups);
    let info = validator(capabilities).validate(&module).map_err(|e| {
        let line = e.location(source).map(|l| l.line_number);
        fail(format!("{}{}", guess(root, linked, line), e.emit_to_string_with_path(source, "linked")))
    })?;
    read(linked, &module, &info).map_err(fail)
}

fn validator(capabilities: Capabilities) -> Validator {
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    if capabilities.contains(Capabilities::SUBGROUP) {
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    }
    validator
}

fn read(linked: &Linked, module: &Module, info: &ModuleInfo) -> Result<Kernel, String> {
    let mut bindings = Vec::new();
    let mut handles = Vec::new();
    let mut uniform_bytes = 0;
    for (handle, variable) in module.global_variables.iter() {
        let Some(at) = &variable.binding else { continue };
        let name = variable.name.clone().unwrap_or_default();
        let access = match variable.space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
            AddressSpace::Storage { .. } => Access::Read,
            other => {
                return Err(format!("`{name}` is in address space {other:?}; kernels use storage and uniform only"));
            }
        };
        let in_place = match access {
            Access::Uniform => (at.group, at.binding) == (1, 0),
            _ => at.group == 0,
        };
        if !in_place {
            return Err(format!("`{name}`: storage goes to group 0, the one uniform struct to group 1 binding 0"));
        }
        if access == Access::Uniform {
            let computes = module.entry_points.iter().any(|e| e.stage == naga::ShaderStage::Compute);
            uniform_bytes = uniform_size(module, &name, variable.ty, computes)?;
        }
        bindings.push(Binding { name, group: at.group, binding: at.binding, access });
        handles.push(handle);
    }
    let mut entries = Vec::new();
    for (index, entry) in module.entry_points.iter().enumerate() {
        let uses: Vec<usize> =
            (0..handles.len()).filter(|&i| !info.get_entry_point(index)[handles[i]].is_empty()).collect();
        let stage = match entry.stage {
            naga::ShaderStage::Compute => "Compute",
            naga::ShaderStage::Vertex => "Vertex",
            naga::ShaderStage::Fragment => "Fragment",
            other => return Err(format!("entry `{}` is of stage {other:?}", entry.name)),
        };
        if entry.name == "main" {
            return Err("an entry point is never named `main`; name what it does".into());
        }
        if stage == "Compute" && !uses.iter().any(|&i| bindings[i].access == Access::Uniform) {
            return Err(format!(
                "entry `{}` does not read the uniform struct, so it cannot add `origin` to `workgroup_id`, and a split \
                 dispatch would do its first part twice",
                entry.name
            ));
        }
        entries.push(Entry { name: entry.name.clone(), stage, workgroup: entry.workgroup_size, uses });
    }
    let overrides = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
    Ok(Kernel {
        name: linked.name(),
        f16: linked.f16,
        subgroups: linked.subgroups,
        wgsl: linked.wgsl.clone(),
        consts: linked.consts.clone(),
        overrides,
        bindings,
        uniform_bytes,
        entries,
    })
}

/// Size of the uniform struct, which in a file that computes must begin with `origin: vec4<u32>`.
fn uniform_size(module: &Module, name: &str, ty: naga::Handle<naga::Type>, computes: bool) -> Result<u32, String> {
    let TypeInner::Struct { members, span } = &module.types[ty].inner else {
        return Err(format!("uniform `{name}` must be a struct"));
    };
    let starts_right = members.first().is_some_and(|first| {
        first.name.as_deref() == Some("origin")
            && matches!(
                module.types[first.ty].inner,
                TypeInner::Vector { size: VectorSize::Quad, scalar } if scalar.kind == ScalarKind::Uint
            )
    });
    if computes && !starts_right {
        return Err(format!("the struct of uniform `{name}` must begin with `origin: vec4<u32>`"));
    }
    Ok(*span)
}

/// The place in the source that a line of the linked text comes from, where exactly one line reads the same.
fn guess(root: &Path, linked: &Linked, line: Option<u32>) -> String {
    let bare = |s: &str| s.split("//").next().unwrap_or_default().split_whitespace().collect::<String>();
    let Some(wanted) = line.and_then(|n| linked.wgsl.lines().nth(n as usize - 1)).map(bare) else {
        return String::new();
    };
    let mut files = vec![root.join(&linked.file).with_extension("wesl")];
    files.extend(std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten().map(|e| e.path()));
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if !wanted.is_empty() && bare(line) == wanted {
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    match found.as_slice() {
        [] => String::new(),
        places => format!("at {}\n", places.join(" or ")),
    }
}
