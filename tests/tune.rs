//! The engine measures kernels when it has nothing else to do, and does not measure again what it is told.

mod common;

use attention_lab::gpu::{Gpu, Options};
use attention_lab::lab::protocol::{Backend, Command, Event};
use attention_lab::lab::{Engine, Experiment};
use attention_lab::measure::tune::Tuned;
use std::cell::RefCell;
use std::rc::Rc;

/// Serves these commands on the GPU; what the engine told of its kernels.
fn serve(commands: Vec<Command>) -> Vec<Tuned> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let hears = told.clone();
    let (handle, mut engine) = Engine::new(Options::default(), move |event| {
        if let Event::Tuned { tuned } = event {
            hears.borrow_mut().push(*tuned);
        }
    });
    handle.send(Command::Start { backend: Backend::Gpu });
    for command in commands {
        handle.send(command);
    }
    handle.close();
    pollster::block_on(engine.serve());
    told.take()
}

#[test]
fn kernels_on_the_plates_are_measured_once() {
    let Some(gpu): Option<Gpu> = common::gpu() else { return };
    let experiment =
        Experiment { variants: vec!["full_naive".into()], n: 16, heads: 1, dim: 8, ..Experiment::default() };
    let explore = || Command::Explore { experiment: Box::new(experiment.clone()) };
    let told = serve(vec![explore()]);
    let last = told.last().expect("scores and mix are products");
    assert!(last.classes.keys().any(|c| c.starts_with("matmul/nt/")), "{:?}", last.classes.keys());
    assert!(last.classes.keys().any(|c| c.starts_with("matmul/nn/")), "{:?}", last.classes.keys());
    assert_eq!(last, &Tuned::restore(Some(last.clone()), gpu.caps()), "it is this adapter's");
    let again = serve(vec![Command::Remember { tuned: Box::new(last.clone()) }, explore()]);
    assert_eq!(again, [], "nothing is left to measure");
}
