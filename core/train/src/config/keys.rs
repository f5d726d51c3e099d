//! The one list of settings: type, meaning and range of each.

use super::choices::{ActivationDtype, Choice, DistillMethod, Keep, OptimizerKind, TeacherHead};
use super::device::{DEVICES, Device};
use crate::schedule::Decay;
use seedling_data::Recipe;
use seedling_nn::backbones::Arch;
use seedling_nn::encoder::Head;
use std::fmt;
use toml::Value;

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// True or false.
    Switch,
    /// A whole number within these bounds, both included.
    Whole(i64, i64),
    /// A number within these bounds, both included.
    Number(f64, f64),
    /// A number above the first bound and up to the second.
    Above(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A device's name.
    Device,
    /// Any text.
    Text,
}

impl Allowed {
    /// Whether `value` has the right type and lies in range.
    pub fn permits(&self, value: &Value) -> bool {
        let number = value.as_float().or(value.as_integer().map(|v| v as f64));
        match *self {
            Allowed::Switch => value.is_bool(),
            Allowed::Whole(low, high) => value
                .as_integer()
                .is_some_and(|v| (low..=high).contains(&v)),
            Allowed::Number(low, high) => number.is_some_and(|v| (low..=high).contains(&v)),
            Allowed::Above(low, high) => number.is_some_and(|v| v > low && v <= high),
            Allowed::OneOf(words) => value.as_str().is_some_and(|v| words.contains(&v)),
            Allowed::Device => value.as_str().is_some_and(|v| v.parse::<Device>().is_ok()),
            Allowed::Text => value.is_str(),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Switch => write!(f, "true or false"),
            Allowed::Whole(low, i64::MAX) => write!(f, "a whole number from {low}"),
            Allowed::Whole(low, high) => write!(f, "a whole number from {low} to {high}"),
            Allowed::Number(low, high) => write!(f, "a number from {low} to {high}"),
            Allowed::Above(low, high) => write!(f, "a number above {low}, at most {high}"),
            Allowed::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Allowed::Device => write!(f, "one of {}", DEVICES),
            Allowed::Text => write!(f, "text"),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in files, on the command line and in [`Config`].
    pub name: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// What it accepts.
    pub allowed: Allowed,
    /// Whether a resumed run may use another value than the one it was started with.
    pub may_change: bool,
}

/// A Rust type that a setting can have.
trait Field: Sized {
    fn from_value(value: &Value) -> Option<Self>;
    fn to_value(&self) -> Value;
}

impl Field for bool {
    fn from_value(value: &Value) -> Option<bool> {
        value.as_bool()
    }
    fn to_value(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Field for usize {
    fn from_value(value: &Value) -> Option<usize> {
        usize::try_from(value.as_integer()?).ok()
    }
    fn to_value(&self) -> Value {
        Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Field for u64 {
    fn from_value(value: &Value) -> Option<u64> {
        u64::try_from(value.as_integer()?).ok()
    }
    fn to_value(&self) -> Value {
        Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Field for f64 {
    fn from_value(value: &Value) -> Option<f64> {
        value.as_float().or(value.as_integer().map(|v| v as f64))
    }
    fn to_value(&self) -> Value {
        Value::Float(*self)
    }
}

impl<C: Choice> Field for C {
    fn from_value(value: &Value) -> Option<C> {
        C::named(value.as_str()?).ok()
    }
    fn to_value(&self) -> Value {
        self.name().into()
    }
}

impl Field for Arch {
    fn from_value(value: &Value) -> Option<Arch> {
        value.as_str()?.parse().ok()
    }
    fn to_value(&self) -> Value {
        self.name().into()
    }
}

impl Field for Head {
    fn from_value(value: &Value) -> Option<Head> {
        value.as_str()?.parse().ok()
    }
    fn to_value(&self) -> Value {
        self.name().into()
    }
}

impl Field for Recipe {
    fn from_value(value: &Value) -> Option<Recipe> {
        Recipe::by_name(value.as_str()?).ok()
    }
    fn to_value(&self) -> Value {
        self.name.into()
    }
}

impl Field for Device {
    fn from_value(value: &Value) -> Option<Device> {
        value.as_str()?.parse().ok()
    }
    fn to_value(&self) -> Value {
        self.to_string().into()
    }
}

fn serialized<F: Field, S: serde::Serializer>(field: &F, to: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&field.to_value(), to)
}

impl Field for String {
    fn from_value(value: &Value) -> Option<String> {
        value.as_str().map(str::to_string)
    }
    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }
}

/// Writes [`Config`], its documentation, [`KEYS`] and access by name from one list.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty, $allowed:expr, $may_change:expr; )+) => {
        /// All settings of a run.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct Config {
            $( $(#[doc = $doc])+ #[serde(serialize_with = "serialized")] pub $name: $type, )+
        }

        /// All settings in the order of `config.toml`.
        pub const KEYS: &[Key] = &[
            $( Key {
                name: stringify!($name),
                meaning: concat!($($doc, "\n"),+),
                allowed: $allowed,
                may_change: $may_change,
            }, )+
        ];

        impl Config {
            /// Sets a key whose value [`Allowed::permits`] has accepted.
            pub(super) fn set(&mut self, name: &str, value: &Value) {
                match name {
                    $( stringify!($name) => {
                        if let Some(value) = Field::from_value(value) {
                            self.$name = value;
                        }
                    } )+
                    _ => {}
                }
            }

            /// The value of a key.
            pub(super) fn get(&self, name: &str) -> Value {
                match name {
                    $( stringify!($name) => self.$name.to_value(), )+
                    _ => Value::Boolean(false),
                }
            }
        }
    };
}

use Allowed::{Above, Number, OneOf, Switch, Text, Whole};

/// Set when the run starts; a resumed run keeps it.
const FIXED: bool = false;
/// A resumed run may use another value.
const FREE: bool = true;

settings! {
    /// The network to train.
    arch: Arch, OneOf(Arch::TRAINED), FIXED;
    /// The initial weights: `shipped`, `random`, or a file.
    init: String, Text, FIXED;
    /// Height and width of an augmented view, in pixels.
    image_size: usize, Whole(32, 1024), FIXED;
    /// Height and width of whole photos when features are extracted: for measurements during the run, and
    /// later when the weights are used. 0 takes the size that the initial weights ask for, at least image_size.
    measure_size: usize, Whole(0, 1024), FIXED;
    /// The recipe of random augmentations that makes a view of a photo.
    views: Recipe, OneOf(&["standard", "hue", "aug+", "aug+ blur", "plain", "cifar"]), FIXED;
    /// Photos per optimizer step.
    batch_size: usize, Whole(2, 65_536), FIXED;
    /// Photos per micro-batch. The photos of a micro-batch share their batch-norm statistics, as on one of
    /// MoCo's GPUs. Must divide batch_size. Memory grows with bn_group, not with batch_size.
    bn_group: usize, Whole(2, 65_536), FIXED;
    /// Keys of earlier batches that are kept as negatives (MoCo's queue). Lowered automatically if the
    /// dataset is too small to fill it.
    queue_size: usize, Whole(2, 1_048_576), FIXED;
    /// Exclude earlier keys of the same photo from a query's negatives.
    mask_own_photo: bool, Switch, FIXED;
    /// Weight of a query's nearest photos, by the initial weights' features, in its soft target. Training then
    /// keeps them close. 0 is the plain contrastive loss.
    neighbor_weight: f64, Number(0.0, 1.0), FIXED;
    /// Temperature of the similarities that make the neighbors' soft target.
    neighbor_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Label smoothing: the weight of the label_smoothing_keys nearest keys of the queue in the target, spread
    /// evenly. 0 is a one-hot target.
    label_smoothing: f64, Number(0.0, 1.0), FIXED;
    /// How many of the nearest keys label_smoothing is spread over.
    label_smoothing_keys: usize, Whole(1, 65_536), FIXED;
    /// Temperature of the softmax: similarities are divided by it.
    temperature: f64, Above(0.0, 10.0), FIXED;
    /// Momentum of the key encoder's exponential moving average (EMA).
    key_momentum: f64, Number(0.0, 1.0), FIXED;
    /// Projection head, by layer sizes for features of length d: simple is d-d-128, wide d-2d-128,
    /// deep d-d-d-128, dim256 d-d-256, dropout is simple with half of the hidden units dropped,
    /// hidden2048 d-2048-128.
    head: Head, OneOf(&Head::NAMES), FIXED;
    /// Use the dropout of the network's own recipe in training: 0.2 before the head (MobileNetV3,
    /// EfficientNet), and stochastic depth (EfficientNet).
    dropout: bool, Switch, FIXED;
    /// Symmetric loss: each view of a pair is the query once, and the loss is the mean of both.
    symmetric: bool, Switch, FIXED;

    /// Peak learning rate.
    lr: f64, Number(0.0, 100.0), FIXED;
    /// sgd, or adamw for transformers (with lr of about 1.5e-4 per 256 photos and weight_decay = 0.1, as in
    /// MoCo v3).
    optimizer: OptimizerKind, OneOf(OptimizerKind::NAMES), FIXED;
    /// Momentum of SGD.
    sgd_momentum: f64, Number(0.0, 0.9999), FIXED;
    /// Weight decay: added to the gradient by sgd, decoupled in adamw.
    weight_decay: f64, Number(0.0, 1.0), FIXED;
    /// Apply weight decay to normalization layers and biases too.
    weight_decay_norm: bool, Switch, FIXED;
    /// L2-SP: weight decay towards the initial weights instead of zero (sgd only).
    l2_sp: f64, Number(0.0, 10.0), FIXED;
    /// Frozen stages of the backbone, counted from the input. The stem is one stage, each block another.
    freeze: usize, Whole(0, 64), FIXED;
    /// Learning rate schedule: cosine per step, cosine per epoch, or constant.
    schedule: Decay, OneOf(Decay::NAMES), FIXED;
    /// Epochs of linear warmup.
    warmup_epochs: f64, Number(0.0, 10_000.0), FIXED;
    /// Steps of linear warmup, in addition to warmup_epochs.
    warmup_steps: usize, Whole(0, 1_000_000_000), FIXED;
    /// Train only datasets of at least this many photos. Smaller ones get the closed-form layer alone, since
    /// training on few photos helps little on others. Asking for epochs or steps sets this to 0.
    train_from: usize, Whole(0, 1_000_000_000), FIXED;
    /// Passes over the photos.
    epochs: usize, Whole(0, 1_000_000), FIXED;
    /// Optimizer steps. If not 0, epochs is ignored.
    steps: usize, Whole(0, 1_000_000_000), FIXED;
    /// Interpolation weight of the trained weights: the result is initial + interpolation * (trained - initial),
    /// for parameters and running statistics alike. 1 keeps the trained weights, 0 the initial ones.
    interpolation: f64, Number(0.0, 1.0), FIXED;
    /// better keeps the result unless training went wrong, which is judged without labels: then half of
    /// interpolation is tried, or the initial weights stay. always keeps the result.
    keep: Keep, OneOf(Keep::NAMES), FIXED;
    /// Fraction of the photos held out from training with keep = better, to judge the result on. Datasets of
    /// fewer than 100 photos hold out none.
    holdout: f64, Number(0.0, 0.5), FIXED;
    /// Add a linear layer behind the features, computed in closed form from the statistics of the photos. It
    /// shrinks the directions in which a photo differs from its mirror image and its nearest neighbors.
    whitening: bool, Switch, FIXED;
    /// Re-estimate the running statistics of batch norm on the photos after training.
    reestimate_bn: bool, Switch, FIXED;
    /// Write the kernels in weights.safetensors as f16: half the file size, and features that agree to about
    /// three digits.
    half_weights: bool, Switch, FREE;

    /// Distillation method: seed places images among a queue of the teacher's embeddings as the teacher does; compress
    /// does so with two queues, each of one side's embeddings; disco is MoCo near the teacher's embeddings; bingo
    /// contrasts with the teacher's embeddings of a photo and of one from its bag; simdis regresses to them.
    method: DistillMethod, OneOf(DistillMethod::NAMES), FIXED;
    /// Weight of the mean squared error between the embeddings of student and teacher in disco's loss.
    regression_weight: f64, Number(0.0, 100_000.0), FIXED;
    /// Photos in a bag of bingo: the nearest by the teacher's embeddings.
    bag_size: usize, Whole(1, 1000), FIXED;
    /// Weights of the teacher for distillation: ours, another program's, or an ONNX graph.
    teacher: String, Text, FIXED;
    /// Whether to distill from the teacher's projection head: auto if its file has one of ours, use requires
    /// it, ignore takes the features before it.
    teacher_head: TeacherHead, OneOf(TeacherHead::NAMES), FIXED;
    /// Height and width of the teacher's images. 0 gives it the student's.
    teacher_size: usize, Whole(0, 1024), FIXED;
    /// Mean of the pixels that an ONNX teacher expects, three numbers. Empty is ImageNet's.
    teacher_mean: String, Text, FIXED;
    /// Standard deviation of the pixels that an ONNX teacher expects, three numbers. Empty is ImageNet's.
    teacher_std: String, Text, FIXED;
    /// Name of the ONNX teacher's output that holds the features. Empty is the first.
    teacher_output: String, Text, FIXED;
    /// The teacher's network, if its file fits several.
    teacher_arch: Arch, OneOf(Arch::NAMES), FIXED;
    /// Temperature of the teacher's similarities.
    teacher_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Temperature of the student's similarities.
    student_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Subtract the mean over the photos from the teacher's features.
    teacher_center: bool, Switch, FIXED;

    /// Steps between checkpoints. 0 saves at the end and when interrupted only.
    checkpoint_every: usize, Whole(0, 1_000_000_000), FREE;
    /// Epochs between measurements during training. 0 measures before and after only.
    measure_every: usize, Whole(0, 1_000_000), FREE;
    /// Photos that a run measures on at most. 0 takes all.
    measure_photos: usize, Whole(0, 100_000_000), FIXED;
    /// Batches that the loader prepares ahead of training.
    prefetch: usize, Whole(1, 1024), FREE;
    /// Cache for decoded photos between epochs, in MB.
    cache_mb: usize, Whole(0, 1_048_576), FREE;
    /// Memory for decoding, in MB, for all threads together. A photo that needs more is skipped (a large one
    /// stored on its side is halved first).
    decode_mb: usize, Whole(1, 1_048_576), FIXED;
    /// Threads for computing and for reading photos. 0 takes all CPUs. The result does not depend on it.
    threads: usize, Whole(0, 4096), FREE;
    /// Seed of all random numbers of the run.
    seed: u64, Whole(0, i64::MAX), FIXED;
    /// Where to compute: cpu, the N-th GPU by Vulkan or Metal (gpu:N), or by CUDA (cuda:N). A run can be
    /// resumed on another device.
    device: Device, Allowed::Device, FREE;
    /// GPU memory that a run may take, in MB. As many micro-batches of a batch as fit are computed at once. 0 takes
    /// nine tenths of what the GPU reports, or 1024 if it reports nothing.
    device_mb: usize, Whole(0, 1_048_576), FREE;
    /// Dtype of the activations on a GPU: f32, or bf16 for half the memory (f16 if the GPU has no bf16, as by
    /// Vulkan and Metal). Weights, statistics and losses are f32 either way. With bf16 and tf32, products are taken
    /// by tensor cores (CUDA since Ampere): of bf16, and of TF32 (10 bits of mantissa) where both factors are f32.
    precision: ActivationDtype, OneOf(ActivationDtype::NAMES), FREE;
}

/// Names that settings had, and their names now.
pub(super) const RENAMED: [(&str, &str); 8] = [
    ("mix", "interpolation"),
    ("anchor", "l2_sp"),
    ("neighbours", "neighbor_weight"),
    ("neighbors", "neighbor_weight"),
    ("neighbour_temperature", "neighbor_temperature"),
    ("smoothing", "label_smoothing"),
    ("smoothing_keys", "label_smoothing_keys"),
    ("teacher_centre", "teacher_center"),
];
