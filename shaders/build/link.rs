//! WESL to WGSL: imports and `@if` resolved.

use std::path::Path;
use wesl::syntax::{DeclarationKind, GlobalDeclaration, ModulePath, PathOrigin};
use wesl::{CompileOptions, EscapeMangler, FileResolver, Resolver, Wesl};

/// What `@if` may ask for, in the order in which a kernel's name lists it. `f16` and `subgroups` are the adapter's; `packed`
/// reads an operand of half precision two numbers to a word, which every adapter can; `scalar` binds storage element by element,
/// for sizes that are not multiples of a vector.
const FEATURES: [&str; 4] = ["f16", "packed", "subgroups", "scalar"];

/// Which features are on.
type Set = [bool; FEATURES.len()];

/// One kernel file linked with one set of features.
pub struct Linked {
    /// Path under `shaders/` without the suffix.
    pub file: String,
    pub f16: bool,
    pub subgroups: bool,
    on: Set,
    pub wgsl: String,
    /// Names of the file's own `const`s, which may be rewritten when the module is made.
    pub consts: Vec<String>,
}

impl Linked {
    /// The kernel's name in the table.
    pub fn name(&self) -> String {
        FEATURES.iter().zip(self.on).filter(|(_, on)| *on).fold(self.file.clone(), |name, (f, _)| format!("{name}+{f}"))
    }
}

/// Links `file` with every combination of those features that make a difference to its text.
pub fn variants(root: &Path, file: &str) -> Result<Vec<Linked>, String> {
    let path = root.join(file).with_extension("wesl");
    let source = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    check_limits(&path, &source)?;
    let base = link(root, file, Set::default())?;
    let mut differs = Set::default();
    for (i, differs) in differs.iter_mut().enumerate() {
        *differs = link(root, file, std::array::from_fn(|j| i == j))?.wgsl != base.wgsl;
    }
    (0..1 << FEATURES.len())
        .map(|set| std::array::from_fn(|i| set >> i & 1 == 1))
        .filter(|on: &Set| on.iter().zip(differs).all(|(&on, differs)| differs || !on))
        // Packed is for what stands beside single precision.
        .filter(|[f16, packed, ..]| !(*f16 && *packed))
        .map(|on| link(root, file, on))
        .collect()
}

fn link(root: &Path, file: &str, on: Set) -> Result<Linked, String> {
    let module = ModulePath::new(PathOrigin::Absolute, file.split('/').map(String::from).collect());
    let mut compiler = Wesl::new(root).set_custom_resolver(FileResolver::new(root));
    compiler.set_custom_mangler(EscapeMangler);
    compiler.set_options(CompileOptions::default());
    let features = FEATURES.iter().zip(on).map(|(&name, on)| (name, on));
    let set: Vec<&str> = features.clone().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    compiler.set_features(features);
    let fail = |e: &dyn std::fmt::Display| format!("error: shaders/{file}.wesl [{}]\n{e}", set.join(", "));
    let linked = compiler.compile(&module).map_err(|e| fail(&e))?;
    let own = FileResolver::new(root).resolve_module(&module).map_err(|e| fail(&e))?;
    let consts = (own.global_declarations.iter())
        .filter_map(|d| match &**d {
            GlobalDeclaration::Declaration(d) if d.kind == DeclarationKind::Const => Some(d.ident.name().to_string()),
            _ => None,
        })
        .collect();
    let [f16, _, subgroups, _] = on;
    Ok(Linked { file: file.into(), f16, subgroups, on, wgsl: linked.to_string(), consts })
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
