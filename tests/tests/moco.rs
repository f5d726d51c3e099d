//! MoCo v2 against PyTorch, step by step: loss, queue, parameters of both encoders.
//! Golden file: tests/golden/moco.py, whose docstring is the specification of the run.

use seedling_core::backbones::Arch;
use seedling_core::encoder::{Architecture, EMBEDDING_DIM, Encoder, Head, Mode};
use seedling_core::moco::{Moco, MocoConfig, Views};
use seedling_core::nn::workspace::Workspace;
use seedling_core::params::Params;
use seedling_core::queue::{NO_PHOTO, Queue};
use seedling_tests::formula::{dot, fill, norm, numbers, sample};
use seedling_tests::golden::Golden;

fn encoders(arch: Arch, head: Head) -> (Encoder, Encoder) {
    let workspace = Workspace::default();
    let architecture = Architecture::new(arch, Some(head));
    let query = Encoder::new(architecture, true, 0, &workspace).unwrap();
    let key = Encoder::new(architecture, false, 0, &workspace).unwrap();
    (query, key)
}

const BATCH: usize = 16;

/// PyTorch's SGD: g += wd * p; v = 0.9 v + g; p -= lr v.
fn sgd(params: &Params, velocity: &mut Vec<f32>, (lr, weight_decay): (f32, f32)) {
    let grads = params.grads.lock().unwrap();
    let mut values = params.values.write().unwrap();
    let first = velocity.is_empty();
    velocity.resize(values.len(), 0.0);
    for ((p, v), g) in values.iter_mut().zip(velocity).zip(grads.iter()) {
        let g = g + weight_decay * *p;
        *v = if first { g } else { 0.9 * *v + g };
        *p -= lr * *v;
    }
}

fn follow(run: &str, steps: usize, size: usize, symmetric: bool) {
    let golden = Golden::open("moco");
    let deviations = golden.json("f32_deviation");
    let (query, key) = encoders(Arch::MobilenetV3Small, Head::Wide);
    fill(&query.params);
    let mut queue = Queue::random(size, EMBEDDING_DIM, 0);
    queue.keys = numbers(200_000, size * EMBEDDING_DIM, 1.0);
    seedling_core::nn::ops::normalize::forward(&mut queue.keys, EMBEDDING_DIM);
    let config = MocoConfig {
        temperature: 0.2,
        key_momentum: 0.9,
        symmetric,
        bn_group: BATCH / 2,
        mode: Mode::Train { norm_momentum: 0.1 },
        mask_own_photo: true,
    };
    let initial = query.params.values.read().unwrap().clone();
    let initial_buffers = query.params.buffers.read().unwrap().clone();
    let mut moco = Moco::new(query, key, queue, config).unwrap();
    let mut velocity = Vec::new();
    let at = |step: usize, name: &str, width: usize| -> Vec<f32> {
        golden.floats(&format!("{run}.{name}"))[step * width..(step + 1) * width].to_vec()
    };
    let ints = |step: usize, name: &str, width: usize| -> Vec<i64> {
        golden.ints(&format!("{run}.{name}"))[step * width..(step + 1) * width].to_vec()
    };
    for s in 0..steps {
        let photos: Vec<u32> = ints(s, "photo_ids", BATCH)
            .iter()
            .map(|&id| id as u32)
            .collect();
        let view = |v: usize| numbers((100_000 + 2 * (s + 1) + v) as u64, BATCH * 32 * 32 * 3, 2.0);
        let (first, second) = (view(0), view(1));
        let views = Views {
            images: [&first, &second],
            size: (32, 32),
            photos: &photos,
        };
        let order = ints(s, "key_permutation", 2 * BATCH);
        let order =
            [&order[..BATCH], &order[BATCH..]].map(|o| o.iter().map(|&i| i as usize).collect());
        let stats = moco.step(&views, &order).unwrap();
        sgd(&moco.query.params, &mut velocity, (1e-4, 0.01));

        let own = |part: &str| deviations[run][part][s].as_f64().unwrap();
        let expected = at(s, "loss", 1)[0];
        let off = (stats.loss - expected).abs() as f64;
        assert!(
            off <= (4.0 * own("loss")).max(5e-6),
            "{run} step {}: loss off by {off:e}",
            s + 1
        );

        let tolerance = (4.0 * own("queue")).max(1e-5);
        let photos: Vec<i64> = moco
            .queue
            .photos
            .iter()
            .map(|&p| if p == NO_PHOTO { -1 } else { p as i64 })
            .collect();
        assert_eq!(photos, ints(s, "queue_photo_ids", size));
        assert_eq!(moco.queue.next as i64, ints(s, "queue_position", 1)[0]);
        let close = |a: &[f32], b: &[f32], what: &str| {
            let off = a
                .iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs() as f64)
                .fold(0.0, f64::max);
            assert!(
                off <= tolerance,
                "{run} step {}: {what} off by {off:e} > {tolerance:e}",
                s + 1
            );
        };
        close(
            &sample(&moco.queue.keys, 16, 0),
            &at(s, "queue_sample", 16),
            "queue",
        );
        let name = format!("{run}.queue.step{:02}", s + 1);
        if golden.has(&name) {
            close(&moco.queue.keys, golden.floats(&name), "whole queue");
        }

        for (encoder, name) in [(&moco.query, "query"), (&moco.key, "key")] {
            let values = encoder.params.values.read().unwrap();
            let buffers = encoder.params.buffers.read().unwrap();
            let entries = encoder.params.layout.entries();
            let own = |part: &str| deviations[run][name][part][s].as_f64().unwrap();
            let all = |column: &str| at(s, &format!("{name}.{column}"), entries.len());
            let (norms, change_norms, change_dots) =
                (all("norm"), all("change_norm"), all("change_dot"));
            let total = |buffer: bool| {
                entries
                    .iter()
                    .zip(&change_norms)
                    .filter(|(e, _)| e.role.is_buffer() == buffer)
                    .map(|(_, &c)| c as f64 * c as f64)
                    .sum::<f64>()
                    .sqrt()
            };
            let totals = [total(false), total(true)];
            for (t, entry) in entries.iter().enumerate() {
                let buffer = entry.role.is_buffer();
                let (now, start) = if buffer {
                    (&buffers, &initial_buffers)
                } else {
                    (&values, &initial)
                };
                let now = &now[entry.range.clone()];
                let change: Vec<f32> = now
                    .iter()
                    .zip(&start[entry.range.clone()])
                    .map(|(a, b)| a - b)
                    .collect();
                let worst = own(if buffer {
                    "buffers_worst"
                } else {
                    "parameters_worst"
                });
                let scale = (change_norms[t] as f64).max(totals[usize::from(buffer)] / 1000.0);
                // Numbers near 1 carry 6e-8 of rounding each, whatever has changed.
                let rounding = 2e-7 * norms[t] as f64;
                let tolerance = scale * (4.0 * worst).max(1e-4) + rounding;
                let stream = 5555 + t as u64;
                for (what, got, expected) in [
                    ("norm", norm(now), norms[t] as f64),
                    ("change", norm(&change), change_norms[t] as f64),
                    ("change dot", dot(&change, stream), change_dots[t] as f64),
                ] {
                    let off = (got - expected).abs();
                    assert!(
                        off <= tolerance,
                        "{run} step {}: {name} {} {what} off by {off:e} > {tolerance:e}",
                        s + 1,
                        entry.name
                    );
                }
            }
        }
    }
}

#[test]
fn twenty_steps_follow_pytorch() {
    follow("asymmetric", 20, 40, false);
}

#[test]
fn symmetric_steps_follow_pytorch() {
    follow("symmetric", 6, 72, true);
}
