//! A network from elsewhere on real photos, against what PyTorch and scikit-learn say of it: the
//! whole way from JPEG files over the backbone to nearest neighbors.

use seedling_core::backbones::Arch;
use seedling_core::data::{self, PhotoSource};
use seedling_core::encoder::{Architecture, Encoder};
use seedling_core::eval::extract::{EvalView, Extractor};
use seedling_core::eval::{Features, Metric, knn};
use seedling_core::nn::workspace::Workspace;
use seedling_core::weights::WeightFile;
use seedling_tests::require;

/// Best-NN on the album, train -> test, Euclidean, computed in Python.
const BEST_NN: f64 = 95.5;

#[test]
fn the_teacher_knows_the_photos_as_well_as_in_pytorch() {
    let (Some(photos), Some(weights)) = (
        require::data("photos"),
        require::weights("mobilenet_v2_imagenet.safetensors"),
    ) else {
        return;
    };
    let file = WeightFile::open(&weights, Some(Arch::MOBILENET_V2)).unwrap();
    let architecture = Architecture {
        head: None,
        ..file.metadata.architecture
    };
    let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
    file.load_backbone(&mut encoder.params).unwrap();
    let features = |source: &dyn PhotoSource| -> (Features, Vec<u32>) {
        let extractor = Extractor {
            encoder: &encoder,
            source,
            image_size: 224,
            normalize: &file.metadata.normalize,
        };
        let all: Vec<usize> = (0..source.len()).collect();
        let found = extractor
            .features(&all, &EvalView::Plain, |_| Ok(()))
            .unwrap();
        let (features, photos) = (found.features, found.photos);
        let labels = photos.iter().map(|&i| source.label(i).unwrap() as u32);
        (features, labels.collect())
    };
    let (train, test) =
        data::split(&photos, &data::open(&photos).unwrap()).expect("train and test folders");
    let (train, test) = (features(&*train), features(&*test));
    let found = knn((&train.0, &train.1), (&test.0, &test.1), Metric::Euclidean);
    let best = found.unwrap().unwrap().best_nn;
    println!("best-NN {best:.2} %");
    assert!((best - BEST_NN).abs() <= 0.5, "{best}");
}
