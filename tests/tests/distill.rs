//! SEED distillation against PyTorch, step by step, and the teacher's embeddings against their
//! definition. Golden file: tests/golden/distill.py, whose docstring specifies the run.

use seedling_core::backbones::Arch;
use seedling_core::cancel::CancelToken;
use seedling_core::encoder::{Architecture, EMBEDDING_DIM, Encoder, Head, Images, Mode};
use seedling_core::microbatch::MicroBatches;
use seedling_core::nn::workspace::Workspace;
use seedling_core::queue::{NO_PHOTO, Queue};
use seedling_core::seed::{Seed, SeedConfig};
use seedling_core::step::Views;
use seedling_core::teacher::Teacher;
use seedling_tests::formula::{fill, numbers};
use seedling_tests::fused::{assert_close, buffer};
use seedling_tests::golden::Golden;
use seedling_tests::trajectory::{Snapshot, Trajectory, assert_follows, sgd};

const BATCH: usize = 16;
const QUEUE: usize = 40;
const STEPS: usize = 20;

fn encoder(head: Option<Head>) -> Encoder {
    let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, head);
    let mut encoder = Encoder::new(architecture, true, 0, &Workspace::default()).unwrap();
    fill(&mut encoder.params);
    encoder
}

fn batch(encoder: &Encoder, pixels: &[f32], side: usize) -> Images {
    let n = pixels.len() / (side * side * 3);
    let images = encoder.images(n, (side, side), |out| out.copy_from_slice(pixels));
    images.unwrap()
}

/// Unit embeddings in two micro-batches, by a copy: training mode moves running statistics.
fn embeddings(student: &Encoder, images: &[f32], mode: Mode) -> Vec<f32> {
    let mut copy = encoder(Some(Head::Simple));
    copy.params.copy_from(&student.params).unwrap();
    let mut out = Vec::new();
    for microbatch in images.chunks(images.len() / 2) {
        let images = batch(&copy, microbatch, 32);
        out.extend_from_slice(&copy.embed_in(&images, mode).unwrap());
    }
    out
}

/// The step from which one of the head's hidden units differs: the order of our sums gives it
/// +5e-7 there, PyTorch's gives -3e-7, and its ReLU's gradient is all or nothing. By step 17 the
/// loss is 3e-5 away, by step 20 an embedding 7e-5.
const FLIPPED: usize = 11;

#[test]
fn twenty_steps_follow_pytorch() {
    let golden = Golden::open("distill");
    let deviations = golden.json("f32_deviation");
    let mut queue = Queue::random(QUEUE, EMBEDDING_DIM, 0);
    queue.keys = golden.floats("queue_initial").to_vec();
    let config = SeedConfig {
        student_temperature: 0.2,
        teacher_temperature: 0.01,
        batches: MicroBatches {
            bn_group: BATCH / 2,
            mode: Mode::train(0.1),
            cancel: CancelToken::default(),
        },
    };
    let student = encoder(Some(Head::Simple));
    let names = golden.json("entries");
    let names = names.as_array().unwrap().iter();
    assert!(names.eq(student.params.layout.entries().iter().map(|e| &e.name)));
    let initial = Snapshot::from_params(&student.params);
    let mut seed = Seed::new(student, queue, config).unwrap();
    let mut velocity = Vec::new();
    for step in 1..=STEPS {
        let images = numbers(100_000 + 2 * step as u64, BATCH * 32 * 32 * 3, 2.0);
        let rows = (step - 1) * BATCH * EMBEDDING_DIM..step * BATCH * EMBEDDING_DIM;
        let teacher = buffer(&golden.floats("teacher")[rows]);
        let name = format!("student_embedding.step{step:02}");
        if golden.has(&name) {
            let got = embeddings(&seed.student, &images, Mode::train(0.1));
            let own = deviations["embedding"][step - 1].as_f64().unwrap();
            let floor = if step > FLIPPED { 1.5e-4 } else { 3e-5 };
            assert_follows(&got, golden.floats(&name), own, floor, &name);
        }
        let views = Views {
            pixels: &[&images[..], &[]],
            size: (32, 32),
            photos: &[NO_PHOTO; BATCH],
        };
        let stats = seed.step(&views, &teacher).unwrap();
        sgd(&mut seed.student.params, &mut velocity, (1e-4, 0.01));

        let own = deviations["loss"][step - 1].as_f64().unwrap();
        let expected = golden.floats("loss")[step - 1];
        let what = format!("step {step}: loss");
        let floor = if step > FLIPPED { 6e-5 } else { 3e-6 };
        assert_follows(&[stats.loss], &[expected], own, floor, &what);
        let position = golden.ints("queue_position")[step - 1];
        assert_eq!(seed.queue.next as i64, position);
        let trajectory = Trajectory {
            golden: &golden,
            name: "student",
            own: &deviations["student"],
            initial: &initial,
        };
        // After the flip the vector width shows too: AVX2 needs 1.04 at step 20, AVX-512 less than 1.
        let slack = if step > FLIPPED { 1.25 } else { 1.0 };
        trajectory.check(&seed.student.params, step, slack);
    }
    // The teacher's rows are stored, not computed.
    assert_eq!(seed.queue.keys, golden.floats("queue.step20"));
}

#[test]
fn teacher_embeddings_are_centered_projected_and_normalized() {
    const SIZE: usize = 32;
    let encoder = encoder(None);
    let dim = encoder.feature_dim();
    let rescale = [(1.5, -0.25), (0.75, 0.5), (1.0, 0.125)];
    let mut teacher = Teacher::new(self::encoder(None), rescale, EMBEDDING_DIM, 7).unwrap();
    let pixels = numbers(1, 3 * SIZE * SIZE * 3, 4.0);

    // Entries of N(0, 1 / 128): their mean square says so to four standard errors.
    let numbers = &teacher.projection.as_ref().unwrap().numbers;
    let (projection, bias) = numbers.split_at(EMBEDDING_DIM * dim);
    let projection = projection.to_vec();
    assert_eq!(bias, [0.0; EMBEDDING_DIM]);
    let entries = projection.len() as f64;
    let square = |x: &f32| *x as f64 * *x as f64;
    let mean_square = projection.iter().map(square).sum::<f64>() / entries;
    assert!((mean_square * EMBEDDING_DIM as f64 - 1.0).abs() < 4.0 * (2.0 / entries).sqrt());

    // The features are those of the teacher's own pixels.
    let own: Vec<f32> = pixels
        .iter()
        .enumerate()
        .map(|(i, x)| x * rescale[i % 3].0 + rescale[i % 3].1)
        .collect();
    let features = encoder.features(&batch(&encoder, &own, SIZE)).unwrap();
    let seen = teacher.features(batch(&encoder, &pixels, SIZE)).unwrap();
    assert_eq!(seen[..], features);

    let center: Vec<f32> = (0..dim)
        .map(|d| (0..3).map(|i| features[i * dim + d]).sum::<f32>() / 3.5)
        .collect();
    teacher
        .projection
        .as_mut()
        .unwrap()
        .center
        .clone_from(&center);
    let mut expected = Vec::new();
    for row in features.chunks(dim) {
        let projected: Vec<f64> = projection
            .chunks(dim)
            .map(|direction| {
                (0..dim)
                    .map(|d| (row[d] as f64 - center[d] as f64) * direction[d] as f64)
                    .sum()
            })
            .collect();
        let length = projected.iter().map(|x| x * x).sum::<f64>().sqrt();
        expected.extend(projected.iter().map(|x| (x / length) as f32));
    }
    let got = teacher.embed(batch(&encoder, &pixels, SIZE)).unwrap();
    assert_close(&got, &expected, 1e-5, 0.0, "embeddings");
    let views = Views {
        pixels: &[&pixels[..], &[]],
        size: (SIZE, SIZE),
        photos: &[NO_PHOTO; 3],
    };
    let in_microbatches = teacher
        .embed_views(&views, 0, 2, &CancelToken::default())
        .unwrap();
    assert_close(
        &in_microbatches,
        &expected,
        1e-5,
        0.0,
        "embeddings in micro-batches",
    );
}
