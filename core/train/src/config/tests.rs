use super::*;

fn applied(assignments: &[&str]) -> Result<Config> {
    let mut config = Config::adapt();
    config.apply(&Layer::from_assignments(assignments)?)?;
    config.validate()?;
    Ok(config)
}

fn refusal(assignments: &[&str]) -> String {
    applied(assignments).expect_err("refused").to_string()
}

#[test]
fn defaults_are_allowed_and_survive_their_file() {
    for config in [Config::adapt(), Config::pretrain(), Config::distill()] {
        config.validate().unwrap();
        for key in KEYS {
            assert!(key.allowed.permits(&config.get(key.name)), "{}", key.name);
            assert!(config.to_toml().contains(&format!("\n{} = ", key.name)));
        }
        let read = Config::adapt()
            .with_toml(&config.to_toml(), "text")
            .unwrap();
        assert_eq!(read, config);
        assert!(read.differences(&config).is_empty());
    }
}

#[test]
fn presets_are_allowed() {
    for (name, text) in PRESETS {
        assert!(text.starts_with("# "), "{name} says what it is");
        let mut config = Config::pretrain();
        config.apply(&preset(name).unwrap()).unwrap();
        config.validate().unwrap();
    }
    let mut official = Config::pretrain();
    official.apply(&preset("moco-v2").unwrap()).unwrap();
    assert_eq!(official, Config::pretrain());
    assert!(preset("moco").unwrap_err().to_string().contains("moco-v2"));
}

#[test]
fn later_layers_win() {
    let mut config = Config::adapt();
    config
        .apply(&Layer::from_assignments(&["lr=0.5", "epochs=3"]).unwrap())
        .unwrap();
    let mut flags = Layer::new("flags");
    flags.set("epochs", Some(7)).set("steps", None::<i64>);
    config.apply(&flags).unwrap();
    assert_eq!((config.lr, config.epochs, config.steps), (0.5, 7, 0));
}

#[test]
fn assignments_know_their_types() {
    let config = applied(&[
        "lr=1",
        "views=aug+ blur",
        "head=\"simple\"",
        "symmetric = true",
        "init=12",
    ])
    .unwrap();
    assert_eq!(config.lr, 1.0);
    assert_eq!(config.views.name, "aug+ blur");
    assert_eq!(config.head.name(), "simple");
    assert!(config.symmetric);
    assert_eq!(config.init, "12");
}

#[test]
fn refusals_name_key_value_and_range() {
    let text = refusal(&["tempreature=0.1"]);
    assert!(
        text.contains("`tempreature`") && text.contains("`temperature`"),
        "{text}"
    );
    let text = refusal(&["lr=-1"]);
    assert!(
        text.contains("lr = -1") && text.contains("from 0 to 100"),
        "{text}"
    );
    let text = refusal(&["epochs=many"]);
    assert!(
        text.contains("epochs = \"many\"") && text.contains("whole number"),
        "{text}"
    );
    let text = refusal(&["temperature=nan"]);
    assert!(text.contains("temperature = nan"), "{text}");
    let text = refusal(&["head=deeper"]);
    assert!(text.contains("simple, wide"), "{text}");
    assert!(refusal(&["lr"]).contains("key=value"));
    assert!(refusal(&["bn_group=48"]).contains("multiple"));
    assert!(refusal(&["measure_size=16"]).contains("0 or 32"));
    for text in [
        refusal(&["batch_size=1"]),
        refusal(&["epochs=0", "whitening=false"]),
    ] {
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn only_free_keys_may_change() {
    let mut other = Config::adapt();
    other.threads = 3;
    other.checkpoint_every = 1;
    assert!(Config::adapt().differences(&other).is_empty());
    other.lr = 1.0;
    let differences = Config::adapt().differences(&other);
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0], ("lr", "0.03".into(), "1.0".into()));
}

#[test]
fn a_broken_file_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "lr = \n").unwrap();
    let text = Layer::read(&path).unwrap_err().to_string();
    assert!(text.contains("c.toml") && !text.contains('\n'), "{text}");
    assert!(Layer::read(&folder.path().join("none.toml")).is_err());
}

#[test]
fn a_renamed_setting_is_refused_with_its_new_name() {
    for (old, now) in RENAMED {
        assert!(KEYS.iter().any(|key| key.name == now), "{now}");
        assert!(KEYS.iter().all(|key| key.name != old), "{old}");
        let text = refusal(&[&format!("{old}=0.5")]);
        assert_eq!(text, format!("--set: `{old}` is called `{now}` now"));
    }
}
