//! What the adapter is and can do, as plain data.

/// Adapter facts and limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caps {
    /// As the driver or browser names it.
    pub name: String,
    pub driver: String,
    /// `webgpu`, `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// The adapter computes on the CPU (lavapipe, SwiftShader, WARP): many times slower than the CPU interpreter.
    pub software: bool,
    /// A card with memory of its own, where the driver says so; browsers do not.
    pub discrete: bool,
    pub f16: bool,
    /// Smallest and largest subgroup, where kernels may use subgroup operations.
    pub subgroups: Option<(u32, u32)>,
    pub timestamps: bool,
    pub max_buffer_bytes: u64,
    pub max_binding_bytes: u64,
    pub max_storage_buffers: u32,
    pub max_workgroup_storage: u32,
    pub max_invocations: u32,
    pub max_groups_per_axis: u32,
    pub max_texture_size: u32,
    pub uniform_align: u32,
}

impl Caps {
    pub(super) fn new(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Self {
        let backend = match info.backend {
            wgpu::Backend::BrowserWebGpu => "webgpu".to_string(),
            other => other.to_str().to_string(),
        };
        Self {
            name: info.name.clone(),
            driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string(),
            backend,
            software: info.device_type == wgpu::DeviceType::Cpu || is_software(&info.name),
            discrete: info.device_type == wgpu::DeviceType::DiscreteGpu,
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: (features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size > 0)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_buffer_bytes: limits.max_buffer_size,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_workgroup_storage: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_groups_per_axis: limits.max_compute_workgroups_per_dimension,
            max_texture_size: limits.max_texture_dimension_2d,
            uniform_align: limits.min_uniform_buffer_offset_alignment,
        }
    }

    /// The optional features it has, in words.
    pub fn features(&self) -> Vec<String> {
        [(self.timestamps, "timestamp-query"), (self.f16, "shader-f16"), (self.subgroups.is_some(), "subgroups")]
            .into_iter()
            .filter(|&(has, _)| has)
            .map(|(_, name)| name.to_string())
            .collect()
    }

    /// Floating-point operations a second that slow kernels reach at least; long dispatches are cut by it until something
    /// has been measured.
    pub fn assumed_rate(&self) -> f64 {
        match (self.software, self.discrete) {
            (true, _) => 1e9,
            (false, false) => 1e11,
            (false, true) => 1e12,
        }
    }
}

/// Whether a name or description is that of an adapter that computes on the CPU.
pub(super) fn is_software(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["llvmpipe", "lavapipe", "swiftshader", "microsoft basic render", "softpipe"].iter().any(|s| name.contains(s))
}

#[cfg(test)]
mod tests {
    use super::is_software;

    #[test]
    fn software_adapters_are_recognised_by_name() {
        for name in
            ["llvmpipe (LLVM 15.0.6, 256 bits)", "SwiftShader Device (LLVM 10.0.0)", "Microsoft Basic Render Driver"]
        {
            assert!(is_software(name), "{name}");
        }
        for name in ["NVIDIA H100", "Apple M2", "AMD Radeon RX 7900", "Intel(R) Iris(R) Xe Graphics"] {
            assert!(!is_software(name), "{name}");
        }
    }
}
