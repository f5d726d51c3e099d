//! What only CUDA has (bf16, tensor cores) against the CPU, where there is no such GPU: its kernels run in
//! the emulator.

use cubecl::prelude::Runtime;
use seedling_core::nn::backend::DeviceOps;
use seedling_core::nn::gpu::Gpu;
use seedling_tests::emulator::{self, Emulated};
use seedling_tests::recorder::{Cuda, Recorder, Source, written};
use seedling_tests::require::skipped;
use seedling_tests::runtime::Nowhere;

use crate::ops::{self, Operation, See, compare, found};

/// Operations are done, and their kernels written down.
struct Write(Gpu<Recorder<Cuda>>);

impl See for Write {
    fn operation(&mut self, _: &str, operation: &impl Operation) {
        found(&self.0, operation, self.0.dtype());
    }
}

/// The emulated GPU's numbers are compared with the CPU's.
struct Compare(Gpu<Emulated>);

impl See for Compare {
    #[track_caller]
    fn operation(&mut self, what: &str, operation: &impl Operation) {
        compare(what, operation, &self.0);
    }
}

#[test]
fn in_bf16() {
    if let Err(why) = emulator::compiler() {
        return skipped("nvrtc", why);
    }
    let (kernels, _) = written::<Cuda>(|client| {
        ops::on_maps(&mut Write(Gpu::new(client).halved().unwrap()));
    });
    let kernels: Result<Vec<&Source>, &String> = kernels.values().map(Result::as_ref).collect();
    emulator::prepare(&kernels.unwrap()).unwrap();
    let gpu = Gpu::new(Emulated::client(&Nowhere)).halved().unwrap();
    ops::on_maps(&mut Compare(gpu));
}
