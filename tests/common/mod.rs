//! What the integration tests share.

use attention_lab::gpu::{Error, Gpu, Options};

/// The device that tests run on: the adapter that `LAB_ADAPTER` names, or the best there is.
///
/// None where `LAB_NO_GPU=1` says that there is none on purpose; otherwise a missing adapter fails the test.
pub fn gpu() -> Option<Gpu> {
    if std::env::var("LAB_NO_GPU").is_ok_and(|v| v == "1") {
        eprintln!("LAB_NO_GPU=1: skipped");
        return None;
    }
    match pollster::block_on(Gpu::new(&options())) {
        Ok(gpu) => Some(gpu),
        Err(error @ Error::NoAdapter { .. }) => panic!("{error}; set LAB_NO_GPU=1 to skip the tests that need one"),
        Err(error) => panic!("{error}"),
    }
}

/// `LAB_RATE` is the rate, in FLOP/s, that dispatches are cut by: with a low one every kernel is run in pieces, which finds
/// those that forget to add `origin`.
fn options() -> Options {
    let rate = std::env::var("LAB_RATE").ok().map(|text| text.parse().expect("LAB_RATE is a number"));
    Options { rate, ..Options::default() }
}
