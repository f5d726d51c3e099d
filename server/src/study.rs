//! `seedling study`: the paper's tables and figures, rerun.

mod estimate;
mod plan;
mod results;
mod task;
mod work;

use crate::console::Console;
use crate::flags::Common;
use crate::{Outcome, interrupt};
use clap::Args;
use estimate::Estimate;
use plan::{Figure, Plan, SHIPPED};
use results::Spot;
use seedling_core::cancel::CancelToken;
use seedling_core::config::Device;
use seedling_core::{Error, Result, atomic};
use seedling_report::study_page::{self, Layout, Section, Value};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use task::Tasks;
use work::{Slot, State, Work};

/// Rerun the paper's tables and figures: a grid of runs, from a plan
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling study --list
  seedling study small/table3 --data ../shared/data --out study
  seedling study imagenet/table3 imagenet/table7 --data /data --jobs 4 --devices cuda:0,cuda:1,cuda:2,cuda:3
  seedling study mine.toml --data DATA --out study
A plan is a table of runs: settings for all of them, for each row, and for each column (--show NAME prints a shipped one,
to be copied and changed). Runs that several plans have in common are made once. Stopped by whatever means, the same
command continues; a run that fails says why in its place, and is tried again the next time.")]
pub struct StudyArgs {
    /// Plans: files, or names of shipped ones
    #[arg(required_unless_present_any = ["list", "show"])]
    pub plans: Vec<String>,
    /// Folder that the plans' datasets are below
    #[arg(long, value_name = "DIR", required_unless_present_any = ["list", "show"])]
    pub data: Option<PathBuf>,
    /// Folder for runs, tables and the page
    #[arg(long, value_name = "DIR", default_value = "seedling-study")]
    pub out: PathBuf,
    /// Runs at a time; each has its part of the threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: u32,
    /// Devices that runs are spread over, such as cuda:0,cuda:1
    #[arg(
        long,
        value_name = "DEVICE,...",
        value_delimiter = ',',
        conflicts_with = "device"
    )]
    pub devices: Vec<String>,
    /// List the shipped plans
    #[arg(long)]
    pub list: bool,
    /// Print a shipped plan
    #[arg(long, value_name = "NAME")]
    pub show: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// A plan, a dataset or the folder cannot be used; failed runs, once the others are done.
pub fn run(args: &StudyArgs, console: &Console) -> Result<Outcome> {
    if args.list {
        return list(console);
    }
    if let Some(name) = &args.show {
        console.say(Plan::read(name)?.text.trim_end());
        return Ok(Outcome::Done);
    }
    let common = &args.common;
    if common.seed.is_some() || common.config.is_some() || !common.set.is_empty() {
        return Err(Error::Config(
            "--seed, --config and --set are not for a study: seeds and settings stand in its plan (--show NAME)".into(),
        ));
    }
    let plans: Vec<Plan> = args
        .plans
        .iter()
        .map(|path| Plan::read(path))
        .collect::<Result<_>>()?;
    let root = args.data.as_deref().unwrap_or(Path::new("."));
    let root = root.canonicalize().map_err(Error::io(root))?;
    fs::create_dir_all(&args.out).map_err(Error::io(&args.out))?;
    let out = args.out.canonicalize().map_err(Error::io(&args.out))?;
    let mut tasks = Tasks {
        root: &root,
        out: &out,
        all: Vec::new(),
    };
    let cells = plans
        .iter()
        .map(|plan| tasks.add(plan))
        .collect::<Result<Vec<_>>>()?;
    let tasks = tasks.all;
    for plan in &plans {
        keep(plan, &out)?;
    }

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args
        .common
        .threads
        .filter(|&n| n > 0)
        .map_or(cores, |n| n as usize);
    let jobs = args.jobs as usize;
    let devices = match (&common.device, args.devices.is_empty()) {
        (Some(device), _) => vec![Some(device.clone())],
        (None, false) => args.devices.iter().cloned().map(Some).collect(),
        (None, true) => vec![None],
    };
    let slots: Vec<Slot> = (0..jobs)
        .map(|job| Slot {
            device: devices[job % devices.len()].clone(),
            threads: (threads / jobs).max(1),
        })
        .collect();
    let first = devices[0].as_deref().unwrap_or("cpu");
    let device: Device = first.parse()?;
    let estimate = Estimate::new(&tasks, slots[0].threads, device)?;

    let cancel = CancelToken::default();
    interrupt::cancels(Some(cancel.clone()));
    let states = Work::new(&tasks, estimate, jobs, cancel.clone(), console).run(&slots);
    interrupt::cancels(None);

    let mut spots = Vec::new();
    for (plan, cells) in plans.iter().zip(&cells) {
        let csv = out.join(&plan.name).with_extension("csv");
        spots.push(results::gather(plan, cells, &tasks, &states, &csv)?);
    }
    let page = out.join("study.html");
    let sections: Vec<Section> = plans
        .iter()
        .zip(&spots)
        .map(|(plan, spots)| section(plan, spots))
        .collect();
    let html = study_page::render(&sections);
    atomic::write(&page, |file| file.write_all(html.as_bytes()))?;
    say(&plans, &spots, console);
    console.say(&format!("page     {}", page.display()));
    let count = |of: fn(&State) -> bool| states.iter().filter(|state| of(state)).count();
    let failed = count(|state| matches!(state, State::Failed(_)));
    console.summary(&json!({
        "command": "study",
        "plans": plans.iter().map(|plan| &plan.name).collect::<Vec<_>>(),
        "tasks": tasks.len(),
        "done": count(|state| matches!(state, State::Done)),
        "failed": failed,
        "page": page,
    }));
    if cancel.is_canceled() {
        console.note("stopped; the same command continues");
        return Ok(Outcome::Interrupted);
    }
    match failed {
        0 => Ok(Outcome::Done),
        n => Err(Error::Training(format!(
            "{n} of {} tasks failed; their places in the table say why, and the same command tries them again",
            tasks.len()
        ))),
    }
}

fn list(console: &Console) -> Result<Outcome> {
    for (name, _) in SHIPPED {
        let plan = Plan::read(name)?;
        console.say(&format!("{name:18} {}: {}", plan.table, plan.title));
    }
    let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
    console.summary(&json!({ "command": "study", "plans": names }));
    Ok(Outcome::Done)
}

/// Keeps the plan beside its results, and refuses another one of the same name.
fn keep(plan: &Plan, out: &Path) -> Result<()> {
    let path = out.join(&plan.name).with_extension("toml");
    let Ok(before) = fs::read_to_string(&path) else {
        return atomic::write(&path, |file| file.write_all(plan.text.as_bytes()));
    };
    let parsed = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let changed = changes("", &parsed(&before).into(), &parsed(&plan.text).into());
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Error::file(
            &path,
            format!(
                "the folder holds results of another plan of this name; changed: {}; take another --out, or give the plan \
                 another name",
                changed.join(", ")
            ),
        )),
    }
}

/// Keys whose values are not the same.
fn changes(at: &str, before: &toml::Value, now: &toml::Value) -> Vec<String> {
    match (before, now) {
        (toml::Value::Table(before), toml::Value::Table(now)) => {
            let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
            keys.sort();
            keys.dedup();
            let below = |key: &String| match at {
                "" => key.clone(),
                at => format!("{at}.{key}"),
            };
            let changed = keys
                .into_iter()
                .flat_map(|key| match (before.get(key), now.get(key)) {
                    (Some(before), Some(now)) => changes(&below(key), before, now),
                    _ => vec![below(key)],
                });
            changed.collect()
        }
        (toml::Value::Array(before), toml::Value::Array(now)) if before.len() == now.len() => {
            let pairs = before.iter().zip(now).enumerate();
            pairs
                .flat_map(|(i, (before, now))| changes(&format!("{at}[{i}]"), before, now))
                .collect()
        }
        _ if before == now => Vec::new(),
        _ => vec![format!("{at} ({before} before)")],
    }
}

/// A plan's part of the page.
fn section<'a>(plan: &'a Plan, spots: &'a [Spot]) -> Section<'a> {
    let at = |row: usize, column: usize| {
        spots
            .iter()
            .find(|spot| (spot.row, spot.column) == (row, column))
    };
    let cells = (0..plan.rows.len()).map(|row| {
        let of_row = (0..plan.columns.len()).map(|column| match at(row, column) {
            Some(spot) => (spot.values.clone(), spot.failed.clone()),
            None => (Vec::new(), None),
        });
        of_row.collect()
    });
    let labels =
        |entries: &'a [plan::Entry]| entries.iter().map(|entry| entry.label.as_str()).collect();
    Section {
        table: &plan.table,
        title: &plan.title,
        note: &plan.note,
        layout: Layout {
            rows: labels(&plan.rows),
            columns: labels(&plan.columns),
            measures: plan
                .measures
                .iter()
                .map(|measure| Plan::measure_name(measure))
                .collect(),
            cells: cells.collect(),
        },
        curves: spots.iter().map(|spot| &spot.curve).collect(),
        plane: match plan.figure {
            Some(Figure::Plane) => marks(plan, spots),
            _ => Vec::new(),
        },
        bars: plan.figure == Some(Figure::Bars),
        triangles: spots
            .iter()
            .filter_map(|spot| Some((spot.curve.name.as_str(), spot.triangles.as_deref()?)))
            .collect(),
    }
}

/// Where the cells of a plan lie on the plane of alignment and uniformity.
fn marks(plan: &Plan, spots: &[Spot]) -> Vec<seedling_report::plane::Mark> {
    let place = |name: &str| plan.measures.iter().position(|measure| measure == name);
    let (Some(alignment), Some(uniformity)) = (place("intra_class_alignment"), place("uniformity"))
    else {
        return Vec::new();
    };
    let value = |spot: &Spot, at: usize| -> Option<f64> { Some(spot.values[at].as_ref()?.mean) };
    let mark = |spot: &Spot| {
        Some(seedling_report::plane::Mark {
            name: spot.curve.name.clone(),
            alignment: value(spot, alignment)?,
            uniformity: value(spot, uniformity)?,
        })
    };
    spots.iter().filter_map(mark).collect()
}

/// Prints the tables.
fn say(plans: &[Plan], spots: &[Vec<Spot>], console: &Console) {
    for (plan, spots) in plans.iter().zip(spots) {
        console.say(&format!("\n{}: {}", plan.table, plan.title));
        let width = plan
            .columns
            .iter()
            .map(|entry| entry.label.chars().count() + 2)
            .max();
        let width = width.unwrap_or(0).max(15);
        let heads: String = plan
            .columns
            .iter()
            .map(|entry| format!("{:>width$}", entry.label))
            .collect();
        console.say(&format!("{:46}{heads}", ""));
        for (row, entry) in plan.rows.iter().enumerate() {
            for (at, measure) in plan.measures.iter().enumerate() {
                let cell = |column: usize| {
                    let spot = spots
                        .iter()
                        .find(|spot| (spot.row, spot.column) == (row, column));
                    let text = match spot {
                        Some(Spot {
                            failed: Some(_), ..
                        }) => "failed".into(),
                        Some(spot) => spot.values[at].as_ref().map_or("-".into(), Value::text),
                        None => "-".into(),
                    };
                    format!("{text:>width$}")
                };
                let cells: String = (0..plan.columns.len()).map(cell).collect();
                let label: String = entry.label.chars().take(21).collect();
                console.say(&format!(
                    "{label:22}{:24}{cells}",
                    Plan::measure_name(measure)
                ));
            }
        }
        for spot in spots {
            if let Some(why) = &spot.failed {
                console.say(&format!(
                    "{} / {} failed: {why}",
                    plan.rows[spot.row].label, plan.columns[spot.column].label
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_in_a_plan_is_named() {
        let table = |text: &str| toml::Value::from(text.parse::<toml::Table>().unwrap());
        let before = table("a = 1\nb = [1, 2]\n[c]\nd = 'x'\n[[r]]\nlabel = 'y'");
        assert!(changes("", &before, &before).is_empty());
        let now = table("a = 2\nb = [1]\ne = 0\n[c]\nd = 'x'\n[[r]]\nlabel = 'z'");
        let names = changes("", &before, &now).join(" | ");
        for name in [
            "a (1 before)",
            "b ([1, 2] before)",
            "e",
            "r[0].label (\"y\" before)",
        ] {
            assert!(names.contains(name), "{name} in {names}");
        }
        assert!(!names.contains("c.d"));
    }
}
