//! The loader, from outside: which photos a batch has, in which order, whatever can't be read; and
//! what is made of the demo album.

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use seedling_core::data::demo::Demo;
use seedling_core::data::{
    Batch, Loader, LoaderConfig, Photo, PhotoSource, Position, Recipe, contact_sheet,
};
use seedling_core::{Error, Result};

fn config(batch_size: usize, threads: usize) -> LoaderConfig {
    LoaderConfig {
        threads,
        ..LoaderConfig::new(Recipe::by_name("standard").unwrap(), 32, batch_size, 5)
    }
}

/// The demo album, rendered once for all tests.
struct Rendered(Demo, &'static [Photo]);

impl PhotoSource for Rendered {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn id(&self, index: usize) -> &str {
        self.0.id(index)
    }
    fn load(&self, index: usize) -> Result<Photo> {
        Ok(self.1[index].clone())
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.0.label(index)
    }
    fn classes(&self) -> &[String] {
        self.0.classes()
    }
}

fn demo() -> Arc<dyn PhotoSource> {
    static PHOTOS: OnceLock<Vec<Photo>> = OnceLock::new();
    let demo = Demo::new(3, 1).unwrap();
    let photos = PHOTOS.get_or_init(|| (0..24).map(|i| demo.load(i).unwrap()).collect());
    Arc::new(Rendered(demo, photos))
}

/// Everything that makes a batch what it is.
fn content(batch: &Batch) -> (u64, u64, Vec<u32>, Vec<u8>) {
    let rows = 0..batch.photos.len();
    let pixels = rows.flat_map(|row| [batch.bytes(0, row), batch.bytes(1, row)].concat());
    (
        batch.epoch,
        batch.step,
        batch.photos.clone(),
        pixels.collect(),
    )
}

fn take_batches(loader: &mut Loader, n: usize) -> Vec<(u64, u64, Vec<u32>, Vec<u8>)> {
    let mut taken = Vec::new();
    for _ in 0..n {
        let batch = loader.next_batch().unwrap();
        taken.push(content(&batch));
        loader.recycle(batch);
    }
    taken
}

#[test]
fn batches_do_not_depend_on_threads_cache_or_stops() {
    let source = demo();
    let mut plain = Loader::new(source.clone(), config(7, 1), Position::default()).unwrap();
    assert_eq!(
        plain.steps_per_epoch(),
        3,
        "24 photos: a last batch of 3 is dropped"
    );
    let expected = take_batches(&mut plain, 8);
    assert_eq!(plain.position(), Position { epoch: 2, step: 2 });
    let busy = LoaderConfig {
        ahead: 5,
        cache_mb: 64,
        ..config(7, 4)
    };
    let mut other = Loader::new(source.clone(), busy, Position::default()).unwrap();
    assert!(take_batches(&mut other, 8) == expected);
    for stop in [1, 3, 5] {
        let mut first = Loader::new(source.clone(), config(7, 2), Position::default()).unwrap();
        take_batches(&mut first, stop);
        let mut second = Loader::new(source.clone(), config(7, 3), first.position()).unwrap();
        assert!(take_batches(&mut second, 8 - stop) == expected[stop..]);
    }
}

#[test]
fn an_epoch_shows_every_photo_once_in_a_new_order() {
    let mut loader = Loader::new(demo(), config(8, 2), Position::default()).unwrap();
    let epochs: Vec<Vec<u32>> = (0..2)
        .map(|_| {
            take_batches(&mut loader, 3)
                .into_iter()
                .flat_map(|batch| batch.2)
                .collect()
        })
        .collect();
    for epoch in &epochs {
        assert_eq!(epoch.iter().collect::<HashSet<_>>().len(), 24);
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[test]
fn floats_are_the_normalized_bytes() {
    let one = LoaderConfig {
        views: 1,
        ..config(4, 1)
    };
    let mut loader = Loader::new(demo(), one, Position::default()).unwrap();
    let batch = loader.next_batch().unwrap();
    let all = batch.view(0);
    let len = 32 * 32 * 3;
    assert_eq!(all.len(), 4 * len);
    let mut two = vec![0.0; 2 * len];
    batch.write_view(0, &[3, 1], &mut two);
    assert_eq!(two[..len], all[3 * len..]);
    assert_eq!(two[len..], all[len..2 * len]);
    let red = (f32::from(batch.bytes(0, 0)[0]) / 255.0 - 0.485) / 0.229;
    assert!((all[0] - red).abs() < 1e-5);
}

/// An album where the photos at `broken` can't be read.
struct Holes(Arc<dyn PhotoSource>, HashSet<usize>);

impl PhotoSource for Holes {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn id(&self, index: usize) -> &str {
        self.0.id(index)
    }
    fn load(&self, index: usize) -> Result<Photo> {
        if self.1.contains(&index) {
            let photo = self.id(index).to_string();
            return Err(Error::Photo {
                photo,
                reason: "empty file".into(),
            });
        }
        self.0.load(index)
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.0.label(index)
    }
    fn classes(&self) -> &[String] {
        self.0.classes()
    }
}

fn holes(broken: impl IntoIterator<Item = usize>) -> Arc<dyn PhotoSource> {
    Arc::new(Holes(demo(), broken.into_iter().collect()))
}

#[test]
fn unreadable_photos_are_replaced_and_counted() {
    let source = holes([2, 3, 11, 19, 23]);
    let start = Position::default();
    let mut one = Loader::new(source.clone(), config(6, 1), start).unwrap();
    let expected = take_batches(&mut one, 8);
    for (_, _, photos, pixels) in &expected {
        assert_eq!(photos.iter().collect::<HashSet<_>>().len(), 6, "none twice");
        assert!(photos.iter().all(|p| ![2, 3, 11, 19, 23].contains(p)));
        assert_eq!(pixels.len(), 6 * 2 * 32 * 32 * 3);
    }
    let skipped = one.skipped();
    assert_eq!(skipped.len(), 5);
    assert_eq!(
        (skipped[0].id.as_str(), skipped[0].reason.as_str()),
        ("beach/0002", "empty file")
    );
    let mut many = Loader::new(source.clone(), config(6, 4), start).unwrap();
    assert!(take_batches(&mut many, 8) == expected);
    for stop in 1..4 {
        let at = Position {
            epoch: 0,
            step: stop,
        };
        let mut resumed = Loader::new(source.clone(), config(6, 2), at).unwrap();
        assert!(take_batches(&mut resumed, 3) == expected[stop as usize..stop as usize + 3]);
    }
}

#[test]
fn too_few_photos_for_a_batch_make_whole_microbatches() {
    // 24 photos in one batch, 19 of them readable: four micro-batches of four.
    let source = holes([2, 3, 11, 19, 23]);
    let grouped = |threads| LoaderConfig {
        microbatch: 4,
        ..config(24, threads)
    };
    let mut one = Loader::new(source.clone(), grouped(1), Position::default()).unwrap();
    let expected = take_batches(&mut one, 3);
    for (_, _, photos, pixels) in &expected {
        assert_eq!(photos.iter().collect::<HashSet<_>>().len(), 16);
        assert_eq!(pixels.len(), 16 * 2 * 32 * 32 * 3);
    }
    assert_ne!(expected[0].2, expected[1].2);
    assert_eq!(one.skipped().len(), 5);
    let at = Position { epoch: 2, step: 0 };
    let mut resumed = Loader::new(source, grouped(3), at).unwrap();
    assert!(take_batches(&mut resumed, 1) == expected[2..]);
}

#[test]
fn too_few_photos_is_an_error_with_numbers() {
    let text = |result: Result<Loader>| result.err().unwrap().to_string();
    let start = Position::default();
    let too_large = text(Loader::new(demo(), config(25, 1), start));
    assert!(
        too_large.contains("25") && too_large.contains("24"),
        "{too_large}"
    );
    let mut few = Loader::new(holes(0..20), config(6, 2), start).unwrap();
    let message = few.next_batch().unwrap_err().to_string();
    assert!(
        message.contains("only 4 of 24") && message.contains("6"),
        "{message}"
    );
    let mut none = Loader::new(holes(0..24), config(6, 2), start).unwrap();
    let error = none.next_batch().unwrap_err();
    assert!(matches!(error, Error::NoPhotos(_)) && error.to_string().contains("empty file"));
    assert!(
        Loader::new(
            demo(),
            LoaderConfig {
                views: 3,
                ..config(6, 1)
            },
            start
        )
        .is_err()
    );
    assert!(Loader::new(demo(), config(0, 1), start).is_err());
}

#[test]
fn a_dropped_loader_stops_at_once() {
    let start = Instant::now();
    for _ in 0..10 {
        let _ = Loader::new(demo(), config(24, 3), Position::default()).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_demo_repeats_itself() {
    let (a, b, large) = (demo(), Demo::new(3, 1).unwrap(), Demo::new(5, 1).unwrap());
    assert_eq!((a.len(), a.classes().len()), (24, 8));
    assert_eq!(a.id(4), "city/0001");
    assert_eq!((a.label(4), a.label(23)), (Some(1), Some(7)));
    for index in [0, 4, 23] {
        assert_eq!(a.load(index).unwrap(), b.load(index).unwrap());
    }
    assert_eq!(a.load(4).unwrap(), large.load(6).unwrap());
    assert_ne!(
        a.load(4).unwrap(),
        Demo::new(3, 2).unwrap().load(4).unwrap()
    );
}

#[test]
fn a_contact_sheet_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheet.png");
    let recipe = Recipe::by_name("aug+").unwrap();
    contact_sheet::write(&path, &*holes([0]), &recipe, 32, 1, 6).unwrap();
    let sheet = image::open(&path).unwrap();
    assert!(sheet.width() > 1000 && sheet.height() > 300);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
    assert!(contact_sheet::write(&path, &*holes(0..24), &recipe, 32, 1, 6).is_err());
    let nowhere = folder.path().join("missing/sheet.png");
    assert!(contact_sheet::write(&nowhere, &*demo(), &recipe, 32, 1, 6).is_err());
}
