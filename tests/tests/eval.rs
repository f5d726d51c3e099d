//! Measurements against scikit-learn, PyTorch and brute force (golden/eval.py, golden/panel.py).

use safetensors::{Dtype, SafeTensors};
use seedling_core::eval::clusters::{mean_purity, purity};
use seedling_core::eval::few_shot::nearest_class_mean;
use seedling_core::eval::{
    Features, Metric, Protocol, Subject, collapse, instance_discrimination, knn, knn_leave_one_out,
    measure,
};
use seedling_core::eval::{geometry, panel, panel_train_test};
use seedling_core::rng::{Purpose, Rng};
use serde_json::Value;

struct Golden {
    bytes: Vec<u8>,
    figures: Value,
}

impl Golden {
    fn read() -> Golden {
        Golden::open("eval")
    }

    fn open(topic: &str) -> Golden {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
        let bytes = std::fs::read(format!("{folder}/{topic}.safetensors")).unwrap();
        let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
        let figures = &meta.metadata().as_ref().unwrap()["figures"];
        let figures = serde_json::from_str(figures).unwrap();
        Golden { bytes, figures }
    }

    fn words<T>(&self, name: &str, from: fn([u8; 4]) -> T) -> (Vec<usize>, Vec<T>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert!(matches!(tensor.dtype(), Dtype::F32 | Dtype::U32));
        let words = tensor.data().as_chunks::<4>().0.iter();
        (tensor.shape().to_vec(), words.map(|&w| from(w)).collect())
    }

    fn features(&self, name: &str) -> Features {
        let (shape, values) = self.words(name, f32::from_le_bytes);
        Features::new(shape[0], shape[1], values).unwrap()
    }

    fn labels(&self, name: &str) -> Vec<u32> {
        self.words(name, u32::from_le_bytes).1
    }

    fn number(&self, name: &str) -> f64 {
        self.figures[name].as_f64().unwrap()
    }

    fn list(&self, name: &str) -> Vec<f64> {
        let list = self.figures[name].as_array().unwrap();
        list.iter().map(|v| v.as_f64().unwrap()).collect()
    }
}

fn assert_accuracies(got: &[(usize, f64)], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (i, (&(k, accuracy), want)) in got.iter().zip(want).enumerate() {
        assert_eq!(k, 2 * i + 1);
        assert!(
            (accuracy - want).abs() < 1e-9,
            "k {k}: {accuracy} != {want}"
        );
    }
}

#[test]
fn geometry_equals_pytorch() {
    let g = Golden::read();
    let (x, labels) = (g.features("x"), g.labels("labels"));
    let (first, second) = (g.features("view1"), g.features("view2"));
    let subject = Subject {
        plain: &x,
        views: Some((&first, &second)),
        labels: Some(&labels),
    };
    let m = measure(&subject, Metric::Euclidean, 1).unwrap();
    let near = |got: Option<f64>, name: &str| {
        assert!(
            (got.unwrap() - g.number(name)).abs() < 1e-6,
            "{name}: {got:?}"
        );
    };
    near(m.geometry.alignment, "alignment");
    near(m.geometry.uniformity, "uniformity");
    near(m.geometry.intra_class_alignment, "intra_class_alignment");
    near(
        m.geometry.instance_discrimination,
        "instance_discrimination_euclidean",
    );
    near(
        instance_discrimination(&x, &[&first, &second], Metric::Cosine).unwrap(),
        "instance_discrimination_cosine",
    );
    near(m.geometry.lidar, "lidar");
    let c = collapse(&x).unwrap();
    near(Some(c.std_ratio), "std_ratio");
    assert!((c.effective_rank / g.number("effective_rank") - 1.0).abs() < 1e-5);
    assert!((c.largest_ratio / g.number("largest_ratio") - 1.0).abs() < 1e-3);

    // The sampled figure estimates the full one, and the seed fixes it.
    let sampled = geometry::uniformity_sampled(&x, 1).unwrap();
    assert!((sampled - g.number("uniformity")).abs() < 0.05);
    assert_eq!(Some(sampled), m.geometry.uniformity_sampled);
    assert_ne!(Some(sampled), geometry::uniformity_sampled(&x, 2));
}

#[test]
fn knn_equals_scikit_learn() {
    let g = Golden::read();
    let (x, labels) = (g.features("x"), g.labels("labels"));
    let (test, truth) = (g.features("test"), g.labels("truth"));
    for (metric, name) in [
        (Metric::Euclidean, "train_test_euclidean"),
        (Metric::Cosine, "train_test_cosine"),
    ] {
        let found = knn((&x, &labels), (&test, &truth), metric)
            .unwrap()
            .unwrap();
        let want = g.list(name);
        assert_accuracies(&found.per_k, &want);
        assert_eq!(found.best_nn, want.iter().copied().fold(0.0, f64::max));
        assert_eq!(found.protocol, Protocol::TrainTest);
    }
    // Fewer than 101 photos: k ends where the neighbors do.
    let few: Vec<usize> = (0..40).collect();
    let few = knn(
        (&x.select(&few), &labels[..40]),
        (&test, &truth),
        Metric::Euclidean,
    );
    assert_accuracies(&few.unwrap().unwrap().per_k, &g.list("few_euclidean"));
}

#[test]
fn leave_one_out_equals_brute_force_even_with_ties() {
    let g = Golden::read();
    for (x, labels, name) in [
        ("x", "labels", "leave_one_out"),
        ("grid", "grid_labels", "grid_leave_one_out"),
    ] {
        let (x, labels) = (g.features(x), g.labels(labels));
        let found = knn_leave_one_out(&x, &labels, Metric::Euclidean).unwrap();
        let found = found.unwrap();
        assert_accuracies(&found.per_k, &g.list(name));
        assert_eq!(found.protocol.name(), "leave-one-out");
        // One class: always right.
        let one = knn_leave_one_out(&x, &vec![4; x.rows], Metric::Euclidean).unwrap();
        assert_eq!(one.unwrap().best_nn, 100.0);
    }
}

#[test]
fn results_do_not_depend_on_threads_and_names_are_stable() {
    let g = Golden::read();
    let (x, labels) = (g.features("x"), g.labels("labels"));
    let subject = Subject {
        plain: &x,
        views: Some((&g.features("view1"), &g.features("view2"))),
        labels: Some(&labels),
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| measure(&subject, Metric::Cosine, 3).unwrap())
    };
    assert_eq!(on(1), on(4));
    let json = serde_json::to_value(on(2)).unwrap();
    assert!(json["knn"]["best_nn"].as_f64().unwrap() > 0.0);
    assert!(json["knn"]["k"].as_u64().unwrap() % 2 == 1);
    assert_eq!(json["knn"]["protocol"], "leave-one-out");
    assert_eq!(json["knn"]["metric"], "cosine");
    for name in [
        "alignment",
        "uniformity",
        "intra_class_alignment",
        "instance_discrimination",
        "lidar",
    ] {
        assert!(json["geometry"][name].is_f64(), "{name}");
    }
}

#[test]
fn one_photo_and_duplicates_are_measured_without_fuss() {
    let one = Features::new(1, 3, vec![1.0, 2.0, 3.0]).unwrap();
    let subject = Subject {
        plain: &one,
        views: Some((&one, &one)),
        labels: Some(&[0]),
    };
    let m = measure(&subject, Metric::Euclidean, 1).unwrap();
    assert_eq!(m.geometry.alignment, Some(0.0));
    assert_eq!(m.geometry.uniformity, None);
    assert_eq!(m.geometry.instance_discrimination, None);
    assert_eq!(m.geometry.lidar, None);
    assert!(m.knn.is_none() && m.collapse.is_none());

    // 400 copies of one photo: every distance is exactly zero.
    let same = Features::new(400, 3, [0.1, 0.7, -3.3].repeat(400)).unwrap();
    let labels: Vec<u32> = (0..400).map(|i| i % 2).collect();
    let subject = Subject {
        plain: &same,
        views: Some((&same, &same)),
        labels: Some(&labels),
    };
    let m = measure(&subject, Metric::Euclidean, 1).unwrap();
    assert!(m.geometry.intra_class_alignment.unwrap() < 1e-12);
    assert!(m.geometry.uniformity.unwrap().abs() < 1e-5);
    // Its own view is no nearer than the other copies.
    assert_eq!(m.geometry.instance_discrimination, Some(0.0));
    assert_eq!(m.knn.unwrap().per_k.len(), 51);
    assert!(collapse::collapse_warning(&same).is_some());
}

#[test]
fn the_panel_equals_scikit_learn() {
    let g = Golden::open("panel");
    let (x, labels) = (g.features("x"), g.labels("labels"));
    let (test, truth) = (g.features("test"), g.labels("truth"));
    let near = |got: Option<f64>, name: &str, within: f64| {
        assert!(
            (got.unwrap() - g.number(name)).abs() < within,
            "{name}: {got:?}"
        );
    };
    let found = panel(&x, &labels, 0).unwrap();
    near(found.precision_at_10, "precision_at_10", 1e-9);
    near(found.mean_average_precision, "mean_average_precision", 1e-3);
    // Other draws of the same clusterings' starts.
    near(found.purity, "kmeans_purity", 6.0);
    let found = panel_train_test((&x, &labels), (&test, &truth), 0).unwrap();
    near(found.precision_at_10, "test_precision_at_10", 1e-9);
    near(
        found.mean_average_precision,
        "test_mean_average_precision",
        1e-3,
    );
    assert!(found.five_shot > found.one_shot);

    let clusters = g.labels("clusters");
    near(purity(&clusters, &labels).unwrap(), "purity", 1e-9);
    for shots in [1, 5] {
        let drawn = g.labels(&format!("drawn_{shots}"));
        let drawn: Vec<Vec<usize>> = drawn
            .chunks(shots)
            .map(|rows| rows.iter().map(|&row| row as usize).collect())
            .collect();
        let (x, test) = (x.normalized(), test.normalized());
        let found = nearest_class_mean(&x, &drawn, &test);
        let want = g.labels(&format!("predicted_{shots}"));
        assert_eq!(found, want);
    }
}

#[test]
fn the_panel_depends_on_no_thread_and_on_its_seed() {
    let g = Golden::open("panel");
    let (x, labels) = (g.features("x"), g.labels("labels"));
    let on = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| panel(&x, &labels, seed).unwrap())
    };
    assert_eq!(on(1, 0), on(3, 0));
    assert_ne!(on(1, 0).one_shot, on(1, 1).one_shot);
    // One photo, and one class: no figure, or a perfect one.
    let one = panel(&x.select(&[0]), &labels[..1], 0).unwrap();
    assert_eq!(one, seedling_core::eval::Panel::default());
    let same = panel(&x, &vec![3; x.rows], 0).unwrap();
    assert_eq!(same.precision_at_10, Some(100.0));
    assert_eq!(same.one_shot, None);
    let rng = || std::iter::once(Rng::new(0, Purpose::Measure, 0, 0));
    assert!(mean_purity(&x, &labels[1..], rng()).is_err());
}
