//! Kernels of elementwise ops, alone or in chains: the WGSL of one element is put together from the ops' own text.
//!
//! A [`Chain`] reads up to [`MAX_OPERANDS`] buffers, each of the output's shape or broadcast to it, and writes one. Values
//! between its ops stay in registers. Shapes and strides come in the uniform, so that a chain's text, and with it the
//! pipeline, is the same at every length.

use super::layout::{Walk, broadcast_strides};
use super::{Dispatch, Dtype, Lowered, Slot, TensorType};
use crate::gpu::Source;
use std::fmt::Write;

/// Operand buffers of one chain: with the output, the eight storage buffers that every adapter has.
pub const MAX_OPERANDS: usize = 7;

const OPERAND_NAMES: [&str; MAX_OPERANDS] = ["x0", "x1", "x2", "x3", "x4", "x5", "x6"];
const WORKGROUP: usize = 64;

/// Where a link takes a value from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// The chain's i-th operand.
    Operand(usize),
    /// The result of the i-th link, an earlier one.
    Link(usize),
}

/// One op of a chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// WGSL of one element, as in [`super::op::Elementwise`].
    pub wgsl: String,
    pub args: Vec<Arg>,
}

/// Elementwise ops in order; the last one is the result.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    /// For labels, e.g. `mul`.
    pub name: &'a str,
    pub links: Vec<Link>,
    /// Types of the operands, each of the output's shape or broadcast to it.
    pub operands: Vec<TensorType>,
    pub output: &'a TensorType,
    /// This operand lies in the output's buffer: it must have the output's type.
    pub in_place: Option<usize>,
}

/// How an operand is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// At the output's own index.
    Same,
    /// At strides over the output's coordinates.
    Strided { splat: bool },
    /// Always the first element.
    Scalar,
}

impl Chain<'_> {
    /// The chain of one op whose operands are its inputs.
    pub fn single<'a>(name: &'a str, wgsl: String, inputs: &[&TensorType], output: &'a TensorType) -> Chain<'a> {
        let args = (0..inputs.len()).map(Arg::Operand).collect();
        let operands = inputs.iter().map(|&t| t.clone()).collect();
        Chain { name, links: vec![Link { wgsl, args }], operands, output, in_place: None }
    }

    /// The dispatch; the i-th operand is bound to `slots[i]`, the result to `Slot::Out(0)`.
    ///
    /// # Panics
    /// With more than [`MAX_OPERANDS`] operands, or operands that do not broadcast to the output.
    pub fn lower(&self, slots: &[Slot]) -> Lowered {
        assert!(self.operands.len() <= MAX_OPERANDS && slots.len() == self.operands.len(), "operands of a chain");
        let own: Vec<Vec<usize>> =
            self.operands.iter().map(|t| broadcast_strides(&t.shape, &self.output.shape)).collect();
        let mut all = own;
        all.push(broadcast_strides(&self.output.shape, &self.output.shape));
        let walk = Walk::new(&self.output.shape, &all);

        let last = walk.dims.len() - 1;
        let vector = walk.inner().is_multiple_of(4)
            && (0..self.operands.len()).all(|k| {
                let strides = &walk.strides[k];
                strides[last] == 0 || (strides[last] == 1 && strides[..last].iter().all(|s| s.is_multiple_of(4)))
            });
        let reads: Vec<Read> = (0..self.operands.len())
            .map(|k| match &walk.strides[k] {
                s if s.iter().all(|&s| s == 0) => Read::Scalar,
                s if *s == walk.strides[self.operands.len()] => Read::Same,
                s => Read::Strided { splat: s[last] == 0 },
            })
            .collect();
        let lanes = if vector { 4 } else { 1 };
        let count = self.output.len() / lanes;

        let mut uniform = vec![count as u32, 0, 0, 0];
        if reads.iter().any(|r| matches!(r, Read::Strided { .. })) {
            for axis in 0..=last {
                let size = walk.dims[axis] / if axis == last { lanes } else { 1 };
                uniform.push(size as u32);
                for k in 0..MAX_OPERANDS {
                    uniform.push(match reads.get(k) {
                        Some(Read::Strided { splat: true }) => walk.strides[k][axis] as u32,
                        Some(Read::Strided { splat: false }) if axis == last => 1,
                        Some(Read::Strided { splat: false }) => (walk.strides[k][axis] / lanes) as u32,
                        _ => 0,
                    });
                }
            }
        }

        let mut bindings = Vec::new();
        for (k, &slot) in slots.iter().enumerate() {
            if self.in_place != Some(k) {
                bindings.push((OPERAND_NAMES[k], slot));
            }
        }
        bindings.push(("out", Slot::Out(0)));
        let wgsl = self.text(&reads, last + 1, vector);
        Lowered {
            dispatches: vec![Dispatch {
                source: Source::Generated { name: self.name.into(), wgsl: wgsl.into() },
                entry: "forward",
                consts: vec![],
                uniform: bytemuck::cast_slice(&uniform).to_vec(),
                bindings,
                groups: [count.div_ceil(WORKGROUP) as u32, 1, 1],
                flops: (self.output.len() * self.links.len()) as u64,
            }],
            scratch: vec![],
        }
    }

    fn text(&self, reads: &[Read], rank: usize, vector: bool) -> String {
        let mut w = String::new();
        let strided = reads.iter().any(|r| matches!(r, Read::Strided { .. }));
        if self.operands.iter().chain([self.output]).any(|t| t.dtype == Dtype::F16) {
            w += "enable f16;\n";
        }
        w += "struct Params {\n    origin: vec4<u32>,\n    count: vec4<u32>,\n";
        if strided {
            // For each axis its size and the strides of the seven operands.
            let _ = writeln!(w, "    axes: array<array<vec4<u32>, 2>, {rank}>,");
        }
        w += "}\n@group(1) @binding(0) var<uniform> p: Params;\n";
        let element = |t: &TensorType, vector: bool| {
            let scalar = scalar_type(t.dtype);
            if vector { format!("vec4<{scalar}>") } else { scalar.to_string() }
        };
        let mut binding = 0;
        for (k, t) in self.operands.iter().enumerate() {
            if self.in_place == Some(k) {
                continue;
            }
            let element = element(t, vector && !splats(reads[k]));
            let _ = writeln!(w, "@group(0) @binding({binding}) var<storage, read> x{k}: array<{element}>;");
            binding += 1;
        }
        let out = element(self.output, vector);
        let _ = writeln!(w, "@group(0) @binding({binding}) var<storage, read_write> out: array<{out}>;");

        w += "fn element(";
        for (k, t) in self.operands.iter().enumerate() {
            let _ = write!(w, "a{k}: {}, ", widened(t.dtype));
        }
        let _ = writeln!(w, ") -> {} {{", widened(self.output.dtype));
        for (i, link) in self.links.iter().enumerate() {
            let mut text = link.wgsl.clone();
            for (n, arg) in link.args.iter().enumerate() {
                let name = match arg {
                    Arg::Operand(k) => format!("a{k}"),
                    Arg::Link(l) => format!("t{l}"),
                };
                text = text.replace(&format!("{{{n}}}"), &name);
            }
            let _ = writeln!(w, "    let t{i} = {text};");
        }
        let _ = writeln!(w, "    return t{};\n}}", self.links.len() - 1);

        let _ = writeln!(w, "@compute @workgroup_size({WORKGROUP})");
        w += "fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {\n";
        let _ = writeln!(w, "    let i = (wg.x + p.origin.x) * {WORKGROUP}u + lane;");
        w += "    if (i >= p.count.x) { return; }\n";
        if strided {
            w += "    var rest = i;\n";
            for axis in (0..rank).rev() {
                if axis > 0 {
                    let _ = writeln!(w, "    let c{axis} = rest % p.axes[{axis}][0].x;");
                    let _ = writeln!(w, "    rest = rest / p.axes[{axis}][0].x;");
                } else {
                    w += "    let c0 = rest;\n";
                }
            }
        }
        for (k, t) in self.operands.iter().enumerate() {
            let index = match reads[k] {
                Read::Same => "i".to_string(),
                Read::Scalar => "0u".to_string(),
                Read::Strided { .. } => {
                    let (half, lane) = ((k + 1) / 4, ["x", "y", "z", "w"][(k + 1) % 4]);
                    let terms: Vec<_> = (0..rank).map(|a| format!("c{a} * p.axes[{a}][{half}].{lane}")).collect();
                    terms.join(" + ")
                }
            };
            let buffer = if self.in_place == Some(k) { "out".to_string() } else { format!("x{k}") };
            let target = match (vector, splats(reads[k])) {
                (true, false) => format!("vec4<{}>", widened(t.dtype)),
                _ => widened(t.dtype).to_string(),
            };
            let _ = writeln!(w, "    let v{k} = {target}({buffer}[{index}]);");
        }
        let call = |lane: &str| {
            let args: Vec<_> = (0..self.operands.len())
                .map(|k| if vector && !splats(reads[k]) { format!("v{k}.{lane}") } else { format!("v{k}") })
                .collect();
            format!("element({})", args.join(", "))
        };
        let wide = widened(self.output.dtype);
        let value = if vector {
            format!("vec4<{wide}>({}, {}, {}, {})", call("x"), call("y"), call("z"), call("w"))
        } else {
            call("x")
        };
        let _ = writeln!(w, "    out[i] = {out}({value});\n}}");
        w
    }
}

/// In vector kernels, operands that are one element for all four lanes.
fn splats(read: Read) -> bool {
    matches!(read, Read::Scalar | Read::Strided { splat: true })
}

fn scalar_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::U32 => "u32",
    }
}

/// The type that arithmetic is done in.
fn widened(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 | Dtype::F16 => "f32",
        Dtype::U32 => "u32",
    }
}

/// A number as a WGSL f32 literal.
///
/// # Panics
/// Where it is not finite in f32: WGSL has no literal for that.
pub fn literal(x: f64) -> String {
    let x = x as f32;
    assert!(x.is_finite(), "constants in kernels are finite");
    format!("({x:?}f)")
}
