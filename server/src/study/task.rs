//! What a study has to do: runs of this program, each in a folder of its own, that several plans may share.

use super::plan::{Cell, Figure, Plan};
use seedling_core::config::Config;
use seedling_core::{Error, Result};
use std::path::{Path, PathBuf};

/// A run of this program.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) kind: Kind,
    /// Where it works.
    pub(super) folder: PathBuf,
    /// What is there when it is done.
    pub(super) done: PathBuf,
    /// The command line, but for threads and device.
    pub(super) arguments: Vec<String>,
    /// Tasks that must be done before.
    pub(super) needs: Vec<usize>,
    /// In a few words.
    pub(super) label: String,
    /// The settings of a run that trains.
    pub(super) config: Option<Config>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Distill,
    Train,
    Measure,
}

/// Where the results of a cell will be.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The training run's folder.
    pub(super) run: PathBuf,
    pub(super) train: usize,
    /// Measurements of its weights, and of the weights it began with.
    pub(super) eval: usize,
    pub(super) init_eval: Option<usize>,
    /// By the dataset's name.
    pub(super) transfer: Vec<(String, usize)>,
    /// The figure of photos and their views, where the plan asks for it.
    pub(super) triangles: Option<PathBuf>,
}

/// All tasks of some plans.
pub(super) struct Tasks<'a> {
    /// Where datasets are, and where runs go.
    pub(super) root: &'a Path,
    pub(super) out: &'a Path,
    pub(super) all: Vec<Task>,
}

impl Tasks<'_> {
    /// Adds the tasks of a plan, and says where the result of each of its cells will be.
    ///
    /// # Errors
    /// A dataset is not there.
    pub(super) fn add(&mut self, plan: &Plan) -> Result<Vec<(Cell, Places)>> {
        let train = self.there(plan, &plan.train)?;
        let data = self.there(plan, &plan.data)?;
        for dataset in plan.transfer.values() {
            self.there(plan, dataset)?;
        }
        let mut cells = Vec::new();
        for cell in plan.cells() {
            let label = format!(
                "{} / {}, seed {}",
                plan.rows[cell.row].label, plan.columns[cell.column].label, cell.seed
            );
            let distill = match cell.distill_steps {
                0 => None,
                _ => Some(self.distill(plan, &cell, &train)?),
            };
            let run = self.train(plan, &cell, (&train, distill), &label)?;
            let triangles = plan.figure == Some(Figure::Triangles);
            let side = cell.config(&plan.name)?.image_size;
            let eval = self.measure(plan, run, &data, side, Some(triangles));
            let wants_init = plan
                .measures
                .iter()
                .any(|measure| measure == "init_best_nn");
            let init_eval = distill
                .filter(|_| wants_init)
                .map(|distill| self.measure(plan, distill, &data, side, Some(false)));
            let transfer = plan.transfer.iter().map(|(name, dataset)| {
                let dataset = self.root.join(dataset).to_string_lossy().into_owned();
                (name.clone(), self.measure(plan, run, &dataset, side, None))
            });
            let transfer = transfer.collect();
            let places = Places {
                run: self.all[run].folder.clone(),
                train: run,
                eval,
                init_eval,
                transfer,
                triangles: triangles.then(|| self.all[eval].done.with_extension("svg")),
            };
            cells.push((cell, places));
        }
        Ok(cells)
    }

    fn there(&self, plan: &Plan, dataset: &Path) -> Result<String> {
        let path = self.root.join(dataset);
        match path.exists() {
            true => Ok(path.to_string_lossy().into_owned()),
            false => Err(Error::NoPhotos(format!(
                "{}: {} is not there (datasets are looked for below --data)",
                plan.name,
                path.display()
            ))),
        }
    }

    /// The task, unless one with the same outcome is there already.
    fn once(&mut self, task: Task) -> usize {
        let same = self.all.iter().position(|other| other.done == task.done);
        same.unwrap_or_else(|| {
            self.all.push(task);
            self.all.len() - 1
        })
    }

    /// Settings with the teacher's file, where that lies below the datasets' folder.
    fn beside(&self, mut settings: toml::Table) -> toml::Table {
        if let Some(teacher) = settings.get("teacher").and_then(|value| value.as_str()) {
            let beside = self.root.join(teacher);
            if beside.exists() {
                let path = beside.to_string_lossy().into_owned();
                settings.insert("teacher".into(), path.into());
            }
        }
        settings
    }

    fn distill(&mut self, plan: &Plan, cell: &Cell, train: &str) -> Result<usize> {
        let settings = self.beside(plan.distill_settings(cell));
        let config = plan.distill_config(cell, &plan.name)?;
        let mut arguments = vec!["distill".into(), train.into()];
        arguments.extend(assignments(&settings, cell.seed));
        let label = format!("SEED, {} steps, seed {}", cell.distill_steps, cell.seed);
        Ok(self.run(Kind::Distill, config, arguments, Vec::new(), label))
    }

    fn train(
        &mut self,
        plan: &Plan,
        cell: &Cell,
        (train, distill): (&str, Option<usize>),
        label: &str,
    ) -> Result<usize> {
        let config = cell.config(&plan.name)?;
        let mut settings = self.beside(cell.settings.clone());
        let command = match cell.distills() {
            true => "distill",
            false => "pretrain",
        };
        let mut arguments = vec![command.into(), train.into()];
        // By its flag a method has what it has otherwise than others.
        if let Some(toml::Value::String(method)) = settings.remove("method") {
            arguments.extend(["--method".into(), method]);
        }
        if let Some(preset) = &cell.preset {
            arguments.extend(["--preset".into(), preset.clone()]);
        }
        let needs: Vec<usize> = distill.into_iter().collect();
        for &distill in &needs {
            let weights = self.all[distill].folder.join("weights.safetensors");
            arguments.extend(["--init".into(), weights.to_string_lossy().into_owned()]);
        }
        arguments.extend(assignments(&settings, cell.seed));
        Ok(self.run(Kind::Train, config, arguments, needs, label.into()))
    }

    /// A run that trains, in a folder named after the network and all that decides the result.
    fn run(
        &mut self,
        kind: Kind,
        config: Config,
        arguments: Vec<String>,
        needs: Vec<usize>,
        label: String,
    ) -> usize {
        let name = format!("{}-{:016x}", config.arch, self.digest(&arguments));
        let folder = self.out.join("runs").join(name);
        self.once(Task {
            kind,
            done: folder.join("done.json"),
            folder,
            arguments,
            needs,
            label,
            config: Some(config),
        })
    }

    /// 64 bits of a command line (FNV-1a): the same for the same work, wherever the folders are.
    fn digest(&self, arguments: &[String]) -> u64 {
        let [root, out] = [self.root, self.out].map(|path| path.to_string_lossy().into_owned());
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for text in arguments {
            let text = text.replace(&root, "").replace(&out, "");
            for byte in text.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    /// A measurement of a run's weights on a dataset: all that a plan may ask of it, or transfer alone.
    fn measure(
        &mut self,
        plan: &Plan,
        run: usize,
        data: &str,
        side: usize,
        triangles: Option<bool>,
    ) -> usize {
        let weights = self.all[run].folder.join("weights.safetensors");
        let protocol = match triangles {
            Some(_) => "geometry,knn,panel,linear",
            None => "transfer",
        };
        let mut arguments: Vec<String> = ["eval", data, "--protocol", protocol]
            .map(String::from)
            .into();
        arguments.extend(["--set".into(), format!("image_size={side}")]);
        if let Some(lr) = &plan.lr {
            arguments.extend(["--lr".into(), lr.clone()]);
        }
        if let Some(crops) = plan.crops {
            arguments.extend(["--crops".into(), crops.to_string()]);
        }
        let (folder, label) = (self.all[run].folder.clone(), self.all[run].label.clone());
        let name = format!("eval-{:016x}", self.digest(&arguments));
        let done = folder.join(name).with_extension("json");
        arguments.extend(["--weights".into(), weights.to_string_lossy().into_owned()]);
        if triangles == Some(true) {
            let svg = done.with_extension("svg").to_string_lossy().into_owned();
            arguments.extend(["--triangles".into(), svg]);
        }
        let at = self.once(Task {
            kind: Kind::Measure,
            folder,
            done,
            arguments: arguments.clone(),
            needs: vec![run],
            label: format!("{label}: measure"),
            config: None,
        });
        // Where another plan wants the same without the figure, one run makes both.
        if triangles == Some(true) {
            self.all[at].arguments = arguments;
        }
        at
    }
}

impl Task {
    /// Whether its results are there.
    pub(super) fn is_done(&self) -> bool {
        let figure = self.arguments.iter().position(|text| text == "--triangles");
        let figure = figure.and_then(|at| self.arguments.get(at + 1));
        self.done.is_file() && figure.is_none_or(|path| Path::new(path).is_file())
    }
}

/// Settings as a command line has them, in the order of their keys.
fn assignments(settings: &toml::Table, seed: u32) -> Vec<String> {
    let mut arguments = vec!["--seed".into(), seed.to_string()];
    for (key, value) in settings {
        let value = match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        arguments.extend(["--set".into(), format!("{key}={value}")]);
    }
    arguments
}
