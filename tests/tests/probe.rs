//! The linear probe against PyTorch, t-SNE against scikit-learn, bicubic resizing against Pillow
//! (golden/probe.py).

use seedling_core::data::resize::{Filter, Rect, evaluation_bytes};
use seedling_core::data::{Photo, Scratch, ViewParams};
use seedling_core::eval::linear_probe::LinearProbe;
use seedling_core::eval::{Features, Metric, nearest};
use seedling_report::map;
use seedling_tests::formula::{numbers, u};
use seedling_tests::golden::{Golden, deviation};

const ROWS: usize = 210;
const DIM: usize = 24;
const CLASSES: usize = 5;
const EPOCHS: usize = 12;
const BATCH: usize = 64;
const RATES: [f32; 2] = [0.3, 3.0];

/// As the generator has them.
fn features(stream: u64) -> (Features, Vec<u32>) {
    let noise = (0..ROWS * DIM).map(|i| {
        let (row, d) = (i / DIM, i % DIM);
        let center = 2.0 * u(stream, row % CLASSES * DIM + d);
        (center + 3.0 * u(stream + 1, i)) as f32
    });
    let features = Features::new(ROWS, DIM, noise.collect()).unwrap();
    (features, (0..ROWS).map(|i| (i % CLASSES) as u32).collect())
}

#[test]
fn linear_probes_are_pytorchs() {
    let golden = Golden::open("probe");
    let (plain, labels) = features(20);
    let weight = numbers(22, CLASSES * DIM, 0.04);
    for (unit, x) in [&plain, &plain.normalized()].into_iter().enumerate() {
        let mut probe = LinearProbe::new(&weight, DIM, &RATES, 0.9);
        for epoch in 0..EPOCHS {
            let factor = [1.0, 0.1, 0.01][usize::from(epoch >= 6) + usize::from(epoch >= 9)];
            let batches = x.values.chunks(BATCH * DIM).zip(labels.chunks(BATCH));
            batches.for_each(|(x, labels)| probe.step(x, labels, factor));
        }
        for rate in 0..RATES.len() {
            let (weight, bias) = probe.layer(rate);
            for (what, found) in [("weight", weight), ("bias", bias)] {
                let name = format!("linear/{unit}/{rate}/{what}");
                let off = deviation(found, golden.floats(&name));
                assert!(off < 2e-5, "{name}: {off:e}");
            }
        }
    }
}

/// The part of each row's ten nearest that two maps share, on average.
fn shared_neighbors(a: &Features, b: &Features) -> f64 {
    const NEAR: usize = 10;
    let near = |map: &Features, row| -> Vec<usize> {
        let found = nearest(map, row, NEAR, Metric::Euclidean);
        found.iter().map(|neighbor| neighbor.index).collect()
    };
    let shared = (0..a.rows).map(|row| {
        let theirs = near(b, row);
        let ours = near(a, row);
        ours.iter().filter(|i| theirs.contains(i)).count()
    });
    shared.sum::<usize>() as f64 / (NEAR * a.rows) as f64
}

/// How well a map keeps neighbors (Venna and Kaski 2001), as scikit-learn has it.
fn trustworthiness(features: &Features, map: &Features) -> f64 {
    const NEAR: usize = 10;
    let n = features.rows;
    let all = |x: &Features, row| nearest(x, row, n, Metric::Euclidean);
    let strangers = (0..n).map(|row| {
        let ranked: Vec<usize> = all(features, row).iter().map(|near| near.index).collect();
        let shown = all(map, row);
        let rank = |index| ranked.iter().position(|&other| other == index).unwrap() + 1;
        let shown = shown[..NEAR].iter();
        shown
            .map(|near| rank(near.index).saturating_sub(NEAR))
            .sum::<usize>()
    });
    let total = strangers.sum::<usize>() as f64;
    1.0 - 2.0 * total / (n * NEAR * (2 * n - 3 * NEAR - 1)) as f64
}

#[test]
fn maps_keep_neighbors_as_scikit_learns_do() {
    let golden = Golden::open("probe");
    let figures = golden.json("figures");
    let (x, _) = features(30);
    let p = map::affinities(&map::principal(&x));
    let off = deviation(&p, golden.floats("tsne/p"));
    assert!(off < 1e-3, "joint probabilities: {off:e}");

    let points = map::layout(&x, None);
    let places = points.iter().flatten().map(|&x| x as f32).collect();
    let ours = Features::new(ROWS, 2, places).unwrap();
    let theirs = Features::new(ROWS, 2, golden.floats("tsne/map").to_vec()).unwrap();
    let unit = x.normalized();
    let (ours_keeps, theirs_keeps) = (
        trustworthiness(&unit, &ours),
        trustworthiness(&unit, &theirs),
    );
    let expected = figures["trustworthiness"].as_f64().unwrap();
    assert!(
        (theirs_keeps - expected).abs() < 1e-3,
        "{theirs_keeps} {expected}"
    );
    assert!(ours_keeps > expected - 0.01, "{ours_keeps} {expected}");
    let divergence = map::divergence(&p, &points);
    let expected = figures["kl_divergence"].as_f64().unwrap();
    assert!(divergence < 1.03 * expected, "{divergence} {expected}");
    let shared = shared_neighbors(&ours, &theirs);
    let expected = figures["shared"].as_f64().unwrap();
    assert!(shared > expected - 0.1, "{shared} {expected}");
}

#[test]
fn bicubic_is_pillows() {
    let golden = Golden::open("probe");
    let pixels = Golden::open("views");
    let rgb = pixels.ints("photo").iter().map(|&x| x as u8).collect();
    let photo = Photo::new(97, 71, rgb).unwrap();
    let cases = golden.json("cases");
    let bytes = |name: &str| -> Vec<u8> { golden.ints(name).iter().map(|&x| x as u8).collect() };
    for (i, case) in cases.as_array().unwrap().iter().enumerate() {
        let crop: Vec<usize> = serde_json::from_value(case[0].clone()).unwrap();
        let size = case[1].as_u64().unwrap() as usize;
        let view = ViewParams {
            crop: Rect {
                left: crop[0],
                top: crop[1],
                width: crop[2],
                height: crop[3],
            },
            jitter: Vec::new(),
            gray: false,
            blur: None,
            flip: false,
        };
        let mut out = vec![0; size * size * 3];
        view.render_by(
            Filter::Bicubic,
            &photo,
            size,
            &mut Scratch::default(),
            &mut out,
        );
        assert!(out == bytes(&format!("bicubic/{i}")), "case {i}");
    }
    assert!(evaluation_bytes(&photo, 45, Filter::Bicubic) == bytes("bicubic/evaluation"));
}
