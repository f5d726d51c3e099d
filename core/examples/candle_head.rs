//! A head and a loss written with candle-nn, on top of an encoder that learns with them.
//!
//! ```text
//! cargo run --release -p seedling-core --example candle_head [cpu|cuda|metal]
//! ```
//!
//! The encoder is a [`candle_nn::Module`]; its forward is one operation of candle's graph, on Seedling's own
//! kernels. candle's optimizer follows the head's gradients, Seedling's the encoder's. Where the head's tensors
//! lie is the caller's choice: candle has to be built for CUDA or Metal to have them there.

use candle_core::{Device, Error, Module, Result, Tensor};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear};
use seedling_core::backbones::Arch;
use seedling_core::candle::EncoderModule;
use seedling_core::data::demo::Demo;
use seedling_core::data::resize::evaluation_view;
use seedling_core::data::{Normalize, PhotoSource};
use seedling_core::encoder::{Architecture, Encoder, Mode};
use seedling_core::init::initialize;
use seedling_core::nn::workspace::Workspace;
use seedling_core::optim::{Sgd, SgdConfig, WeightDecay};

const SIDE: usize = 64;
const CLASSES: usize = 8;

fn main() -> Result<()> {
    let device = match std::env::args().nth(1).as_deref() {
        None | Some("cpu") => Device::Cpu,
        Some("cuda") => Device::new_cuda(0)?,
        Some("metal") => Device::new_metal(0)?,
        Some(other) => candle_core::bail!("{other}: expected cpu, cuda or metal"),
    };
    for (step, loss) in train(&device, 10)?.iter().enumerate() {
        println!("step {:2}  loss {loss:.3}", step + 1);
    }
    Ok(())
}

/// Trains encoder and head for so many steps to tell the classes of rendered photos apart. Returns the losses.
pub fn train(device: &Device, steps: usize) -> Result<Vec<f32>> {
    let (images, labels) = photos(device)?;

    let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, None);
    let mut encoder = Encoder::new(architecture, true, 0, &Workspace::default()).map_err(wrap)?;
    initialize(&mut encoder.params, 0).map_err(wrap)?;
    let features = encoder.feature_dim();
    let mut sgd = Sgd::new(&encoder.params, SGD).map_err(wrap)?;
    let encoder = EncoderModule::new(encoder, Mode::train(0.1));

    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, candle_core::DType::F32, device);
    let head: Linear = linear(features, CLASSES, builder)?;
    let rate = ParamsAdamW {
        lr: 1e-2,
        ..ParamsAdamW::default()
    };
    let mut adamw = AdamW::new(variables.all_vars(), rate)?;

    let mut losses = Vec::new();
    for _ in 0..steps {
        encoder.encoder().params.zero_grads().map_err(wrap)?;
        let logits = head.forward(&encoder.forward(&images)?)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
        // Runs the encoder's backward, too, and the head follows its gradient.
        adamw.backward_step(&loss)?;
        sgd.step(&mut encoder.encoder().params, 0.02)
            .map_err(wrap)?;
        losses.push(loss.to_scalar::<f32>()?);
    }
    Ok(losses)
}

const SGD: SgdConfig = SgdConfig {
    momentum: 0.9,
    decay: WeightDecay {
        weight_decay: 1e-4,
        norm_and_bias: true,
        train_from: 0,
    },
    l2_sp: 0.0,
};

/// Four rendered photos of each class, (n, 3, SIDE, SIDE), and their classes.
fn photos(device: &Device) -> Result<(Tensor, Tensor)> {
    let photos = Demo::new(4, 0).map_err(wrap)?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..photos.len() {
        let photo = photos.load(index).map_err(wrap)?;
        let normalize = Normalize::default();
        let start = pixels.len();
        pixels.resize(start + SIDE * SIDE * 3, 0.0);
        evaluation_view(&photo, SIDE, &normalize, &mut pixels[start..]);
        labels.push(photos.label(index).unwrap_or(0) as u32);
    }
    let images = Tensor::from_vec(pixels, (photos.len(), SIDE, SIDE, 3), device)?;
    Ok((images.permute((0, 3, 1, 2))?, Tensor::new(labels, device)?))
}

fn wrap(error: seedling_core::Error) -> Error {
    Error::wrap(error)
}
