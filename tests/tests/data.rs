//! Sources and the loader, from outside: what an album becomes, in which order, whatever is in it.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use seedling_core::data::demo::Demo;
use seedling_core::data::{
    Batch, DecodeBudget, Loader, LoaderConfig, Photo, PhotoSource, Position, Recipe, contact_sheet,
    open, open_within,
};
use seedling_core::{Error, Result};

/// A small PNG whose colour tells which it is.
fn png(n: u8) -> Vec<u8> {
    let picture =
        image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([n, x as u8 * 20, y as u8 * 25]));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

type Source = Arc<dyn PhotoSource>;

fn split(path: &Path) -> Option<(Source, Source)> {
    seedling_core::data::split(path, &open(path).unwrap())
}

fn ids(source: &dyn PhotoSource) -> Vec<String> {
    (0..source.len())
        .map(|i| source.id(i).to_string())
        .collect()
}

fn labels(source: &dyn PhotoSource) -> Vec<Option<usize>> {
    (0..source.len()).map(|i| source.label(i)).collect()
}

fn failure(result: Result<Arc<dyn PhotoSource>>) -> String {
    match result {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("SEEDLING_DATA").map_or(default, PathBuf::from);
    if !path.join("photos").is_dir() {
        println!("skipped: no data at {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn folders_are_searched_and_sorted() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for (n, name) in ["b.png", "A/z.PNG", "A/deep/er/c.png", "a.jpeg"]
        .iter()
        .enumerate()
    {
        put(root, name, &png(n as u8));
    }
    put(root, ".hidden.png", &png(0));
    put(root, ".thumbs/x.png", &png(0));
    put(root, "notes.txt", b"no photo");
    let source = open(root).unwrap();
    assert_eq!(
        ids(&*source),
        ["A/deep/er/c.png", "A/z.PNG", "a.jpeg", "b.png"]
    );
    assert!(source.classes().is_empty() && source.label(0).is_none());
    // Decoded by content: a PNG named .jpeg is fine.
    assert_eq!(source.load(2).unwrap().rgb[0], 3);
    assert!(split(root).is_none());
}

#[test]
fn class_folders_and_splits_have_labels() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for (n, name) in [
        "train/cat/1.png",
        "train/dog/1.png",
        "test/dog/2.png",
        "test/cat/2.png",
    ]
    .iter()
    .enumerate()
    {
        put(root, name, &png(n as u8));
    }
    let whole = open(root).unwrap();
    assert_eq!(whole.classes(), ["cat", "dog"]);
    assert_eq!(labels(&*whole), [Some(0), Some(1), Some(0), Some(1)]);
    let (train, test) = split(root).unwrap();
    assert_eq!(ids(&*train), ["train/cat/1.png", "train/dog/1.png"]);
    assert_eq!(labels(&*test), [Some(0), Some(1)]);
    assert_eq!(train.classes(), test.classes());
    assert_eq!(test.load(1).unwrap().rgb[0], 2);
    let half = open(&root.join("train")).unwrap();
    assert_eq!(ids(&*half), ["cat/1.png", "dog/1.png"]);
    assert_eq!(labels(&*half), [Some(0), Some(1)]);
}

#[test]
fn cifar_binaries_are_read() {
    let album = tempfile::tempdir().unwrap();
    let record = |labels: &[u8], n: u8| {
        let mut bytes = labels.to_vec();
        for plane in 0..3u8 {
            bytes.extend((0..1024u32).map(|i| n.wrapping_add(plane * 50).wrapping_add(i as u8)));
        }
        bytes
    };
    let ten = album.path().join("ten");
    put(&ten, "data_batch_2.bin", &record(&[1], 9));
    put(
        &ten,
        "data_batch_1.bin",
        &[record(&[2], 7), record(&[0], 8)].concat(),
    );
    put(&ten, "test_batch.bin", &record(&[2], 5));
    put(&ten, "batches.meta.txt", b"airplane\nautomobile\nbird\n\n");
    let source = open(&ten).unwrap();
    assert_eq!(
        ids(&*source),
        ["train/00000", "train/00001", "train/00002", "test/00000"]
    );
    assert_eq!(labels(&*source), [Some(2), Some(0), Some(1), Some(2)]);
    assert_eq!(source.classes(), ["airplane", "automobile", "bird"]);
    let photo = source.load(2).unwrap();
    assert_eq!((photo.width, photo.height), (32, 32));
    assert_eq!(photo.rgb[..6], [9, 59, 109, 10, 60, 110]);
    let (train, test) = split(&ten).unwrap();
    assert_eq!((train.len(), test.len()), (3, 1));

    let hundred = album.path().join("hundred");
    put(
        &hundred,
        "train.bin",
        &[record(&[1, 4], 1), record(&[1, 3], 2)].concat(),
    );
    put(&hundred, "test.bin", &record(&[0, 2], 3));
    let source = open(&hundred).unwrap();
    assert_eq!(labels(&*source), [Some(4), Some(3), Some(2)]);
    assert_eq!(source.classes().len(), 5);
    put(&hundred, "test.bin", b"short");
    assert!(failure(open(&hundred)).contains("CIFAR"));
}

fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn archives_are_read() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    let files = [
        ("dog/2.png", png(2)),
        ("./cat/1.png", png(1)),
        ("cat/.hidden.png", png(9)),
        ("cat/readme.txt", b"text".to_vec()),
    ];
    let tar = tar_of(&files);
    for (name, bytes) in [
        ("a.tar", tar.clone()),
        ("b.tar.gz", gzip(&tar)),
        ("c.tgz", gzip(&tar)),
    ] {
        put(root, name, &bytes);
        let source = open(&root.join(name)).unwrap();
        assert_eq!(ids(&*source), ["cat/1.png", "dog/2.png"], "{name}");
        assert_eq!(source.classes(), ["cat", "dog"]);
        assert_eq!(labels(&*source), [Some(0), Some(1)]);
        assert_eq!(source.load(1).unwrap().rgb[0], 2);
    }
    let all = open(root).unwrap();
    assert_eq!(
        ids(&*all)[..3],
        ["a/cat/1.png", "a/dog/2.png", "b/cat/1.png"]
    );
    assert_eq!(labels(&*all)[..3], [Some(0), Some(1), Some(0)]);
    assert!(split(root).is_none());

    let pair = tempfile::tempdir().unwrap();
    put(pair.path(), "set-train.tar.gz", &gzip(&tar));
    put(
        pair.path(),
        "set-test.tar",
        &tar_of(&[("dog/9.png", png(9))]),
    );
    let (train, test) = split(pair.path()).unwrap();
    assert_eq!(
        (train.len(), ids(&*test)),
        (2, vec!["set-test/dog/9.png".to_string()])
    );
    assert_eq!(test.label(0), Some(1));

    put(root, "broken.tar.gz", &gzip(&tar)[..60]);
    assert!(failure(open(&root.join("broken.tar.gz"))).contains("archive"));
}

#[test]
fn photos_beside_a_file_named_as_cifars_are_photos() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for n in 0..3 {
        put(root, &format!("{n}.png"), &png(n));
    }
    for name in ["test.bin", "train.bin", "data_batch_1.bin"] {
        put(root, name, b"somebody's own");
        assert_eq!(open(root).unwrap().len(), 3, "{name}");
        fs::remove_file(root.join(name)).unwrap();
        // Even where its size would fit.
        if name == "test.bin" {
            put(root, name, &vec![0; 2 * 3074]);
            assert_eq!(open(root).unwrap().len(), 3, "{name}");
        }
    }
    // Without photos the name counts, and what is wrong with the file is said.
    let alone = tempfile::tempdir().unwrap();
    put(alone.path(), "test.bin", b"short");
    assert!(failure(open(alone.path())).contains("CIFAR records"));
}

#[test]
fn decoding_stays_within_its_budget() {
    let album = tempfile::tempdir().unwrap();
    let mut large = std::io::Cursor::new(Vec::new());
    let grey = image::GrayImage::new(2000, 1500);
    grey.write_to(&mut large, image::ImageFormat::Png).unwrap();
    put(album.path(), "large.png", large.get_ref());
    put(album.path(), "small.png", &png(1));
    let tight = open_within(album.path(), Arc::new(DecodeBudget::megabytes(8))).unwrap();
    let refused = tight.load(0).unwrap_err().to_string();
    assert!(
        refused.contains("large.png") && refused.contains("decode_mb"),
        "{refused}"
    );
    assert_eq!(tight.load(1).unwrap().width, 12);
    // One at a time fits: many threads wait for each other.
    let enough = open_within(album.path(), Arc::new(DecodeBudget::megabytes(12))).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(enough.with(0, |photo| photo.width).unwrap(), 2000));
        }
    });
}

#[test]
fn nothing_to_open_is_said_in_one_line() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for (path, word) in [
        (root.join("missing"), "missing"),
        (root.to_path_buf(), "empty"),
    ] {
        let text = failure(open(&path));
        assert!(text.contains(word) && !text.contains('\n'), "{text}");
    }
    put(root, "notes.txt", b"text");
    assert!(failure(open(root)).contains("none is named"));
    assert!(failure(open(&root.join("notes.txt"))).contains("neither"));
}

#[test]
fn the_shared_album_opens() {
    let Some(data) = shared() else { return };
    let album = open(&data.join("photos")).unwrap();
    assert_eq!((album.len(), album.classes().len()), (1000, 20));
    let (train, test) = split(&data.join("photos")).unwrap();
    assert_eq!((train.len(), test.len()), (800, 200));
    let cifar = open(&data.join("cifar10-test.tar.gz")).unwrap();
    assert_eq!((cifar.len(), cifar.classes().len()), (2000, 10));
    assert_eq!(cifar.load(1999).unwrap().width, 32);
}

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

fn take(loader: &mut Loader, n: usize) -> Vec<(u64, u64, Vec<u32>, Vec<u8>)> {
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
    let expected = take(&mut plain, 8);
    assert_eq!(plain.position(), Position { epoch: 2, step: 2 });
    let busy = LoaderConfig {
        ahead: 5,
        cache_mb: 64,
        ..config(7, 4)
    };
    let mut other = Loader::new(source.clone(), busy, Position::default()).unwrap();
    assert!(take(&mut other, 8) == expected);
    for stop in [1, 3, 5] {
        let mut first = Loader::new(source.clone(), config(7, 2), Position::default()).unwrap();
        take(&mut first, stop);
        let mut second = Loader::new(source.clone(), config(7, 3), first.position()).unwrap();
        assert!(take(&mut second, 8 - stop) == expected[stop..]);
    }
}

#[test]
fn an_epoch_shows_every_photo_once_in_a_new_order() {
    let mut loader = Loader::new(demo(), config(8, 2), Position::default()).unwrap();
    let epochs: Vec<Vec<u32>> = (0..2)
        .map(|_| {
            take(&mut loader, 3)
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
fn floats_are_the_normalised_bytes() {
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
    let expected = take(&mut one, 8);
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
    assert!(take(&mut many, 8) == expected);
    for stop in 1..4 {
        let at = Position {
            epoch: 0,
            step: stop,
        };
        let mut resumed = Loader::new(source.clone(), config(6, 2), at).unwrap();
        assert!(take(&mut resumed, 3) == expected[stop as usize..stop as usize + 3]);
    }
}

#[test]
fn too_few_photos_for_a_batch_make_whole_groups() {
    // 24 photos in one batch, 19 of them readable: four groups of four.
    let source = holes([2, 3, 11, 19, 23]);
    let grouped = |threads| LoaderConfig {
        group: 4,
        ..config(24, threads)
    };
    let mut one = Loader::new(source.clone(), grouped(1), Position::default()).unwrap();
    let expected = take(&mut one, 3);
    for (_, _, photos, pixels) in &expected {
        assert_eq!(photos.iter().collect::<HashSet<_>>().len(), 16);
        assert_eq!(pixels.len(), 16 * 2 * 32 * 32 * 3);
    }
    assert_ne!(expected[0].2, expected[1].2);
    assert_eq!(one.skipped().len(), 5);
    let at = Position { epoch: 2, step: 0 };
    let mut resumed = Loader::new(source, grouped(3), at).unwrap();
    assert!(take(&mut resumed, 1) == expected[2..]);
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
fn the_demo_album_repeats_itself() {
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
