//! What a study came to: the figures of its cells over seeds, as CSV and for the page.

use super::plan::{Cell, Plan};
use super::task::{Places, Task};
use super::work::State;
use seedling_core::backbones::Arch;
use seedling_core::encoder::Architecture;
use seedling_core::records::{self, Record};
use seedling_core::{Result, atomic};
use seedling_report::study_page::{Curve, Value as Figure};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// The results of one run.
#[derive(Clone, Debug, Default)]
struct Found {
    /// One for each measure of the plan.
    values: Vec<Option<f64>>,
    /// Why there is none.
    failed: Option<String>,
}

/// A place of the table.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) row: usize,
    pub(super) column: usize,
    /// One for each measure: its mean and spread over seeds.
    pub(super) values: Vec<Option<Figure>>,
    pub(super) failed: Option<String>,
    /// Of the first seed: loss by step.
    pub(super) curve: Curve,
    /// Of the first seed: the figure of photos and views.
    pub(super) triangles: Option<String>,
}

/// All places of a plan's table, and its CSV at `csv`.
///
/// # Errors
/// The CSV cannot be written.
pub(super) fn gather(
    plan: &Plan,
    cells: &[(Cell, Places)],
    tasks: &[Task],
    states: &[State],
    csv: &Path,
) -> Result<Vec<Spot>> {
    let mut text = String::from("table,row,column,seed,measure,value,paper\n");
    let mut spots: Vec<Spot> = Vec::new();
    let mut of_seeds: Vec<Vec<Found>> = Vec::new();
    for (cell, places) in cells {
        let found = found(plan, cell, places, tasks, states);
        let (row, column) = (&plan.rows[cell.row].label, &plan.columns[cell.column].label);
        for (measure, value) in plan.measures.iter().zip(&found.values) {
            let value = value.map_or(String::new(), |value| value.to_string());
            let paper = paper(plan, cell, measure).map_or(String::new(), |x| x.to_string());
            let _ = writeln!(
                text,
                "{},{},{},{},{measure},{value},{paper}",
                quoted(&plan.table),
                quoted(row),
                quoted(column),
                cell.seed
            );
        }
        let here = spots
            .iter()
            .position(|spot| (spot.row, spot.column) == (cell.row, cell.column));
        match here {
            Some(at) => of_seeds[at].push(found),
            None => {
                of_seeds.push(vec![found]);
                spots.push(Spot {
                    row: cell.row,
                    column: cell.column,
                    values: Vec::new(),
                    failed: None,
                    curve: Curve {
                        name: name(plan, cell),
                        points: curve(&places.run),
                    },
                    triangles: places
                        .triangles
                        .as_ref()
                        .and_then(|path| std::fs::read_to_string(path).ok()),
                });
            }
        }
    }
    for (spot, found) in spots.iter_mut().zip(of_seeds) {
        spot.failed = found.iter().find_map(|one| one.failed.clone());
        spot.values = plan
            .measures
            .iter()
            .enumerate()
            .map(|(at, measure)| {
                let values: Vec<f64> = found.iter().filter_map(|one| one.values[at]).collect();
                let cell = &cells
                    .iter()
                    .find(|(c, _)| (c.row, c.column) == (spot.row, spot.column))?
                    .0;
                Some(Figure {
                    mean: mean(&values)?,
                    spread: spread(&values),
                    seeds: values.len(),
                    paper: paper(plan, cell, measure),
                })
            })
            .collect();
    }
    atomic::write(csv, |file| file.write_all(text.as_bytes()))?;
    Ok(spots)
}

/// What a cell is called among others.
fn name(plan: &Plan, cell: &Cell) -> String {
    let (row, column) = (&plan.rows[cell.row].label, &plan.columns[cell.column].label);
    match (plan.rows.len(), plan.columns.len()) {
        (1, _) => column.clone(),
        (_, 1) => row.clone(),
        _ => format!("{row}, {column}"),
    }
}

fn paper(plan: &Plan, cell: &Cell, measure: &str) -> Option<f64> {
    let row = plan.paper.get(&plan.rows[cell.row].label)?;
    row.get(&plan.columns[cell.column].label)?
        .get(measure)
        .copied()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation over seeds (n - 1).
fn spread(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

fn found(plan: &Plan, cell: &Cell, places: &Places, tasks: &[Task], states: &[State]) -> Found {
    let read = |task: usize| -> Option<Value> {
        let text = std::fs::read_to_string(&tasks[task].done).ok()?;
        serde_json::from_str(&text).ok()
    };
    let eval = read(places.eval);
    let init = places.init_eval.and_then(read);
    let train = read(places.train);
    let of = |result: &Option<Value>, path: &str| result.as_ref()?.pointer(path)?.as_f64();
    let value = |measure: &String| -> Option<f64> {
        if let Some(dataset) = measure.strip_prefix("transfer:") {
            let (_, task) = places.transfer.iter().find(|(name, _)| name == dataset)?;
            return of(&read(*task), "/summary/transfer/top1");
        }
        match measure.as_str() {
            "linear" => of(&eval, "/summary/linear/top1"),
            "best_nn" => of(&eval, "/summary/knn/best_nn"),
            "init_best_nn" => of(&init, "/summary/knn/best_nn"),
            "minutes" => of(&train, "/seconds").map(|seconds| seconds / 60.0),
            "loss" => of(&train, "/summary/loss"),
            "parameters_m" => parameters(cell.config(&plan.name).ok()?.arch),
            "one_shot" | "five_shot" | "twenty_shot" => {
                of(&eval, &format!("/summary/panel/{measure}"))
            }
            geometry => match geometry.strip_prefix("train_") {
                Some(name) => of(&eval, &format!("/summary/train/geometry/{name}")),
                None => of(&eval, &format!("/summary/geometry/{geometry}")),
            },
        }
    };
    let needed = [places.train, places.eval];
    let transfers = places.transfer.iter().map(|(_, task)| *task);
    let failed = needed
        .into_iter()
        .chain(transfers)
        .find_map(|task| match &states[task] {
            State::Failed(why) => Some(why.clone()),
            _ => None,
        });
    Found {
        values: plan.measures.iter().map(value).collect(),
        failed,
    }
}

/// Millions of parameters up to the features.
fn parameters(arch: Arch) -> Option<f64> {
    let count = Architecture::new(arch, None).layout().parameter_count();
    Some(count as f64 / 1e6)
}

/// Loss by step.
fn curve(run: &Path) -> Vec<(f64, f64)> {
    let log = records::read(&run.join(records::FILE_NAME)).unwrap_or_default();
    let steps = log.into_iter().filter_map(|record| match record {
        Record::Step(step) => Some((step.step as f64, step.loss)),
        _ => None,
    });
    steps.collect()
}

/// A cell of a CSV.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_samples_standard_deviation() {
        assert_eq!(spread(&[1.0]), None);
        assert_eq!(spread(&[1.0, 3.0]), Some(2f64.sqrt()));
        assert_eq!(mean(&[]), None);
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
