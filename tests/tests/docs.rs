//! Pages that are generated: docs/settings.md from the one list of settings, docs/names.md from the table of names.
//! `SEEDLING_WRITE_DOCS=1` writes them anew. And what README and ARCHITECTURE have promised to be.

use seedling_core::config::{Config, KEYS};
use seedling_tests::golden::root;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Holds a page of docs/ against what it should be, or writes it.
fn is_current(page: &str, text: &str) {
    let path = root().join("docs").join(page);
    if std::env::var_os("SEEDLING_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differing = (text.lines().zip(found.lines())).find(|(new, old)| new != old);
    assert!(
        text == found,
        "docs/{page} is not current (SEEDLING_WRITE_DOCS=1 writes it): {differing:?}"
    );
}

#[test]
fn settings_are_described() {
    let mut page = String::from(
        "<!-- Generated from core/train/src/config/keys.rs; see tests/tests/docs.rs. -->\n\
         # Settings\n\n\
         Settings come in layers, and later layers win: the command's defaults, `--preset`, `--config FILE.toml`,\n\
         `--set KEY=VALUE`, and options such as `--epochs`. An unknown key is an error that names the most similar\n\
         known one. A run's `config.toml` lists all settings of the run with their meaning; it can be given to `--config`.\n\n\
         The columns `adapt`, `pretrain` and `distill` are these commands' defaults. A resumed run can change the settings\n\
         marked with *.\n\n\
         | key | adapt | pretrain | distill | meaning | allowed |\n|---|---|---|---|---|---|\n",
    );
    let commands = [Config::adapt(), Config::pretrain(), Config::distill()];
    let defaults: Vec<toml::Table> = (commands.iter())
        .map(|config| config.to_toml().parse().unwrap())
        .collect();
    for key in KEYS {
        let mark = if key.may_change { " *" } else { "" };
        write!(page, "| `{}`{mark} |", key.name).unwrap();
        for defaults in &defaults {
            write!(page, " {} |", plain(&defaults[key.name])).unwrap();
        }
        let meaning: Vec<&str> = key.meaning.split_whitespace().collect();
        let allowed = key.allowed.to_string();
        writeln!(page, " {} | {allowed} |", meaning.join(" ")).unwrap();
    }
    is_current("settings.md", &page);
}

/// A value as a person writes it.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) if text.is_empty() => "(empty)".into(),
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The table of names: rows of four cells, members without a first one.
fn names() -> Vec<Vec<String>> {
    let table = fs::read_to_string(root().join("mobile-ffi/names.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split('\t').map(String::from).collect())
        .inspect(|cells: &Vec<String>| assert_eq!(cells.len(), 4, "{cells:?}"))
        .collect()
}

#[test]
fn names_are_listed() {
    let cell = |text: &String| match text.as_str() {
        "-" => "–".to_string(),
        text => {
            let code = |name: &str| match name.contains(' ') {
                true => name.to_string(),
                false => format!("`{name}`"),
            };
            text.split(", ").map(code).collect::<Vec<_>>().join(", ")
        }
    };
    let mut page = String::from(
        "<!-- Generated from mobile-ffi/names.tsv; see tests/tests/docs.rs. -->\n\
         # Names in three languages\n\n\
         The same things have the same names in Rust (`mobile-ffi/src`, over `seedling_core`), Kotlin (`android/`) and Swift\n\
         (`ios/Sources/Seedling`), each in a file of its own name. Types without fields or methods of their own in Kotlin and\n\
         Swift are aliases of what uniffi generates. Outcomes, decisions and errors are the generated types themselves; in Kotlin\n\
         they are imported from `io.seedling.bridge` (`bridge` below).\n\n\
         ## Types\n\n| type | Rust | Kotlin | Swift |\n|---|---|---|---|\n",
    );
    let mut members = String::from(
        "\n`TrainingService` is Android's `JobService`; `BackgroundTraining` registers `BGProcessingTask`s.\n\n\
         ## Members\n\n| type | Rust | Kotlin | Swift |\n|---|---|---|---|\n",
    );
    let mut noun = String::new();
    for cells in names() {
        let row: Vec<String> = cells[1..].iter().map(cell).collect();
        let to = match cells[0].as_str() {
            "" => &mut members,
            name => {
                noun = name.into();
                &mut page
            }
        };
        writeln!(to, "| `{noun}` | {} |", row.join(" | ")).unwrap();
    }
    page += &members;
    page += "\nKotlin's constructors, and `close` (from `Closeable`), are not listed. `evaluate` and `benchmark` are functions in all\n\
             three languages, and `evaluateBlocking` is for Java.\n";
    is_current("names.md", &page);
}

/// Every file that the table names is there. That the types and members are there the compilers say, in
/// Kotlin's and Swift's own tests.
#[test]
fn names_have_their_files() {
    let folders: [&[&str]; 3] = [
        &["mobile-ffi/src"],
        &[
            "android/src/main/kotlin/io/seedling",
            "android/src/android/kotlin/io/seedling",
        ],
        &["ios/Sources/Seedling", "ios/Sources/Seedling/Apple"],
    ];
    for cells in names().iter().filter(|cells| !cells[0].is_empty()) {
        for (file, folders) in cells[1..].iter().zip(folders) {
            let is_there = |folder: &&str| root().join(folder).join(file).is_file();
            let is_file = Path::new(file).extension().is_some() && !file.contains(' ');
            assert!(
                !is_file || folders.iter().any(is_there),
                "{cells:?}: {file}"
            );
        }
    }
}

/// Two pages each; and what they link to is there.
#[test]
fn the_first_pages_are_short_and_lead_somewhere() {
    for page in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        assert!(text.lines().count() <= 150, "{page}");
    }
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|page| page.unwrap().path());
    let pages = pages.filter(|page| page.extension().is_some_and(|e| e == "md"));
    let first = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|page| root().join(page));
    for page in pages.chain(first) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{}: {link}", page.display());
        }
    }
}
