//! Everything a run needs to continue as if it had never stopped, in one file.
//!
//! [`State`] lists it, once. The random numbers need no place in it: each is a function of the
//! seed, its purpose and the step.

use crate::config::Config;
use crate::weights::ModelMetadata;
use crate::{Error, Result};
use seedling_base::atomic;
use seedling_base::tensor_file::{self, Data, TensorFile, TensorRef, hex};
use seedling_data::PhotoSource;
use seedling_nn::encoder::LinearLayer;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// The newest checkpoint of a run folder.
pub const FILE: &str = "checkpoint.safetensors";
/// The one before it.
pub const PREVIOUS: &str = "checkpoint.previous.safetensors";
/// A newest one that is whole but does not have its name yet.
const NEXT: &str = "checkpoint.next.safetensors";
/// One that was found to be damaged.
const DAMAGED: &str = "checkpoint.damaged.safetensors";
/// All that a run folder may hold of them.
pub const FILES: [&str; 4] = [FILE, PREVIOUS, NEXT, DAMAGED];

/// Which photos a run is about: how many, and a digest of their names in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetFingerprint {
    /// Number of photos listed.
    pub photos: usize,
    /// SHA-256 of all ids.
    pub digest: String,
}

impl DatasetFingerprint {
    /// The identity of a source.
    pub fn new(source: &dyn PhotoSource) -> DatasetFingerprint {
        let mut digest = Sha256::new();
        for index in 0..source.len() {
            digest.update(source.id(index));
            digest.update([0]);
        }
        DatasetFingerprint {
            photos: source.len(),
            digest: hex(&digest.finalize()),
        }
    }
}

/// The measurement before training, kept because it can't be taken again.
#[derive(Clone, Debug, PartialEq)]
pub struct Before {
    /// The photos it was taken on: those of the run, or held-out ones.
    pub photos: DatasetFingerprint,
    /// What it said, as the log has it.
    pub figures: String,
    /// What the dataset's statistics come to, where that was asked for.
    pub closed_form: Option<ClosedForm>,
}

/// The linear layer behind the initial weights' features.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedForm {
    /// `None` where the dataset has too few photos for one.
    pub layer: Option<LinearLayer>,
    /// The measurement with it, as the log has it.
    pub figures: String,
}

/// One network's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network<'a> {
    /// Parameters, flat.
    pub values: Cow<'a, [f32]>,
    /// Running statistics, flat.
    pub buffers: Cow<'a, [f32]>,
}

/// All numbers that training changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingState<'a> {
    /// Query encoder or student.
    pub trained: Network<'a>,
    /// Key encoder; empty where there is none: a teacher never changes.
    pub key_encoder: Network<'a>,
    /// The queue's rows; where there are two queues, the student's and then the teacher's.
    pub queue_keys: Cow<'a, [f32]>,
    /// The photo of each row.
    pub queue_photos: Cow<'a, [u32]>,
    /// The row that is overwritten next.
    pub queue_next: u64,
    /// The optimizer's momentum buffer, or average of the gradients.
    pub velocity: Cow<'a, [f32]>,
    /// Its average of their squares; empty where it has none.
    pub squares: Cow<'a, [f32]>,
    /// Its steps, where it counts them.
    pub updates: u64,
    /// The values that L2-SP pulls to; empty without it.
    pub base: Cow<'a, [f32]>,
    /// The mean that is subtracted from a teacher's features; empty without one.
    pub teacher_center: Cow<'a, [f32]>,
    /// Every photo's embedding by the initial weights; empty where none is kept.
    pub initial_embeddings: Cow<'a, [f32]>,
    /// The backbone that the run began with; empty where the result is not interpolated with it.
    pub initial: Network<'a>,
}

/// The whole state of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct State<'a> {
    /// All settings.
    pub config: Config,
    /// The photos.
    pub dataset: DatasetFingerprint,
    /// The measurement before training, once it is taken.
    pub before: Option<Before>,
    /// SHA-256 of a distillation's teacher.
    pub teacher: Option<String>,
    /// What is trained, and how pixels become its inputs.
    pub metadata: ModelMetadata,
    /// Optimizer steps done; epoch and place in it follow.
    pub step: u64,
    /// Networks, queue and optimizer.
    pub training: TrainingState<'a>,
}

/// The linear layer's tensors, where there is one.
const LAYER_WEIGHT: &str = "closed_form.weight";
const LAYER_BIAS: &str = "closed_form.bias";

impl State<'_> {
    fn layer(&self) -> Option<&LinearLayer> {
        self.before.as_ref()?.closed_form.as_ref()?.layer.as_ref()
    }

    fn tensors(&self) -> Vec<TensorRef<'_>> {
        let training = &self.training;
        [
            ("trained.values", Data::F32(&training.trained.values)),
            ("trained.buffers", Data::F32(&training.trained.buffers)),
            (
                "key_encoder.values",
                Data::F32(&training.key_encoder.values),
            ),
            (
                "key_encoder.buffers",
                Data::F32(&training.key_encoder.buffers),
            ),
            ("queue.keys", Data::F32(&training.queue_keys)),
            ("queue.photos", Data::U32(&training.queue_photos)),
            ("velocity", Data::F32(&training.velocity)),
            ("squares", Data::F32(&training.squares)),
            ("base", Data::F32(&training.base)),
            ("teacher_center", Data::F32(&training.teacher_center)),
            (
                "initial_embeddings",
                Data::F32(&training.initial_embeddings),
            ),
            ("initial.values", Data::F32(&training.initial.values)),
            ("initial.buffers", Data::F32(&training.initial.buffers)),
        ]
        .into_iter()
        .chain(self.layer().into_iter().flat_map(|layer| {
            [
                (LAYER_WEIGHT, Data::F32(layer.weight())),
                (LAYER_BIAS, Data::F32(layer.bias())),
            ]
        }))
        .map(|(name, data)| TensorRef {
            name: name.into(),
            shape: vec![data.count()],
            data,
        })
        .collect()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.metadata.to_header();
        metadata.extend(
            [
                ("config", self.config.to_toml()),
                ("dataset.photos", self.dataset.photos.to_string()),
                ("dataset.digest", self.dataset.digest.clone()),
                ("step", self.step.to_string()),
                ("queue.next", self.training.queue_next.to_string()),
                ("updates", self.training.updates.to_string()),
            ]
            .map(|(key, value)| (key.to_string(), value)),
        );
        let before = self.before.iter().flat_map(|before| {
            [
                ("before.photos", before.photos.photos.to_string()),
                ("before.digest", before.photos.digest.clone()),
                ("before.figures", before.figures.clone()),
            ]
        });
        let closed_form = self.before.iter().filter_map(|b| b.closed_form.as_ref());
        let closed_form = closed_form.map(|found| ("closed_form.figures", found.figures.clone()));
        let teacher = self.teacher.iter().map(|t| ("teacher.digest", t.clone()));
        metadata.extend(
            before
                .chain(closed_form)
                .chain(teacher)
                .map(|(key, value)| (key.to_string(), value)),
        );
        metadata
    }

    fn read(path: &Path) -> Result<State<'static>> {
        let file = TensorFile::open(path)?;
        file.verify()?;
        let text = |key: &str| {
            file.metadata()
                .get(key)
                .ok_or_else(|| Error::file(path, format!("has no `{key}`")))
        };
        let number = |key: &str| {
            text(key)?
                .parse::<u64>()
                .map_err(|_| Error::file(path, format!("`{key}` is not a number")))
        };
        let training = |name: &str| file.f32(name).map(Cow::Owned);
        let fingerprint = |name: &str| -> Result<DatasetFingerprint> {
            Ok(DatasetFingerprint {
                photos: number(&format!("{name}.photos"))? as usize,
                digest: text(&format!("{name}.digest"))?.clone(),
            })
        };
        let closed_form = |figures: &String| -> Result<ClosedForm> {
            let layer = match file.shape(LAYER_BIAS) {
                None => None,
                Some(_) => {
                    let (weight, bias) = (file.f32(LAYER_WEIGHT)?, file.f32(LAYER_BIAS)?);
                    let inputs = weight.len() / bias.len().max(1);
                    Some(LinearLayer::new(inputs, weight, bias)?)
                }
            };
            Ok(ClosedForm {
                layer,
                figures: figures.clone(),
            })
        };
        let before = |figures: &String| -> Result<Before> {
            Ok(Before {
                photos: fingerprint("before")?,
                figures: figures.clone(),
                closed_form: file
                    .metadata()
                    .get("closed_form.figures")
                    .map(closed_form)
                    .transpose()?,
            })
        };
        Ok(State {
            before: file
                .metadata()
                .get("before.figures")
                .map(before)
                .transpose()?,
            teacher: file.metadata().get("teacher.digest").cloned(),
            config: Config::adapt().with_toml(text("config")?, &path.display().to_string())?,
            dataset: fingerprint("dataset")?,
            metadata: ModelMetadata::from_header(path, file.metadata(), None)?,
            step: number("step")?,
            training: TrainingState {
                trained: Network {
                    values: training("trained.values")?,
                    buffers: training("trained.buffers")?,
                },
                key_encoder: Network {
                    values: training("key_encoder.values")?,
                    buffers: training("key_encoder.buffers")?,
                },
                queue_keys: training("queue.keys")?,
                queue_photos: Cow::Owned(file.u32("queue.photos")?),
                queue_next: number("queue.next")?,
                velocity: training("velocity")?,
                squares: training("squares")?,
                updates: number("updates")?,
                base: training("base")?,
                teacher_center: training("teacher_center")?,
                initial_embeddings: training("initial_embeddings")?,
                initial: Network {
                    values: training("initial.values")?,
                    buffers: training("initial.buffers")?,
                },
            },
        })
    }
}

/// Writes the newest checkpoint of the run in `folder`; the one before it is kept as
/// [`PREVIOUS`]. Interrupted anywhere, or refused for want of space, it leaves at least one whole
/// checkpoint behind where there was one.
///
/// # Errors
/// [`Error::Io`] where the disk refuses.
pub fn save(folder: &Path, state: &State<'_>) -> Result<()> {
    let (next, newest) = (folder.join(NEXT), folder.join(FILE));
    tensor_file::write_sealed(&next, &state.tensors(), &state.metadata())?;
    if newest.exists() {
        atomic::rename(&newest, &folder.join(PREVIOUS))?;
    }
    atomic::rename(&next, &newest)
}

/// Whether there is anything to resume in `folder`.
pub fn exists(folder: &Path) -> bool {
    [FILE, PREVIOUS]
        .iter()
        .any(|name| folder.join(name).exists())
}

/// Reads the newest whole checkpoint of the run in `folder`, and a line for the log where that is
/// not the newest file. A damaged file is put aside, so that it never takes the place of a whole
/// one.
///
/// # Errors
/// There is no checkpoint, or none that is whole.
pub fn load(folder: &Path) -> Result<(State<'static>, Option<String>)> {
    let (newest, previous) = (folder.join(FILE), folder.join(PREVIOUS));
    let problem = match State::read(&newest) {
        Ok(state) => return Ok((state, None)),
        Err(problem) => problem,
    };
    if !previous.exists() {
        return Err(match newest.exists() {
            true => problem,
            false => Error::file(folder, "has no checkpoint to resume from"),
        });
    }
    let state = State::read(&previous).map_err(|second| {
        Error::file(
            folder,
            format!("no checkpoint is usable: {problem}; {second}"),
        )
    })?;
    if newest.exists() {
        // Where it can't be put aside the next save replaces it; nothing depends on this.
        let _ = atomic::rename(&newest, &folder.join(DAMAGED));
    }
    let notice = format!("{problem}; continuing from the previous checkpoint instead");
    Ok((state, Some(notice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_data::Normalize;
    use seedling_nn::backbones::Arch;
    use seedling_nn::encoder::{Architecture, Head};

    fn state(step: u64) -> State<'static> {
        State {
            config: Config::adapt(),
            dataset: DatasetFingerprint {
                photos: 3,
                digest: "d".into(),
            },
            before: Some(Before {
                photos: DatasetFingerprint {
                    photos: 2,
                    digest: "e".into(),
                },
                figures: "{\"best\":1}".into(),
                closed_form: Some(ClosedForm {
                    layer: Some(LinearLayer::new(2, vec![0.5; 6], vec![1.0; 3]).unwrap()),
                    figures: "{}".into(),
                }),
            }),
            teacher: Some("f".into()),
            metadata: ModelMetadata {
                architecture: Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Wide)),
                image_size: 96,
                normalize: Normalize::default(),
                made: "by a test".into(),
            },
            step,
            training: TrainingState {
                trained: Network {
                    values: vec![1.0, -0.0, f32::MIN_POSITIVE].into(),
                    buffers: vec![2.0].into(),
                },
                key_encoder: Network::default(),
                queue_keys: vec![0.5; 6].into(),
                queue_photos: vec![u32::MAX, 1].into(),
                queue_next: 1,
                velocity: vec![0.25; 3].into(),
                squares: vec![0.5; 3].into(),
                updates: 7,
                base: vec![].into(),
                teacher_center: vec![].into(),
                initial_embeddings: vec![0.5; 4].into(),
                initial: Network {
                    values: vec![3.0].into(),
                    buffers: vec![4.0].into(),
                },
            },
        }
    }

    #[test]
    fn a_state_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!exists(folder.path()));
        let none = load(folder.path()).unwrap_err().to_string();
        assert!(none.contains("no checkpoint to resume"), "{none}");
        save(folder.path(), &state(4)).unwrap();
        assert_eq!(load(folder.path()).unwrap(), (state(4), None));
        assert!(exists(folder.path()));
    }

    #[test]
    fn damage_falls_back_to_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &state(4)).unwrap();
        save(folder.path(), &state(5)).unwrap();
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &bytes[..bytes.len() / 2], b""] {
            std::fs::write(&path, damaged).unwrap();
            let (read, notice) = load(folder.path()).unwrap();
            assert_eq!(read.step, 4);
            let notice = notice.unwrap();
            assert!(
                notice.contains(FILE) && notice.contains("previous"),
                "{notice}"
            );
            assert!(!path.exists());
        }
        std::fs::write(&path, &flipped).unwrap();
        std::fs::write(folder.path().join(PREVIOUS), &flipped[..100]).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no checkpoint is usable"), "{error}");
    }

    #[test]
    fn a_save_that_was_cut_short_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &state(4)).unwrap();
        // Killed between the two renames.
        std::fs::rename(folder.path().join(FILE), folder.path().join(PREVIOUS)).unwrap();
        assert_eq!(load(folder.path()).unwrap().0.step, 4);
        save(folder.path(), &state(5)).unwrap();
        assert_eq!(load(folder.path()).unwrap(), (state(5), None));
    }
}
