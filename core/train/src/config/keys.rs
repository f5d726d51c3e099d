//! The one list of settings: type, meaning and range of each.

use super::choices::{ActivationDtype, Choice, Keep, OptimizerKind, TeacherHead};
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
    /// The network that is trained.
    arch: Arch, OneOf(Arch::TRAINED), FIXED;
    /// Weights to start from: `shipped`, `random`, or a file.
    init: String, Text, FIXED;
    /// Width and height of a view in pixels.
    image_size: usize, Whole(32, 1024), FIXED;
    /// Width and height at which whole photos are processed: to measure, and to use the weights
    /// later. 0 takes what the initial weights ask for, image_size at least.
    measure_size: usize, Whole(0, 1024), FIXED;
    /// How a photo becomes a random view.
    views: Recipe, OneOf(&["standard", "hue", "aug+", "aug+ blur", "plain", "cifar"]), FIXED;
    /// Photos per optimizer step.
    batch_size: usize, Whole(2, 65_536), FIXED;
    /// Photos that share batch-norm statistics (one of the method's devices). Memory grows
    /// with it, not with batch_size. Divides batch_size.
    bn_group: usize, Whole(2, 65_536), FIXED;
    /// Keys of earlier batches that serve as negatives. Lowered by itself to what the photos
    /// can fill.
    queue_size: usize, Whole(2, 1_048_576), FIXED;
    /// Leave a photo's own earlier keys out of its negatives.
    mask_own_photo: bool, Switch, FIXED;
    /// Share of each photo's target that goes to photos which were near it to begin with, so that
    /// training keeps them together; 0 contrasts with all other photos alike.
    neighbors: f64, Number(0.0, 1.0), FIXED;
    /// Divides the similarities that say how near they were.
    neighbor_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Share of each photo's target that goes, evenly, to the smoothing_keys keys of the queue nearest
    /// to it; 0 has one target.
    smoothing: f64, Number(0.0, 1.0), FIXED;
    /// See smoothing.
    smoothing_keys: usize, Whole(1, 65_536), FIXED;
    /// Divides the similarities before the softmax.
    temperature: f64, Above(0.0, 10.0), FIXED;
    /// Share of the key encoder that stays at each step.
    key_momentum: f64, Number(0.0, 1.0), FIXED;
    /// Projection head on features of length d: simple is d-d-128, wide d-2d-128, deep d-d-d-128,
    /// dim256 d-d-256, dropout as simple but with half of the hidden numbers left out at random,
    /// hidden2048 d-2048-128.
    head: Head, OneOf(&Head::NAMES), FIXED;
    /// Leave out at random, in training, what the network's own recipe leaves out: a fifth of the
    /// features before the head (MobileNetV3, EfficientNet) and some images' branches
    /// (EfficientNet's drop-connect).
    dropout: bool, Switch, FIXED;
    /// Average the loss over both directions of each pair of views.
    symmetric: bool, Switch, FIXED;

    /// Peak learning rate.
    lr: f64, Number(0.0, 100.0), FIXED;
    /// sgd, or adamw for transformers (with a learning rate of about 1.5e-4 per 256 photos and a
    /// weight_decay of 0.1, as MoCo v3).
    optimizer: OptimizerKind, OneOf(OptimizerKind::NAMES), FIXED;
    /// Momentum of SGD.
    sgd_momentum: f64, Number(0.0, 0.9999), FIXED;
    /// Pull of every trained number towards zero.
    weight_decay: f64, Number(0.0, 1.0), FIXED;
    /// Whether weight decay applies to norms and biases too.
    weight_decay_norm: bool, Switch, FIXED;
    /// Pull of every trained number towards the initial weights (sgd only).
    l2_sp: f64, Number(0.0, 10.0), FIXED;
    /// Stages of the backbone, counted from the image, that are not trained (the stem is one,
    /// each block another).
    freeze: usize, Whole(0, 64), FIXED;
    /// Learning rate over the run: cosine by step, cosine by epoch, or constant.
    schedule: Decay, OneOf(Decay::NAMES), FIXED;
    /// Epochs over which the learning rate rises linearly.
    warmup_epochs: f64, Number(0.0, 10_000.0), FIXED;
    /// Steps over which the learning rate rises linearly, on top of warmup_epochs.
    warmup_steps: usize, Whole(0, 1_000_000_000), FIXED;
    /// Photos from which on an album is trained on: from fewer a network learns these photos and little that
    /// others show, and the closed form is all that is done. Asking for epochs or steps sets it to 0.
    train_from: usize, Whole(0, 1_000_000_000), FIXED;
    /// Passes over the photos.
    epochs: usize, Whole(0, 1_000_000), FIXED;
    /// Optimizer steps; where not 0, this counts and epochs does not.
    steps: usize, Whole(0, 1_000_000_000), FIXED;
    /// Share of what training has changed that the result keeps: initial + interpolation (trained - initial),
    /// for parameters and running statistics alike.
    interpolation: f64, Number(0.0, 1.0), FIXED;
    /// better keeps the result unless something went wrong, asked without labels: then half of `interpolation` is
    /// kept, or the initial weights; always keeps the result.
    keep: Keep, OneOf(Keep::NAMES), FIXED;
    /// Share of the photos that are not trained on, where better weights are to be kept: whether something
    /// went wrong is asked about these, too. Albums of fewer than 100 photos are trained on whole.
    holdout: f64, Number(0.0, 0.5), FIXED;
    /// Put a linear layer behind the features, in closed form from the album's statistics: it shortens the
    /// directions in which photos differ from their mirror images and their neighbors.
    whitening: bool, Switch, FIXED;
    /// Re-estimate the batch-norm statistics over the photos when training is done.
    reestimate_bn: bool, Switch, FIXED;
    /// Write the kernels in weights.safetensors as 16-bit numbers: a file of half the size, and
    /// features that agree to about three digits.
    half_weights: bool, Switch, FREE;

    /// Weights of the teacher of a distillation: ours, another program's, or an ONNX graph.
    teacher: String, Text, FIXED;
    /// Whether a teacher's projection head is learned from: auto does where its file has one of ours,
    /// use insists on it, ignore takes the features before it.
    teacher_head: TeacherHead, OneOf(TeacherHead::NAMES), FIXED;
    /// Width and height of the teacher's images; 0 takes the student's.
    teacher_size: usize, Whole(0, 1024), FIXED;
    /// Mean of the pixels that an ONNX teacher expects, three numbers; empty takes ImageNet's.
    teacher_mean: String, Text, FIXED;
    /// Their standard deviation.
    teacher_std: String, Text, FIXED;
    /// Which output of an ONNX teacher are its features; empty takes the first.
    teacher_output: String, Text, FIXED;
    /// The teacher's network, where its file could be of several.
    teacher_arch: Arch, OneOf(Arch::NAMES), FIXED;
    /// Temperature of the teacher's similarities.
    teacher_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Temperature of the student's similarities.
    student_temperature: f64, Above(0.0, 10.0), FIXED;
    /// Subtract the mean over the photos from the teacher's features.
    teacher_center: bool, Switch, FIXED;

    /// Steps between checkpoints; 0 saves at the end and on interruption only.
    checkpoint_every: usize, Whole(0, 1_000_000_000), FREE;
    /// Epochs between measurements during training; 0 measures before and after only.
    measure_every: usize, Whole(0, 1_000_000), FREE;
    /// Photos that a run's own measurements take at most; 0 takes all.
    measure_photos: usize, Whole(0, 100_000_000), FIXED;
    /// Batches prepared ahead of training.
    prefetch: usize, Whole(1, 1024), FREE;
    /// Megabytes of decoded photos kept between epochs.
    cache_mb: usize, Whole(0, 1_048_576), FREE;
    /// Megabytes that photos may take together while they are decoded; one that takes more by
    /// itself is skipped (a large one that lies on its side is halved first).
    decode_mb: usize, Whole(1, 1_048_576), FIXED;
    /// Threads for computing and for reading photos; 0 takes all processors. The result is the
    /// same with any number.
    threads: usize, Whole(0, 4096), FREE;
    /// Where all randomness of the run starts.
    seed: u64, Whole(0, i64::MAX), FIXED;
    /// Where to compute: the processor, or the N-th GPU by Vulkan or Metal (gpu:N) or by CUDA
    /// (cuda:N). A run may go on elsewhere.
    device: Device, Allowed::Device, FREE;
    /// Memory of a GPU that a run may take, in MB: what fits of a batch's micro-batches goes through the
    /// network at once. 0 takes what the GPU says it has, or 1024 where it does not say.
    device_mb: usize, Whole(0, 1_048_576), FREE;
    /// In what a GPU stores activations: f32, or bf16, which takes half the memory (f16 where there is
    /// no bf16: Vulkan and Metal). Weights, statistics and losses are f32 either way.
    precision: ActivationDtype, OneOf(ActivationDtype::NAMES), FREE;
}
