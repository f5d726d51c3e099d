//! Micro-batches are devices: MoCo on micro-batches one after another is MoCo on several devices, in
//! the memory of one micro-batch. And what training must leave alone: frozen stages, and its own bits.

use seedling_core::backbones::Arch;
use seedling_core::cancel::CancelToken;
use seedling_core::candle::EncoderModule;
use seedling_core::encoder::{Architecture, EMBEDDING_DIM, Encoder, Head, Images, Mode};
use seedling_core::loss::{Contrast, Target, evaluate};
use seedling_core::microbatch::MicroBatches;
use seedling_core::moco::{Moco, MocoConfig, key_orders};
use seedling_core::nn::workspace::Workspace;
use seedling_core::queue::Queue;
use seedling_core::step::Views;
use seedling_tests::formula::{fill, norm, numbers};
use seedling_tests::fused::{assert_close, buffer};

const SIZE: usize = 32;
const IMAGE: usize = SIZE * SIZE * 3;
const TRAIN: Mode = Mode::train(0.1);

fn encoder(trained: bool, frozen: usize) -> Encoder {
    let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple));
    let mut encoder = Encoder::new(architecture, trained, frozen, &Workspace::default()).unwrap();
    fill(&mut encoder.params);
    encoder
}

fn queue(size: usize) -> Queue {
    let mut queue = Queue::random(size, EMBEDDING_DIM, 0);
    queue.photos = (0..size as u32).collect();
    queue
}

fn moco(bn_group: usize, frozen: usize) -> Moco {
    let config = MocoConfig {
        m: 0.9,
        tau: 0.2,
        symmetric: false,
        mask_own_photo: true,
        batches: MicroBatches {
            bn_group,
            mode: TRAIN,
            cancel: CancelToken::default(),
        },
    };
    let (query, key) = (encoder(true, frozen), encoder(false, frozen));
    Moco::new(query, key, queue(96), Target::Positive, config).unwrap()
}

/// Both views of `batch` photos. The second is a mixture of the first and noise, as real views
/// have something in common.
fn views(batch: usize) -> ([Vec<f32>; 2], Vec<u32>) {
    let first = numbers(100, batch * IMAGE, 2.0);
    let noise = numbers(101, batch * IMAGE, 1.0);
    let second = first.iter().zip(noise).map(|(a, b)| 0.7 * a + b).collect();
    (
        [first, second],
        (0..batch as u32).map(|i| i * 7 % 128).collect(),
    )
}

fn step(moco: &mut Moco, batch: usize, order: &[Vec<usize>; 2]) -> f32 {
    let ([first, second], photos) = views(batch);
    let views = Views {
        pixels: &[&first[..], &second[..]],
        size: (SIZE, SIZE),
        photos: &photos,
    };
    moco.momentum_update().unwrap();
    moco.step(&views, order).unwrap().loss
}

fn images(encoder: &Encoder, pixels: &[f32]) -> Images {
    let n = pixels.len() / IMAGE;
    let images = encoder.images(n, (SIZE, SIZE), |out| out.copy_from_slice(pixels));
    images.unwrap()
}

fn grads(encoder: &Encoder) -> Vec<f32> {
    encoder.params.grads.clone()
}

#[test]
fn a_batch_of_two_microbatches_is_two_devices() {
    const BATCH: usize = 64;
    const MICROBATCH: usize = 32;
    let order = key_orders(5, 0, BATCH);
    let mut whole = moco(MICROBATCH, 0);
    let loss = step(&mut whole, BATCH, &order);

    // By hand: each device has its own copies, 32 queries, and 32 of the shuffled keys.
    let ([first, second], photos) = views(BATCH);
    let mut keys = vec![0.0; BATCH * EMBEDDING_DIM];
    for device in 0..2 {
        let mine = &order[0][device * MICROBATCH..(device + 1) * MICROBATCH];
        let pixels: Vec<f32> = mine
            .iter()
            .flat_map(|&i| &second[i * IMAGE..(i + 1) * IMAGE])
            .copied()
            .collect();
        let mut key = encoder(false, 0);
        // Towards an equal query: only rounding, which the keys would show.
        let equal = encoder(false, 0).params;
        key.params.momentum_update(&equal, 0.9, 0).unwrap();
        let images = images(&key, &pixels);
        let encoded = key.embed_in(&images, TRAIN).unwrap();
        for (row, &i) in encoded.chunks(EMBEDDING_DIM).zip(mine) {
            keys[i * EMBEDDING_DIM..(i + 1) * EMBEDDING_DIM].copy_from_slice(row);
        }
    }
    let before = queue(96);
    let (mut mean, mut losses) = (vec![0.0; grads(&whole.query_encoder).len()], 0.0);
    for device in 0..2 {
        let mine = device * MICROBATCH..(device + 1) * MICROBATCH;
        let pixels = &first[mine.start * IMAGE..mine.end * IMAGE];
        let mut query = encoder(true, 0);
        let images = images(&query, pixels);
        let (queries, saved) = query.forward(&images, TRAIN).unwrap();
        let contrast = Contrast {
            positives: &keys[mine.start * EMBEDDING_DIM..mine.end * EMBEDDING_DIM],
            queue: &before,
            photos: &photos[mine],
            mask_own_photo: true,
            temperature: 0.2,
            target: &Target::Positive,
            batch: MICROBATCH,
            regression: None,
        };
        // The device's own mean loss.
        let result = evaluate(&queries, &contrast);
        losses += result.loss / 2.0;
        let grad = buffer(&result.grad);
        query.backward(&images, saved, grad).unwrap();
        for (m, g) in mean.iter_mut().zip(grads(&query)) {
            *m += g / 2.0;
        }
    }
    assert!((loss - losses).abs() < 1e-5, "{loss} {losses}");
    let got = grads(&whole.query_encoder);
    let total = norm(&mean);
    assert!(total > 0.0);
    for entry in whole.query_encoder.params.layout.entries() {
        if entry.role.is_buffer() {
            continue;
        }
        let at = entry.range.clone();
        assert_close(&got[at.clone()], &mean[at], 5e-6, 0.0, &entry.name);
    }

    let mut expected = before;
    expected.enqueue(&keys, &photos);
    assert_eq!(whole.queue.photos, expected.photos);
    assert_eq!(whole.queue.next, expected.next);
    assert_close(&whole.queue.keys, &expected.keys, 1e-6, 0.0, "queue");

    // It does matter: one micro-batch of 64 is another gradient altogether.
    let mut other = moco(BATCH, 0);
    step(&mut other, BATCH, &order);
    let off: Vec<f32> = grads(&other.query_encoder)
        .iter()
        .zip(&mean)
        .map(|(a, b)| a - b)
        .collect();
    assert!(norm(&off) > 0.05 * total);
}

#[test]
fn frozen_stages_get_no_gradient_and_change_nothing_behind_them() {
    let order = key_orders(5, 0, 16);
    // In evaluation mode, so that frozen stages (which always use running statistics) compute the
    // same as trained ones.
    let run = |frozen: usize| {
        let mut moco = moco(8, frozen);
        moco.config.batches.mode = Mode::Eval;
        // The key encoder stays: following an equal network would still round where not frozen.
        moco.config.m = 1.0;
        step(&mut moco, 16, &order);
        (
            grads(&moco.query_encoder),
            moco.query_encoder.frozen_parameters(),
        )
    };
    let (free, none) = run(0);
    assert_eq!(none, 0);
    for frozen in [1, 4] {
        let (got, until) = run(frozen);
        assert!(until > 0);
        assert!(free[..until].iter().any(|&g| g != 0.0));
        assert!(got[..until].iter().all(|&g| g == 0.0), "{frozen} stages");
        assert!(got[until..] == free[until..], "{frozen} stages");
    }
}

#[test]
fn frozen_stages_keep_their_running_statistics_while_training() {
    let mut moco = moco(8, 3);
    let buffers = |moco: &Moco| moco.query_encoder.params.buffers.clone();
    let before = buffers(&moco);
    step(&mut moco, 16, &key_orders(5, 0, 16));
    let (after, got) = (buffers(&moco), grads(&moco.query_encoder));
    let until = moco.query_encoder.frozen_parameters();
    let mut seen_trained_parameter = false;
    for entry in moco.query_encoder.params.layout.entries() {
        let at = entry.range.clone();
        if entry.role.is_buffer() {
            // A norm's buffers are declared behind its parameters.
            assert_eq!(before[at.clone()] != after[at], seen_trained_parameter);
        } else {
            seen_trained_parameter = at.start >= until;
            let moved = got[at].iter().any(|&g| g != 0.0);
            assert_eq!(moved, seen_trained_parameter, "{}", entry.name);
        }
    }
}

#[test]
fn a_loss_of_candle_s_reaches_the_gradient_once() {
    let pixels = numbers(1, 2 * IMAGE, 2.0);
    let mut by_hand = encoder(true, 0);
    let photos = images(&by_hand, &pixels);
    let (embeddings, saved) = by_hand.forward(&photos, TRAIN).unwrap();
    let ones = vec![1.0; embeddings.len()];
    by_hand.backward(&photos, saved, buffer(&ones)).unwrap();

    let encoder = encoder(true, 0);
    let photos = images(&encoder, &pixels);
    let module = EncoderModule::new(encoder, TRAIN);
    let embeddings = module.embed(photos);
    let loss = embeddings.unwrap().sum_all().unwrap();
    loss.backward().unwrap();
    let once = grads(&module.encoder());
    assert!(norm(&once) > 0.0 && once == grads(&by_hand));
    let again = loss.backward().unwrap_err().to_string();
    assert!(again.contains("twice"), "{again}");
    assert!(grads(&module.encoder()) == once);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut moco = moco(5, 0);
            let losses = [0, 1].map(|s| step(&mut moco, 15, &key_orders(5, s, 15)));
            let buffers = moco.query_encoder.params.buffers.clone();
            (losses, grads(&moco.query_encoder), moco.queue, buffers)
        })
    };
    let one = run(1);
    for threads in [1, 2, 3, 8] {
        assert!(run(threads) == one, "{threads} threads");
    }
}
