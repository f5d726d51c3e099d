//! The losses and their gradients against PyTorch's stored values (tests/golden/ops.py and
//! neighbors.py), to 1e-5 of the largest magnitude in a tensor.

use seedling_core::loss::{Contrast, Neighbors, Target, evaluate};
use seedling_core::queue::{NO_PHOTO, Queue};
use seedling_tests::formula::numbers;
use seedling_tests::fused::{assert_close, on_one_and_three_threads};
use seedling_tests::golden::{Golden, worst};

const TOLERANCE: f64 = 1e-5;

fn queue(golden: &Golden, case: &str) -> (Queue, usize) {
    let name = format!("{case}.queue");
    let (size, dim) = (golden.shape(&name)[0], golden.shape(&name)[1]);
    let mut queue = Queue::random(size, dim, 0);
    queue.keys = golden.floats(&name).to_vec();
    (queue, dim)
}

fn close(golden: &Golden, case: &str, tensor: &str, got: &[f32]) {
    let name = format!("{case}.{tensor}");
    // A loss is a difference of numbers near 1, a gradient of unit rows.
    assert_close(got, golden.floats(&name), TOLERANCE, 1.0, &name);
}

#[test]
fn info_nce_matches_whatever_is_masked() {
    let golden = Golden::open("ops");
    let cases = golden.cases("info_nce.", 2);
    assert_eq!(cases.len(), 4);
    on_one_and_three_threads(|_| {
        for case in &cases {
            let get = |tensor: &str| golden.floats(&format!("{case}.{tensor}"));
            let (mut queue, dim) = queue(&golden, case);
            let (query, key) = (get("query"), get("key"));
            let n = query.len() / dim;
            let masked = golden.ints(&format!("{case}.masked"));
            let (mut losses, mut grad, mut mean) = (vec![], vec![], 0.0);
            // The masks are arbitrary, photo ids are not: one query at a time, with the queue's
            // ids such that just its masked rows carry its photo.
            for i in 0..n {
                let row = i * dim..(i + 1) * dim;
                let size = queue.size();
                for (photo, &masked) in queue.photos.iter_mut().zip(&masked[i * size..]) {
                    *photo = if masked == 1 { 5 } else { 6 };
                }
                let contrast = |batch| Contrast {
                    positives: &key[row.clone()],
                    queue: &queue,
                    photos: &[5],
                    mask_own_photo: true,
                    temperature: get("temperature")[0],
                    target: &Target::Positive,
                    batch,
                    regression: None,
                };
                losses.push(evaluate(&query[row.clone()], &contrast(1)).loss);
                let part = evaluate(&query[row.clone()], &contrast(n));
                mean += part.loss;
                grad.extend(part.grad);
            }
            close(&golden, case, "losses", &losses);
            close(&golden, case, "loss", &[mean]);
            close(&golden, case, "dquery", &grad);

            if masked.iter().all(|&m| m == 0) {
                let whole = Contrast {
                    positives: key,
                    queue: &queue,
                    photos: &vec![NO_PHOTO; n],
                    mask_own_photo: false,
                    temperature: get("temperature")[0],
                    target: &Target::Positive,
                    batch: n,
                    regression: None,
                };
                let result = evaluate(query, &whole);
                close(&golden, case, "loss", &[result.loss]);
                close(&golden, case, "dquery", &result.grad);
            }
        }
    });
}

#[test]
fn each_query_of_a_batch_has_its_own_mask() {
    let queue = {
        let mut queue = Queue::random(30, 16, 3);
        queue.photos = (0..30).map(|i| i % 5).collect();
        queue
    };
    let rows = Queue::random(8, 16, 4).keys;
    let (queries, keys) = rows.split_at(4 * 16);
    let photos = [0, 3, 9, 3];
    let run = |from: usize, to: usize| {
        let contrast = Contrast {
            positives: &keys[from * 16..to * 16],
            queue: &queue,
            photos: &photos[from..to],
            mask_own_photo: true,
            temperature: 0.2,
            target: &Target::Positive,
            batch: 4,
            regression: None,
        };
        evaluate(&queries[from * 16..to * 16], &contrast)
    };
    let whole = run(0, 4);
    let parts: Vec<_> = (0..4).map(|i| run(i, i + 1)).collect();
    let loss = parts.iter().map(|p| p.loss).sum::<f32>();
    assert!((whole.loss - loss).abs() < 1e-5);
    let grad: Vec<f32> = parts.into_iter().flat_map(|p| p.grad).collect();
    assert_close(&whole.grad, &grad, TOLERANCE, 0.0, "grad");
}

#[test]
fn smoothed_targets_are_as_by_autograd() {
    let golden = Golden::open("neighbors");
    let facts = golden.json("facts");
    let number = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let (query, key) = (golden.floats("query"), golden.floats("key"));
    let (shape, initial) = (golden.shape("queue"), golden.floats("initial").to_vec());
    let photos = ids(&facts["query_photos"]);
    let n = photos.len();
    on_one_and_three_threads(|_| {
        for case in facts["cases"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let mut queue = Queue::random(shape[0], shape[1], 0);
            queue.keys = golden.floats("queue").to_vec();
            queue.photos = ids(&case["queue_photos"]);
            let run = |rows: std::ops::Range<usize>, batch| {
                let target = match case["count"].as_u64() {
                    Some(count) => Target::Nearest {
                        weight: number(&case["weight"]),
                        count: count as usize,
                    },
                    None => Target::Neighbors(Neighbors {
                        initial: initial.clone(),
                        weight: number(&case["weight"]),
                        temperature: number(&facts["neighbor_temperature"]),
                    }),
                };
                let whole = Contrast {
                    positives: &key.to_vec(),
                    queue: &queue,
                    photos: &photos,
                    mask_own_photo: case["masked"].as_bool().unwrap(),
                    temperature: number(&facts["temperature"]),
                    target: &target,
                    batch,
                    regression: None,
                };
                let queries = &query[rows.start * shape[1]..rows.end * shape[1]];
                evaluate(queries, &whole.select_rows(rows))
            };
            let losses: Vec<f32> = (0..n).map(|i| run(i..i + 1, 1).loss).collect();
            close(&golden, name, "losses", &losses);
            close(&golden, name, "dquery", &run(0..n, n).grad);
        }
    });
}

#[test]
fn distillation_loss_matches() {
    let golden = Golden::open("ops");
    let cases = golden.cases("distill_loss.", 2);
    assert_eq!(cases.len(), 3);
    on_one_and_three_threads(|_| {
        for case in &cases {
            let get = |tensor: &str| golden.floats(&format!("{case}.{tensor}"));
            let (queue, dim) = queue(&golden, case);
            let (student, teacher) = (get("student"), get("teacher"));
            let n = student.len() / dim;
            let run = |rows: std::ops::Range<usize>, batch| {
                let contrast = Contrast {
                    positives: &teacher[rows.start * dim..rows.end * dim],
                    queue: &queue,
                    photos: &vec![NO_PHOTO; rows.len()],
                    mask_own_photo: false,
                    temperature: get("temperatures")[0],
                    target: &Target::Teacher {
                        temperature: get("temperatures")[1],
                    },
                    batch,
                    regression: None,
                };
                evaluate(&student[rows.start * dim..rows.end * dim], &contrast)
            };
            let result = run(0..n, n);
            close(&golden, case, "loss", &[result.loss]);
            close(&golden, case, "dstudent", &result.grad);
            let losses: Vec<f32> = (0..n).map(|i| run(i..i + 1, 1).loss).collect();
            close(&golden, case, "losses", &losses);
        }
    });
}

/// CompRess, SimDis, DisCo and BINGO (golden/recipes.py).
#[test]
fn other_recipes_are_pytorchs() {
    use seedling_core::loss::{Regression, TeacherQueue};
    const N: usize = 5;
    const DIM: usize = 16;
    const SIZE: usize = 11;
    let golden = Golden::open("recipes");
    let rows = |stream: u64, count: usize| -> Vec<f32> {
        let mut rows = numbers(stream, count * DIM, 2.0);
        for row in rows.chunks_exact_mut(DIM) {
            let norm = row
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            row.iter_mut()
                .for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        rows
    };
    let queue = |stream: u64| Queue {
        keys: rows(stream, SIZE),
        photos: vec![NO_PHOTO; SIZE],
        next: 0,
        dim: DIM,
    };
    let (queries, t, k) = (rows(60, N), rows(61, N), rows(62, N));
    let own = queue(63);
    let teachers = Target::TeacherQueue(TeacherQueue {
        queue: queue(64),
        temperature: 0.04,
    });
    let recipe = |name: &str| -> Contrast<'_> {
        let (positives, temperature, target, weight) = match name {
            "compress" => (&t, 0.1, &teachers, None),
            "simdis" => (&t, 1.0, &Target::Nothing, Some(1.0)),
            _ => (&k, 0.2, &Target::Positive, Some(0.3)),
        };
        Contrast {
            positives,
            queue: &own,
            photos: &[NO_PHOTO; N],
            mask_own_photo: false,
            temperature,
            target,
            batch: 8,
            regression: weight.map(|weight| Regression { to: &t[..], weight }),
        }
    };
    // BINGO's loss has two terms, for a photo and one from its bag, against the teacher's queue.
    let teachers_queue = queue(64);
    let bingo = |positives| {
        let contrast = Contrast {
            positives,
            queue: &teachers_queue,
            target: &Target::Positive,
            temperature: 0.2,
            ..recipe("compress")
        };
        evaluate(&queries, &contrast)
    };
    let (mut both, bag) = (bingo(&t), bingo(&k));
    both.loss += bag.loss;
    both.grad
        .iter_mut()
        .zip(bag.grad)
        .for_each(|(a, b)| *a += b);
    let others =
        ["compress", "simdis", "disco"].map(|name| (name, evaluate(&queries, &recipe(name))));
    for (name, found) in others.into_iter().chain([("bingo", both)]) {
        let off =
            |found: &[f32], tensor: &str| worst(found, golden.floats(&format!("{name}.{tensor}")));
        assert!(off(&[found.loss], "loss") < 1e-6, "{name}: {}", found.loss);
        assert!(off(&found.grad, "grad") < 2e-6, "{name}");
    }
}
