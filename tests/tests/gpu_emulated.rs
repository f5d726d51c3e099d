//! What only CUDA has (bf16, tensor cores) against the CPU, where there is no such GPU: its kernels run in
//! the emulator.

use cubecl::ir::FloatKind;
use cubecl::prelude::Runtime;
use seedling_core::nn::backend::DeviceOps;
use seedling_core::nn::cpu::Cpu;
use seedling_core::nn::gpu::Gpu;
use seedling_tests::emulator::{self, Emulated};
use seedling_tests::recorder::{Cuda, Recorder, Source, written};
use seedling_tests::require::skipped;
use seedling_tests::runtime::Nowhere;

use crate::languages::Write;
use crate::ops::{self, CompareOn};
use crate::runs;

/// Kernels that `write` asks for are compiled, on all cores; `None` where there is no compiler.
fn emulated(write: impl Fn(&Gpu<Recorder<Cuda>>)) -> Option<Gpu<Emulated>> {
    if let Err(why) = emulator::compiler() {
        skipped("c++", why);
        return None;
    }
    let kernels = written::<Cuda>(|client| write(&Gpu::new(client)));
    let kernels: Result<Vec<&Source>, &String> = kernels.values().map(Result::as_ref).collect();
    emulator::prepare(&kernels.unwrap()).unwrap();
    Some(Gpu::new(Emulated::client(&Nowhere)))
}

#[test]
fn in_bf16() {
    let write = |gpu: &Gpu<_>| ops::on_maps(&mut Write(gpu.halved().unwrap()));
    if let Some(gpu) = emulated(write) {
        ops::on_maps(&mut CompareOn(gpu.halved().unwrap()));
    }
}

/// Whatever is not a product reads and stores f16 as it does bf16; that it does so in f16 is seen on Vulkan, too.
#[test]
fn products_in_f16() {
    fn in_f16<R: Runtime>(gpu: &Gpu<R>) -> Gpu<R> {
        let halved = gpu.storing(FloatKind::F16).unwrap();
        halved.with_loss_scale(1.0)
    }
    if let Some(gpu) = emulated(|gpu| ops::of_products(&mut Write(in_f16(gpu)))) {
        ops::of_products(&mut CompareOn(in_f16(&gpu)));
    }
}

#[test]
fn in_tf32() {
    let write = |gpu: &Gpu<_>| ops::of_products(&mut Write(gpu.with_tf32().unwrap()));
    if let Some(gpu) = emulated(write) {
        ops::of_products(&mut CompareOn(gpu.with_tf32().unwrap()));
    }
}

/// Steps on tensor cores, beside the CPU's in f32. Twenty take minutes here: gpu_runs.rs takes them on a GPU.
#[test]
fn runs_in_bf16_and_tf32() {
    const STEPS: usize = 2;
    let Some(gpu) = emulated(|gpu| {
        runs::losses(&gpu.halved().unwrap(), 1);
        runs::losses(&gpu.with_tf32().unwrap(), 1);
    }) else {
        return;
    };
    let expected = runs::losses(&Cpu::default(), STEPS);
    for gpu in [gpu.halved().unwrap(), gpu.with_tf32().unwrap()] {
        runs::stays_near(&runs::losses(&gpu, STEPS), &expected);
    }
}
