//! Where a test runs.
#![allow(dead_code, reason = "each test uses what it needs")]

use attention_lab::lab::protocol::Backend;

/// Whether the tests run again on another adapter (`LAB_AGAIN=1`): what needs none has been tested by then, the CPU interpreter
/// among it, so that it may stand in for slower definitions.
pub fn again() -> bool {
    is_set("LAB_AGAIN")
}

/// The back ends that this machine can run and that were not tested yet: the GPU only where tests are to use one.
pub fn backends() -> Vec<Backend> {
    if is_set("LAB_NO_GPU") {
        vec![Backend::Cpu]
    } else if again() {
        vec![Backend::Gpu]
    } else {
        vec![Backend::Cpu, Backend::Gpu]
    }
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == "1")
}
