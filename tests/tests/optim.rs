//! The optimizer and the schedules against torch.optim (tests/golden/optim.py).

use seedling_core::layout::{Layout, Role};
use seedling_core::nn::cpu::Cpu;
use seedling_core::optim::{Sgd, SgdConfig};
use seedling_core::params::Params;
use seedling_core::schedule::{Decay, Schedule};
use seedling_core::tensor_file::TensorFile;
use std::sync::Arc;

fn golden() -> TensorFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/optim.safetensors");
    TensorFile::read(path.as_ref()).expect("golden file")
}

fn follow(name: &str, momentum: f32, weight_decay: f32, decay_norm_and_bias: bool) {
    let golden = golden();
    let read = |name| golden.f32(name).expect(name);
    let mut layout = Layout::default();
    layout.add("conv", &[40], Role::ConvWeight);
    layout.add("norm", &[6], Role::NormWeight);
    layout.add("linear", &[21], Role::LinearWeight);
    let config = SgdConfig {
        momentum,
        weight_decay,
        decay_norm_and_bias,
        anchor: 0.0,
        train_from: 0,
    };
    let params = Params::zeros(Arc::new(layout), true, Cpu::default()).unwrap();
    let start = read("start");
    params
        .edit(|values, _| values.copy_from_slice(&start))
        .unwrap();
    let mut sgd = Sgd::new(&params, config).unwrap();
    let (gradients, rates, expected) = (read("gradients"), read("rates"), read(name));
    let width = start.len();
    for (step, lr) in rates.iter().enumerate() {
        let row = step * width..(step + 1) * width;
        let grads = &gradients[row.clone()];
        params.grads.lock().unwrap().copy_from_slice(grads);
        sgd.step(&params, *lr).unwrap();
        let values = params.values.read().unwrap();
        for (value, expected) in values.iter().zip(&expected[row]) {
            assert!((value - expected).abs() < 1e-6, "{name}, step {step}");
        }
    }
}

#[test]
fn sgd_follows_pytorch() {
    follow("plain", 0.0, 0.0, true);
    follow("momentum", 0.9, 1e-2, true);
    follow("exempt", 0.9, 1e-2, false);
}

#[test]
fn schedules_follow_pytorch() {
    let golden = golden();
    for (name, decay, warmup_steps) in [
        ("cosine", Decay::CosineByStep, 0),
        ("warm_cosine", Decay::CosineByStep, 5),
        ("epoch_cosine", Decay::CosineByEpoch, 0),
    ] {
        let schedule = Schedule {
            peak: 0.06,
            decay,
            warmup_steps,
            steps: 20,
            steps_per_epoch: 5,
        };
        for (step, expected) in golden.f32(name).expect(name).into_iter().enumerate() {
            let lr = schedule.lr(step) as f32;
            assert!(
                (lr - expected).abs() < 1e-7,
                "{name}, step {step}: {lr} {expected}"
            );
        }
    }
}
