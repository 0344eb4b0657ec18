//! What of an opened model stays on a GPU, in which precision, and that it is the same model there.

use super::*;
use attention_lab::lab::experiment::Precision;
use safetensors::tensor::{Dtype, TensorView};

/// So large that a device is worth its while.
const D: usize = 384;
const WORDS: usize = 4096;
const PLACES: usize = 160;
const LAYERS: usize = 2;
const N: usize = 128;
const TEXT: &str = "The gardener's daughter reads while the roses grow, and every morning her brother brings the key. ";

/// A GPT-2 with random weights; `spike` stands once in the first matrix of the feed-forward.
fn files_of(dtype: Dtype, spike: f32) -> Vec<Source> {
    let small = bytes("gpt2", "model.safetensors");
    let small = SafeTensors::deserialize(&small).unwrap();
    let mut state = 20_261u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut data = vec![];
    let mut tensors: Vec<_> = small.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    for (name, tensor) in tensors {
        let shape: Vec<usize> = match name {
            _ if name.contains("wte") => vec![WORDS, D],
            _ if name.contains("wpe") => vec![PLACES, D],
            _ => tensor.shape().iter().map(|size| size / 16 * D).collect(),
        };
        let is_gain = name.contains("ln_") && name.ends_with("weight");
        let mut numbers: Vec<f32> =
            (0..shape.iter().product()).map(|_| 0.06 * next() + f32::from(u8::from(is_gain))).collect();
        if name.ends_with("h.0.mlp.c_fc.weight") && spike > 0.0 {
            numbers[7] = spike;
        }
        let bytes: Vec<u8> = match dtype {
            Dtype::F16 => numbers.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        data.push((name.to_owned(), shape, bytes));
    }
    let views = data.iter().map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    let weights = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    let config = String::from_utf8(bytes("gpt2", "config.json")).unwrap();
    let config = [("n_embd\": 16", D), ("n_head\": 2", 6), ("n_positions\": 48", PLACES), ("vocab_size\": 300", WORDS)]
        .into_iter()
        .fold(config, |text, (old, new)| {
            assert!(text.contains(old));
            let key = old.split(':').next().unwrap();
            text.replace(old, &format!("{key}: {new}"))
        });
    let mut files = with("gpt2", "model.safetensors", Some(&weights));
    files.retain(|file| file.name() != "config.json");
    files.push(Source::of("config.json", config.as_bytes()));
    files
}

/// The loss on a text, and what is said to stay on the device.
fn shown(lab: &mut Lab, precision: Precision, text: &str) -> (f64, Option<u64>) {
    let e = Experiment { precision, layer: LAYERS - 1, ..experiment(&text.repeat(12), N) };
    let events = lab.explore(&e);
    assert_eq!(subject(&events).why, None);
    let [loss, _] = numbers(&events, 0).swapped.expect("it is judged").text.expect("there is a text");
    (loss, told(&events))
}

fn told(events: &[Event]) -> Option<u64> {
    let bytes = |event: &Event| match event {
        Event::Resident { bytes } => Some(*bytes),
        _ => None,
    };
    events.iter().filter_map(bytes).next_back()
}

/// Of layers and the table of words; what is between them runs on the CPU.
fn bytes_of(each: usize) -> u64 {
    ((LAYERS * 12 * D * D + WORDS * D) * each + LAYERS * 13 * D * 4) as u64
}

fn opened(backend: Backend, files: Vec<Source>) -> Lab {
    let mut lab = Lab::new(backend);
    let (model, refused) = lab.open(files);
    assert!(model.is_some(), "{refused:?}");
    lab
}

#[test]
fn a_gpu_keeps_the_weights_in_half_precision() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let (want, none) = shown(&mut opened(Backend::Cpu, files_of(Dtype::F32, 0.0)), Precision::Half, TEXT);
    assert_eq!(none, None, "the interpreter has the file's numbers");
    assert!(want.is_finite() && want > 1.0, "{want}");

    let mut lab = opened(Backend::Gpu, files_of(Dtype::F32, 0.0));
    let (half, told_half) = shown(&mut lab, Precision::Half, TEXT);
    assert_eq!(told_half, Some(bytes_of(2)));
    assert!((half - want).abs() < 2e-3 && half != want, "{half} for {want}");
    let (other, again) = shown(&mut lab, Precision::Half, "It's 366 days, naïve brother! ");
    assert!(again.is_none() && other != half, "another text brings no weight again");
    assert_eq!(shown(&mut lab, Precision::Half, TEXT).0, half);

    let (single, told_single) = shown(&mut lab, Precision::Single, TEXT);
    assert_eq!(told_single, Some(bytes_of(4)));
    assert!((single - want).abs() < 1e-5, "{single} for {want}");

    lab.send(Command::LoseDevice);
    assert_eq!(shown(&mut lab, Precision::Half, TEXT).0, half, "a new device is given them again");
    let drawn = Experiment { weights: WeightsFrom::Drawn, ..Experiment::default() };
    assert_eq!(told(&lab.explore(&drawn)), Some(0), "what is not shown holds no memory");
}

#[test]
fn halves_of_a_file_are_on_a_gpu_as_they_are() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let (want, _) = shown(&mut opened(Backend::Cpu, files_of(Dtype::F16, 0.0)), Precision::Half, TEXT);
    let (got, bytes) = shown(&mut opened(Backend::Gpu, files_of(Dtype::F16, 0.0)), Precision::Half, TEXT);
    assert!((got - want).abs() < 1e-5, "{got} for {want}");
    assert_eq!(bytes, Some(bytes_of(2)));
}

#[test]
fn what_half_precision_does_not_hold_stays_single() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let (want, _) = shown(&mut opened(Backend::Cpu, files_of(Dtype::F32, 70_000.0)), Precision::Half, TEXT);
    let (got, bytes) = shown(&mut opened(Backend::Gpu, files_of(Dtype::F32, 70_000.0)), Precision::Half, TEXT);
    assert!((got - want).abs() < 5e-3 * want, "{got} for {want}");
    assert_eq!(bytes, Some(bytes_of(2) + (4 * D * D * 2) as u64));
}

#[test]
fn without_room_weights_are_brought_part_by_part() {
    if !backends().contains(&Backend::Gpu) {
        return;
    }
    let (want, _) = shown(&mut opened(Backend::Gpu, files_of(Dtype::F32, 0.0)), Precision::Half, TEXT);
    for room in [0, bytes_of(2) / 3] {
        let mut lab = opened(Backend::Gpu, files_of(Dtype::F32, 0.0));
        lab.engine.set_room(room);
        let (got, bytes) = shown(&mut lab, Precision::Half, TEXT);
        assert_eq!(got, want);
        assert!(bytes.is_none_or(|bytes| bytes == 0), "{bytes:?} with room for {room}");
    }
}
