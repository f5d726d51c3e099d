//! Training on the photos, in slices, through the death of the app.

use crate::error::{Result, SeedlingError};
use crate::governor::Sensors;
use crate::listener::Listener;
use crate::photos::Photos;
use crate::relay::Relay;
use crate::settings::Settings;
use crate::verdict::Verdict;
use crate::weights::Weights;
use seedling_core::cancel::{Turn, Turns};
use seedling_core::config::Config;
use seedling_core::data::PhotoSource;
use seedling_core::governor::{Decision, Governor, Readings, Reason, Rules};
use seedling_core::memory::{self, Budget};
use seedling_core::records::{self, Record};
use seedling_core::session::Start;
use seedling_core::session::finish::WEIGHTS_FILE;
use seedling_core::training_run::{self, Phase, RunFolder, Sources, TrainingRun};
use seedling_core::{atomic, checkpoint};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// What a run of an app is called in its log.
const METHOD: &str = "adapt";

/// Why [`Session::run`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Outcome {
    /// All is done: there are weights and a verdict.
    Done,
    /// [`Session::pause`] was called; what was trained is saved.
    Paused,
    /// The governor has stopped it; what was trained is saved.
    Stopped { reason: Reason },
}

/// What a session takes.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Resources {
    /// Megabytes that training will take at most, as predicted; the app's own come on top.
    pub predicted_memory_mb: f64,
    /// The most that the whole process has held so far, where the system tells (Linux, Android).
    pub peak_memory_mb: Option<f64>,
    /// Photos that are computed at a time.
    pub micro_batch: i32,
    /// Width and height of the views.
    pub image_size: i32,
    /// Stages of the network that are not trained, to save memory.
    pub frozen_stages: i32,
    /// Seconds of work so far, in this process.
    pub seconds: f64,
    /// Bytes that it keeps in its folder.
    pub stored_bytes: i64,
}

/// One run over one list of photos, in a folder of its own. It may be left at any moment, by a pause
/// or by the death of the app, and continues where its last checkpoint was.
#[derive(uniffi::Object)]
pub struct Session {
    folder: PathBuf,
    weights: Arc<Weights>,
    photos: Arc<Photos>,
    config: Config,
    predicted_mb: f64,
    turns: Turns,
    run: Mutex<Place>,
    /// Of work, by all runs of this object.
    seconds: Mutex<f64>,
}

enum Place {
    /// Not begun, or not yet resumed, in this process.
    Asleep,
    Awake(Box<TrainingRun>),
    Closed,
}

#[uniffi::export]
impl Session {
    /// A session in `folder`, which is made where it is missing. One that was begun there before, by
    /// this process or an earlier one, will be resumed, with the settings it was begun with.
    /// What it takes is predicted first, by the photos' headers and two small passes: some tenths of a
    /// second.
    #[uniffi::constructor]
    pub fn open(
        folder: String,
        weights: Arc<Weights>,
        photos: Arc<Photos>,
        settings: Settings,
    ) -> Result<Arc<Session>> {
        let mut config = settings.config(&weights)?;
        let source = photos.source(config.decode_mb);
        let run = (Some(&weights.file), &*source as &dyn PhotoSource);
        let budget = Budget {
            megabytes: settings.memory_mb as usize,
            unified: true,
        };
        let found = memory::fit_budget(&mut config, run, budget, |key| {
            key == "image_size" && settings.image_size != 0
        })?;
        Ok(Arc::new(Session {
            folder: folder.into(),
            weights,
            photos,
            config,
            predicted_mb: found.map_or(0.0, |found| found.total()),
            turns: Turns::default(),
            run: Mutex::new(Place::Asleep),
            seconds: Mutex::new(0.0),
        }))
    }

    /// Asks for a turn of [`Session::run`] or [`Session::step`]: to be called where the work is wanted, before
    /// the thread that does it is there. A pause that comes meanwhile is then not missed, and one that came
    /// before is not meant for it. Returns at once.
    pub fn turn(&self) -> i64 {
        self.turns.request().0 as i64
    }

    /// Trains until all is done, [`Session::pause`] is called, or the governor stops it by what
    /// `sensors` say (never, without them). To be called again, with another `turn`, to continue. Takes minutes:
    /// call it from a background thread. Everything the listener hears comes on that thread.
    pub fn run(
        &self,
        turn: i64,
        listener: Option<Arc<dyn Listener>>,
        sensors: Option<Arc<dyn Sensors>>,
        rules: Rules,
    ) -> Result<Outcome> {
        let mut place = self.idle()?;
        if !self.begins(turn)? {
            return Ok(Outcome::Paused);
        }
        let mut relay = Relay::new(listener);
        let outcome = self.advance(&mut place, &mut relay, sensors, Governor::new(rules));
        *self.worked() += relay.start.elapsed().as_secs_f64();
        if !matches!(outcome, Ok(Outcome::Paused | Outcome::Stopped { .. })) {
            // Done or failed: the folder is free for others, and memory too.
            *place = Place::Asleep;
        }
        outcome
    }

    /// Does the next part only: a measurement, one step of training, or the end. Returns whether there
    /// is more to do. For an app that has its own loop; what is not saved yet is, by
    /// [`Session::shut`]. Takes as long as that part: a step some seconds, a measurement some thirty
    /// milliseconds a photo. Call it from a background thread.
    pub fn step(&self, turn: i64, listener: Option<Arc<dyn Listener>>) -> Result<bool> {
        let mut place = self.idle()?;
        if !self.begins(turn)? {
            return Ok(true);
        }
        let mut relay = Relay::new(listener);
        let more = self.next(&mut place, &mut relay);
        *self.worked() += relay.start.elapsed().as_secs_f64();
        if !matches!(more, Ok(true)) {
            *place = Place::Asleep;
        }
        more
    }

    /// Ends all turns that were asked for, within one micro-batch (a fraction of a second), with what was
    /// trained saved; [`Session::run`] returns [`Outcome::Paused`]. Returns at once.
    pub fn pause(&self) {
        self.turns.pause();
    }

    /// The verdict, once the session is done; none where the adapted weights are kept always. Reads a
    /// small file.
    pub fn verdict(&self) -> Result<Option<Verdict>> {
        let log = self.log()?;
        if !finished(&log) {
            return Ok(None);
        }
        let verdict = log.into_iter().rev().find_map(|record| match record {
            Record::Verdict(found) => Some(found),
            _ => None,
        });
        Ok(verdict.map(Verdict::from))
    }

    /// Copies the weights that the session has ended with to `path`: torchvision's names, a safetensors
    /// file. The file appears whole or not at all. Takes as long as copying some megabytes.
    pub fn export(&self, path: String) -> Result<()> {
        if !finished(&self.log()?) {
            return Err(SeedlingError::Weights {
                reason: "the session is not done: there are no weights yet".into(),
            });
        }
        let from = self.folder.join(WEIGHTS_FILE);
        let mut file = File::open(&from).map_err(seedling_core::Error::io(&from))?;
        Ok(atomic::write(Path::new(&path), |sink| {
            io::copy(&mut file, sink).map(drop)
        })?)
    }

    /// Steps taken in all, and steps of the whole run; (0, 0) before it has begun in this process.
    /// [`SeedlingError::Busy`] while it is at work: the listener hears it then. Returns at once.
    pub fn steps(&self) -> Result<Vec<i64>> {
        Ok(match &*self.idle()? {
            Place::Awake(run) => {
                let session = run.session();
                vec![session.steps_done() as i64, session.steps() as i64]
            }
            _ => vec![0, 0],
        })
    }

    /// What training takes. Looks at the files of its folder.
    pub fn resources(&self) -> Result<Resources> {
        let config = &self.config;
        Ok(Resources {
            predicted_memory_mb: self.predicted_mb,
            peak_memory_mb: memory::peak_mb(),
            micro_batch: config.bn_group as i32,
            image_size: config.image_size as i32,
            frozen_stages: config.freeze as i32,
            seconds: *self.worked(),
            stored_bytes: files(&self.folder)
                .filter_map(|path| fs::metadata(path).ok())
                .map(|meta| meta.len() as i64)
                .sum(),
        })
    }

    /// Removes everything the session has written, weights included, and nothing else; the next run
    /// begins anew. [`SeedlingError::Busy`] while it is at work. Takes as long as removing a few files.
    pub fn discard(&self) -> Result<()> {
        let mut place = self.idle()?;
        *place = Place::Asleep;
        Ok(training_run::forget(&self.folder)?)
    }

    /// Lets go of memory and folder; what was trained is saved. Pauses a run that is in progress, and waits for
    /// it: a fraction of a second, and as long as writing a checkpoint takes. Every later call that works says
    /// [`SeedlingError::Closed`]; closing again does nothing.
    pub fn shut(&self) -> Result<()> {
        self.pause();
        let mut place = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = match &mut *place {
            Place::Awake(run) => run.save_now(),
            _ => Ok(()),
        };
        *place = Place::Closed;
        Ok(saved?)
    }
}

impl Session {
    fn idle(&self) -> Result<MutexGuard<'_, Place>> {
        let place = match self.run.try_lock() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => {
                return Err(SeedlingError::Busy {
                    reason: "the session is at work; pause it first".into(),
                });
            }
        };
        match &*place {
            Place::Closed => Err(SeedlingError::Closed {
                reason: "the session was closed".into(),
            }),
            _ => Ok(place),
        }
    }

    /// Whether the turn is not paused yet.
    fn begins(&self, turn: i64) -> Result<bool> {
        match self.turns.start(Turn(turn.max(0) as usize)) {
            Ok(()) => Ok(true),
            Err(seedling_core::Error::Canceled) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn log(&self) -> seedling_core::Result<Vec<Record>> {
        records::read(&self.folder.join(records::FILE_NAME))
    }

    fn worked(&self) -> MutexGuard<'_, f64> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Session::step`].
    fn next(&self, place: &mut Place, relay: &mut Relay) -> Result<bool> {
        if finished(&self.log()?) {
            return Ok(false);
        }
        match self.awake(place)? {
            Some(run) => Ok(run.advance(relay)? != Phase::Done),
            // Paused: there is more.
            None => Ok(true),
        }
    }

    fn advance(
        &self,
        place: &mut Place,
        relay: &mut Relay,
        sensors: Option<Arc<dyn Sensors>>,
        mut governor: Governor,
    ) -> Result<Outcome> {
        if finished(&self.log()?) {
            return Ok(Outcome::Done);
        }
        let mut decide = |relay: &mut Relay| match &sensors {
            None => Decision::Run,
            Some(sensors) => {
                let readings = sensors.read().unwrap_or_else(|error| {
                    relay.throttle.warning(&error.to_string());
                    Readings::default()
                });
                governor.decide(&readings)
            }
        };
        // Before anything is processed: a phone that must not train must not measure either.
        if let Decision::Stop(reason) = decide(relay) {
            return Ok(Outcome::Stopped { reason });
        }
        let Some(run) = self.awake(place)? else {
            return Ok(Outcome::Paused);
        };
        loop {
            let start = Instant::now();
            match run.advance(relay)? {
                Phase::Done => return Ok(Outcome::Done),
                Phase::Canceled => return Ok(Outcome::Paused),
                Phase::Going => {}
            }
            match decide(relay) {
                Decision::Run => {}
                Decision::Slow { rest } => self.rest(start.elapsed().mul_f64(rest)),
                Decision::Stop(reason) => {
                    // Through the run's own way to stop, which saves.
                    self.turns.token().cancel();
                    let _ = run.advance(relay)?;
                    return Ok(Outcome::Stopped { reason });
                }
            }
        }
    }

    /// The run, woken where it is not awake; `None` where it was paused meanwhile.
    fn awake<'a>(&self, place: &'a mut Place) -> Result<Option<&'a mut TrainingRun>> {
        if let Place::Asleep = place {
            match self.wake() {
                Ok(run) => *place = Place::Awake(Box::new(run)),
                Err(seedling_core::Error::Canceled) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(match place {
            Place::Awake(run) => Some(run),
            _ => None,
        })
    }

    /// Begins the run, or continues with the one in the folder.
    fn wake(&self) -> seedling_core::Result<TrainingRun> {
        let resume = checkpoint::exists(&self.folder);
        let folder = RunFolder::open(&self.folder, resume, &[])?;
        let source = self.photos.source(self.config.decode_mb);
        let start = Start {
            init: (!resume).then_some(&self.weights.file),
            cancel: self.turns.token().clone(),
            ..Start::default()
        };
        let sources: Sources = (source.clone(), source);
        match resume {
            false => {
                let config = self.config.clone();
                Ok(TrainingRun::start(folder, config, sources, &start, METHOD)?.0)
            }
            true => {
                let (state, _) = checkpoint::load(&self.folder)?;
                let config = Config {
                    threads: self.config.threads,
                    ..state.config.clone()
                };
                TrainingRun::resume(folder, config, sources, &start, (state, METHOD))
            }
        }
    }

    /// Waits, but not for a pause.
    fn rest(&self, mut left: Duration) {
        const NAP: Duration = Duration::from_millis(50);
        while !left.is_zero() && !self.turns.token().is_canceled() {
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}

/// Whether the log is that of a run that is done.
fn finished(log: &[Record]) -> bool {
    matches!(log.last(), Some(Record::Run(_)))
}

/// The files of a session's folder.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
}
