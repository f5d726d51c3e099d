//! The optimizer and the schedules against torch.optim (tests/golden/optim.py).

use seedling_core::layout::{Layout, Role};
use seedling_core::nn::cpu::Cpu;
use seedling_core::optim::{AdamW, AdamWConfig, Optimizer, Sgd, SgdConfig, WeightDecay};
use seedling_core::params::Params;
use seedling_core::schedule::{Decay, Schedule};
use seedling_core::tensor_file::TensorFile;

fn golden() -> TensorFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/optim.safetensors");
    TensorFile::read(path.as_ref()).expect("golden file")
}

fn decay(weight_decay: f32, norm_and_bias: bool) -> WeightDecay {
    WeightDecay {
        weight_decay,
        norm_and_bias,
        train_from: 0,
    }
}

fn check_trajectory(name: &str, make: impl FnOnce(&Params) -> Optimizer) {
    let golden = golden();
    let read = |name| golden.f32(name).expect(name);
    let mut layout = Layout::default();
    layout.add("conv", &[40], Role::ConvWeight);
    layout.add("norm", &[6], Role::NormWeight);
    layout.add("linear", &[21], Role::LinearWeight);
    let mut params = Params::zeros(layout, true, Cpu::default()).unwrap();
    let start = read("start");
    params
        .edit(|values, _| values.copy_from_slice(&start))
        .unwrap();
    let mut optimizer = make(&params);
    let (gradients, rates, expected) = (read("gradients"), read("rates"), read(name));
    let width = start.len();
    for (step, lr) in rates.iter().enumerate() {
        let row = step * width..(step + 1) * width;
        let grads = &gradients[row.clone()];
        params.grads.copy_from_slice(grads);
        optimizer.step(&mut params, *lr).unwrap();
        let values = &params.values;
        for (value, expected) in values.iter().zip(&expected[row]) {
            assert!((value - expected).abs() < 1e-6, "{name}, step {step}");
        }
    }
}

#[test]
fn sgd_follows_pytorch() {
    let sgd = |momentum, weight_decay, norm_and_bias| {
        let config = SgdConfig {
            momentum,
            decay: decay(weight_decay, norm_and_bias),
            l2_sp: 0.0,
        };
        |params: &Params| Optimizer::Sgd(Sgd::new(params, config).unwrap())
    };
    check_trajectory("plain", sgd(0.0, 0.0, true));
    check_trajectory("momentum", sgd(0.9, 1e-2, true));
    check_trajectory("exempt", sgd(0.9, 1e-2, false));
}

#[test]
fn adamw_follows_pytorch() {
    let adamw = |norm_and_bias| {
        let config = AdamWConfig::new(decay(0.1, norm_and_bias));
        |params: &Params| Optimizer::AdamW(AdamW::new(params, config).unwrap())
    };
    check_trajectory("adamw", adamw(true));
    check_trajectory("adamw_exempt", adamw(false));
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
