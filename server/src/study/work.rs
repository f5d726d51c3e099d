//! Doing a study's tasks: several at a time, what is done already left alone, what fails in its row only.

use super::estimate::Estimate;
use super::task::{Kind, Task};
use crate::console::Console;
use indicatif::ProgressBar;
use seedling_core::cancel::CancelToken;
use seedling_core::training_run::{BUSY, forget};
use seedling_core::{Error, Result, atomic, checkpoint, records};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

/// How often running tasks are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// As much of a log as holds its last step.
const LAST_BYTES: u64 = 8 << 10;

/// How long tasks have to save, once the study is stopped.
const GRACE: Duration = Duration::from_secs(20);

/// What a task is given.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) device: Option<String>,
    pub(super) threads: usize,
}

/// How far a task is.
#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting,
    Running(Instant),
    Done,
    /// With the reason.
    Failed(String),
}

/// Tasks on their way.
pub(super) struct Work<'a> {
    tasks: &'a [Task],
    states: Mutex<Vec<State>>,
    estimate: Estimate,
    slots: usize,
    cancel: CancelToken,
    console: &'a Console,
    begun: Instant,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        tasks: &'a [Task],
        estimate: Estimate,
        slots: usize,
        cancel: CancelToken,
        console: &'a Console,
    ) -> Work<'a> {
        let state = |task: &Task| match task.is_done() {
            true => State::Done,
            false => State::Waiting,
        };
        Work {
            states: Mutex::new(tasks.iter().map(state).collect()),
            tasks,
            estimate,
            slots,
            cancel,
            console,
            begun: Instant::now(),
        }
    }

    /// Does all that is not done, on these slots. Returns how each task ended.
    pub(super) fn run(self, slots: &[Slot]) -> Vec<State> {
        let waiting = self.count(|state| matches!(state, State::Waiting));
        let done = self.tasks.len() - waiting;
        if done > 0 {
            self.console.note(&format!(
                "{done} of {} tasks are done already",
                self.tasks.len()
            ));
        }
        if waiting > 0 {
            self.console.note(&format!(
                "{waiting} tasks, {} at a time: about {}",
                self.slots,
                minutes(self.estimate.left(self.tasks, &self.states()) / self.slots as f64)
            ));
            let bar = self.console.work_bar("study");
            thread::scope(|scope| {
                let workers: Vec<_> = slots
                    .iter()
                    .map(|slot| scope.spawn(|| self.work(slot, &bar)))
                    .collect();
                while workers.iter().any(|worker| !worker.is_finished()) {
                    self.show(&bar);
                    thread::sleep(LOOK);
                }
            });
            bar.finish_and_clear();
        }
        self.states
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> Vec<State> {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, task: usize, state: State) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)[task] = state;
    }

    fn count(&self, of: impl Fn(&State) -> bool) -> usize {
        self.states().iter().filter(|state| of(state)).count()
    }

    /// One task after another, until none is left.
    fn work(&self, slot: &Slot, bar: &ProgressBar) {
        while !self.cancel.is_canceled() {
            let Some(at) = self.next() else {
                // What others are doing may let something begin.
                match self.count(|state| matches!(state, State::Running(_))) {
                    0 if self.next_waits_for_nothing() => return,
                    _ => thread::sleep(LOOK),
                }
                continue;
            };
            let task = &self.tasks[at];
            let begun = Instant::now();
            let outcome = self.do_task(task, slot);
            if self.cancel.is_canceled() && outcome.is_err() {
                return;
            }
            let text = match &outcome {
                Ok(()) => format!("{}, {}", task.label, minutes(begun.elapsed().as_secs_f64())),
                Err(error) => format!("{} FAILED: {}", task.label, crate::console::one_line(error)),
            };
            if outcome.is_ok() {
                self.estimate.took(at, begun.elapsed().as_secs_f64());
            }
            self.set(
                at,
                match outcome {
                    Ok(()) => State::Done,
                    Err(error) => State::Failed(crate::console::one_line(&error)),
                },
            );
            let states = self.states();
            let over = states
                .iter()
                .filter(|state| matches!(state, State::Done | State::Failed(_)));
            let line = format!("{}/{}  {text}", over.count(), self.tasks.len());
            self.console.above(bar, &line);
        }
    }

    /// Whether nothing that waits could ever begin.
    fn next_waits_for_nothing(&self) -> bool {
        self.count(|state| matches!(state, State::Waiting)) == 0
    }

    /// Takes a task whose needs are met; one whose needs have failed fails.
    fn next(&self) -> Option<usize> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, task) in self.tasks.iter().enumerate() {
            if !matches!(states[at], State::Waiting) {
                continue;
            }
            let failed = task.needs.iter().find_map(|&need| match &states[need] {
                State::Failed(why) => Some(why.clone()),
                _ => None,
            });
            if let Some(why) = failed {
                states[at] = State::Failed(why);
                continue;
            }
            if task
                .needs
                .iter()
                .all(|&need| matches!(states[need], State::Done))
            {
                states[at] = State::Running(Instant::now());
                return Some(at);
            }
        }
        None
    }

    fn do_task(&self, task: &Task, slot: &Slot) -> Result<()> {
        fs::create_dir_all(task.folder.parent().unwrap_or(&task.folder))
            .map_err(Error::io(&task.folder))?;
        let mut arguments = task.arguments.clone();
        if task.kind != Kind::Measure {
            arguments.extend(["--out".into(), task.folder.to_string_lossy().into_owned()]);
            match checkpoint::exists(&task.folder) {
                true => arguments.push("--resume".into()),
                // A run that was killed before its first checkpoint has nothing that could be continued.
                false => forget(&task.folder)?,
            }
        }
        arguments.extend(["--threads".into(), slot.threads.to_string()]);
        if let Some(device) = &slot.device {
            arguments.extend(["--device".into(), device.clone()]);
        }
        arguments.extend(["--json".into(), "--quiet".into()]);
        let begun = Instant::now();
        let summary = loop {
            match self.child(task, &arguments) {
                // Left behind by a study that was killed: it continues by itself.
                Err(error) if error.to_string().contains(BUSY) && !self.cancel.is_canceled() => {
                    thread::sleep(8 * LOOK);
                }
                outcome => break outcome?,
            }
        };
        let before = seconds_of(&task.folder.join(SECONDS));
        let seconds = before + begun.elapsed().as_secs_f64();
        let result = json!({ "arguments": task.arguments, "seconds": seconds, "summary": summary });
        atomic::write(&task.done, |file| {
            file.write_all(result.to_string().as_bytes())
        })
    }

    /// Runs this program, and returns what it says on its last line.
    fn child(&self, task: &Task, arguments: &[String]) -> Result<Value> {
        let program = std::env::current_exe().map_err(Error::io("this program"))?;
        let log = task.folder.with_extension("log");
        let errors = File::create(&log).map_err(Error::io(&log))?;
        let out = task.folder.with_extension("out");
        let said = File::create(&out).map_err(Error::io(&out))?;
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(errors)
            .spawn()
            .map_err(Error::io("this program"))?;
        let code = self.wait(&mut child)?;
        let text = fs::read_to_string(&out).map_err(Error::io(&out))?;
        let why = fs::read_to_string(&log).map_err(Error::io(&log))?;
        for file in [&out, &log] {
            // They are of no more use; what is left of them would be confusing only.
            let _ = fs::remove_file(file);
        }
        match code {
            Some(0) => {
                // A run that was finished already may have nothing to say.
                let line = text.lines().last().unwrap_or("null");
                serde_json::from_str(line).map_err(|error| {
                    Error::Config(format!("what {} has said: {error}", task.label))
                })
            }
            Some(130) => {
                // What it has worked so far counts, once it is continued.
                let so_far = seconds_of(&task.folder.join(SECONDS)) + begun.elapsed().as_secs_f64();
                let _ = fs::write(task.folder.join(SECONDS), so_far.to_string());
                Err(Error::Canceled)
            }
            code => {
                let last = why.lines().rfind(|line| line.starts_with("error: "));
                let last = last.map(|line| line.trim_start_matches("error: ").to_string());
                Err(Error::Config(last.unwrap_or_else(|| match code {
                    Some(code) => format!("it ended with exit code {code}"),
                    None => "it was killed".into(),
                })))
            }
        }
    }

    fn wait(&self, child: &mut Child) -> Result<Option<i32>> {
        let mut stopped: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait().map_err(Error::io("this program"))? {
                return Ok(status.code());
            }
            if self.cancel.is_canceled() {
                // A terminal's Ctrl-C has told it, too.
                let since = *stopped.get_or_insert_with(Instant::now);
                if since.elapsed() > GRACE {
                    let _ = child.kill();
                }
            }
            thread::sleep(LOOK);
        }
    }

    fn show(&self, bar: &ProgressBar) {
        let states = self.states();
        let left = self.estimate.left(self.tasks, &states) / self.slots as f64;
        let worked = self.begun.elapsed().as_secs_f64();
        let part = worked / (worked + left).max(1e-9);
        bar.set_position((1000.0 * part) as u64);
        let running = self.tasks.iter().zip(&states);
        let now: Vec<String> = running
            .filter(|(_, state)| matches!(state, State::Running(_)))
            .map(|(task, _)| match progress(task) {
                Some(part) => format!("{} ({:.0} %)", task.label, 100.0 * part),
                None => task.label.clone(),
            })
            .collect();
        bar.set_message(format!("about {} left: {}", minutes(left), now.join("; ")));
    }
}

/// Seconds that a run worked before it was stopped.
const SECONDS: &str = ".seconds";

fn seconds_of(path: &Path) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0.0)
}

/// How far a run that trains is, by the last lines of its log.
pub(super) fn progress(task: &Task) -> Option<f64> {
    let config = task.config.as_ref()?;
    let text = last_lines(&task.folder.join(records::FILE_NAME)).ok()?;
    let last =
        text.lines().rev().find_map(|line| {
            match serde_json::from_str::<records::Record>(line).ok()? {
                records::Record::Step(step) => Some(step),
                _ => None,
            }
        })?;
    Some(match config.steps {
        0 => last.epoch as f64 / config.epochs.max(1) as f64,
        steps => last.step as f64 / steps as f64,
    })
}

/// The end of a file that may be long and is looked at often.
fn last_lines(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A time that people can read.
pub(super) fn minutes(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
