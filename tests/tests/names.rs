//! One noun, one file, in every language: docs/names.md against the three facades' sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

/// Where a language's facade lies, and how its files end.
struct Language {
    folders: &'static [&'static str],
    ending: &'static str,
    /// Words before a declaration that hide it.
    hidden: &'static [&'static str],
    /// Word before a declaration that it does not count without.
    shown: Option<&'static str>,
    /// Words before the name of a type, and of a function.
    types: &'static [&'static str],
    functions: &'static [&'static str],
}

const RUST: Language = Language {
    folders: &["mobile-ffi/src"],
    ending: "rs",
    hidden: &[],
    shown: Some("pub"),
    types: &["struct", "enum", "trait"],
    functions: &["fn"],
};

const KOTLIN: Language = Language {
    folders: &[
        "android/src/main/kotlin/io/seedling",
        "android/src/android/kotlin/io/seedling",
    ],
    ending: "kt",
    hidden: &["private", "internal", "override", "protected"],
    shown: None,
    types: &["class", "interface", "typealias", "object"],
    functions: &["fun", "val"],
};

const SWIFT: Language = Language {
    folders: &["ios/Sources/Seedling", "ios/Sources/Seedling/Apple"],
    ending: "swift",
    hidden: &[],
    shown: Some("public"),
    types: &["class", "actor", "struct", "protocol", "typealias", "enum"],
    functions: &["func", "var", "init"],
};

/// What a file declares in public: its types, and its functions and properties.
#[derive(Default)]
struct Declared {
    types: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Language {
    fn files(&self) -> BTreeMap<String, Declared> {
        let mut files = BTreeMap::new();
        for folder in self.folders {
            for entry in fs::read_dir(project().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == self.ending) {
                    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                    files.insert(name, self.declared(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
        files
    }

    fn declared(&self, text: &str) -> Declared {
        let mut found = Declared::default();
        for whole in text.lines() {
            let line = whole.trim_start();
            // Deeper than a class's own properties lie those of functions.
            if line.starts_with("val ") && whole.len() - line.len() > 4 {
                continue;
            }
            // Words up to the name: modifiers and what is declared.
            let end = line.find(['(', ':', '=', '{', '<']).unwrap_or(line.len());
            let words: Vec<&str> = line[..end].split_whitespace().collect();
            let is_shown = self.shown.is_none_or(|shown| words.first() == Some(&shown));
            if !is_shown {
                continue;
            }
            let after = |kinds: &[&str]| {
                let at = words.iter().position(|word| kinds.contains(word))?;
                let plain = words[..at].iter().all(|word| {
                    let is_word = word.chars().all(|c| c.is_lowercase() || c == '@');
                    is_word && !self.hidden.contains(word)
                });
                let name = words
                    .get(at + 1)
                    .or((words[at] == "init").then_some(&"init"))?;
                plain.then(|| name.rsplit('.').next().unwrap().to_string())
            };
            match (after(self.types), after(self.functions)) {
                (Some(name), _) => _ = found.types.insert(name),
                (None, Some(name)) => _ = found.functions.insert(name),
                _ => {}
            }
        }
        found
    }
}

/// The rows of the table below the heading: its cells, without back-ticks.
fn table(heading: &str) -> Vec<[String; 4]> {
    let text = fs::read_to_string(project().join("docs/names.md")).unwrap();
    let part = text.split("\n## ").find(|part| part.starts_with(heading));
    let part = part.unwrap_or_else(|| panic!("docs/names.md has no part `{heading}`"));
    let rows = part.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<String> = row
            .trim_matches('|')
            .split('|')
            .map(|c| c.trim().replace('`', ""))
            .collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("four cells: {row}"))
    })
    .collect()
}

#[test]
fn every_noun_has_its_file_in_every_language() {
    let languages = [RUST, KOTLIN, SWIFT].map(|language| language.files());
    for [noun, files @ ..] in table("Nouns") {
        for (file, declared) in files.iter().zip(&languages) {
            let Some((file, _)) = file.split_once('.') else {
                continue;
            };
            let found = declared
                .get(file)
                .unwrap_or_else(|| panic!("{noun}: there is no {file}"));
            let is_there = found.types.contains(&noun) || found.functions.contains(&noun);
            assert!(is_there, "{file} declares no {noun}");
        }
    }
}

#[test]
fn nothing_public_is_missing_in_the_table() {
    let languages = [RUST, KOTLIN, SWIFT];
    let nouns = table("Nouns");
    for (column, language) in languages.iter().enumerate() {
        let listed: BTreeSet<(&str, &str)> = nouns
            .iter()
            .filter_map(|row| Some((row[column + 1].split_once('.')?.0, row[0].as_str())))
            .collect();
        for (file, declared) in language.files() {
            for noun in declared.types {
                let is_listed = listed.contains(&(&file, &noun));
                assert!(
                    is_listed,
                    "{file}.{} declares {noun}: add it to docs/names.md",
                    language.ending
                );
            }
        }
    }
}

#[test]
fn what_a_noun_can_do_is_called_alike() {
    let languages = [RUST, KOTLIN, SWIFT].map(|language| language.files());
    let mut nouns: BTreeMap<String, [BTreeSet<String>; 3]> = BTreeMap::new();
    for [noun, names @ ..] in table("What they can do") {
        let columns = nouns.entry(noun).or_default();
        for (column, names) in columns.iter_mut().zip(names) {
            let names = names
                .split(", ")
                .filter(|name| *name != "–")
                .map(String::from);
            column.extend(names);
        }
    }
    for (noun, columns) in nouns {
        for ((listed, files), row) in columns.iter().zip(&languages).zip(0..) {
            let file = match row {
                0 => noun.to_lowercase(),
                _ => noun.clone(),
            };
            let declared = &files[&file].functions;
            assert_eq!(
                listed,
                declared,
                "{noun} in {}",
                ["Rust", "Kotlin", "Swift"][row]
            );
        }
    }
}
