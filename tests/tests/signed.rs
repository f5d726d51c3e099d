//! Signed weights: what was signed is taken, and everything else is refused with its own reason.

use seedling_core::backbones::Arch;
use seedling_core::encoder::{Architecture, Encoder};
use seedling_core::error::Distrust;
use seedling_core::nn::workspace::Workspace;
use seedling_core::weights::manifest::{self, Manifest, PublicKey, SecretKey, Seen, Trust};
use seedling_core::weights::{ModelMetadata, Precision, save_backbone};
use seedling_core::{Error, data::Normalize};
use seedling_tests::formula;
use seedling_tests::program::run;
use std::fs;
use std::path::{Path, PathBuf};

struct Signed {
    folder: tempfile::TempDir,
    secret: SecretKey,
}

impl Signed {
    fn new(version: u64, not_before: u64) -> Signed {
        let signed = Signed {
            folder: tempfile::tempdir().unwrap(),
            secret: SecretKey::from_random([7; 32]),
        };
        let architecture = Architecture::new(Arch::MOBILENET_V3_SMALL, None);
        let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
        formula::fill(&mut encoder.params);
        let metadata = ModelMetadata {
            architecture,
            image_size: 96,
            normalize: Normalize::default(),
            made: String::new(),
        };
        let dim = encoder.feature_dim();
        let path = signed.weights();
        save_backbone(
            &path,
            &encoder.params,
            dim,
            &metadata,
            None,
            Precision::Half,
        )
        .unwrap();
        signed.sign(version, not_before);
        signed
    }

    fn sign(&self, version: u64, not_before: u64) {
        let manifest =
            Manifest::describe(&self.weights(), version, not_before, self.key()).unwrap();
        fs::write(self.manifest(), manifest.sign(&self.secret).unwrap()).unwrap();
    }

    fn key(&self) -> PublicKey {
        self.secret.public()
    }

    fn weights(&self) -> PathBuf {
        self.folder.path().join("w.safetensors")
    }

    fn manifest(&self) -> PathBuf {
        self.folder.path().join("w.safetensors.manifest")
    }

    fn open(&self, keys: &[PublicKey], oldest: u64) -> Result<Manifest, Error> {
        let trust = Trust {
            keys: keys.to_vec(),
            oldest,
        };
        manifest::open(&self.weights(), &self.manifest(), &trust).map(|(_, found)| found)
    }

    fn refusal(&self, keys: &[PublicKey], oldest: u64) -> Distrust {
        match self.open(keys, oldest) {
            Err(Error::Untrusted { path, reason }) => {
                assert_eq!(path, self.weights());
                reason
            }
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 8032, 7.1, tests 1 and 2: secret key to public key.
#[test]
fn keys_are_those_of_the_standard() {
    for (secret, public) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ] {
        let secret: SecretKey = secret.parse().unwrap();
        assert_eq!(secret.public().to_string(), public);
        assert!(!format!("{secret:?}").contains("9d61"));
    }
    assert!("12".parse::<PublicKey>().is_err());
    assert!("é".repeat(64).parse::<PublicKey>().is_err());
}

#[test]
fn what_was_signed_is_taken() {
    let signed = Signed::new(3, 2);
    let stranger = SecretKey::from_random([9; 32]).public();
    let found = signed.open(&[stranger, signed.key()], 3).unwrap();
    assert_eq!((found.version, found.not_before), (3, 2));
    assert_eq!(found.arch, "mobilenet_v3_small");
    assert_eq!(found.image_size, 96);
    let text = fs::read_to_string(signed.manifest()).unwrap();
    fs::write(signed.manifest(), text.trim_end()).unwrap();
    signed.open(&[signed.key()], 0).unwrap();
}

#[test]
fn each_refusal_has_its_reason() {
    let signed = Signed::new(3, 0);
    let (mine, stranger) = (signed.key(), SecretKey::from_random([9; 32]).public());
    assert_eq!(
        signed.refusal(&[stranger], 0),
        Distrust::Foreign(mine.to_string())
    );
    assert_eq!(signed.refusal(&[], 0), Distrust::Foreign(mine.to_string()));
    assert_eq!(
        signed.refusal(&[mine], 4),
        Distrust::Downgraded {
            version: 3,
            oldest: 4
        }
    );

    let weights = fs::read(signed.weights()).unwrap();
    fs::write(signed.weights(), &weights[..weights.len() / 2]).unwrap();
    assert!(matches!(
        signed.refusal(&[mine], 0),
        Distrust::Truncated { .. }
    ));
    fs::write(signed.weights(), b"").unwrap();
    assert!(matches!(
        signed.refusal(&[mine], 0),
        Distrust::Truncated { got: 0, .. }
    ));
    let mut longer = weights.clone();
    longer.push(0);
    fs::write(signed.weights(), longer).unwrap();
    assert!(matches!(signed.refusal(&[mine], 0), Distrust::Tampered(_)));
    // Every place is tried: the header, the numbers, the last byte.
    for at in [0, 9, weights.len() / 2, weights.len() - 1] {
        let mut other = weights.clone();
        other[at] ^= 1;
        fs::write(signed.weights(), other).unwrap();
        assert!(matches!(signed.refusal(&[mine], 0), Distrust::Tampered(_)));
    }
    fs::write(signed.weights(), &weights).unwrap();
    signed.open(&[mine], 0).unwrap();
}

#[test]
fn a_changed_manifest_is_refused_wherever_it_was_changed() {
    let signed = Signed::new(3, 0);
    let (mine, text) = (signed.key(), fs::read_to_string(signed.manifest()).unwrap());
    fs::write(
        signed.manifest(),
        text.replace("version = 3", "version = 9"),
    )
    .unwrap();
    assert_eq!(signed.refusal(&[mine], 0), Distrust::Forged);
    // A stranger who puts the trusted key's name over his own signature.
    let stranger = SecretKey::from_random([9; 32]);
    let found = Manifest::describe(&signed.weights(), 3, 0, mine).unwrap();
    let foreign = found.sign(&stranger).unwrap();
    let posing = foreign.replace(&stranger.public().to_string(), &mine.to_string());
    fs::write(signed.manifest(), posing).unwrap();
    assert_eq!(signed.refusal(&[mine], 0), Distrust::Forged);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(other) = String::from_utf8(bytes) else {
            continue;
        };
        fs::write(signed.manifest(), &other).unwrap();
        match signed.open(&[mine], 0) {
            Err(Error::Untrusted { .. }) => {}
            // The case of a signature's letters, or a quote around it, says the same.
            Ok(_) => assert!(at > text.rfind("signature").unwrap(), "{other}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    for garbage in [
        "",
        "\n",
        "signature = \"",
        "[[[[",
        "\u{0}",
        &text[..text.len() / 2],
    ] {
        fs::write(signed.manifest(), garbage).unwrap();
        assert!(matches!(signed.refusal(&[mine], 0), Distrust::Malformed(_)));
    }
    fs::write(signed.manifest(), vec![b'#'; 1 << 20]).unwrap();
    assert!(signed.open(&[mine], 0).is_err());
}

#[test]
fn what_was_taken_back_stays_back() {
    let signed = Signed::new(3, 2);
    let folder = signed.folder.path();
    let take = |version, not_before| {
        signed.sign(version, not_before);
        let found = signed.open(&[signed.key()], 0)?;
        Seen::open(folder)?.accept(&signed.weights(), &found)
    };
    take(3, 2).unwrap();
    take(2, 0).unwrap();
    assert!(matches!(
        take(1, 0),
        Err(Error::Untrusted {
            reason: Distrust::Downgraded {
                version: 1,
                oldest: 2
            },
            ..
        })
    ));
    assert_eq!(Seen::open(folder).unwrap().oldest("mobilenet_v3_small"), 2);
    assert_eq!(Seen::open(folder).unwrap().oldest("mobilenet_v3_large"), 0);
    fs::write(folder.join(Seen::FILE), "no [ toml").unwrap();
    assert!(Seen::open(folder).is_err());
}

#[test]
fn the_commands_sign_and_verify() {
    let signed = Signed::new(1, 0);
    let at = |name: &str| {
        signed
            .folder
            .path()
            .join(name)
            .to_string_lossy()
            .into_owned()
    };
    let (weights, key) = (at("w.safetensors"), at("k"));
    assert_eq!(run(&["keygen", &key]).code, Some(0));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    run(&["keygen", &key]).refused(1, &["exists already"]);
    let sign = ["sign", &weights, "--key", &key, "--version", "5"];
    let ran = run(&[&sign[..], &["--not-before", "6"]].concat());
    ran.refused(2, &["not_before = 6"]);
    assert_eq!(run(&sign).code, Some(0));
    let public = at("k.pub");
    let ran = run(&["verify", &weights, "--key", &public, "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["version"], 5);
    let digits = fs::read_to_string(&public).unwrap();
    let ran = run(&["verify", &weights, "--key", digits.trim()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    run(&["verify", &weights, "--key", &public, "--oldest", "6"]).refused(1, &["older than 6"]);
    run(&["verify", &weights, "--key", &at("none")]).refused(1, &["neither"]);
    run(&[
        "sign",
        &weights,
        "--key",
        &public[..public.len() - 1],
        "--version",
        "1",
    ])
    .refused(1, &["k.pu"]);
    fs::remove_file(Path::new(&at("w.safetensors.manifest"))).unwrap();
    run(&["verify", &weights, "--key", &public]).refused(1, &["manifest"]);
}
