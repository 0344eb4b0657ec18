//! The kernels that `shaders/build.rs` linked, validated and reflected.

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
    Uniform,
}

/// One resource of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: &'static str,
    pub group: u32,
    pub binding: u32,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Compute,
    Vertex,
    Fragment,
}

/// One entry point of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub stage: Stage,
    /// Invocations per workgroup; 1 where an override sets it.
    pub workgroup: [u32; 3],
    /// Indices into [`Kernel::bindings`] of what it really uses.
    pub uses: &'static [usize],
}

/// One linked shader file, with one set of features.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Path under `shaders/` without the suffix, then `+f16`, `+subgroups`, `+scalar` where the file was linked with them.
    pub name: &'static str,
    pub f16: bool,
    pub subgroups: bool,
    /// Plain WGSL.
    pub wgsl: &'static str,
    /// The file's own `const`s, which [`specialise`] can rewrite.
    pub consts: &'static [&'static str],
    pub overrides: &'static [&'static str],
    pub bindings: &'static [Binding],
    /// Size of the uniform struct, `origin` included; 0 where there is none.
    pub uniform_bytes: u32,
    pub entries: &'static [Entry],
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The kernel of that name.
pub fn kernel(name: &str) -> Option<&'static Kernel> {
    KERNELS.binary_search_by(|k| k.name.cmp(name)).ok().map(|i| &KERNELS[i])
}

/// Size in bytes of the uniform struct of a kernel behind its `origin`, for a `const` assertion next to the Rust struct:
/// `const _: () = assert!(size_of::<Dims>() as u32 == uniform_bytes("ops/matmul"));`
///
/// # Panics
/// When there is no such kernel; in a `const` that is a build error.
pub const fn uniform_bytes(name: &str) -> u32 {
    let mut i = 0;
    while i < KERNELS.len() {
        if same(KERNELS[i].name, name) {
            return KERNELS[i].uniform_bytes - 16;
        }
        i += 1;
    }
    panic!("no such kernel")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Workgroups of a one-dimensional dispatch of `groups` workgroups, folded to two axes so that none exceeds 65,535.
/// `linear_group` in `shaders/lib/layout.wesl` is the other half; the last row may run past `groups`, the kernel guards it.
pub const fn fold_1d(groups: u32) -> [u32; 3] {
    const FOLD: u32 = 65_535;
    if groups <= FOLD { [groups, 1, 1] } else { [FOLD, groups.div_ceil(FOLD), 1] }
}

/// Rewrites `const NAME: type = value;` lines of `wgsl` by name. A const that the linker left out because nothing uses it
/// is passed over.
pub fn specialise(wgsl: &str, consts: &[(&str, f64)]) -> String {
    let mut out = String::with_capacity(wgsl.len() + 64);
    for line in wgsl.lines() {
        let rewritten = consts.iter().find_map(|&(name, value)| rewrite(line, name, value));
        out.push_str(rewritten.as_deref().unwrap_or(line));
        out.push('\n');
    }
    out
}

fn rewrite(line: &str, name: &str, value: f64) -> Option<String> {
    let rest = line.strip_prefix("const ")?.strip_prefix(name)?;
    let (ty, _) = rest.split_once('=')?;
    let ty = ty.trim();
    let literal = match ty.strip_prefix(':').map(str::trim) {
        Some("u32") => format!("{}u", value as u32),
        Some("i32") => format!("i32({})", value as i32),
        Some("f32") => format!("f32({value:?})"),
        Some("bool") => format!("{}", value != 0.0),
        Some(_) => format!("{value}"),
        None if ty.is_empty() => format!("{value}"),
        // Another const whose name merely begins like this one.
        None => return None,
    };
    Some(format!("const {name}{ty} = {literal};"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found_by_name() {
        assert!(KERNELS.windows(2).all(|w| w[0].name < w[1].name), "the table is sorted, no name twice");
        for k in KERNELS {
            assert!(kernel(k.name).is_some_and(|found| std::ptr::eq(found, k)), "{}", k.name);
            assert!(!k.entries.is_empty(), "{} has no entry point", k.name);
        }
        assert!(kernel("ops/no_such").is_none());
        const { assert!(uniform_bytes("ops/fill") == 16) };
    }

    #[test]
    fn folding_covers_every_group() {
        assert_eq!(fold_1d(1), [1, 1, 1]);
        assert_eq!(fold_1d(65_535), [65_535, 1, 1]);
        assert_eq!(fold_1d(65_536), [65_535, 2, 1]);
        let [x, y, _] = fold_1d(u32::MAX);
        assert!(u64::from(x) * u64::from(y) >= u64::from(u32::MAX));
    }

    #[test]
    fn consts_are_rewritten_by_whole_name_and_type() {
        let source = "const TILE: u32 = 4u;\nconst TILE_K: u32 = 8u;\nconst EPS: f32 = 1e-5;\nconst ON = 1;\n";
        let made = specialise(source, &[("TILE", 16.0), ("EPS", 2.5e-7), ("ON", 3.0), ("GONE", 1.0)]);
        assert_eq!(
            made,
            "const TILE: u32 = 16u;\nconst TILE_K: u32 = 8u;\nconst EPS: f32 = f32(2.5e-7);\nconst ON = 3;\n"
        );
    }
}
