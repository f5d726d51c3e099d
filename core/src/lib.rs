//! Contrastive training of small vision models on the device that holds the photos.
//!
//! The way of the data, and the crates that it passes, each of which knows only those before it:
//!
//! 1. [`data`] finds photos, decodes them and makes two random views of each (`seedling-data`).
//! 2. [`nn`] and [`backbones`] turn views into features, channels last; [`params`] are a network's numbers,
//!    and [`encoder`] adds the projection head: a photo becomes a unit embedding (`seedling-nn`; on GPUs
//!    `seedling-gpu`).
//! 3. [`loss`] and [`queue`] compare embeddings; [`moco`] and [`seed`] are the two methods, [`step`] what
//!    goes into and comes out of either. [`eval`] extracts and measures features, [`whitening`] makes a
//!    linear layer of a dataset's, [`verdict`] says from them which weights to keep (`seedling-ssl`).
//! 4. [`config`] are the settings; [`optim`], [`schedule`], [`checkpoint`] and [`weights`] move and keep the
//!    parameters; [`memory`] plans what a run takes; [`session`] owns all of that, and [`training_run`] is a run
//!    from its first measurement to its last (`seedling-train`).
//!
//! This crate holds the parts together for those who use them; [`error`], [`rng`], [`cancel`], [`atomic`],
//! [`tensor_file`] and [`simd`] (`seedling-base`) stand below all.

pub use seedling_base::{Error, Result, atomic, cancel, error, rng, simd, tensor_file};
pub use seedling_data as data;
pub use seedling_nn::{backbones, encoder, init, layout, params};
pub use seedling_ssl::{
    eval, loss, microbatch, moco, ops, queue, seed, step, teacher, verdict, whitening,
};
pub use seedling_train::{
    bench, checkpoint, config, device, governor, index, memory, optim, records, schedule, session,
    slices, training_run, weights,
};

/// Operations and their kernels, for CPU and GPU.
pub mod nn {
    #[cfg(feature = "gpu")]
    pub use seedling_gpu as gpu;
    pub use seedling_nn::{
        activation, backend, block, cpu, gemm, layer, parallel, window, workspace,
    };
}

#[cfg(feature = "candle")]
pub mod candle;
