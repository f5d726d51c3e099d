//! What was found: a table, JSON, a page.

use super::judge::Judged;
use super::probe::ProbeFigures;
use super::{EvalArgs, Protocol};
use crate::console::Console;
use seedling_core::Result;
use seedling_core::atomic;
use seedling_core::eval::Measurement;
use seedling_report::eval_page::{self, Column, Subject};
use serde_json::{Value, json};
use std::path::Path;

/// What tells weights from each other: a run's folder, or a file's name, or the whole path where those are the same.
pub(super) fn names(weights: &[String]) -> Vec<String> {
    let short = |text: &String| {
        let path = Path::new(text);
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let folder = path.parent().and_then(Path::file_name);
        match (stem, folder) {
            (Some(stem), Some(folder)) if stem == "weights" => {
                folder.to_string_lossy().into_owned()
            }
            (Some(stem), _) => stem,
            _ => text.clone(),
        }
    };
    let all: Vec<String> = weights.iter().map(short).collect();
    let twice = |name: &String| all.iter().filter(|other| *other == name).count() > 1;
    let names = all
        .iter()
        .zip(weights)
        .map(|(name, weights)| match twice(name) {
            true => weights.clone(),
            false => name.clone(),
        });
    names.collect()
}

/// A figure of a measurement.
type Figure = fn(&Measurement) -> Option<f64>;

/// Rows of the table that a measurement fills.
const ROWS: [(Protocol, &str, &str, Figure); 13] = [
    (Protocol::Geometry, "alignment", "", |m| {
        m.geometry.alignment
    }),
    (Protocol::Geometry, "uniformity", "", |m| {
        m.geometry.uniformity
    }),
    (Protocol::Geometry, "intra-class alignment", "", |m| {
        m.geometry.intra_class_alignment
    }),
    (Protocol::Geometry, "instance discrimination", " %", |m| {
        m.geometry.instance_discrimination
    }),
    (Protocol::Geometry, "LiDAR", "", |m| m.geometry.lidar),
    (Protocol::Knn, "best-NN", " %", |m| {
        m.knn.as_ref().map(|knn| knn.best_nn)
    }),
    (Protocol::Knn, "its k", "", |m| {
        m.knn.as_ref().map(|knn| knn.k as f64)
    }),
    (Protocol::Panel, "precision at 10", " %", |m| {
        m.panel?.precision_at_10
    }),
    (Protocol::Panel, "mean average precision", " %", |m| {
        m.panel?.mean_average_precision
    }),
    (Protocol::Panel, "1-shot accuracy", " %", |m| {
        m.panel?.one_shot
    }),
    (Protocol::Panel, "5-shot accuracy", " %", |m| {
        m.panel?.five_shot
    }),
    (Protocol::Panel, "20-shot accuracy", " %", |m| {
        m.panel?.twenty_shot
    }),
    (Protocol::Panel, "purity of clusters", " %", |m| {
        m.panel?.purity
    }),
];

/// The figures in columns: of each weights, of the training half and of the test half.
fn columns(args: &EvalArgs, all: &[Judged]) -> (Vec<String>, Vec<Column>) {
    let mut columns = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (protocol, name, unit, _) in ROWS {
        if args.wants(protocol) {
            names.push(format!("{name}{unit}"));
        }
    }
    let probes = |one: &Judged| {
        [
            ("linear", one.linear.clone()),
            ("transfer", one.transfer.clone()),
        ]
    };
    let mut probe_rows: Vec<(&str, &str)> = Vec::new();
    for (what, figures) in all.iter().flat_map(probes) {
        let Some(figures) = figures else { continue };
        let mut rows = vec![(what, "top-1")];
        if figures.classes > 5 {
            rows.push((what, "top-5"));
        }
        if what == "transfer" {
            rows.push((what, "mean per class"));
        }
        rows.retain(|row| !probe_rows.contains(row));
        probe_rows.extend(rows);
    }
    names.extend(
        probe_rows
            .iter()
            .map(|(what, figure)| format!("{what}, {figure} %")),
    );
    for one in all {
        let halves = match &one.train {
            Some(train) => vec![("train", train), ("test", &one.figures)],
            None => vec![("", &one.figures)],
        };
        for (half, figures) in halves {
            let wanted = ROWS.iter().filter(|row| args.wants(row.0));
            let mut values: Vec<Option<f64>> = wanted.map(|row| row.3(figures)).collect();
            for (what, figure) in &probe_rows {
                let probe = match *what {
                    "linear" => &one.linear,
                    _ => &one.transfer,
                };
                let value = |probe: &ProbeFigures| match (*figure, half) {
                    ("top-1", "train") => Some(probe.train_top1),
                    (_, "train") => None,
                    ("top-1", _) => Some(probe.top1),
                    ("top-5", _) => Some(probe.top5),
                    _ => Some(probe.per_class),
                };
                values.push(probe.as_ref().and_then(value));
            }
            columns.push(Column {
                subject: one.name.clone(),
                half: half.into(),
                values,
            });
        }
    }
    (names, columns)
}

/// Prints the table.
pub(super) fn table(args: &EvalArgs, all: &[Judged], console: &Console) {
    for one in all {
        let name = match all.len() {
            1 => String::new(),
            _ => format!("{}: ", one.name),
        };
        console.say(&format!(
            "{name}{} on {} photos at {} px",
            one.arch, one.photos, one.image_size
        ));
    }
    let (rows, columns) = columns(args, all);
    let heads = [
        columns
            .iter()
            .map(|column| column.subject.as_str())
            .collect(),
        columns
            .iter()
            .map(|column| column.half.as_str())
            .collect::<Vec<_>>(),
    ];
    let shown = [all.len() > 1, all.iter().any(|one| one.train.is_some())];
    let width = |column: &Column| match shown[0] {
        true => column.subject.chars().count().clamp(9, 24) + 2,
        false => 11,
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    for (head, _) in heads.iter().zip(shown).filter(|(_, shown)| *shown) {
        let cells = head.iter().zip(&widths).map(|(cell, &width)| {
            let long = cell.chars().count().saturating_sub(width - 2);
            let cell: String = cell.chars().skip(long).collect();
            format!("{cell:>width$}")
        });
        console.say(format!("{:<28}{}", "", cells.collect::<String>()).trim_end());
    }
    for (place, name) in rows.iter().enumerate() {
        let values = columns.iter().map(|column| column.values[place]);
        if values.clone().all(|value| value.is_none()) {
            continue;
        }
        let cells = values.zip(&widths).map(|(value, &width)| match value {
            Some(value) if name == "its k" => format!("{value:>width$.0}"),
            Some(value) => format!("{value:>width$.3}"),
            None => format!("{:>width$}", ""),
        });
        console.say(format!("{name:<28}{}", cells.collect::<String>()).trim_end());
    }
    for one in all {
        for (what, probe) in [("linear", &one.linear), ("transfer", &one.transfer)] {
            if let Some(probe) = probe {
                console.note(&described(&one.name, what, probe));
            }
        }
    }
}

/// How a linear layer was trained.
fn described(name: &str, what: &str, probe: &ProbeFigures) -> String {
    let found = if probe.searched {
        ", found by search"
    } else {
        ""
    };
    format!(
        "{name}, {what}: {} photos of {} classes train for {} epochs, {} crops of each, learning rate {}{found}; {} are \
         asked about ({})",
        probe.photos.0,
        probe.classes,
        probe.epochs,
        probe.crops,
        probe.lr,
        probe.photos.1,
        probe.division
    )
}

/// Writes the page.
///
/// # Errors
/// It cannot be written.
pub(super) fn page(path: &Path, data: &Path, args: &EvalArgs, all: &[Judged]) -> Result<()> {
    let (rows, columns) = columns(args, all);
    let subjects = all.iter().map(|one| Subject {
        name: one.name.clone(),
        about: format!(
            "{} on {} photos at {} px",
            one.arch, one.photos, one.image_size
        ),
        alignment: one.figures.geometry.alignment,
        uniformity: one.figures.geometry.uniformity,
        intra_class_alignment: one.figures.geometry.intra_class_alignment,
        triangles: one.triangles.as_ref(),
    });
    let subjects: Vec<Subject<'_>> = subjects.collect();
    let title = data
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let title = title.unwrap_or_else(|| data.display().to_string());
    let html = eval_page::render(&title, &rows, &columns, &subjects);
    atomic::write(path, |file| file.write_all(html.as_bytes()))
}

/// Writes the figure of photos and their views alone.
///
/// # Errors
/// It cannot be written.
pub(super) fn triangles(path: &Path, all: &[Judged]) -> Result<()> {
    let figures = all.iter().filter_map(|one| one.triangles.as_ref()?.svg());
    let svg: String = figures.map(|(svg, _)| svg).collect();
    atomic::write(path, |file| file.write_all(svg.as_bytes()))
}

/// The JSON summary: of one file as it is, of several a list.
pub(super) fn summary(args: &EvalArgs, all: &[Judged]) -> Value {
    let one = |one: &Judged| {
        let geometry = args.wants(Protocol::Geometry);
        json!({
            "command": "eval",
            "weights": one.weights,
            "arch": one.arch,
            "image_size": one.image_size,
            "photos": one.photos,
            "skipped": one.skipped.len(),
            "geometry": geometry.then_some(&one.figures.geometry),
            "knn": one.figures.knn,
            "panel": one.figures.panel,
            "linear": one.linear.as_ref().map(ProbeFigures::json),
            "transfer": one.transfer.as_ref().map(ProbeFigures::json),
            "train": one.train.as_ref().map(|train| json!({
                "geometry": geometry.then_some(&train.geometry),
                "knn": train.knn,
                "panel": train.panel,
            })),
            "collapse": one.figures.collapse,
        })
    };
    match all {
        [only] => one(only),
        _ => json!({
            "command": "eval",
            "weights": all.iter().map(one).collect::<Vec<Value>>(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_never_two_the_same() {
        let of =
            |weights: &[&str]| names(&weights.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["shipped"]), ["shipped"]);
        assert_eq!(
            of(&["runs/a/weights.safetensors", "b/seed.safetensors"]),
            ["a", "seed"]
        );
        assert_eq!(
            of(&["x/a/weights.safetensors", "y/a/weights.safetensors"]),
            ["x/a/weights.safetensors", "y/a/weights.safetensors"]
        );
    }
}
