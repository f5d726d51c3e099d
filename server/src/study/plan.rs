//! A study's plan: a table of runs, each a row's settings laid over the plan's, and a column's over those.

use seedling_core::config::{Config, Layer, preset};
use seedling_core::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a plan's file holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// The paper's name for it, and what it is about.
    pub(super) table: String,
    pub(super) title: String,
    /// A sentence or two about what is to be seen.
    #[serde(default)]
    pub(super) note: String,
    /// What is trained on and what features are asked about, below the folder of the command line.
    pub(super) train: PathBuf,
    pub(super) data: PathBuf,
    /// Datasets for the measure `transfer:NAME`.
    #[serde(default)]
    pub(super) transfer: BTreeMap<String, PathBuf>,
    pub(super) seeds: Vec<u32>,
    /// Settings of all runs, and what [`Cell`] knows besides.
    #[serde(default)]
    pub(super) settings: toml::Table,
    /// Of the distillation that initial weights may come from.
    #[serde(default)]
    pub(super) distill: toml::Table,
    pub(super) rows: Vec<Entry>,
    pub(super) columns: Vec<Entry>,
    pub(super) measures: Vec<String>,
    /// Learning rate of linear layers, and crops of each photo.
    #[serde(default)]
    pub(super) lr: Option<String>,
    #[serde(default)]
    pub(super) crops: Option<u32>,
    /// A figure in place of, or beside, the table.
    #[serde(default)]
    pub(super) figure: Option<Figure>,
    /// The paper's own numbers: row, column, measure.
    #[serde(default)]
    pub(super) paper: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
    /// The file's name without its ending.
    #[serde(skip)]
    pub(super) name: String,
    /// The file's text.
    #[serde(skip)]
    pub(super) text: String,
}

/// A row or a column: its label, and what it sets.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) label: String,
    #[serde(flatten)]
    pub(super) settings: toml::Table,
}

/// What a plan can draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Figure {
    /// Photos and their views by t-SNE, joined by triangles.
    Triangles,
    /// Intra-class alignment against uniformity.
    Plane,
    /// The first measure as bars.
    Bars,
}

/// What can be measured, and what it is called in tables.
pub(super) const MEASURES: [(&str, &str); 17] = [
    ("linear", "linear %"),
    ("best_nn", "NN %"),
    ("instance_discrimination", "inst-disc %"),
    ("train_instance_discrimination", "inst-disc (train) %"),
    ("alignment", "align"),
    ("train_alignment", "align (train)"),
    ("intra_class_alignment", "intra-class align"),
    ("train_intra_class_alignment", "intra-class align (train)"),
    ("uniformity", "uniformity"),
    ("train_uniformity", "uniformity (train)"),
    ("one_shot", "1-shot %"),
    ("five_shot", "5-shot %"),
    ("twenty_shot", "20-shot %"),
    ("init_best_nn", "NN-init %"),
    ("parameters_m", "parameters (M)"),
    ("minutes", "training (min)"),
    ("loss", "loss"),
];

/// One run: where it stands in the table, and all that decides its result.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) seed: u32,
    /// Settings as `--set` takes them.
    pub(super) settings: toml::Table,
    pub(super) preset: Option<String>,
    /// Steps of distillation that initial weights come from; 0 for random weights.
    pub(super) distill_steps: u32,
}

/// Keys of entries that are no settings.
const PRESET: &str = "preset";
const DISTILL_STEPS: &str = "distill_steps";

impl Plan {
    /// The plan in the file at `path`, or the shipped one of that name.
    ///
    /// # Errors
    /// There is none, or it is not understood: the message names file and key.
    pub(super) fn read(path: &str) -> Result<Plan> {
        let shipped = SHIPPED.iter().find(|(name, _)| *name == path);
        let text = match shipped {
            Some((_, text)) => text.to_string(),
            None => std::fs::read_to_string(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::Config(format!(
                    "{path}: neither a file nor a plan that comes with the program (seedling study --list)"
                )),
                _ => Error::io(path)(error),
            })?,
        };
        let mut plan = Plan::parse(path, &text)?;
        plan.name = match (shipped, Path::new(path).file_stem()) {
            (None, Some(stem)) => stem.to_string_lossy().into_owned(),
            _ => path.replace('/', "-"),
        };
        Ok(plan)
    }

    fn parse(path: &str, text: &str) -> Result<Plan> {
        let wrong = |why: String| Error::file(path, why);
        let mut plan: Plan = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start].matches('\n').count() + 1);
            let line = line.map_or(String::new(), |line| format!(" (line {line})"));
            wrong(format!("{}{line}", error.message().replace('\n', " ")))
        })?;
        plan.text = text.into();
        if plan.seeds.is_empty() || plan.rows.is_empty() || plan.columns.is_empty() {
            return Err(wrong("seeds, rows and columns must not be empty".into()));
        }
        for (what, entries) in [("rows", &plan.rows), ("columns", &plan.columns)] {
            for (i, entry) in entries.iter().enumerate() {
                if entries[..i].iter().any(|other| other.label == entry.label) {
                    return Err(wrong(format!("{what}: `{}` is there twice", entry.label)));
                }
            }
        }
        for measure in &plan.measures {
            let transfer = measure.strip_prefix("transfer:");
            let known = match transfer {
                Some(name) => plan.transfer.contains_key(name),
                None => MEASURES.iter().any(|(name, _)| name == measure),
            };
            if !known {
                let names: Vec<&str> = MEASURES.iter().map(|(name, _)| *name).collect();
                return Err(wrong(format!(
                    "measures: `{measure}` is not known; expected {} or transfer:NAME with NAME under [transfer]",
                    names.join(", ")
                )));
            }
        }
        for (row, columns) in &plan.paper {
            let known = plan.rows.iter().any(|entry| entry.label == *row);
            let stray = columns
                .keys()
                .find(|column| plan.columns.iter().all(|entry| entry.label != **column));
            match (known, stray) {
                (true, None) => {}
                (true, Some(column)) => {
                    return Err(wrong(format!("paper: no column is called `{column}`")));
                }
                (false, _) => return Err(wrong(format!("paper: no row is called `{row}`"))),
            }
        }
        // What any run would refuse is refused before the first begins.
        for cell in plan.cells() {
            let at = format!(
                "{path}, {} / {}",
                plan.rows[cell.row].label, plan.columns[cell.column].label
            );
            cell.config(&at)?;
            if cell.distill_steps > 0 {
                plan.distill_config(&cell, &at)?;
            }
        }
        Ok(plan)
    }

    /// All runs, row after row.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (row, of_row) in self.rows.iter().enumerate() {
            for (column, of_column) in self.columns.iter().enumerate() {
                let mut settings = self.settings.clone();
                settings.extend(of_row.settings.clone());
                settings.extend(of_column.settings.clone());
                let preset = settings.remove(PRESET);
                let steps = settings.remove(DISTILL_STEPS);
                let cell = Cell {
                    row,
                    column,
                    seed: 0,
                    preset: preset.and_then(|name| name.as_str().map(String::from)),
                    distill_steps: steps.and_then(|steps| steps.as_integer()).unwrap_or(0) as u32,
                    settings,
                };
                cells.extend(self.seeds.iter().map(|&seed| Cell {
                    seed,
                    ..cell.clone()
                }));
            }
        }
        cells
    }

    /// The settings of the distillation that a cell's initial weights come from.
    ///
    /// # Errors
    /// A key or value is not known.
    pub(super) fn distill_config(&self, cell: &Cell, at: &str) -> Result<Config> {
        let mut config = Config::distill();
        let mut layer = Layer::new(format!("{at}, [distill]"));
        layer.values = self.distill_settings(cell);
        config.apply(&layer)?;
        Ok(config)
    }

    /// The distillation's settings: the plan's, and of the run what a network's shape and size of views are.
    pub(super) fn distill_settings(&self, cell: &Cell) -> toml::Table {
        let mut settings = self.distill.clone();
        for key in ["arch", "head", "image_size"] {
            if let Some(value) = cell.settings.get(key) {
                settings.entry(key).or_insert_with(|| value.clone());
            }
        }
        settings.insert("steps".into(), i64::from(cell.distill_steps).into());
        settings
    }

    /// What a measure is called.
    pub(super) fn measure_name(measure: &str) -> String {
        let known = MEASURES.iter().find(|(name, _)| *name == measure);
        match (known, measure.strip_prefix("transfer:")) {
            (Some((_, name)), _) => name.to_string(),
            (None, Some(dataset)) => format!("{dataset} %"),
            (None, None) => measure.into(),
        }
    }
}

impl Cell {
    /// Whether its run is a distillation, as one with a teacher is.
    pub(super) fn distills(&self) -> bool {
        self.settings.contains_key("teacher")
    }

    /// The settings of its run.
    ///
    /// # Errors
    /// A key or value is not known, or they contradict each other.
    pub(super) fn config(&self, at: &str) -> Result<Config> {
        let mut config = match self.distills() {
            true => Config::distill(),
            false => Config::pretrain(),
        };
        if let Some(name) = &self.preset {
            config.apply(&preset(name)?)?;
        }
        let mut layer = Layer::new(at);
        layer.values = self.settings.clone();
        config.apply(&layer)?;
        config
            .validate()
            .map_err(|error| Error::Config(format!("{at}: {error}")))?;
        Ok(config)
    }
}

/// Plans that come with the program, by name.
pub(super) const SHIPPED: [(&str, &str); 27] = [
    (
        "small/table1",
        include_str!("../../plans/small/table1.toml"),
    ),
    (
        "small/table2",
        include_str!("../../plans/small/table2.toml"),
    ),
    (
        "small/table3",
        include_str!("../../plans/small/table3.toml"),
    ),
    (
        "small/table4",
        include_str!("../../plans/small/table4.toml"),
    ),
    (
        "small/table5",
        include_str!("../../plans/small/table5.toml"),
    ),
    (
        "small/table6",
        include_str!("../../plans/small/table6.toml"),
    ),
    (
        "small/table7",
        include_str!("../../plans/small/table7.toml"),
    ),
    (
        "small/table8",
        include_str!("../../plans/small/table8.toml"),
    ),
    (
        "small/table9",
        include_str!("../../plans/small/table9.toml"),
    ),
    (
        "small/table10",
        include_str!("../../plans/small/table10.toml"),
    ),
    (
        "small/figure1",
        include_str!("../../plans/small/figure1.toml"),
    ),
    (
        "small/figure2",
        include_str!("../../plans/small/figure2.toml"),
    ),
    (
        "small/figure3",
        include_str!("../../plans/small/figure3.toml"),
    ),
    (
        "small/recipes",
        include_str!("../../plans/small/recipes.toml"),
    ),
    (
        "imagenet/table1",
        include_str!("../../plans/imagenet/table1.toml"),
    ),
    (
        "imagenet/table2",
        include_str!("../../plans/imagenet/table2.toml"),
    ),
    (
        "imagenet/table3",
        include_str!("../../plans/imagenet/table3.toml"),
    ),
    (
        "imagenet/table4",
        include_str!("../../plans/imagenet/table4.toml"),
    ),
    (
        "imagenet/table5",
        include_str!("../../plans/imagenet/table5.toml"),
    ),
    (
        "imagenet/table6",
        include_str!("../../plans/imagenet/table6.toml"),
    ),
    (
        "imagenet/table7",
        include_str!("../../plans/imagenet/table7.toml"),
    ),
    (
        "imagenet/table8",
        include_str!("../../plans/imagenet/table8.toml"),
    ),
    (
        "imagenet/table9",
        include_str!("../../plans/imagenet/table9.toml"),
    ),
    (
        "imagenet/table10",
        include_str!("../../plans/imagenet/table10.toml"),
    ),
    (
        "imagenet/figure1",
        include_str!("../../plans/imagenet/figure1.toml"),
    ),
    (
        "imagenet/figure2",
        include_str!("../../plans/imagenet/figure2.toml"),
    ),
    (
        "imagenet/figure3",
        include_str!("../../plans/imagenet/figure3.toml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_plans_are_understood_and_complete() {
        for size in ["small", "imagenet"] {
            let tables = (1..=10).map(|n| format!("{size}/table{n}"));
            let figures = (1..=3).map(|n| format!("{size}/figure{n}"));
            for name in tables.chain(figures) {
                let plan = Plan::read(&name).unwrap();
                assert!(!plan.cells().is_empty() && plan.name == name.replace('/', "-"));
            }
        }
    }

    #[test]
    fn a_columns_settings_lie_over_a_rows_and_those_over_the_plans() {
        let text = r#"
            table = "t"
            title = "t"
            train = "a"
            data = "b"
            seeds = [3, 4]
            measures = ["loss"]
            settings = { lr = 0.1, steps = 5, arch = "resnet18" }
            rows = [{ label = "r", lr = 0.2, temperature = 0.3 }]
            columns = [{ label = "c", temperature = 0.4, distill_steps = 7 }]
        "#;
        let plan = Plan::parse("p.toml", text).unwrap();
        let cells = plan.cells();
        assert_eq!((cells.len(), cells[1].seed), (2, 4));
        let config = cells[0].config("p").unwrap();
        assert_eq!((config.lr, config.temperature, config.steps), (0.2, 0.4, 5));
        let distill = plan.distill_config(&cells[0], "p").unwrap();
        assert_eq!((distill.steps, distill.arch), (7, config.arch));
    }

    #[test]
    fn mistakes_are_named() {
        let text = |change: &str| {
            let plan = r#"
table = "t"
title = "t"
train = "a"
data = "b"
seeds = [0]
measures = ["loss"]
rows = [{ label = "r", temperature = 0.3 }]
columns = [{ label = "c" }]
"#;
            let (from, to) = change.split_once(" -> ").unwrap();
            plan.replace(from, to)
        };
        for (change, words) in [
            ("title -> titel", &["titel", "(line 3)"][..]),
            ("seeds = [0] -> seeds = []", &["seeds"]),
            ("\"loss\" -> \"lss\"", &["`lss`", "linear"]),
            ("\"loss\" -> \"transfer:x\"", &["transfer:x"]),
            ("temperature -> temprature", &["temprature", "did you mean"]),
            ("= 0.3 -> = -1", &["temperature", "r / c"]),
            (
                "\"c\" }] -> \"c\" }, { label = \"c\" }]",
                &["`c` is there twice"],
            ),
            ("= 0.3 -> = 0.3, preset = \"no\"", &["unknown preset `no`"]),
            (
                "seeds -> paper = { q = { c = { loss = 1 } } }\nseeds",
                &["`q`"],
            ),
        ] {
            let error = Plan::parse("p.toml", &text(change))
                .unwrap_err()
                .to_string();
            for word in words {
                assert!(error.contains(word), "{change}: {error}");
            }
        }
    }
}
