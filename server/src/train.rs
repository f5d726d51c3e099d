//! What the commands that train share: from flags to a run, and the run to its end.

use crate::console::Console;
use crate::flags::Training;
use crate::photos::{self, Photos, budget};
use crate::settings::Settings;
use crate::terminal_observer::{GUESTS, TerminalObserver};
use crate::{Outcome, interrupt, shipped};
use seedling_convert::onnx::OnnxNet;
use seedling_core::checkpoint::{self, State};
use seedling_core::config::{Config, Layer};
use seedling_core::data::{self, DecodeBudget, Normalize, PhotoSource};
use seedling_core::session::{Foreign, Start, TeacherSource};
use seedling_core::tensor_file;
use seedling_core::training_run::{Phase, RunFolder, Sources, TrainingRun};
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// What distinguishes one training command from another.
pub struct Plan<'a> {
    /// `adapt`, `pretrain` or `distill`.
    pub command: &'static str,
    /// The command's flags.
    pub training: &'a Training,
    /// Memory to stay within, in MB.
    pub memory_mb: Option<u32>,
    /// The settings they make.
    pub settings: Settings,
    /// The photos.
    pub photos: Photos<'a>,
}

/// Runs `plan`.
///
/// # Errors
/// Settings, weights, photos or disk; one line says what and what to do.
pub fn run(mut plan: Plan<'_>, console: &Console) -> Result<Outcome> {
    let resume = plan.training.resume;
    let folder = RunFolder::open(&plan.training.out, resume, &GUESTS)?;
    let mut run = match resume {
        false => start_run(&mut plan, folder, console)?,
        true => go_on(&mut plan, folder, console)?,
    };
    announce(&run, &plan, console);

    let mut observer = TerminalObserver::open(&run, plan.command, console)?;
    interrupt::cancels(Some(run.cancel().clone()));
    let end = loop {
        match run.advance(&mut observer) {
            Ok(Phase::Going) => {}
            end => break end,
        }
    };
    interrupt::cancels(None);
    observer.clear();
    if end? == Phase::Done {
        return Ok(Outcome::Done);
    }
    if run.is_saved() {
        console.note(&format!(
            "saved after step {} of {}; continue with the same command and --resume",
            run.session().steps_done(),
            run.session().steps()
        ));
    }
    Ok(Outcome::Interrupted)
}

/// The checkpoint to continue from, with the plan's settings laid over its own.
fn saved(plan: &mut Plan<'_>, folder: &Path, console: &Console) -> Result<State<'static>> {
    let (state, notice) = checkpoint::load(folder)?;
    if let Some(notice) = notice {
        console.note(&format!("warning: {notice}"));
    }
    match plan.memory_mb {
        None => plan.settings.rebase(state.config.clone())?,
        Some(_) => {
            console.note("--memory-mb has no effect with --resume: the run keeps its settings");
            plan.settings.rebase_within_budget(state.config.clone())?;
        }
    }
    Ok(state)
}

fn start_run(plan: &mut Plan<'_>, folder: RunFolder, console: &Console) -> Result<TrainingRun> {
    let config = &plan.settings.config;
    // A file says what it is; only where a network was asked for, the file has to be that one.
    let wanted = plan.settings.asks_for("arch") || config.init == "shipped";
    let arch = wanted.then_some(config.arch);
    // `adapt` has no flag of its own for the network: its weights mostly say it.
    let flag = match plan.command {
        "adapt" => "--set arch=",
        _ => "--arch ",
    };
    let init = shipped::open(&config.init, arch, flag, console)?;
    let config = &mut plan.settings.config;
    if let Some(file) = &init {
        let mut found = Layer::new(config.init.clone());
        found.set("arch", Some(file.metadata.architecture.arch.name()));
        config.apply(&found)?;
    }
    let decoding = budget(&plan.settings.config);
    let sources = sources(plan, &decoding, console)?;
    if let Some(budget) = plan.memory_mb {
        let run = (init.as_ref(), &*sources.0);
        if let Some(note) = plan.settings.fit_memory(run, budget)? {
            console.note(&note);
            decoding.set_megabytes(plan.settings.config.decode_mb);
        }
    }
    let teacher = teacher(plan, console)?;
    if let Some(Teacher::Weights(file)) = &teacher {
        let mut found = Layer::new(plan.settings.config.teacher.clone());
        found.set("teacher_arch", Some(file.metadata.architecture.arch.name()));
        plan.settings.config.apply(&found)?;
    }
    let start = Start {
        init: init.as_ref(),
        teacher: teacher.as_ref().map(Teacher::teacher),
        ..Start::default()
    };
    let config = plan.settings.config.clone();
    let (run, notes) = TrainingRun::start(folder, config, sources, &start, plan.command)?;
    notes.iter().for_each(|note| console.note(note));
    Ok(run)
}

fn go_on(plan: &mut Plan<'_>, folder: RunFolder, console: &Console) -> Result<TrainingRun> {
    let state = saved(plan, &folder.path, console)?;
    let sources = sources(plan, &budget(&plan.settings.config), console)?;
    let teacher = teacher(plan, console)?;
    let start = Start {
        teacher: teacher.as_ref().map(Teacher::teacher),
        ..Start::default()
    };
    let config = plan.settings.config.clone();
    TrainingRun::resume(folder, config, sources, &start, (state, plan.command))
}

fn sources(plan: &Plan<'_>, budget: &Arc<DecodeBudget>, console: &Console) -> Result<Sources> {
    let source = plan.photos.open(&plan.settings.config, budget, console)?;
    let measured_on = match &plan.training.measure_on {
        Some(path) => photos::open(path, budget, console)?,
        None => source.clone(),
    };
    Ok((source, measured_on))
}

/// Who teaches.
enum Teacher {
    Weights(WeightFile),
    Onnx(Foreign),
}

impl Teacher {
    fn teacher(&self) -> TeacherSource<'_> {
        match self {
            Teacher::Weights(file) => TeacherSource::Weights(file),
            Teacher::Onnx(foreign) => TeacherSource::Foreign(foreign),
        }
    }
}

fn teacher(plan: &Plan<'_>, console: &Console) -> Result<Option<Teacher>> {
    let config = &plan.settings.config;
    if plan.command != "distill" {
        return Ok(None);
    }
    let path = Path::new(&config.teacher);
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
    {
        return onnx(path, config).map(|foreign| Some(Teacher::Onnx(foreign)));
    }
    // A file says what it is; only where a network was asked for, the file has to be that one.
    let wanted = plan.settings.asks_for("teacher_arch");
    let arch = wanted.then_some(config.teacher_arch);
    let file = shipped::file(path, arch, "--teacher-arch ", console)?;
    Ok(Some(Teacher::Weights(file)))
}

fn onnx(path: &Path, config: &Config) -> Result<Foreign> {
    let usual = Normalize::default();
    let triple = |key: &str, text: &str, usual: [f32; 3]| -> Result<[f32; 3]> {
        if text.trim().is_empty() {
            return Ok(usual);
        }
        let numbers: Vec<f32> = text
            .split(',')
            .filter_map(|number| number.trim().parse().ok())
            .collect();
        let found = <[f32; 3]>::try_from(numbers).ok();
        found
            .filter(|found| found.iter().all(|x| x.is_finite()))
            .ok_or_else(|| {
                Error::Config(format!(
                    "{key} = {text}: expected three numbers, as 0.5,0.5,0.5"
                ))
            })
    };
    let normalize = Normalize {
        mean: triple("teacher_mean", &config.teacher_mean, usual.mean)?,
        std: triple("teacher_std", &config.teacher_std, usual.std)?,
    };
    if normalize.std.iter().any(|std| *std <= 0.0) {
        return Err(Error::Config("teacher_std must be above 0".into()));
    }
    let side = match config.teacher_size {
        0 => config.image_size,
        side => side,
    };
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    Ok(Foreign {
        net: Arc::new(OnnxNet::open(path, &config.teacher_output, side, threads)?),
        normalize,
        digest: tensor_file::digest(path)?,
    })
}

fn announce(run: &TrainingRun, plan: &Plan<'_>, console: &Console) {
    let (session, resumed) = (run.session(), plan.training.resume);
    let config = session.config();
    if !config.trains() {
        console.note(&format!(
            "{} {} on {} photos: a linear layer alone, at {} px",
            plan.command,
            config.arch,
            session.source().len(),
            config.measure_size
        ));
        return;
    }
    console.note(&format!(
        "{} {} on {} photos: {} steps of {} photos in micro-batches of {}, {} px (measured at {}), lr {}{}",
        plan.command,
        config.arch,
        session.source().len(),
        session.steps(),
        config.batch_size,
        config.bn_group,
        config.image_size,
        config.measure_size,
        config.lr,
        match resumed {
            true => format!("; resuming after step {}", session.steps_done()),
            false => String::new(),
        }
    ));
    if !resumed && plan.command != "distill" {
        console.note(
            "the loss rises at first: the queue starts with random keys, and real ones are harder negatives",
        );
    }
}

/// Photos on a contact sheet.
const SHEET_PHOTOS: usize = 24;

/// Writes a picture of some photos and their views, instead of training.
///
/// # Errors
/// No photo can be read, or the picture cannot be written.
pub fn contact_sheet(
    path: &Path,
    source: &dyn PhotoSource,
    config: &Config,
    console: &Console,
) -> Result<Outcome> {
    let recipe = config.views.clone();
    data::contact_sheet::write(
        path,
        source,
        &recipe,
        config.image_size,
        config.seed,
        SHEET_PHOTOS,
    )?;
    console.say(&format!("photos and their views: {}", path.display()));
    console.summary(&json!({ "contact_sheet": path }));
    Ok(Outcome::Done)
}
