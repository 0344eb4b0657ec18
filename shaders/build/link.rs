//! WESL to WGSL: imports and `@if` resolved.

use std::path::Path;
use wesl::syntax::{DeclarationKind, GlobalDeclaration, ModulePath, PathOrigin};
use wesl::{CompileOptions, EscapeMangler, FileResolver, Resolver, Wesl};

/// One kernel file linked with one set of features.
pub struct Linked {
    /// Path under `shaders/` without the suffix.
    pub file: String,
    pub f16: bool,
    pub subgroups: bool,
    pub wgsl: String,
    /// Names of the file's own `const`s, which may be rewritten when the module is made.
    pub consts: Vec<String>,
}

impl Linked {
    /// The kernel's name in the table.
    pub fn name(&self) -> String {
        let f16 = if self.f16 { "+f16" } else { "" };
        let subgroups = if self.subgroups { "+subgroups" } else { "" };
        format!("{}{f16}{subgroups}", self.file)
    }
}

/// Links `file` with every combination of features that makes a difference to its text.
pub fn variants(root: &Path, file: &str) -> Result<Vec<Linked>, String> {
    let path = root.join(file).with_extension("wesl");
    let source = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    check_limits(&path, &source)?;
    let link = |f16, subgroups| link(root, file, f16, subgroups);
    let base = link(false, false)?;
    let f16 = Some(link(true, false)?).filter(|v| v.wgsl != base.wgsl);
    let subgroups = Some(link(false, true)?).filter(|v| v.wgsl != base.wgsl);
    let both = if f16.is_some() && subgroups.is_some() { Some(link(true, true)?) } else { None };
    Ok([Some(base), f16, subgroups, both].into_iter().flatten().collect())
}

fn link(root: &Path, file: &str, f16: bool, subgroups: bool) -> Result<Linked, String> {
    let module = ModulePath::new(PathOrigin::Absolute, file.split('/').map(String::from).collect());
    let mut compiler = Wesl::new(root).set_custom_resolver(FileResolver::new(root));
    compiler.set_custom_mangler(EscapeMangler);
    compiler.set_options(CompileOptions::default());
    compiler.set_features([("f16", f16), ("subgroups", subgroups)]);
    let fail =
        |e: &dyn std::fmt::Display| format!("error: shaders/{file}.wesl (f16 {f16}, subgroups {subgroups})\n{e}");
    let linked = compiler.compile(&module).map_err(|e| fail(&e))?;
    let own = FileResolver::new(root).resolve_module(&module).map_err(|e| fail(&e))?;
    let consts = (own.global_declarations.iter())
        .filter_map(|d| match &**d {
            GlobalDeclaration::Declaration(d) if d.kind == DeclarationKind::Const => Some(d.ident.name().to_string()),
            _ => None,
        })
        .collect();
    Ok(Linked { file: file.into(), f16, subgroups, wgsl: linked.to_string(), consts })
}

/// Names what this version of the linker would misread without a word.
fn check_limits(path: &Path, source: &str) -> Result<(), String> {
    for (number, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let at = || format!("error: {}:{}", path.display(), number + 1);
        if has_hexadecimal_float(code) {
            return Err(format!("{}: the linker misreads hexadecimal floats; write it in decimal", at()));
        }
        if code.contains("- -") {
            return Err(format!("{}: the linker joins `- -x` to a decrement; write it with parentheses", at()));
        }
    }
    Ok(())
}

fn has_hexadecimal_float(code: &str) -> bool {
    code.to_ascii_lowercase()
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .any(|word| word.strip_prefix("0x").is_some_and(|digits| digits.contains('.') || digits.contains('p')))
}
