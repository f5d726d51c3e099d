//! What each command starts from.

use super::{ActivationDtype, Config, Device, DistillMethod, Keep, OptimizerKind, TeacherHead};
use crate::schedule::Decay;
use seedling_data::{DecodeBudget, Recipe};
use seedling_nn::backbones::Arch;
use seedling_nn::encoder::Head;

impl Config {
    /// Defaults of `adapt`: few photos, shipped weights, a CPU.
    pub fn adapt() -> Config {
        Config {
            arch: Arch::MOBILENET_V3_SMALL,
            init: "shipped".into(),
            image_size: 128,
            measure_size: 0,
            views: Recipe::STANDARD,
            batch_size: 64,
            bn_group: 32,
            queue_size: 512,
            mask_own_photo: true,
            neighbor_weight: 0.9,
            neighbor_temperature: 0.05,
            label_smoothing: 0.0,
            label_smoothing_keys: 10,
            temperature: 0.1,
            key_momentum: 0.99,
            head: Head::Wide,
            dropout: false,
            symmetric: false,
            lr: 0.03,
            optimizer: OptimizerKind::Sgd,
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            weight_decay_norm: true,
            l2_sp: 0.0,
            freeze: 0,
            schedule: Decay::CosineByStep,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            train_from: 1500,
            epochs: 12,
            steps: 0,
            interpolation: 0.5,
            keep: Keep::Better,
            holdout: 0.2,
            whitening: true,
            reestimate_bn: true,
            half_weights: false,
            method: DistillMethod::Seed,
            regression_weight: 1.0,
            bag_size: 5,
            teacher: String::new(),
            teacher_head: TeacherHead::Auto,
            teacher_size: 0,
            teacher_mean: String::new(),
            teacher_std: String::new(),
            teacher_output: String::new(),
            teacher_arch: Arch::MOBILENET_V2,
            teacher_temperature: 0.01,
            student_temperature: 0.2,
            teacher_center: true,
            checkpoint_every: 50,
            measure_every: 0,
            measure_photos: 2000,
            prefetch: 2,
            cache_mb: 256,
            decode_mb: DecodeBudget::DEFAULT_MB,
            threads: 0,
            seed: 0,
            device: Device::Cpu,
            device_mb: 0,
            precision: ActivationDtype::F32,
        }
    }

    /// Defaults of `pretrain`: the official MoCo v2 recipe.
    pub fn pretrain() -> Config {
        Config {
            arch: Arch::MOBILENET_V3_LARGE,
            init: "random".into(),
            image_size: 224,
            batch_size: 256,
            queue_size: 65_536,
            temperature: 0.2,
            key_momentum: 0.999,
            head: Head::Simple,
            dropout: true,
            lr: 0.03,
            schedule: Decay::CosineByEpoch,
            epochs: 200,
            checkpoint_every: 500,
            neighbor_weight: 0.0,
            interpolation: 1.0,
            keep: Keep::Always,
            holdout: 0.0,
            train_from: 0,
            whitening: false,
            ..Config::adapt()
        }
    }

    /// Defaults of `distill`: SEED on a CPU, from a supervised teacher.
    pub fn distill() -> Config {
        Config {
            init: "random".into(),
            queue_size: 4096,
            mask_own_photo: false,
            lr: 0.1,
            warmup_steps: 50,
            epochs: 12,
            checkpoint_every: 200,
            neighbor_weight: 0.0,
            interpolation: 1.0,
            keep: Keep::Always,
            holdout: 0.0,
            train_from: 0,
            whitening: false,
            ..Config::adapt()
        }
    }
}
