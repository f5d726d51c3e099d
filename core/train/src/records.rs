//! `metrics.jsonl`: one JSON object a line, appended as a run continues.
//!
//! A crash can tear only the last line; reading drops it. Resuming from a checkpoint drops what
//! was logged after it, since those steps will be taken again.

use seedling_base::error::{Error, Result};
use seedling_ssl::eval::{Measurement, Panel};
use seedling_ssl::verdict::Verdict;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file's name in a run folder.
pub const FILE_NAME: &str = "metrics.jsonl";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// One optimizer step.
    Step(StepRecord),
    /// One measurement of the features.
    Measure(Box<MeasureRecord>),
    /// Which weights the run keeps.
    Verdict(VerdictRecord),
    /// Facts about the run as a whole; the last one counts.
    Run(RunRecord),
}

/// One optimizer step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Steps taken so far, this one included.
    pub step: u64,
    /// Epoch the step belongs to, from 0.
    pub epoch: u64,
    /// Mean loss over the batch.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// Learning rate of the step.
    #[serde(deserialize_with = "number_or_nan")]
    pub lr: f64,
    /// Photos per second over this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Percent of queries whose positive was their nearest key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Largest memory the process has held, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mb: Option<f64>,
}

/// When in a run a measurement was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// With the initial weights.
    Before,
    /// With the initial weights and the linear layer that the dataset's statistics come to.
    #[serde(rename = "closed_form")]
    ClosedForm,
    /// In between.
    #[default]
    During,
    /// With the final weights.
    After,
}

/// One measurement, flat so that it reads well in a table or a data frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasureRecord {
    /// Steps taken before it.
    pub step: u64,
    /// Before, during or after training, or with the closed form alone.
    pub when: When,
    /// See [`seedling_ssl::eval::Geometry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
    /// See [`seedling_ssl::eval::Geometry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniformity: Option<f64>,
    /// See [`seedling_ssl::eval::Geometry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intra_class_alignment: Option<f64>,
    /// Percent; see [`seedling_ssl::eval::Geometry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_discrimination: Option<f64>,
    /// See [`seedling_ssl::eval::Geometry`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lidar: Option<f64>,
    /// Percent; see [`seedling_ssl::eval::Knn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_nn: Option<f64>,
    /// The k of `best_nn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_k: Option<usize>,
    /// Percent, each; see [`seedling_ssl::eval::Panel`].
    #[serde(flatten)]
    pub panel: Panel,
    /// See [`seedling_ssl::eval::Collapse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_ratio: Option<f64>,
    /// See [`seedling_ssl::eval::Collapse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_rank: Option<f64>,
    /// The warning, where the features have collapsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collapse: Option<String>,
}

impl MeasureRecord {
    /// The figures of `measurement`.
    pub fn new(step: u64, when: When, measurement: &Measurement) -> MeasureRecord {
        let geometry = &measurement.geometry;
        MeasureRecord {
            step,
            when,
            alignment: geometry.alignment,
            uniformity: geometry.uniformity,
            intra_class_alignment: geometry.intra_class_alignment,
            instance_discrimination: geometry.instance_discrimination,
            lidar: geometry.lidar,
            best_nn: measurement.knn.as_ref().map(|knn| knn.best_nn),
            knn_k: measurement.knn.as_ref().map(|knn| knn.k),
            panel: measurement.panel.unwrap_or_default(),
            std_ratio: measurement.collapse.map(|c| c.std_ratio),
            effective_rank: measurement.collapse.map(|c| c.effective_rank),
            collapse: None,
        }
    }
}

/// Which weights a run keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictRecord {
    /// Steps taken before it.
    pub step: u64,
    /// What was decided, and from what.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether the result is something else than the initial weights.
    pub accepted: bool,
    /// What was decided, for a person.
    pub sentence: String,
}

/// Facts about a run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Steps taken when it was written.
    pub step: u64,
    /// `adapt`, `pretrain` or `distill`.
    pub method: String,
    /// Photos found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub photos: Option<u64>,
    /// Photos of them that it trained on; the others were held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<u64>,
    /// Photos that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
    /// What lay beside them and was left out: hidden photos, systems' folders, what could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    /// Time spent training, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Largest memory the process has held, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mb: Option<f64>,
}

impl Record {
    /// The step it belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Record::Step(r) => r.step,
            Record::Measure(r) => r.step,
            Record::Verdict(r) => r.step,
            Record::Run(r) => r.step,
        }
    }
}

/// JSON has no NaN: serde_json writes null for it.
fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The whole lines of `path`; none where it is missing.
fn lines(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io(path))?,
    };
    // The last piece is empty or torn: a whole line ends in a newline.
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    lines.pop();
    Ok(lines)
}

/// All records of `path` in order. A missing file has none; lines that are torn or of a kind that
/// this version does not know are left out.
///
/// # Errors
/// [`Error::Io`] where the file is there and cannot be read.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    Ok(lines(path)?
        .iter()
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// Appends records to a run folder's [`FILE_NAME`].
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Starts an empty file in `run`, replacing any other.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn create(run: &Path) -> Result<MetricsWriter> {
        let path = run.join(FILE_NAME);
        let file = File::create(&path).map_err(Error::io(&path))?;
        Ok(MetricsWriter { path, file })
    }

    /// Continues with the file in `run` after the checkpoint of `step`: a torn line and records of
    /// later steps are dropped, all else is kept as it is. The file is replaced whole, so a crash
    /// here loses nothing.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read or written.
    pub fn resume(run: &Path, step: u64) -> Result<MetricsWriter> {
        let path = run.join(FILE_NAME);
        let mut kept = Vec::new();
        for line in lines(&path)? {
            // As JSON, not as a record: kinds and fields of other versions stay.
            let parsed = serde_json::from_slice::<serde_json::Value>(&line);
            let at = parsed.map(|v| {
                v.get("step")
                    .and_then(serde_json::Value::as_u64)
                    .unwrap_or(0)
            });
            if at.is_ok_and(|at| at <= step) {
                kept.extend(line);
                kept.push(b'\n');
            }
        }
        seedling_base::atomic::write(&path, |file| file.write_all(&kept))?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        Ok(MetricsWriter { path, file })
    }

    /// Adds one line, in a single write.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let bytes = line(record)?;
        self.file.write_all(&bytes).map_err(Error::io(&self.path))
    }

    /// Waits until all lines are on the disk; for the moment before a checkpoint is written.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

fn line(record: &Record) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record)
        .map_err(|e| Error::file(FILE_NAME, format!("cannot write a record: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, loss: f64) -> Record {
        Record::Step(StepRecord {
            step,
            loss,
            lr: 0.1,
            ..StepRecord::default()
        })
    }

    #[test]
    fn torn_lines_and_later_steps_go_when_resuming() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(FILE_NAME);
        assert_eq!(read(&path).unwrap(), []);
        let mut writer = MetricsWriter::create(run.path()).unwrap();
        let before = MeasureRecord {
            when: When::Before,
            best_nn: Some(54.8),
            ..MeasureRecord::default()
        };
        let before = Record::Measure(Box::new(before));
        writer.append(&before).unwrap();
        for i in 1..=5 {
            writer.append(&step(i, 1.0 / i as f64)).unwrap();
        }
        writer.sync().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"kind\":\"future\",\"step\":1}\n{\"kind\":\"step\",\"step\":6,\"lo");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().len(), 6);

        let mut writer = MetricsWriter::resume(run.path(), 3).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("future"));
        writer.append(&step(4, f64::NAN)).unwrap();
        let records = read(&path).unwrap();
        assert_eq!(records[0], before);
        assert_eq!(
            records.iter().map(Record::step).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        let Record::Step(last) = &records[4] else {
            panic!("a step")
        };
        assert!(last.loss.is_nan());
    }

    #[test]
    fn lines_have_the_documented_names() {
        let json = serde_json::to_value(step(2, 0.5)).unwrap();
        assert_eq!(json["kind"], "step");
        assert_eq!(json["step"], 2);
        assert_eq!(json["loss"], 0.5);
        let m = Record::Measure(Box::new(MeasureRecord::new(
            3,
            When::After,
            &Measurement::default(),
        )));
        assert_eq!(
            serde_json::to_string(&m).unwrap(),
            r#"{"kind":"measure","step":3,"when":"after"}"#
        );
    }
}
