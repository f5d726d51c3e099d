//! Photo sources, from outside: what an album becomes, whatever is in it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use seedling_core::Result;
use seedling_core::data::{DecodeBudget, PhotoSource, open, open_within};
use seedling_tests::require;

/// A small PNG whose color tells which it is.
fn png(n: u8) -> Vec<u8> {
    let picture =
        image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([n, x as u8 * 20, y as u8 * 25]));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn write_file(root: &Path, name: &str, bytes: &[u8]) {
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

#[test]
fn folders_are_searched_and_sorted() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for (n, name) in ["b.png", "A/z.PNG", "A/deep/er/c.png", "a.jpeg"]
        .iter()
        .enumerate()
    {
        write_file(root, name, &png(n as u8));
    }
    write_file(root, ".hidden.png", &png(0));
    write_file(root, ".thumbs/x.png", &png(0));
    write_file(root, "notes.txt", b"no photo");
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
        write_file(root, name, &png(n as u8));
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
    write_file(&ten, "data_batch_2.bin", &record(&[1], 9));
    write_file(
        &ten,
        "data_batch_1.bin",
        &[record(&[2], 7), record(&[0], 8)].concat(),
    );
    write_file(&ten, "test_batch.bin", &record(&[2], 5));
    write_file(&ten, "batches.meta.txt", b"airplane\nautomobile\nbird\n\n");
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
    write_file(
        &hundred,
        "train.bin",
        &[record(&[1, 4], 1), record(&[1, 3], 2)].concat(),
    );
    write_file(&hundred, "test.bin", &record(&[0, 2], 3));
    let source = open(&hundred).unwrap();
    assert_eq!(labels(&*source), [Some(4), Some(3), Some(2)]);
    assert_eq!(source.classes().len(), 5);
    write_file(&hundred, "test.bin", b"short");
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
        write_file(root, name, &bytes);
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
    write_file(pair.path(), "set-train.tar.gz", &gzip(&tar));
    write_file(
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

    write_file(root, "broken.tar.gz", &gzip(&tar)[..60]);
    assert!(failure(open(&root.join("broken.tar.gz"))).contains("archive"));
}

#[test]
fn photos_beside_a_file_named_as_cifars_are_photos() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    for n in 0..3 {
        write_file(root, &format!("{n}.png"), &png(n));
    }
    for name in ["test.bin", "train.bin", "data_batch_1.bin"] {
        write_file(root, name, b"somebody's own");
        assert_eq!(open(root).unwrap().len(), 3, "{name}");
        fs::remove_file(root.join(name)).unwrap();
        // Even where its size would fit.
        if name == "test.bin" {
            write_file(root, name, &vec![0; 2 * 3074]);
            assert_eq!(open(root).unwrap().len(), 3, "{name}");
        }
    }
    // Without photos the name counts, and what is wrong with the file is said.
    let alone = tempfile::tempdir().unwrap();
    write_file(alone.path(), "test.bin", b"short");
    assert!(failure(open(alone.path())).contains("CIFAR records"));
}

#[test]
fn decoding_stays_within_its_budget() {
    let album = tempfile::tempdir().unwrap();
    let mut large = std::io::Cursor::new(Vec::new());
    let gray = image::GrayImage::new(2000, 1500);
    gray.write_to(&mut large, image::ImageFormat::Png).unwrap();
    write_file(album.path(), "large.png", large.get_ref());
    write_file(album.path(), "small.png", &png(1));
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
            scope.spawn(|| assert_eq!(enough.with_photo(0, |photo| photo.width).unwrap(), 2000));
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
    write_file(root, "notes.txt", b"text");
    assert!(failure(open(root)).contains("none is named"));
    assert!(failure(open(&root.join("notes.txt"))).contains("neither"));
}

#[test]
fn the_shared_photos_open() {
    let (Some(photos), Some(cifar)) = (
        require::data("photos"),
        require::data("cifar10-test.tar.gz"),
    ) else {
        return;
    };
    let album = open(&photos).unwrap();
    assert_eq!((album.len(), album.classes().len()), (1000, 20));
    let (train, test) = split(&photos).unwrap();
    assert_eq!((train.len(), test.len()), (800, 200));
    let cifar = open(&cifar).unwrap();
    assert_eq!((cifar.len(), cifar.classes().len()), (2000, 10));
    assert_eq!(cifar.load(1999).unwrap().width, 32);
}

/// Names of a disk that knew no Unicode.
#[cfg(unix)]
#[test]
fn any_bytes_are_a_name() {
    use std::os::unix::ffi::OsStrExt;
    let album = tempfile::tempdir().unwrap();
    let latin = |name: &[u8]| album.path().join(std::ffi::OsStr::from_bytes(name));
    fs::create_dir(latin(b"Fr\xFChling")).unwrap();
    for (n, name) in [
        &b"caf\xE9.png"[..],
        b"caf\xE8.png",
        b"Fr\xFChling/1.png",
        b"usual.png",
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(latin(name), png(n as u8)).unwrap();
    }
    let source = open(album.path()).unwrap();
    let names = [
        "Fr\\xFChling/1.png",
        "caf\\xE8.png",
        "caf\\xE9.png",
        "usual.png",
    ];
    assert_eq!(ids(&*source), names);
    let colors: Vec<u8> = (0..4).map(|i| source.load(i).unwrap().rgb[0]).collect();
    assert_eq!(colors, [2, 1, 0, 3]);
    assert!(source.outline(0).is_some() && source.left_out().is_empty());
}

fn left_out(source: &dyn PhotoSource) -> Vec<(&str, &str)> {
    let entries = source.left_out().iter();
    entries.map(|e| (&*e.id, &*e.reason)).collect()
}

#[test]
fn what_systems_put_beside_photos_is_left_out_and_told() {
    let album = tempfile::tempdir().unwrap();
    let root = album.path();
    write_file(root, "2024/1.png", &png(1));
    write_file(root, "@home/2.png", &png(2));
    for junk in [
        "2024/@eaDir/1.png/SYNOPHOTO_THUMB_XL.png",
        "#recycle/old.png",
        "$RECYCLE.BIN/S-1/x.png",
        "@Recycle/x.png",
        ".thumbnails/1.png",
        ".Trash-1000/files/x.png",
        "lost+found/x.png",
        "__MACOSX/._1.png",
    ] {
        write_file(root, junk, &png(9));
    }
    write_file(root, "._1.png", b"a resource fork");
    write_file(root, ".hidden.txt", b"no photo");
    let source = open(root).unwrap();
    assert_eq!(ids(&*source), ["2024/1.png", "@home/2.png"]);
    let told: Vec<&str> = left_out(&*source).into_iter().map(|(id, _)| id).collect();
    let folders = [
        "#recycle/",
        "$RECYCLE.BIN/",
        ".Trash-1000/",
        "._1.png",
        ".thumbnails/",
        "2024/@eaDir/",
        "@Recycle/",
        "__MACOSX/",
        "lost+found/",
    ];
    assert_eq!(told, folders);
    assert!(
        left_out(&*source)
            .iter()
            .all(|(_, reason)| !reason.is_empty())
    );
}

#[cfg(unix)]
#[test]
fn what_cannot_be_opened_is_told() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let album = tempfile::tempdir().unwrap();
    write_file(album.path(), "a/1.png", &png(1));
    write_file(album.path(), "b/2.png", &png(2));
    symlink("/nowhere/at all.png", album.path().join("gone.png")).unwrap();
    symlink(album.path(), album.path().join("a/loop")).unwrap();
    let mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(album.path().join("b"), permissions).unwrap();
    };
    mode(0);
    // Whoever may read everything sees no difference.
    let shut = fs::read_dir(album.path().join("b")).is_err();
    let source = open(album.path()).unwrap();
    mode(0o755);
    let told = left_out(&*source);
    assert!(
        told.contains(&("gone.png", "a link to nothing")),
        "{told:?}"
    );
    assert!(
        told.contains(&("a/loop", "a link to a folder that holds it")),
        "{told:?}"
    );
    assert_eq!(told.iter().any(|(id, _)| *id == "b"), shut, "{told:?}");
    assert_eq!(source.len(), 2 - usize::from(shut));
}

/// A member of an archive, with a path that `tar` itself would not write.
fn member(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &[u8],
    kind: tar::EntryType,
    link: &str,
    data: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

#[test]
fn archives_as_people_have_them() {
    use tar::EntryType::{Link, Regular};
    let mut tar = tar::Builder::new(Vec::new());
    for (n, path) in [
        &b"/home/me/1.png"[..],
        b"caf\xE9/2.png",
        b"../../3.png",
        b"@eaDir/4.png",
    ]
    .into_iter()
    .enumerate()
    {
        member(&mut tar, path, Regular, "", &png(n as u8));
    }
    member(&mut tar, b"same.png", Link, "/home/me/1.png", b"");
    member(&mut tar, b"lost.png", Link, "nowhere.png", b"");
    let whole = tar.into_inner().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    fs::write(&path, &whole).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&whole).unwrap();
    let gz = folder.path().join("a.tar.gz");
    fs::write(&gz, zipped.finish().unwrap()).unwrap();
    for path in [&path, &gz] {
        let source = open(path).unwrap();
        assert_eq!(
            ids(&*source),
            ["caf\\xE9/2.png", "home/me/1.png", "same.png"]
        );
        assert_eq!(source.load(2).unwrap(), source.load(1).unwrap());
        let told = left_out(&*source);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.contains(&("../../3.png", "its path leads out of the archive (..)")));
        assert!(told.contains(&("lost.png", "a hard link to what is not in the archive")));
    }

    let mut tar = tar::Builder::new(Vec::new());
    member(&mut tar, b"../3.png", Regular, "", &png(1));
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let refused = failure(open(&path));
    assert!(refused.contains("leads out of the archive"), "{refused}");
}

#[test]
fn an_archive_that_was_cut_off_is_refused() {
    let mut tar = tar::Builder::new(Vec::new());
    for n in 0..10 {
        member(
            &mut tar,
            format!("{n}.png").as_bytes(),
            tar::EntryType::Regular,
            "",
            &png(n),
        );
    }
    let whole = tar.into_inner().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    // Inside a photo, inside a header.
    for cut in [5 * 1024 + 600, 5 * 1024 + 100] {
        fs::write(&path, &whole[..cut]).unwrap();
        let refused = failure(open(&path));
        assert!(
            refused.contains("cut off") && refused.contains("behind 5 photos"),
            "{refused}"
        );
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(&path).unwrap().len(), 10);
}

#[test]
fn halves_have_many_names() {
    for (other, third) in [("val", None), ("validation", None), ("test", Some("val"))] {
        let album = tempfile::tempdir().unwrap();
        let halves = ["train", other].into_iter().chain(third);
        for (n, half) in halves.enumerate() {
            for class in ["cat", "dog"] {
                write_file(
                    album.path(),
                    &format!("{half}/{class}/{n}.png"),
                    &png(n as u8),
                );
            }
        }
        let source = open(album.path()).unwrap();
        assert_eq!(source.classes(), ["cat", "dog"]);
        let (train, test) = split(album.path()).unwrap();
        assert_eq!(train.id(0), "train/cat/0.png");
        assert_eq!(test.id(1), format!("{other}/dog/1.png"));
        assert_eq!((train.len(), test.len()), (2, 2));
    }
}
