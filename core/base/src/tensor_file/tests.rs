use super::*;

const VALUES: [f32; 3] = [1.0, -2.5, 1e-3];

fn sample(path: &Path) {
    let tensors = [
        ("half", Data::F16(&VALUES)),
        ("ids", Data::U32(&[7, 8, 9])),
        ("full", Data::F32(&VALUES)),
        ("batches", Data::I64(&[5, 6, 7])),
    ]
    .map(|(name, data)| TensorRef {
        name: name.into(),
        shape: vec![3, 1],
        data,
    });
    let metadata = BTreeMap::from([("made".to_string(), "by \"hand\"".to_string())]);
    write_sealed(path, &tensors, &metadata).unwrap();
}

#[test]
fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    sample(&path);
    let file = TensorFile::read(&path).unwrap();
    file.verify().unwrap();
    assert_eq!(file.f32("full").unwrap(), VALUES);
    assert_eq!(file.f32("half").unwrap()[..2], VALUES[..2]);
    assert_eq!(file.u32("ids").unwrap(), [7, 8, 9]);
    assert_eq!(file.shape("half"), Some(&[3, 1][..]));
    assert_eq!(file.metadata()["made"], "by \"hand\"");
    for (error, part) in [
        (file.u32("full").unwrap_err(), "expected U32, got F32"),
        (file.f32("none").unwrap_err(), "no tensor `none`"),
    ] {
        assert!(error.to_string().contains(part));
    }
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    sample(&path);
    let bytes = std::fs::read(&path).unwrap();
    let sound = |bytes: Vec<u8>| TensorFile::parse(&path, bytes).and_then(|f| f.verify());
    sound(bytes.clone()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(sound(flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(sound(bytes[..len].to_vec()).is_err(), "cut at {len}");
    }
}

#[test]
fn hostile_headers_are_errors() {
    let with_header = |text: &str, data: usize| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        TensorFile::parse("hostile", bytes)
    };
    for text in [
        "",
        "[]",
        "{\"a\":1}",
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
    ] {
        assert!(with_header(text, 4).is_err(), "{text}");
    }
    let mut endless = u64::MAX.to_le_bytes().to_vec();
    endless.extend(b"{}");
    assert!(TensorFile::parse("hostile", endless).is_err());
    assert!(TensorFile::read(Path::new("/dev/zero")).is_err());
}

#[test]
fn a_wrong_shape_is_not_written() {
    let tensors = [TensorRef {
        name: "a".into(),
        shape: vec![2, 2],
        data: Data::F32(&VALUES),
    }];
    let error = write(Path::new("never"), &tensors, &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }));
}
