//! What only CUDA has (bf16, tensor cores) against the CPU, where there is no such GPU: its kernels run in
//! the emulator.

use cubecl::prelude::Runtime;
use seedling_core::nn::backend::DeviceOps;
use seedling_core::nn::gpu::Gpu;
use seedling_tests::emulator::{self, Emulated};
use seedling_tests::recorder::{Cuda, Recorder, Source, written};
use seedling_tests::require::skipped;
use seedling_tests::runtime::Nowhere;

use crate::languages::Write;
use crate::ops::{self, CompareOn};

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

#[test]
fn in_tf32() {
    let write = |gpu: &Gpu<_>| ops::of_products(&mut Write(gpu.with_tf32().unwrap()));
    if let Some(gpu) = emulated(write) {
        ops::of_products(&mut CompareOn(gpu.with_tf32().unwrap()));
    }
}
