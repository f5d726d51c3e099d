//! Networks and runs on a GPU, as on the CPU: the same numbers but for rounding.

use seedling_core::backbones::Arch;
use seedling_core::cancel::CancelToken;
use seedling_core::encoder::{Architecture, Encoder, Head, Mode};
use seedling_core::init::initialize;
use seedling_core::loss::Target;
use seedling_core::microbatch::MicroBatches;
use seedling_core::moco::{Moco, MocoConfig, key_orders};
use seedling_core::nn::backend::DeviceOps;
use seedling_core::nn::cpu::Cpu;
use seedling_core::ops::TrainingBackend;
use seedling_core::optim::{Sgd, SgdConfig, WeightDecay};
use seedling_core::queue::Queue;
use seedling_core::seed::{Seed, SeedConfig};
use seedling_core::step::Views;
use seedling_core::teacher::Teacher;
use seedling_tests::formula::numbers;
use seedling_tests::fused::assert_close;
use seedling_tests::gpu::{another, gpu};
use seedling_tests::require::skipped;

const SIDE: usize = 32;
const IMAGE: usize = SIDE * SIDE * 3;
const BATCH: usize = 8;
const STEPS: usize = 20;

fn encoder<B: TrainingBackend>(
    backend: &B,
    arch: Arch,
    head: Option<Head>,
    trained: bool,
) -> Encoder<B> {
    frozen(backend, arch, head, (trained, 0))
}

fn frozen<B: TrainingBackend>(
    backend: &B,
    arch: Arch,
    head: Option<Head>,
    (trained, stages): (bool, usize),
) -> Encoder<B> {
    let architecture = Architecture::new(arch, head);
    let mut encoder =
        Encoder::with_backend(backend.clone(), architecture, trained, stages).unwrap();
    initialize(&mut encoder.params, 1).unwrap();
    encoder
}

/// Features; then embeddings of a training pass, statistics and gradients it leaves.
pub fn passes<B: TrainingBackend>(backend: &B, arch: Arch) -> [Vec<f32>; 4] {
    let mut encoder = encoder(backend, arch, Some(Head::Simple), true);
    let pixels = numbers(5, 4 * IMAGE, 2.0);
    let fill = |out: &mut [f32]| out.copy_from_slice(&pixels);
    let images = encoder.images(4, (SIDE, SIDE), fill).unwrap();
    // Statistics of these images: of the initial ones, nothing would be left at the top.
    let (out, saved) = encoder.forward(&images, Mode::train(1.0)).unwrap();
    let features = encoder.features(&images).unwrap();
    let embeddings = backend.download(&out).unwrap();
    let dy = numbers(6, embeddings.len(), 1.0);
    let dy = backend
        .upload(dy.len(), |out| out.copy_from_slice(&dy))
        .unwrap();
    encoder.backward(&images, saved, dy).unwrap();
    let grads = backend.host(&encoder.params.grads).unwrap().into_owned();
    let (_, buffers) = encoder.params.host().unwrap();
    [features, embeddings, buffers.into_owned(), grads]
}

/// Batch norm over the four numbers of a channel that images this small have at the top magnifies
/// every rounding: a few thousandths, where operations agree to 2e-5.
#[test]
fn every_family_of_networks() {
    let Some(gpu) = gpu() else { return };
    // MobileNetV3's are those of the runs below.
    for name in ["resnet18", "efficientnet_b0", "deit_tiny"] {
        let arch: Arch = name.parse().unwrap();
        let (expected, got) = (passes(&Cpu::default(), arch), passes(&gpu, arch));
        let what = ["features", "embeddings", "statistics", "gradients"];
        for ((expected, got), what) in expected.iter().zip(&got).zip(what) {
            assert_close(got, expected, 5e-3, 0.0, &format!("{name}: {what}"));
        }
    }
}

/// Both views of a batch, their pixels `off` by so much: the second is a mixture of the first and noise.
fn views(step: u64, off: f32) -> [Vec<f32>; 2] {
    let mut first = numbers(100 + 2 * step, BATCH * IMAGE, 2.0);
    first.iter_mut().for_each(|x| *x *= 1.0 + off);
    let noise = numbers(101 + 2 * step, BATCH * IMAGE, 1.0);
    let second = first.iter().zip(noise).map(|(a, b)| 0.7 * a + b).collect();
    [first, second]
}

const PHOTOS: [u32; BATCH] = [0, 1, 2, 3, 4, 5, 6, 7];
const ARCH: Arch = Arch::MOBILENET_V3_SMALL;

fn sgd<B: TrainingBackend>(encoder: &Encoder<B>) -> Sgd<B> {
    let how = SgdConfig {
        momentum: 0.9,
        decay: WeightDecay {
            weight_decay: 1e-4,
            norm_and_bias: true,
            train_from: 0,
        },
        l2_sp: 0.0,
    };
    Sgd::new(&encoder.params, how).unwrap()
}

fn queue<B: TrainingBackend>(backend: &B, dim: usize) -> Queue<B::Flat> {
    let queue = Queue::random(64, dim, 1);
    queue.with_keys(|keys| backend.flat(keys)).unwrap()
}

/// Losses of a MoCo run in micro-batches of `microbatch`, and the keys it leaves.
fn moco<B: TrainingBackend>(
    backend: &B,
    run: (usize, usize, f32),
    after: impl FnMut(usize),
) -> (Vec<f32>, Vec<f32>) {
    moco_above(backend, 0, run, after)
}

/// The same, with so many stages frozen.
fn moco_above<B: TrainingBackend>(
    backend: &B,
    stages: usize,
    (steps, microbatch, off): (usize, usize, f32),
    mut after: impl FnMut(usize),
) -> (Vec<f32>, Vec<f32>) {
    let query = frozen(backend, ARCH, Some(Head::Simple), (true, stages));
    let key = frozen(backend, ARCH, Some(Head::Simple), (false, stages));
    let mut sgd = sgd(&query);
    let config = MocoConfig {
        m: 0.9,
        tau: 0.2,
        symmetric: false,
        mask_own_photo: true,
        batches: MicroBatches {
            bn_group: microbatch,
            mode: Mode::train(0.1),
            cancel: CancelToken::default(),
        },
    };
    let queue = queue(backend, query.output_dim());
    let mut moco = Moco::new(query, key, queue, Target::Positive, config).unwrap();
    let mut losses = Vec::new();
    for step in 0..steps {
        let [first, second] = views(step as u64 % 20, off);
        let views = Views {
            pixels: &[&first[..], &second[..]],
            size: (SIDE, SIDE),
            photos: &PHOTOS,
        };
        let stats = moco
            .step(&views, &key_orders(1, step as u64, BATCH))
            .unwrap();
        assert!(stats.finite);
        sgd.step(&mut moco.query_encoder.params, LR).unwrap();
        moco.momentum_update().unwrap();
        losses.push(stats.loss);
        after(step);
    }
    let keys = backend.host(&moco.queue.keys).unwrap().into_owned();
    (losses, keys)
}

/// At every step a run follows the CPU's as closely as the CPU has by then followed itself
/// where its pixels are off by a millionth, give or take: batch norm over few numbers magnifies rounding,
/// and a hidden number of the head that rounding puts on the other side of zero is worth some 1e-3.
#[track_caller]
fn follows(got: &[f32], expected: &[f32], off: &[f32]) {
    let mut own = 0.0f32;
    for (step, expected) in expected.iter().enumerate() {
        own = own.max((off[step] - expected).abs());
        let away = (got[step] - expected).abs();
        assert!(
            away <= 10.0 * own + 2e-3,
            "step {step}: {away:e} away, the CPU {own:e}"
        );
    }
}

const OFF: f32 = 1e-6;
const LR: f32 = 1e-3;

/// Losses of a MoCo run.
pub fn losses<B: TrainingBackend>(backend: &B, steps: usize) -> Vec<f32> {
    moco(backend, (steps, BATCH, 0.0), |_| ()).0
}

/// A run whose products are of fewer bits stays near one in f32.
#[track_caller]
pub fn stays_near(got: &[f32], expected: &[f32]) {
    assert_close(got, expected, 2e-2, 0.0, "losses");
}

/// A step of every kind of training.
pub fn a_step_of_each<B: TrainingBackend>(backend: &B) {
    moco(backend, (1, BATCH / 2, 0.0), |_| ());
    distill(backend, (1, 0.0));
}

/// Memory that is taken until there is none: an error that says so. In a process of its own, since a device
/// that has refused something is done with; where memory is everybody's, as on a stand-in, nobody should try.
#[cfg(feature = "cuda")]
#[test]
fn memory_at_its_end_is_an_error() {
    use seedling_core::Error;
    use std::process::Command;

    const CHILD: &str = "SEEDLING_TEST_FILLS_MEMORY";
    let Some(gpu) = another() else { return };
    if std::env::var_os(CHILD).is_none() {
        let name = "runs::memory_at_its_end_is_an_error";
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let bytes = gpu.memory_bytes().expect("CUDA says how much there is");
    let mut held = Vec::new();
    let error = (0..64).find_map(|_| {
        let taken = gpu.alloc(bytes / 32 / 4);
        let taken = taken.and_then(|taken| gpu.wait().map(|()| taken));
        taken.map(|taken| held.push(taken)).err()
    });
    let is_memory = matches!(error, Some(Error::DeviceMemory { .. }));
    assert!(is_memory, "after {}: {error:?}", held.len());
}

#[test]
fn twenty_steps_of_moco() {
    let Some(gpu) = gpu() else { return };
    let [expected, off] =
        [0.0, OFF].map(|off| moco(&Cpu::default(), (STEPS, BATCH, off), |_| ()).0);
    follows(&moco(&gpu, (STEPS, BATCH, 0.0), |_| ()).0, &expected, &off);
    assert_ne!(expected.first(), expected.last());
}

/// What a GPU has besides f32: where it has neither, gpu_emulated.rs does some of this. Batch norm over eight photos magnifies
/// what rounding begins: no step is the CPU's after ten, but the way is.
#[test]
fn twenty_steps_in_fewer_bits() {
    let Some(gpu) = gpu() else { return };
    let expected = losses(&Cpu::default(), STEPS);
    let on_the_way = |got: &[f32]| {
        let pairs = got.iter().zip(&expected);
        let away = pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.iter().sum::<f32>();
        println!("{:.1} % away", 100.0 * away);
        assert!(away < 0.1, "{away}: {got:?}, the CPU {expected:?}");
        stays_near(&got[..2], &expected[..2]);
    };
    match gpu.with_tf32() {
        Ok(gpu) => on_the_way(&losses(&gpu, STEPS)),
        Err(error) => skipped("tf32", error),
    }
    match gpu.halved() {
        Ok(gpu) => on_the_way(&losses(&gpu, STEPS)),
        Err(error) => skipped("gpu", error),
    }
}

#[test]
fn the_same_steps_give_the_same_bits_and_take_no_more_memory() {
    // One of its own: what others take would be seen.
    let Some(gpu) = another() else { return };
    let mut held = Vec::new();
    let run = (3, BATCH / 2, 0.0);
    let first = moco(&gpu, run, |_| ());
    let second = moco(&gpu, run, |_| {
        held.push((gpu.most_bytes(), gpu.reserved_bytes().unwrap()));
    });
    assert!(first == second);
    assert!(held[1..].iter().all(|now| *now == held[1]), "{held:?}");
}

/// Neither what a step takes nor what the runtime holds for it grows. Most stages are frozen: what trains
/// them is asked for in the same way as what trains the others.
#[test]
fn two_hundred_steps_take_no_more_memory() {
    let Some(gpu) = another() else { return };
    let mut held = Vec::new();
    moco_above(&gpu, 9, (200, BATCH, 0.0), |_| {
        held.push((gpu.most_bytes(), gpu.reserved_bytes().unwrap()));
    });
    assert_eq!(held.len(), 200);
    let steady = held[2];
    assert!(held[2..].iter().all(|now| *now == steady), "{held:?}");
}

/// Micro-batches have statistics of their own whether they go one after another or at once.
#[test]
fn microbatches_at_once_are_microbatches_one_after_another() {
    let Some(gpu) = gpu() else { return };
    let run = (2, BATCH / 4, 0.0);
    let (expected, expected_keys) = moco(&gpu, run, |_| ());
    let (got, keys) = moco(&gpu.taking(4), run, |_| ());
    assert_close(&got, &expected, 1e-3, 0.0, "losses");
    assert_close(&keys, &expected_keys, 1e-2, 0.0, "keys");
}

/// Memory is known before the first step, and the more micro-batches go at once the more it is.
#[test]
fn a_dry_run_takes_what_the_run_takes() {
    let Some(gpu) = gpu() else { return };
    let dry_run = |at_once| {
        let stage = gpu.taking(at_once).dry_run().unwrap();
        moco(&stage, (2, BATCH / 4, 0.0), |_| ());
        stage.most_bytes()
    };
    let gpu = gpu.apart().taking(4);
    moco(&gpu, (2, BATCH / 4, 0.0), |_| ());
    assert_eq!(dry_run(4), gpu.most_bytes());
    assert!(dry_run(1) < dry_run(4));
}

/// In half precision losses stay near those in f32, and activations take half the memory.
#[test]
fn a_run_in_half_precision() {
    let Some(gpu) = gpu() else { return };
    let gpu = gpu.apart();
    let halved = match gpu.apart().halved() {
        Ok(halved) => halved,
        Err(error) => {
            skipped("gpu", error);
            return;
        }
    };
    let (expected, _) = moco(&gpu, (2, BATCH, 0.0), |_| ());
    let (got, _) = moco(&halved, (2, BATCH, 0.0), |_| ());
    assert_close(&got, &expected, 2e-2, 0.0, "losses");
    assert!(halved.most_bytes() < gpu.most_bytes());
}

/// Losses of a distillation.
fn distill<B: TrainingBackend>(backend: &B, (steps, off): (usize, f32)) -> Vec<f32> {
    let student = encoder(backend, ARCH, Some(Head::Simple), true);
    let dim = student.output_dim();
    let net = encoder(backend, ARCH, None, false);
    let rescale = [(1.0, 0.0), (0.9, 0.1), (1.1, -0.1)];
    let teacher = Teacher::new(net, rescale, dim, 3).unwrap();
    let mut sgd = sgd(&student);
    let config = SeedConfig {
        student_temperature: 0.2,
        teacher_temperature: 0.05,
        batches: MicroBatches {
            bn_group: BATCH,
            mode: Mode::train(0.1),
            cancel: CancelToken::default(),
        },
    };
    let mut seed = Seed::new(student, queue(backend, dim), config).unwrap();
    let step = |step: usize| {
        let [first, _] = views(step as u64, off);
        let views = Views {
            pixels: &[&first[..], &[]],
            size: (SIDE, SIDE),
            photos: &PHOTOS,
        };
        let targets = teacher
            .embed_views(&views, 0, BATCH, &CancelToken::default())
            .unwrap();
        let stats = seed.step(&views, &targets).unwrap();
        sgd.step(&mut seed.student.params, LR).unwrap();
        stats.loss
    };
    (0..steps).map(step).collect()
}

#[test]
fn twenty_steps_of_distillation() {
    let Some(gpu) = gpu() else { return };
    let [expected, off] = [0.0, OFF].map(|off| distill(&Cpu::default(), (STEPS, off)));
    follows(&distill(&gpu, (STEPS, 0.0)), &expected, &off);
    assert_ne!(expected.first(), expected.last());
}
