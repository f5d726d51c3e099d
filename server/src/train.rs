//! The course of every training run: measure, train, measure again, leave weights and a report.

use crate::cli::Training;
use crate::console::Console;
use crate::log::{Log, Watch, measure_record};
use crate::measure::{self, Measured};
use crate::photos::{Photos, budget};
use crate::run_folder::RunFolder;
use crate::settings::Settings;
use crate::{Outcome, album, interrupt, memory, shipped};
use seedling_core::backbones::Arch;
use seedling_core::checkpoint::{self, Album, Before};
use seedling_core::config::{Config, Layer};
use seedling_core::data::{self, PhotoSource, Recipe};
use seedling_core::eval::Metric;
use seedling_core::eval::collapse_warning;
use seedling_core::eval::extract::Extractor;
use seedling_core::report::records;
use seedling_core::report::summary::Run as Summary;
use seedling_core::report::{self, Record, RunRecord, When};
use seedling_core::session::{self, Session, Start};
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result, atomic};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

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

/// Runs `plan` on threads of its own.
///
/// # Errors
/// Settings, weights, photos or disk; one line says what and what to do.
pub fn run(mut plan: Plan<'_>, console: &Console) -> Result<Outcome> {
    if let (Some(budget), false) = (plan.memory_mb, plan.training.resume) {
        plan.settings.fit_memory(budget)?;
    }
    let folder = RunFolder::open(&plan.training.out, plan.training.resume)?;
    let saved = match plan.training.resume {
        false => None,
        true => {
            let (state, notice) = checkpoint::load(&folder.path)?;
            if let Some(notice) = notice {
                console.note(&format!("warning: {notice}"));
            }
            match plan.memory_mb {
                None => plan.settings.rebase(state.config.clone())?,
                Some(_) => {
                    let kept = "the run keeps its settings";
                    console.note(&format!("--memory-mb has no effect with --resume: {kept}"));
                    plan.settings.rebase_within_budget(state.config.clone())?;
                }
            }
            Some(state)
        }
    };
    let budget = budget(&plan.settings.config);
    let source = plan.photos.open(&plan.settings.config, &budget)?;
    let measured = match &plan.training.measure_on {
        Some(path) => data::open_within(path, budget)?,
        None => source.clone(),
    };
    let threads = plan.settings.config.threads;
    session::on_own_threads(threads, || {
        let session = match saved {
            None => begin(&mut plan, source, console)?,
            Some(state) => {
                let mut config = plan.settings.config.clone();
                session::fit(&mut config, source.len())?;
                let teacher = teacher(&plan)?;
                let session = Session::resume(config, source, teacher.as_ref(), state)?;
                same_photos(&session, &*measured)?;
                session
            }
        };
        let mut course = Course {
            folder: &folder,
            session,
            measured,
            console,
            command: plan.command,
        };
        let outcome = course.run(plan.training.resume);
        if outcome.is_err() && !plan.training.resume && course.session.steps_done() == 0 {
            folder.give_up();
        }
        outcome
    })?
}

/// Before and after are compared: both have to be taken on the same photos.
fn same_photos(session: &Session, measured: &dyn PhotoSource) -> Result<()> {
    match session.before() {
        Some(before) if before.photos != Album::of(measured) => Err(Error::NoPhotos(format!(
            "the photos to measure on are not those measured before training ({} then, {} now, \
             or other names); name the same ones with --measure-on",
            before.photos.photos,
            measured.len()
        ))),
        _ => Ok(()),
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
    let recipe = Recipe::by_name(&config.views)?;
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

fn begin(plan: &mut Plan<'_>, source: Arc<dyn PhotoSource>, console: &Console) -> Result<Session> {
    let config = &plan.settings.config;
    // A file says what it is; only where a network was asked for, the file has to be that one.
    let wanted = plan.settings.asks_for("arch") || config.init == "shipped";
    let arch = wanted.then(|| config.arch.parse::<Arch>()).transpose()?;
    // `adapt` has no flag of its own for the network: its weights mostly say it.
    let flag = match plan.command {
        "adapt" => "--set arch=",
        _ => "--arch ",
    };
    let init = shipped::open(&config.init, arch, flag)?;
    let config = &mut plan.settings.config;
    if let Some(file) = &init {
        let mut found = Layer::new(config.init.clone());
        found.put("arch", Some(file.about.architecture.arch.name()));
        config.apply(&found)?;
    }
    for note in session::fit(config, source.len())? {
        console.note(&note);
    }
    let teacher = teacher(plan)?;
    let start = Start {
        init: init.as_ref(),
        teacher: teacher.as_ref(),
    };
    Session::new(plan.settings.config.clone(), source, &start)
}

fn teacher(plan: &Plan<'_>) -> Result<Option<WeightFile>> {
    let config = &plan.settings.config;
    if plan.command != "distill" {
        return Ok(None);
    }
    let arch = config.teacher_arch.parse::<Arch>()?;
    shipped::file(Path::new(&config.teacher), Some(arch), "--teacher-arch ").map(Some)
}

/// A run on its way.
struct Course<'a> {
    folder: &'a RunFolder,
    session: Session,
    /// The photos to measure on: the session's, or held-out ones.
    measured: Arc<dyn PhotoSource>,
    console: &'a Console,
    command: &'static str,
}

impl Course<'_> {
    fn run(&mut self, resumed: bool) -> Result<Outcome> {
        let started = Instant::now();
        self.announce(resumed);
        let config = self.session.config().to_toml();
        let folder = &self.folder.path;
        atomic::write(&folder.join("config.toml"), |file| {
            file.write_all(config.as_bytes())
        })?;
        let mut log = Log::open(folder, self.session.steps_done(), resumed)?;
        if !log.measured_before()? {
            self.before(&mut log)?;
        }
        if self.train(&mut log)? == Outcome::Interrupted {
            self.console.note(&format!(
                "saved after step {} of {}; go on with the same command and --resume",
                self.session.steps_done(),
                self.session.steps()
            ));
            return Ok(Outcome::Interrupted);
        }
        self.finish(&mut log, started)?;
        Ok(Outcome::Done)
    }

    /// The measurement before training: taken, or what an earlier part of the run took and the
    /// log has lost.
    fn before(&mut self, log: &mut Log) -> Result<()> {
        if let Some(before) = self.session.before() {
            let lost = |e: serde_json::Error| {
                let reason = format!("its measurement before training is not readable ({e})");
                Error::file(&self.folder.path, reason)
            };
            return log.append(serde_json::from_str(&before.figures).map_err(lost)?);
        }
        if self.session.steps_done() > 0 {
            return Err(Error::file(
                self.folder.path.join(records::FILE_NAME),
                "the measurement before training is missing, and can't be taken any more; put \
                 the log back, or start a new run",
            ));
        }
        let measured = self.measure("before")?;
        let record = measure_record(0, When::Before, &measured);
        let figures = serde_json::to_string(&record).map_err(|e| {
            let reason = format!("a measurement can't be written ({e})");
            Error::file(&self.folder.path, reason)
        })?;
        log.append(record)?;
        let seed = self.session.config().seed;
        album::begin(&self.folder.path, &*self.measured, &measured, seed)?;
        let photos = Album::of(&*self.measured);
        self.session.took_before(Before { photos, figures });
        // From here on the run can be resumed, whatever becomes of this process.
        self.session.checkpoint(&self.folder.path)?;
        self.folder.keep();
        Ok(())
    }

    fn announce(&self, resumed: bool) {
        let session = &self.session;
        let config = session.config();
        self.console.note(&format!(
            "{} {} on {} photos: {} steps of {} photos in groups of {}, {} px, lr {}{}",
            self.command,
            config.arch,
            session.source().len(),
            session.steps(),
            config.batch_size,
            config.bn_group,
            config.image_size,
            config.lr,
            match resumed {
                true => format!("; going on after step {}", session.steps_done()),
                false => String::new(),
            }
        ));
        if !resumed && self.command != "distill" {
            self.console.note(
                "the loss rises first: the queue starts random, and real keys are harder to tell apart",
            );
        }
    }

    fn measure(&self, what: &str) -> Result<Measured> {
        let (session, config) = (&self.session, self.session.config());
        let extractor = Extractor {
            encoder: session.encoder(),
            source: &*self.measured,
            image_size: config.image_size,
            normalise: &session.about().normalise,
        };
        let sample = measure::sample(self.measured.len(), config.measure_photos, config.seed);
        let how = (config.seed, Metric::Euclidean);
        measure::all(&extractor, &sample, how, (true, true), self.console, what)
    }

    /// Trains to the end, or until someone interrupts; saved either way.
    fn train(&mut self, log: &mut Log) -> Result<Outcome> {
        interrupt::saves(true);
        let outcome = self.steps(log);
        interrupt::saves(false);
        outcome
    }

    fn steps(&mut self, log: &mut Log) -> Result<Outcome> {
        let bar = self.console.bar(self.session.steps(), "train");
        bar.set_position(self.session.steps_done());
        bar.reset_eta();
        let mut watch = Watch::default();
        let mut short = false;
        let every = self.session.config().checkpoint_every as u64;
        let measure_every = self.session.config().measure_every as u64;
        while !self.session.is_done() {
            if interrupt::asked() {
                break;
            }
            let before = Instant::now();
            let progress = self.session.step()?;
            let rate = progress.photos as f64 / before.elapsed().as_secs_f64();
            log.step(&progress, rate)?;
            bar.set_position(progress.step);
            bar.set_message(format!(
                "loss {:.3}  lr {:.2e}  {rate:.0} img/s",
                progress.stats.loss, progress.lr
            ));
            if progress.photos < self.session.config().batch_size && !short {
                short = true;
                let note = format!(
                    "too few photos can be read for batches of {}: training with {} at a time",
                    self.session.config().batch_size,
                    progress.photos
                );
                self.console.above(&bar, &note);
            }
            if let Some(warning) = watch.look(&progress) {
                self.console.above(&bar, &format!("warning: {warning}"));
            }
            if progress.epoch_ends {
                let line = watch.epoch(&progress);
                if bar.is_hidden() {
                    self.console.detail(&line);
                }
                let epochs = progress.epoch + 1;
                if measure_every > 0
                    && epochs.is_multiple_of(measure_every)
                    && !self.session.is_done()
                {
                    // Measuring does not wait to be interrupted, so what was trained is safe first.
                    self.save(log)?;
                    interrupt::saves(false);
                    let measured = self.measure("measure")?;
                    interrupt::saves(true);
                    log.measurement(progress.step, When::During, &measured)?;
                }
            }
            if every > 0 && progress.step.is_multiple_of(every) && !self.session.is_done() {
                self.save(log)?;
            }
        }
        bar.finish_and_clear();
        self.save(log)?;
        Ok(match interrupt::asked() {
            true => Outcome::Interrupted,
            false => Outcome::Done,
        })
    }

    /// The log first: what it holds beyond a checkpoint is dropped on resuming, never missing.
    fn save(&self, log: &mut Log) -> Result<()> {
        log.sync()?;
        self.session.checkpoint(&self.folder.path)
    }

    fn finish(&mut self, log: &mut Log, started: Instant) -> Result<()> {
        let steps = self.session.steps();
        self.session.reestimate_statistics()?;
        let made = self.made();
        let weights = self.session.save_weights(&self.folder.path, &made)?;
        let measured = self.measure("after")?;
        log.measurement(steps, When::After, &measured)?;
        if let Some(warning) = collapse_warning(&measured.features) {
            self.console.note(&format!("warning: {warning}"));
        }
        album::finish(&self.folder.path, &*self.measured, &measured)?;
        let skipped = self.session.skipped();
        self.console.skipped(&skipped);
        let facts = RunRecord {
            step: steps,
            method: self.command.into(),
            photos: Some(self.session.source().len() as u64),
            skipped: Some(skipped.len() as u64),
            seconds: Some(started.elapsed().as_secs_f64()),
            peak_memory_mb: memory::peak_mb(),
        };
        log.append(Record::Run(facts.clone()))?;
        log.sync()?;
        let page = report::render(&self.folder.path)?;
        self.conclude(&facts, &weights, &page)
    }

    /// How the weights came about, for their header.
    fn made(&self) -> String {
        let config = self.session.config();
        let from = match config.init.as_str() {
            "random" => "random weights".to_string(),
            "shipped" => "the shipped weights".to_string(),
            path => Path::new(path)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        let teacher = match self.command {
            "distill" => format!(", teacher {}", config.teacher_arch),
            _ => String::new(),
        };
        format!(
            "seedling {} {}: {} steps of {} photos out of {} at {} px from {from}{teacher}, seed {}",
            env!("CARGO_PKG_VERSION"),
            self.command,
            self.session.steps(),
            config.batch_size,
            self.session.source().len(),
            config.image_size,
            config.seed
        )
    }

    /// The table before and after, where everything is, and the JSON summary.
    fn conclude(&self, facts: &RunRecord, weights: &Path, page: &Path) -> Result<()> {
        let summary = Summary::new(records::read(&self.folder.path.join(records::FILE_NAME))?);
        self.console.say(&format!(
            "{:<26}{:>12}{:>12}{:>10}",
            "", "before", "after", "change"
        ));
        for row in summary.rows() {
            let change = row.change().map_or_else(String::new, |(text, _)| text);
            let (before, after) = (row.show(row.before), row.show(row.after));
            self.console.say(&format!(
                "{:<26}{before:>12}{after:>12}{change:>10}",
                row.name
            ));
        }
        self.console.say(&summary.verdict().1);
        self.console.say(&format!("weights  {}", weights.display()));
        self.console.say(&format!("report   {}", page.display()));
        self.console.summary(&json!({
            "command": self.command,
            "run": self.folder.path,
            "weights": weights,
            "report": page,
            "steps": facts.step,
            "photos": facts.photos,
            "skipped": facts.skipped,
            "seconds": facts.seconds,
            "peak_memory_mb": facts.peak_memory_mb,
            "loss": summary.steps.last().map(|step| step.loss),
            "before": summary.before(),
            "after": summary.after(),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
