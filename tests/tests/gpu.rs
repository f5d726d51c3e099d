//! A card against the processor.

#[path = "gpu_ops.rs"]
mod ops;

use seedling_core::backbones::Arch;
use seedling_core::encoder::{Architecture, Encoder, Head, Mode};
use seedling_core::init::initialise;
use seedling_core::nn::backend::Backend;
use seedling_core::nn::cpu::Cpu;
use seedling_core::nn::gpu::device;
use seedling_tests::formula::numbers;

fn run<B: Backend>(backend: B, arch: Arch, train: bool) -> Vec<(String, Vec<f32>)> {
    let architecture = Architecture::new(arch, Some(Head::Simple));
    let encoder = Encoder::on(backend.clone(), architecture, true, 0).unwrap();
    initialise(&encoder.params, 1).unwrap();
    let size = (32, 32);
    let pixels = numbers(5, 4 * size.0 * size.1 * 3, 2.0);
    let images = encoder.images(4, size, |out| out.copy_from_slice(&pixels)).unwrap();
    if !train {
        return vec![("features".into(), encoder.features(&images).unwrap())];
    }
    let (out, saved) = encoder.forward(&images, Mode::train(0.1)).unwrap();
    let y = backend.download(&out).unwrap();
    let dy = numbers(6, y.len(), 1.0);
    let dy = backend.upload(dy.len(), |out| out.copy_from_slice(&dy)).unwrap();
    encoder.backward(&images, saved, dy).unwrap();
    let grads = backend.host(&encoder.params.grads.lock().unwrap()).unwrap().into_owned();
    let locked = encoder.params.lock();
    let (_, buffers) = locked.host().unwrap();
    vec![("embeddings".into(), y), ("buffers".into(), buffers.into_owned()), ("grads".into(), grads)]
}

#[test]
fn networks_are_alike() {
    let gpu = device::gpu(0).unwrap();
    for name in ["mobilenet_v3_small", "resnet18", "efficientnet_b0", "deit_tiny"] {
        for train in [false, true] {
            let arch: Arch = name.parse().unwrap();
            let cpu = run(Cpu::default(), arch, train);
            let start = std::time::Instant::now();
            let card = run(gpu.clone(), arch, train);
            for ((what, a), (_, b)) in cpu.iter().zip(&card) {
                let scale = a.iter().fold(0f32, |m, x| m.max(x.abs()));
                let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, |m, x| if x.is_nan() { x } else { m.max(x) });
                println!("{name} {train} {what}: {:e} of {scale} ({} numbers) {:?}", off / scale, a.len(), start.elapsed());
            }
        }
    }
}
